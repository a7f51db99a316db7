"""Wiring: the only file that knows every part.

From the outside in, a request meets: the door (`server.client`: framing, limits, deadlines), the
`Service` (which path is a bulk endpoint), then either an endpoint, which runs a batch through
`execution`, or the proxy. Both end at the same pool, so that every connection to the backend obeys
the same rules. `Telemetry` is told by all of them and tells nobody.

A service holds what was made of one set of settings, and is replaced as a whole. The rest is the
process's, and lasts: records, the runs of batches, admission.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import version
from time import monotonic
from typing import Any

from aiohttp import web

from gateway import admin
from gateway.admission import Admission
from gateway.answer import ClientAnswer, Done
from gateway.config import Settings, Upstream
from gateway.config.watched import Watched
from gateway.dialects import DIALECTS
from gateway.evaluation import Evaluator
from gateway.execution import Execution
from gateway.operators import Operators
from gateway.reception import Reception
from gateway.reloads import Reloads, record
from gateway.service import Service
from gateway.target import Pattern, Routes
from gateway.telemetry import Telemetry
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.lag import LoopLag
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Snapshot
from gateway.telemetry.traces import tracer
from gateway.upstream import UNKNOWN, Pools, Probe

DRAIN_MARGIN = 2.0
"""Seconds before the end of the drain by which every batch is over, so that answers end validly."""

NEEDS_RESTART = ("listen", "ops", "ops_write", "workers")
"""Settings that a process keeps as long as it lives."""


class App:
    """One process's gateway. Made before the event loop runs, started in it."""

    def __init__(self, settings: Settings, watched: Watched | None = None) -> None:
        """`watched` is where the settings came from, if they may change."""
        self.settings = settings
        self.version = version("bulk-gateway")
        self.idle = asyncio.Event()
        self.leave: Callable[[], None] = _nobody_serves
        self.followers: list[Callable[[Settings], None]] = []
        operators = Operators(self)
        self.ops = admin.application(operators, settings.ops_write, settings.limits.request_bytes)
        self._drawn = drawn_name()
        self._watched = watched
        self._reloads: Reloads | None = None
        self._probe: Probe | None = None
        self._lag = LoopLag()
        self._draining = False
        self._open = AsyncExitStack()
        """What was started, to be closed in the opposite order."""

    async def start(self) -> None:
        settings = self.settings
        self.telemetry = self._records()
        self.evaluator = Evaluator()
        self.execution = Execution(self.evaluator, self.telemetry)
        self.idle = self.execution.idle
        self.admission = Admission(settings.shed, lambda: self._lag.latest, self._in_hand)
        self._open.callback(self.admission.close)
        self.service = self._service(settings)
        self.pools = Pools(self.service.pool)
        self._open.push_async_callback(self.pools.close)
        self._open.push_async_callback(self.evaluator.close)
        self._open.callback(self.execution.close)
        self._probe = self._probing(settings.upstream, UNKNOWN)
        self._open.push_async_callback(self._stop_probing)
        self._expose()
        if self._watched is not None:
            told = record(self.telemetry.metrics, self.logs, self._watched.path)
            self._reloads = Reloads(self._watched, self.take_over, told)
            self._open.push_async_callback(self._reloads.close)

    def _records(self) -> Telemetry:
        settings = self.settings
        self.logs = Logs(
            format=settings.log.format,
            level=settings.log.level,
            subrequests=settings.log.subrequests,
            sample=settings.log.sample,
        )
        self.logs.take_over()
        self._open.callback(self.logs.close)  # last of all: others have last words
        self.metrics = Metrics(
            methods=settings.paths.methods, dialects=DIALECTS, version=self.version
        )
        self.exposition = Exposition(self._snapshot)
        self._open.callback(self.exposition.close)
        self._lag.start()
        self._open.callback(self._lag.stop)
        label = _routes(settings)
        spans = tracer(os.environ, upstream=settings.upstream.url, version=self.version)
        telemetry = Telemetry(self.metrics, self.logs, label, spans)
        self._open.push_async_callback(telemetry.close)
        return telemetry

    def _service(self, settings: Settings, former: Service | None = None) -> Service:
        name = settings.name or self._drawn
        return Service.of(settings, name, self.execution, self.admission, former)

    def set_level(self, level: str) -> None:
        self.logs.set_level(level)

    # --- requests --------------------------------------------------------------------------------

    @property
    def reception(self) -> Reception:
        return self.service.reception

    def handle(self, request: web.BaseRequest) -> Coroutine[Any, Any, ClientAnswer]:
        """A request keeps the service that it came to."""
        return self.service.handle(request)

    def begin(self, request: web.BaseRequest, done: Done) -> bool:
        return self.service.begin(request, done)

    def _in_hand(self) -> bool:
        return bool(self.execution or self.pools.busy or self.pools.waiting)

    # --- the life of the process (server.worker.App) ---------------------------------------------

    async def ready(self) -> list[str]:
        reasons = ["draining"] if self._draining else []
        if self._probe is not None and self._probe.trouble:
            reasons.append(f"upstream: {self._probe.trouble}")
        return reasons

    def drain(self, deadline: float) -> None:
        left = deadline - asyncio.get_running_loop().time()
        self._draining = True
        self.execution.drain(monotonic() + max(0.0, left - DRAIN_MARGIN))

    def shut(self) -> None:
        self.admission.closed = True

    def reload(self) -> None:
        if self._reloads is not None:
            self._reloads.now()

    def malformed(self, status: int, reason: str, client: str) -> None:
        self.logs.malformed(status, reason, client)

    async def close(self) -> None:
        await self._open.aclose()

    # --- new settings ----------------------------------------------------------------------------

    def take_over(self, settings: Settings) -> None:
        """For every request that comes from now on; those there are keep what they began with.

        Raises OSError or ValueError for settings that cannot be had, and then changes nothing."""
        if self._draining:
            raise ValueError("shutting down")
        settings, late = lasting(settings, self.settings)
        service = self._service(settings, self.service)
        if settings.upstream != self.settings.upstream:
            self._probe_anew(settings.upstream)
        self._follow(settings)
        self.pools.use(service.pool)
        self.service, self.settings = service, settings
        if late:
            self.logs.warning("restart_needed", settings=late)

    def _follow(self, settings: Settings) -> None:
        """What lasts longer than a service, and still has settings."""
        self.logs.follow(settings.log, self.settings.log)
        self.telemetry.follow(_routes(settings), settings.upstream.url)
        self.metrics.methods = frozenset(settings.paths.methods)
        self.admission.marks = settings.shed
        for follower in self.followers:
            follower(settings)

    # --- the backend's health --------------------------------------------------------------------

    def _probing(self, upstream: Upstream, known: str) -> Probe | None:
        path = upstream.probe.path
        return None if path is None else Probe(upstream, path, self._probed, known)

    def _probe_anew(self, upstream: Upstream) -> None:
        """What is known of the backend holds until more is: readiness must not flicker."""
        former = self._probe
        self._probe = self._probing(upstream, former.trouble if former else "")
        if former is not None:
            former.stop()

    def _probed(self, trouble: str) -> None:
        if trouble:
            self.logs.warning("upstream_down", reason=trouble)
        else:
            self.logs.info("upstream_up")

    async def _stop_probing(self) -> None:
        if self._probe is not None:
            await self._probe.close()

    # --- metrics ---------------------------------------------------------------------------------

    async def _snapshot(self) -> Snapshot:
        return self.metrics.snapshot()

    def _expose(self) -> None:
        """Gauges and counters that others keep are read at the scrape."""
        pools, read = self.pools, self.metrics.read
        read("gateway_subrequests_in_flight", lambda: pools.busy)
        read("gateway_subrequests_waiting", lambda: pools.waiting)
        read("gateway_subrequest_retries_total", lambda: pools.retries)
        read("gateway_upstream_connections", lambda: pools.connections)
        read("gateway_upstream_connects_total", lambda: pools.connects)
        read("gateway_buffered_bytes", lambda: pools.held + self.admission.reading)
        read("gateway_upstream_up", lambda: {} if self._probe is None else not self._probe.trouble)
        read("gateway_shed_requests_total", lambda: self.admission.shed)
        read("gateway_event_loop_lag_seconds", lambda: self._lag.peak)
        read("gateway_draining", lambda: self._draining)


def drawn_name() -> str:
    """In Via, of a gateway that the settings do not name."""
    return f"bulk-gateway-{secrets.token_hex(4)}"


def lasting(wanted: Settings, former: Settings) -> tuple[Settings, list[str]]:
    """What can be had of new settings without a restart, and the names of what cannot."""
    kept = {name: getattr(former, name) for name in NEEDS_RESTART}
    late = [name for name, value in kept.items() if getattr(wanted, name) != value]
    return replace(wanted, **kept), late


def _nobody_serves() -> None:
    """The drain of an app that is not served: there is nothing to end."""


def _routes(settings: Settings) -> Callable[[str], str]:
    return Routes(map(Pattern, settings.routes)).label

"""Wiring: the only file that knows every part.

From the outside in, a request meets: the door (`server.client`: framing, limits, deadlines), the
router below (which path is a bulk endpoint), then either an endpoint, which runs a batch through
`execution`, or the proxy. Both end at the same pool, so that every connection to the backend obeys
the same rules. `Telemetry` is told by all of them and tells nobody.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from time import monotonic

from aiohttp import web

from gateway import admin
from gateway.answer import ClientAnswer
from gateway.config import Settings
from gateway.dialects import DIALECTS
from gateway.endpoint import BulkEndpoint
from gateway.evaluation import Evaluator
from gateway.execution import Execution, Terms
from gateway.operators import Operators
from gateway.proxy import Proxy
from gateway.reception import Desk, Reception
from gateway.target import Endpoints, Pattern, Routes
from gateway.telemetry import Telemetry
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.lag import LoopLag
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Snapshot
from gateway.telemetry.traces import tracer
from gateway.upstream import Pool

DRAIN_MARGIN = 2.0
"""Seconds before the end of the drain by which every batch is over, so that answers end validly."""


class App:
    """One process's gateway. Made before the event loop runs, started in it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = settings.name or f"bulk-gateway-{secrets.token_hex(4)}"
        self.version = version("bulk-gateway")
        self.reception = Reception(settings, self.name)
        self.idle = asyncio.Event()
        self.leave: Callable[[], None] = _nobody_serves
        operators = Operators(self)
        self.ops = admin.application(operators, settings.ops_write, settings.limits.request_bytes)
        self._draining = False
        self._open = AsyncExitStack()
        """What was started, to be closed in the opposite order."""

    async def start(self) -> None:
        settings = self.settings
        self.telemetry = self._records()
        self.pool = Pool(settings.upstream, settings.limits)
        self._open.push_async_callback(self.pool.close)
        self.evaluator = Evaluator()
        self._open.push_async_callback(self.evaluator.close)
        self.execution = Execution(self.pool, self.evaluator, self.telemetry)
        self.idle = self.execution.idle
        reception = self.reception
        self.endpoints = Endpoints(
            (Pattern(desk.path), self._endpoint(desk)) for desk in reception.desks
        )
        passing = settings.passthrough
        self.proxy = Proxy(
            self.pool,
            reception.manners,
            self.telemetry,
            enabled=passing.enabled,
            rules=reception.paths if passing.enforce_paths else None,
        )
        self._expose()

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
        self._lag = LoopLag()
        self._lag.start()
        self._open.callback(self._lag.stop)
        label = Routes(map(Pattern, settings.routes)).label
        spans = tracer(os.environ, upstream=settings.upstream.url, version=self.version)
        telemetry = Telemetry(self.metrics, self.logs, label, spans)
        self._open.push_async_callback(telemetry.close)
        return telemetry

    def _endpoint(self, desk: Desk) -> BulkEndpoint:
        terms = Terms(
            width=desk.batch.width,
            flush_seconds=desk.batch.flush.time,
            flush_bytes=desk.batch.flush.bytes,
            batch_seconds=self.settings.limits.batch_time,
            gone_grace=self.settings.client.gone_grace,
        )
        return BulkEndpoint(desk, self.execution, terms, self.reception.refusal)

    # --- requests --------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> ClientAnswer:
        """A bulk call is a POST to a bulk endpoint; everything else passes through."""
        if request.method == "POST":
            found = self.endpoints.route(request.raw_path)
            if found is not None:
                endpoint, params = found
                return await endpoint.answer(request, params)
        return await self.proxy.answer(request)

    # --- the life of the process (server.worker.App) ---------------------------------------------

    def ready(self) -> list[str]:
        return ["draining"] if self._draining else []

    def drain(self, deadline: float) -> None:
        left = deadline - asyncio.get_running_loop().time()
        self._draining = True
        self.execution.drain(monotonic() + max(0.0, left - DRAIN_MARGIN))

    def shut(self) -> None:
        self.execution.closed = self.proxy.closed = True

    def reload(self) -> None:
        pass

    def malformed(self, status: int, reason: str, client: str) -> None:
        self.logs.malformed(status, reason, client)

    async def close(self) -> None:
        await self._open.aclose()

    # --- metrics ---------------------------------------------------------------------------------

    async def _snapshot(self) -> Snapshot:
        return self.metrics.snapshot()

    def _expose(self) -> None:
        """Gauges and counters that others keep are read at the scrape."""
        pool, read = self.pool, self.metrics.read
        read("gateway_subrequests_in_flight", lambda: pool.busy)
        read("gateway_subrequests_waiting", lambda: pool.waiting)
        read("gateway_subrequest_retries_total", lambda: pool.retries)
        read(
            "gateway_upstream_connections",
            lambda: {"idle": len(pool.idle), "busy": pool.busy, "connecting": pool.connecting},
        )
        read("gateway_upstream_connects_total", lambda: pool.connects)
        read("gateway_buffered_bytes", lambda: pool.memory.held)
        read("gateway_event_loop_lag_seconds", lambda: self._lag.peak)
        read("gateway_draining", lambda: self._draining)


def _nobody_serves() -> None:
    """The drain of an app that is not served: there is nothing to end."""

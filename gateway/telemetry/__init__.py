"""Metrics, logs and traces: three records of the same events, each in files of its own.

`Telemetry` is the `Recorder` that the working parts are given. It is told after the fact, decides
nothing, and hands every event to the records that want it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, cast

from gateway.batch import (
    SAFE_METHODS,
    BatchRecord,
    Failure,
    Headers,
    PassRecord,
    RefusedRecord,
    Reply,
    Step,
    Trace,
)
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traces import Trail

if TYPE_CHECKING:
    from gateway.telemetry.spans import Tracer

_NEVER_GIVEN = frozenset(
    {
        "http_request_denied",
        "http_request_error",
        "proxy_internal_response",
        "proxy_loop_detected",
    }
)
"""Error types of calls that the gateway chose not to make, unless their failure says `sent`."""


class Log(Protocol):
    """`logs.Logs`, as it is told of events."""

    @property
    def listed_from(self) -> int: ...
    def dropped(self) -> Mapping[str, float]: ...
    def batch(self, record: BatchRecord, outcome: str) -> None: ...
    def refused(self, record: RefusedRecord) -> None: ...
    def passthrough(self, record: PassRecord) -> None: ...
    def bug(self, where: str, record: BatchRecord | None = None) -> None: ...


class Telemetry:
    def __init__(
        self,
        metrics: Metrics,
        logs: Log,
        label: Callable[[str], str],
        tracer: Tracer | None = None,
    ) -> None:
        """`label` names the route of a path, as `target.Routes.label` does."""
        self.metrics = metrics
        self.logs = logs
        self._label = label
        self._tracer = tracer
        metrics.read("gateway_log_lines_dropped_total", logs.dropped)

    def trace(self, method: str, scheme: str, target: str, headers: Headers) -> Trace | None:
        return self._tracer.begin(method, scheme, target, headers) if self._tracer else None

    def follow(self, label: Callable[[str], str], upstream: str) -> None:
        """The settings have changed."""
        self._label = label
        if self._tracer is not None:
            self._tracer.toward(upstream)

    # --- batches ---------------------------------------------------------------------------------

    def started(self, record: BatchRecord) -> None:
        self.metrics.batch_started(record.dialect)
        if trail := _trail(record.trace):
            trail.began(record)

    def subrequest(self, record: BatchRecord, step: Step, reply: Reply) -> None:
        call, failure, trace = reply.call, reply.failure, record.trace
        if failure is None and call is not None and (trace is None or not trace.sampled):
            # The short way, which nearly every subrequest takes.
            method, status = call.method, reply.status
            if method not in SAFE_METHODS:
                record.writes_sent.append(step.index)
            if status >= self.logs.listed_from:
                record.parts.append((step.index, method, status, "", reply.seconds))
            route = self._label(call.target)
            self.metrics.subrequest(record.dialect, route, method, status, reply.seconds)
            return
        sent = call is not None and (failure is None or failure.sent)
        if not step.subrequest.safe:
            (record.writes_sent if sent else record.writes_unsent).append(step.index)
        method = step.subrequest.method if call is None else call.method
        status = 0 if failure else reply.status
        error = failure.error if failure else ""
        if reply.status >= self.logs.listed_from:
            record.parts.append((step.index, method, status, error, reply.seconds))
        if call is None or (error in _NEVER_GIVEN and not sent):
            reason = failure.details if failure else ""
            self.metrics.skipped(record.dialect, reason)
            if reason == "rate_limited":
                self.metrics.count("gateway_subrequests_rate_limited_total", record.dialect)
            return
        route = self._label(call.target)
        exemplar = None
        if trail := _trail(trace):
            exemplar = trail.id
            trail.call(step.index, call, reply, route)
        self.metrics.subrequest(
            record.dialect, route, method, status, reply.seconds, error or None, exemplar
        )

    def skipped(self, record: BatchRecord, step: Step, failure: Failure) -> None:
        if not step.subrequest.safe:
            record.writes_unsent.append(step.index)
        if failure.code >= self.logs.listed_from:
            record.parts.append((step.index, step.subrequest.method, 0, failure.error, 0.0))
        self.metrics.skipped(record.dialect, failure.details)

    def batch(self, record: BatchRecord) -> None:
        outcome = record.outcome or _by_counts(record)
        trail = _trail(record.trace)
        self.metrics.batch_finished(
            record.dialect,
            outcome,
            record.seconds,
            record.first_byte,
            record.ok + record.failed + record.skipped,
            trail.id if trail else None,
        )
        self.logs.batch(record, outcome)
        if trail:
            trail.batch(record, outcome)

    def refused(self, record: RefusedRecord) -> None:
        self.metrics.batch_refused(record.dialect, record.reason)
        self.logs.refused(record)
        if trail := _trail(record.trace):
            trail.refused(record)

    # --- the rest --------------------------------------------------------------------------------

    def passthrough(self, record: PassRecord) -> None:
        route = self._label(record.target)
        trail = _trail(record.trace)
        self.metrics.passthrough(
            route, record.method, record.status, record.seconds, trail.id if trail else None
        )
        self.logs.passthrough(record)
        if trail:
            trail.passthrough(record, route)

    def bug(self, where: str, record: BatchRecord | None = None) -> None:
        self.logs.bug(where, record)

    async def close(self) -> None:
        """Sends the last spans. The log is closed by whoever opened it, last of all."""
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)


def _by_counts(record: BatchRecord) -> str:
    if not (record.failed or record.skipped or record.flawed):
        return "ok"
    return "partial" if record.ok else "failed"


def _trail(trace: Trace | None) -> Trail | None:
    """A sampled trace, which is one that `Telemetry.trace` gave out. Others cannot be looked up."""
    return cast(Trail, trace) if trace is not None and trace.sampled else None

"""Metrics, logs and traces: three records of the same events, each in files of its own.

`Telemetry` is the `Recorder` that the working parts are given. It is told after the fact, decides
nothing, and hands every event to the records that want it.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.batch import (
    BatchRecord,
    Failure,
    Headers,
    PassRecord,
    RefusedRecord,
    Reply,
    Step,
    Trace,
)
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics

_NEVER_GIVEN = frozenset(
    {
        "http_request_denied",
        "http_request_error",
        "proxy_internal_response",
        "proxy_loop_detected",
    }
)
"""Error types of calls that the gateway chose not to make, unless their failure says `sent`."""


class Telemetry:
    def __init__(self, metrics: Metrics, logs: Logs, label: Callable[[str], str]) -> None:
        """`label` names the route of a path, as `target.Routes.label` does."""
        self.metrics = metrics
        self.logs = logs
        self._label = label
        metrics.read("gateway_log_lines_dropped_total", logs.dropped)

    def trace(self, method: str, target: str, headers: Headers) -> Trace | None:
        return None

    # --- batches ---------------------------------------------------------------------------------

    def started(self, record: BatchRecord) -> None:
        self.metrics.batch_started(record.dialect)

    def subrequest(self, record: BatchRecord, step: Step, reply: Reply) -> None:
        call, failure = reply.call, reply.failure
        sent = call is not None and (failure is None or failure.sent)
        if not step.subrequest.safe:
            (record.writes_sent if sent else record.writes_unsent).append(step.index)
        method = step.subrequest.method if call is None else call.method
        status = 0 if failure else reply.status
        error = failure.error if failure else ""
        if self.logs.wants(reply.status):
            record.parts.append((step.index, method, status, error, reply.seconds))
        if call is None or (error in _NEVER_GIVEN and not sent):
            self.metrics.skipped(record.dialect, failure.details if failure else "")
            return
        route = self._label(call.target.partition("?")[0])
        self.metrics.subrequest(
            record.dialect,
            route,
            method,
            status,
            reply.seconds,
            error or None,
            _exemplar(record.trace),
        )

    def skipped(self, record: BatchRecord, step: Step, failure: Failure) -> None:
        if not step.subrequest.safe:
            record.writes_unsent.append(step.index)
        if self.logs.wants(failure.code):
            record.parts.append((step.index, step.subrequest.method, 0, failure.error, 0.0))
        self.metrics.skipped(record.dialect, failure.details)

    def batch(self, record: BatchRecord) -> None:
        outcome = record.outcome or _by_counts(record)
        self.metrics.batch_finished(
            record.dialect,
            outcome,
            record.seconds,
            record.first_byte,
            record.ok + record.failed + record.skipped,
            _exemplar(record.trace),
        )
        self.logs.batch(record, outcome)

    def refused(self, record: RefusedRecord) -> None:
        self.metrics.batch_refused(record.dialect, record.reason)
        self.logs.refused(record)

    # --- the rest --------------------------------------------------------------------------------

    def passthrough(self, record: PassRecord) -> None:
        route = self._label(record.target.partition("?")[0])
        self.metrics.passthrough(
            route, record.method, record.status, record.seconds, _exemplar(record.trace)
        )
        self.logs.passthrough(record)

    def bug(self, where: str, record: BatchRecord | None = None) -> None:
        self.logs.bug(where, record)

    def close(self) -> None:
        self.logs.close()


def _by_counts(record: BatchRecord) -> str:
    if not record.failed + record.skipped:
        return "ok"
    return "partial" if record.ok else "failed"


def _exemplar(trace: Trace | None) -> str | None:
    """Only a sampled trace can be looked up."""
    return trace.id if trace is not None and trace.sampled else None

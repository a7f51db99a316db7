"""Every metric there is, in one table.

Labels come from closed sets: dialects and routes from the settings, methods from the allowed ones,
statuses from the registry, the rest from words in this code. Nothing a client sends is a label, so
the number of series is bounded by the settings, and no label can hold what a scrape cannot encode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
"""Upper bounds: 15 s and 60 s are the default deadlines of a subrequest and a batch. Every bound
costs a series for each dialect, route and method, so there are no more than a person reads."""

COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 10000.0)


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()
    """A histogram's, ascending, without infinity."""
    merge: Literal["sum", "max", "min"] = "sum"
    """How several workers' gauges become one. Counters and histograms are summed."""

    @property
    def unit(self) -> str:
        unit = self.name.rpartition("_")[2]
        return unit if unit in ("seconds", "bytes") else ""


def _counter(name: str, labels: str, help: str) -> Metric:
    return Metric(name, "counter", tuple(labels.split()), help)


def _gauge(
    name: str, labels: str, help: str, merge: Literal["sum", "max", "min"] = "sum"
) -> Metric:
    return Metric(name, "gauge", tuple(labels.split()), help, merge=merge)


def _histogram(name: str, labels: str, help: str, bounds: tuple[float, ...] = SECONDS) -> Metric:
    return Metric(name, "histogram", tuple(labels.split()), help, bounds)


METRICS = (
    # Batches: what clients asked for and got.
    _counter(
        "gateway_batches_total",
        "dialect outcome",
        "Bulk calls ended: ok, partial, failed, refused, client_gone, deadline or cut.",
    ),
    _histogram(
        "gateway_batch_duration_seconds",
        "dialect",
        "From a bulk call's last byte in to its answer's last byte out.",
    ),
    _histogram(
        "gateway_batch_first_byte_seconds",
        "dialect",
        "From a bulk call's last byte in to its answer's first byte out.",
    ),
    _histogram("gateway_batch_subrequests", "dialect", "Results per bulk call.", bounds=COUNTS),
    _gauge("gateway_batches_in_flight", "", "Bulk calls admitted and not ended."),
    _counter(
        "gateway_refused_batches_total",
        "dialect reason",
        "Bulk calls refused as a whole, with nothing sent to the backend.",
    ),
    # Subrequests: what the backend was asked.
    _counter(
        "gateway_subrequests_total",
        "dialect route method status",
        "Subrequests given to the backend. Status: 000 for no answer, 2xx and so on for"
        " unregistered codes.",
    ),
    _histogram(
        "gateway_subrequest_duration_seconds",
        "dialect route method",
        "From a subrequest's first byte out to its answer's last byte in.",
    ),
    _counter(
        "gateway_subrequest_errors_total",
        "error",
        "Results that the gateway made because there was no answer, by RFC 9209 error type.",
    ),
    _counter(
        "gateway_subrequests_skipped_total",
        "dialect reason",
        "Subrequests never given to the backend: a dependency failed, the rules refused them,"
        " the time was up.",
    ),
    _counter(
        "gateway_subrequests_rate_limited_total",
        "dialect",
        "Subrequests answered 429 because the client's quota was spent.",
    ),
    _gauge("gateway_subrequests_in_flight", "", "Subrequests on a connection to the backend."),
    _gauge("gateway_subrequests_waiting", "", "Subrequests waiting for a connection."),
    _counter("gateway_subrequest_retries_total", "reason", "Subrequests sent again, and why."),
    # The backend's connections, and memory.
    _gauge("gateway_upstream_up", "", "Whether the backend's health probe succeeds.", "min"),
    _gauge("gateway_upstream_connections", "state", "Connections to the backend."),
    _counter("gateway_upstream_connects_total", "result", "Attempts to connect to the backend."),
    _gauge("gateway_buffered_bytes", "", "Bytes of bodies and results held in memory."),
    # Everything that is not a bulk call.
    _counter(
        "gateway_passthrough_requests_total",
        "route method status",
        "Requests passed through. Status as in gateway_subrequests_total.",
    ),
    _histogram(
        "gateway_passthrough_duration_seconds",
        "route method",
        "From a passed request's head in to its answer's last byte out.",
    ),
    # The process.
    _gauge(
        "gateway_event_loop_lag_seconds",
        "",
        "The latest that a timer of the event loop fired in the last 10 to 20 seconds.",
        "max",
    ),
    _gauge("gateway_workers", "", "Worker processes that serve; absent with a single process."),
    _counter(
        "gateway_worker_deaths_total", "", "Workers that ended unasked and had to be replaced."
    ),
    _counter("gateway_shed_requests_total", "reason", "Requests answered 503 because of overload."),
    _gauge("gateway_draining", "", "1 from the signal to stop until the end.", "max"),
    _counter("gateway_config_reloads_total", "result", "Attempts to take over changed settings."),
    _gauge(
        "gateway_config_last_reload_successful",
        "",
        "0 while the file's settings cannot be taken over and former ones are in force.",
        "min",
    ),
    _counter(
        "gateway_log_lines_dropped_total",
        "reason",
        "Log lines not written: the reader is slow, writing failed, or too many of one kind.",
    ),
    _gauge("gateway_build_info", "version python", "Always 1.", "max"),
)

BY_NAME = {metric.name: metric for metric in METRICS}

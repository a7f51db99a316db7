"""Whether there are traces, and what a trace is told.

They need the extra `otel` and an environment that says where spans go, by the standard `OTEL_*`
names. Without either this costs nothing, and `traceparent` goes through as any other field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from gateway.batch import BatchRecord, Call, PassRecord, RefusedRecord, Reply, Trace

if TYPE_CHECKING:
    from gateway.telemetry.spans import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class CannotTrace(ValueError):
    """The environment asks for traces that cannot be had."""


class Trail(Trace, Protocol):
    """A trace, as the recorder tells it what came of the request."""

    def began(self, record: BatchRecord) -> None:
        """The batch was admitted: the calls that follow are its own."""

    def call(self, index: int, call: Call, reply: Reply, route: str) -> None: ...

    def batch(self, record: BatchRecord, outcome: str) -> None: ...

    def refused(self, record: RefusedRecord) -> None: ...

    def passthrough(self, record: PassRecord, route: str) -> None: ...


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces.

    By the standard they go to localhost when nothing is said. A gateway that was merely installed
    with the extra would then warn about a missing collector for ever, so something must be said.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in ("", "otlp", "none"):
        raise CannotTrace("OTEL_TRACES_EXPORTER: expected otlp or none")
    return exporter == "otlp" or (exporter == "" and any(map(environ.get, _ENDPOINTS)))


def tracer(environ: Mapping[str, str], *, upstream: str, version: str) -> Tracer | None:
    """What spans are made with, or None where no traces are wanted. Raises `CannotTrace`."""
    if not wanted(environ):
        return None
    protocol = next(filter(None, map(environ.get, _PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        raise CannotTrace("OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf")
    try:
        from gateway.telemetry.spans import Tracer
    except ImportError as missing:
        raise CannotTrace("traces need bulk-gateway[otel]") from missing
    return Tracer(upstream=upstream, version=version)

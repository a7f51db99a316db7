"""Spans of OpenTelemetry: one for the outer request, one for its batch, one for every attempt of
a call, by the semantic conventions for HTTP.

The first two are begun and ended as it happens. A call's span is made when the call is over, from
what is known of it then: until then all there is of it is the id in its `traceparent`, so a call
of a trace that is not sampled costs that header and nothing else.

Needs the extra `otel`; imported by `traces.tracer` alone.
"""

from __future__ import annotations

import random
import time
from threading import Thread
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.batch import BatchRecord, Call, Headers, PassRecord, RefusedRecord, Reply
from gateway.telemetry.lines import mask_query
from gateway.telemetry.metrics import OTHER_ROUTE

_W3C = TraceContextTextMapPropagator()
_NAMES = ("traceparent", "tracestate")
_KNOWN_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)

Attributes = dict[str, str | int]


class _Ids(RandomIdGenerator):
    """Draws ids, but for a span whose id has already been sent in a header."""

    def __init__(self) -> None:
        self.sent = 0

    def generate_span_id(self) -> int:
        sent, self.sent = self.sent, 0
        return sent or super().generate_span_id()


class Tracer:
    """Makes spans; a thread sends them, as the environment says."""

    def __init__(self, *, upstream: str, version: str) -> None:
        self.ids = _Ids()
        self.toward(upstream)
        self._provider = TracerProvider(
            resource=_resource(version), id_generator=self.ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("gateway", version)

    def toward(self, upstream: str) -> None:
        """Calls go there from now on."""
        self.base, self.server = _upstream(upstream)

    def begin(self, method: str, scheme: str, target: str, headers: Headers) -> RequestTrace:
        """An outer request: the child of whatever span its headers name."""
        path, _, query = mask_query(target).partition("?")
        attributes: Attributes = {"url.scheme": scheme, "url.path": path, **_method(method)}
        if query:
            attributes["url.query"] = query
        context = _W3C.extract(_carrier(headers), Context())
        server = self.span(_name(method), context, SpanKind.SERVER, attributes)
        return RequestTrace(self, server, method)

    def span(
        self,
        name: str,
        parent: Context,
        kind: SpanKind,
        attributes: Attributes,
        start: int | None = None,
    ) -> Span:
        return self._tracer.start_span(
            name, parent, kind, attributes, start_time=start, record_exception=False
        )

    def close(self, timeout: float = 2.0) -> None:
        """Sends what is left, unless that takes longer. Blocks."""
        last = Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(timeout)


class RequestTrace:
    """One outer request, bulk or passed through: a `traces.Trail`. Told of only when sampled."""

    __slots__ = (
        "_flags",
        "_method",
        "_parent",
        "_sent",
        "_server",
        "_span",
        "_tracer",
        "id",
        "sampled",
    )

    def __init__(self, tracer: Tracer, server: Span, method: str) -> None:
        context = server.get_span_context()
        self.id = f"{context.trace_id:032x}"
        self.sampled = context.trace_flags.sampled
        self._flags = "01" if self.sampled else "00"
        self._tracer = tracer
        self._method = method
        self._server = self._span = server
        self._parent = set_span_in_context(server, Context())
        self._sent = 0

    def header(self) -> str:
        self._sent = random.getrandbits(64) or 1
        return f"00-{self.id}-{self._sent:016x}-{self._flags}"

    def began(self, record: BatchRecord) -> None:
        attributes: Attributes = {"gateway.dialect": record.dialect}
        name = f"batch {record.dialect}"
        self._span = self._tracer.span(name, self._parent, SpanKind.INTERNAL, attributes)
        self._parent = set_span_in_context(self._span, Context())

    def call(self, index: int, call: Call, reply: Reply, route: str) -> None:
        attributes = self._asked(call.method, call.target, route)
        attributes["gateway.subrequest.index"] = index
        end = time.time_ns()
        start = end - int(reply.seconds * 1e9)
        if call.resent:
            self._lost_attempt(call, attributes, start)
            attributes["http.request.resend_count"] = 1
        self._tracer.ids.sent = _sent_id(call)
        name = _name(call.method, route)
        span = self._tracer.span(name, self._parent, SpanKind.CLIENT, attributes, start)
        error = reply.failure.error if reply.failure else ""
        _end(span, 0 if error else reply.status, error, least=400, at=end)

    def batch(self, record: BatchRecord, outcome: str) -> None:
        if self._span is not self._server:
            self._span.set_attributes(
                {
                    "gateway.outcome": outcome,
                    "gateway.subrequests.ok": record.ok,
                    "gateway.subrequests.failed": record.failed,
                    "gateway.subrequests.skipped": record.skipped,
                }
            )
            self._span.end()
        error = outcome if outcome in ("cut", "client_gone") else ""
        self._answered(record.endpoint, record.client, record.status, error)

    def refused(self, record: RefusedRecord) -> None:
        self._answered(record.endpoint, record.client, record.status, "")

    def passthrough(self, record: PassRecord, route: str) -> None:
        """Its one call is told here too: the last `header` went with it."""
        attributes = self._asked(record.method, record.target, route)
        start = time.time_ns() - int(record.seconds * 1e9)
        self._tracer.ids.sent = self._sent
        name = _name(record.method, route)
        span = self._tracer.span(name, self._parent, SpanKind.CLIENT, attributes, start)
        _end(span, record.status, record.error, least=400)
        self._answered(route, record.client, record.status, record.error)

    def _lost_attempt(self, call: Call, attributes: Attributes, end: int) -> None:
        """The attempt before the one that was answered: its connection ended without a byte."""
        start = min(end, time.time_ns() - int((time.monotonic() - call.began) * 1e9))
        name = _name(call.method)
        span = self._tracer.span(name, self._parent, SpanKind.CLIENT, attributes, start)
        _end(span, 0, "connection_terminated", least=400, at=end)

    def _answered(self, route: str, client: str, status: int, error: str) -> None:
        if route and route != OTHER_ROUTE:
            self._server.set_attribute("http.route", route)
            self._server.update_name(_name(self._method, route))
        if client:
            self._server.set_attribute("client.address", client)
        _end(self._server, status, error, least=500)

    def _asked(self, method: str, target: str, route: str) -> Attributes:
        attributes: Attributes = {
            "url.full": self._tracer.base + mask_query(target),
            **self._tracer.server,
            **_method(method),
        }
        if route != OTHER_ROUTE:
            attributes["url.template"] = route
        return attributes


def _end(span: Span, status: int, error: str, *, least: int, at: int | None = None) -> None:
    """`least` is the status from which on the side that the span is on has failed."""
    if status:
        span.set_attribute("http.response.status_code", status)
    if error or status >= least:
        span.set_attribute("error.type", error or str(status))
        span.set_status(StatusCode.ERROR)
    span.end(at)


def _carrier(headers: Headers) -> dict[str, str]:
    """The trace's fields. Two `traceparent`s are none (W3C Trace Context 3.2.2)."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _NAMES:
            carrier[lower] = f"{carrier[lower]},{value}" if lower in carrier else value
    return carrier


def _sent_id(call: Call) -> int:
    """The span id that the backend was told; 0: none was, so draw one."""
    for name, value in call.extra:
        if name == "traceparent":
            return int(value.split("-")[2], 16)
    return 0


def _method(method: str) -> Attributes:
    if method in _KNOWN_METHODS:
        return {"http.request.method": method}
    return {"http.request.method": "_OTHER", "http.request.method_original": method}


def _name(method: str, route: str = OTHER_ROUTE) -> str:
    shown = method if method in _KNOWN_METHODS else "HTTP"
    return shown if route == OTHER_ROUTE else f"{shown} {route}"


def _upstream(url: str) -> tuple[str, Attributes]:
    """What a target is appended to, and the attributes that name the backend."""
    parts = urlsplit(url)
    if not parts.hostname:
        return "http://localhost", {"server.address": parts.path, "network.transport": "unix"}
    port = parts.port or (443 if parts.scheme == "https" else 80)
    base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return base, {"server.address": parts.hostname, "server.port": port}


def _resource(version: str) -> Resource:
    """What the environment says of this service; its name only if that does not."""
    found = Resource.create({"service.version": version})
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: "bulk-gateway"}))
    return found

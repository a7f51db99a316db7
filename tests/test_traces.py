"""Traces, as a collector receives them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import (
    BatchRecord,
    Call,
    Failure,
    Headers,
    PassRecord,
    RefusedRecord,
    Reply,
    Trace,
    failed,
)
from gateway.telemetry.spans import Tracer
from gateway.telemetry.traces import CannotTrace, tracer, wanted

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


class Collector:
    """A fake OTLP collector, and the spans it has got."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resource: dict[str, Any] = {}

    async def receive(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for group in message.resource_spans:
            self.resource = _plain(group.resource.attributes)
            self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def one(self, name: str) -> Any:
        (found,) = [span for span in self.spans if span.name == name]
        return found


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    async with TestServer(app) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(server.make_url("")))
        yield collector


def make() -> Tracer:
    return Tracer(upstream="http://crm.internal:8000", version="1.2.3")


def begin(made: Tracer, traceparent: str | None = SAMPLED, **more: str) -> Any:
    headers: Headers = tuple(more.items())
    if traceparent is not None:
        headers = (("Traceparent", traceparent), *headers)
    return made.begin("POST", "https", "/rest/v10/bulk?token=secret", headers)


async def end(made: Tracer) -> None:
    await asyncio.to_thread(made.close)


def call(trace: Trace, method: str = "GET", **fields: Any) -> Call:
    extra = (("Idempotency-Key", "k-1"), ("traceparent", trace.header()))
    return Call(method, "/rest/v10/Accounts/7?token=secret", (), extra=extra, **fields)


async def test_a_bulk_call_is_a_server_span_with_a_batch_span_with_a_span_for_each_call(
    collector: Collector,
) -> None:
    made = make()
    trace = begin(made)
    record = BatchRecord(
        id="b", dialect="sugarcrm", endpoint="{prefix}/{version}/bulk", client="10.0.0.7", ok=1
    )
    trace.began(record)
    made_call = call(trace)
    trace.call(3, made_call, Reply(200, seconds=0.25, call=made_call), "/rest/{version}/{id}")
    trace.batch(record, "ok")
    await end(made)

    server = collector.one("POST {prefix}/{version}/bulk")
    batch = collector.one("batch sugarcrm")
    client = collector.one("GET /rest/{version}/{id}")
    assert {span.trace_id.hex() for span in (server, batch, client)} == {TRACE}
    assert server.parent_span_id.hex() == PARENT
    assert batch.parent_span_id == server.span_id
    assert client.parent_span_id == batch.span_id
    assert (server.kind, batch.kind, client.kind) == (2, 1, 3)
    assert client.end_time_unix_nano - client.start_time_unix_nano == 250_000_000
    assert _plain(server.attributes) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "{prefix}/{version}/bulk",
        "url.path": "/rest/v10/bulk",
        "url.query": "token=*",
        "url.scheme": "https",
        "client.address": "10.0.0.7",
    }
    assert _plain(client.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "crm.internal",
        "server.port": 8000,
        "url.full": "http://crm.internal:8000/rest/v10/Accounts/7?token=*",
        "url.template": "/rest/{version}/{id}",
        "gateway.subrequest.index": 3,
    }
    assert _plain(batch.attributes)["gateway.subrequests.ok"] == 1


async def test_the_backend_is_told_the_id_of_the_very_span_that_the_collector_gets(
    collector: Collector,
) -> None:
    made = make()
    trace = begin(made)
    calls = [call(trace) for _ in range(3)]
    for index, one in enumerate(calls):
        trace.call(index, one, Reply(200, call=one), "_other")
    await end(made)
    told = [one.extra[1][1] for one in calls]
    assert all(re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", header) for header in told)
    assert [span.span_id.hex() for span in collector.spans] == [
        header.split("-")[2] for header in told
    ]


async def test_a_failed_call_says_how(collector: Collector) -> None:
    made = make()
    trace = begin(made)
    lost, missing = call(trace), call(trace)
    trace.call(0, lost, failed(Failure("http_response_timeout", "upstream"), lost), "/lost")
    trace.call(1, missing, Reply(404, call=missing), "/missing")
    await end(made)
    for name, error in (("GET /lost", "http_response_timeout"), ("GET /missing", "404")):
        span = collector.one(name)
        assert span.status.code == 2
        assert _plain(span.attributes)["error.type"] == error
    assert "http.response.status_code" not in _plain(collector.one("GET /lost").attributes)


async def test_a_retried_call_is_two_spans(collector: Collector) -> None:
    made = make()
    trace = begin(made)
    retried = call(trace, resent=True, began=time.monotonic() - 1)
    trace.call(0, retried, Reply(200, seconds=0.25, call=retried), "/a")
    await end(made)
    first, second = collector.spans
    assert _plain(first.attributes)["error.type"] == "connection_terminated"
    assert _plain(second.attributes)["http.request.resend_count"] == 1
    assert second.span_id.hex() == retried.extra[1][1].split("-")[2]
    assert first.span_id != second.span_id
    assert first.start_time_unix_nano < first.end_time_unix_nano == second.start_time_unix_nano


async def test_a_passed_request_is_a_server_span_and_a_client_span(collector: Collector) -> None:
    made = make()
    trace = made.begin("PROPFIND", "http", "/dav?x=1", ())
    header = trace.header()
    record = PassRecord(id="r", method="PROPFIND", target="/dav?x=1", status=502, seconds=0.5)
    record.error = "connection_refused"
    trace.passthrough(record, "_other")
    await end(made)
    client, server = collector.spans
    assert server.name == client.name == "HTTP"
    assert (server.kind, client.kind) == (2, 3)
    assert client.parent_span_id == server.span_id
    assert client.span_id.hex() == header.split("-")[2]
    assert _plain(server.attributes)["http.request.method_original"] == "PROPFIND"
    assert _plain(server.attributes)["error.type"] == "connection_refused"


async def test_a_refused_batch_is_a_server_span_alone(collector: Collector) -> None:
    made = make()
    begin(made).refused(
        RefusedRecord(id="b", dialect="sugarcrm", reason="bad_json", status=400, endpoint="/bulk")
    )
    await end(made)
    (server,) = collector.spans
    assert _plain(server.attributes)["http.response.status_code"] == 400
    assert server.status.code == 0  # by the conventions a 4xx is no error of the server's


@pytest.mark.parametrize("outcome", ["cut", "client_gone"])
async def test_an_answer_that_did_not_end_is_an_error(collector: Collector, outcome: str) -> None:
    made = make()
    trace = begin(made)
    record = BatchRecord(id="b", dialect="sugarcrm", endpoint="/bulk")
    trace.began(record)
    trace.batch(record, outcome)
    await end(made)
    assert _plain(collector.one("POST /bulk").attributes)["error.type"] == outcome
    assert _plain(collector.one("batch sugarcrm").attributes)["gateway.outcome"] == outcome


async def test_what_the_client_does_not_want_sampled_leaves_nothing_but_its_trace_id(
    collector: Collector,
) -> None:
    made = make()
    trace = begin(made, UNSAMPLED)
    assert not trace.sampled
    first, second = trace.header(), trace.header()
    assert first != second
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", first)
    await end(made)
    assert not collector.spans


@pytest.mark.parametrize(
    "traceparent",
    [None, "", "garbage", "00-" + "0" * 32 + f"-{PARENT}-01", f"{SAMPLED},{SAMPLED}"],
)
async def test_without_a_valid_parent_a_trace_begins_here(
    collector: Collector, traceparent: str | None
) -> None:
    made = make()
    trace = begin(made, traceparent)
    assert trace.sampled
    assert trace.id not in (TRACE, "0" * 32)
    await end(made)


async def test_two_parents_are_none(collector: Collector) -> None:
    made = make()
    twice = (("traceparent", SAMPLED), ("Traceparent", SAMPLED))
    assert made.begin("POST", "http", "/bulk", twice).id != TRACE
    await end(made)


async def test_a_backend_on_a_unix_socket_is_named_by_its_path(collector: Collector) -> None:
    made = Tracer(upstream="unix:/run/crm.sock", version="1")
    trace = begin(made)
    one = call(trace)
    trace.call(0, one, Reply(200, call=one), "/a")
    await end(made)
    attributes = _plain(collector.one("GET /a").attributes)
    assert attributes["server.address"] == "/run/crm.sock"
    assert attributes["network.transport"] == "unix"
    assert attributes["url.full"] == "http://localhost/rest/v10/Accounts/7?token=*"


async def test_the_standard_environment_is_obeyed(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "crm-gateway")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    made = make()
    assert not begin(made).sampled
    await end(made)

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    made = make()
    trace = begin(made, UNSAMPLED)
    assert trace.sampled
    trace.refused(RefusedRecord(id="b", dialect="d", reason="bad_json", status=400))
    await end(made)
    assert collector.resource["service.name"] == "crm-gateway"
    assert collector.resource["deployment.environment.name"] == "test"


async def test_the_service_has_a_name_when_nobody_gives_it_one(collector: Collector) -> None:
    made = make()
    begin(made).refused(RefusedRecord(id="b", dialect="d", reason="bad_json", status=400))
    await end(made)
    assert collector.resource["service.name"] == "bulk-gateway"
    assert collector.resource["service.version"] == "1.2.3"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_traces_are_made_where_the_environment_asks_for_them(
    environ: dict[str, str], expected: bool
) -> None:
    assert wanted(environ) is expected


@pytest.mark.parametrize(
    ("environ", "mistake"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: expected otlp or none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf",
        ),
    ],
)
def test_what_cannot_be_had_is_said(environ: dict[str, str], mistake: str) -> None:
    with pytest.raises(CannotTrace, match=mistake):
        tracer(environ, upstream="http://b:1", version="1")


def test_without_a_wish_there_is_no_tracer() -> None:
    assert tracer({}, upstream="http://b:1", version="1") is None


def test_without_the_extra_a_wish_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gateway.telemetry.spans", None)
    with pytest.raises(CannotTrace, match=r"bulk-gateway\[otel\]"):
        tracer({"OTEL_TRACES_EXPORTER": "otlp"}, upstream="http://b:1", version="1")

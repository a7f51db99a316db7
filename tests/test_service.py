"""What settings make of requests, over real sockets: who may ask, how much, what they are told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.config.settings import (
    Cors,
    Endpoint,
    HeaderLists,
    Limits,
    PassThrough,
    Paths,
    Probe,
    RateLimit,
    Shed,
    Upstream,
)
from gateway.telemetry.lag import LoopLag
from tests.front import Raw, raw
from tests.support.ports import free_port
from tests.support.raw_backend import Peer, RawBackend, answering, gated, ok
from tests.test_endpoint import House, batch, echo, house

PAGE = "https://app.example"
CORS = Cors(origins=(PAGE,), headers=("Authorization",), credentials=True)


# --- pages of other origins ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "fields", "status"),
    [
        (batch(2), {}, 200),
        (batch(0), {}, 200),
        (b"{", {}, 422),
        (batch(101), {}, 413),
        (batch(1), {"Content-Type": "text/plain"}, 415),
        (batch(1), {"Via": "1.1 us"}, 508),
    ],
    ids=["results", "none", "bad", "too many", "no JSON", "loop"],
)
async def test_every_answer_of_a_bulk_endpoint_names_the_page_that_may_read_it(
    body: Any, fields: dict[str, str], status: int
) -> None:
    async with RawBackend(echo) as backend, house(backend, cors=CORS, name="us") as gateway:
        async with gateway.post("/bulk", body, headers={"Origin": PAGE, **fields}) as answer:
            assert answer.status == status
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
            assert answer.headers.getall("Vary") == ["Origin"]
        async with gateway.post("/bulk", body, headers={"Origin": f"{PAGE}.evil", **fields}) as a:
            assert a.status == status
            assert "Access-Control-Allow-Origin" not in a.headers
            assert a.headers["Vary"] == "Origin"


async def test_the_gates_answer_names_the_page_too() -> None:
    refusal = ok(b'{"error":"invalid_grant"}', status="401 No")
    async with RawBackend(answering(refusal)) as backend, house(backend, cors=CORS) as gateway:
        entries = {"requests": [{"url": "v10/a"}]}
        async with gateway.post("/rest/v10/bulk", entries, headers={"Origin": PAGE}) as answer:
            assert answer.status == 401
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE


def preflight(origin: str = PAGE) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }


async def test_a_browsers_question_is_answered_from_the_settings() -> None:
    async with RawBackend(echo) as backend, house(backend, cors=CORS) as gateway:
        async with gateway.client.options(gateway.base + "/bulk", headers=preflight()) as answer:
            assert answer.status == 204
            assert await answer.read() == b""
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert answer.headers["Access-Control-Allow-Methods"] == "POST"
            assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type, Authorization"
            assert "Content-Type" not in answer.headers
        other = preflight("https://evil.example")
        async with gateway.client.options(gateway.base + "/bulk", headers=other) as answer:
            assert answer.status == 204
            assert not any(name.startswith("Access-Control") for name in answer.headers)
        assert backend.requests == []


async def test_a_browsers_question_is_the_backends_to_answer_where_cors_is_not_set() -> None:
    said = ok(b"", "Access-Control-Allow-Origin: *", status="204 No Content")
    async with RawBackend(answering(said)) as backend, house(backend) as gateway:
        async with gateway.client.options(gateway.base + "/bulk", headers=preflight()) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert [request.line for request in backend.requests] == [b"OPTIONS /bulk HTTP/1.1"]


async def test_pages_elsewhere_are_the_backends_affair() -> None:
    async with RawBackend(answering(ok())) as backend, house(backend, cors=CORS) as gateway:
        for method in ("OPTIONS", "GET"):
            async with gateway.client.request(
                method, gateway.base + "/things", headers=preflight()
            ) as answer:
                assert not any(name.startswith("Access-Control") for name in answer.headers)
        assert len(backend.requests) == 2


@pytest.mark.parametrize("cors", [None, CORS, Cors(origins=("*",))])
async def test_a_strange_page_cannot_get_round_the_question_by_not_saying_what_it_sends(
    cors: Cors | None,
) -> None:
    """A browser sends a body without a type unasked, with the user's cookies."""

    async def asked(gateway: House, **fields: str) -> int:
        unlabelled = {"skip_auto_headers": ("Content-Type",), "headers": fields}
        async with gateway.client.post(
            gateway.base + "/bulk", data=b'{"requests":[]}', **unlabelled
        ) as answer:
            return int(answer.status)

    async with RawBackend(echo) as backend, house(backend, cors=cors) as gateway:
        assert await asked(gateway) == 200
        assert await asked(gateway, Origin=gateway.base) == 200
        assert await asked(gateway, Origin="null") == 415
        assert await asked(gateway, Origin="https://evil.example") == 415
        assert await asked(gateway, Origin=PAGE) == (200 if cors is CORS else 415)


# --- what may be asked ---------------------------------------------------------------------------


@pytest.mark.parametrize("cors", [None, CORS])
async def test_options_shows_what_an_endpoint_takes(cors: Cors | None) -> None:
    sections = {
        "cors": cors,
        "limits": Limits(subrequests=7),
        "rate_limit": RateLimit(per_second=2.0, burst=9),
    }
    async with RawBackend(echo) as backend, house(backend, **sections) as gateway:
        async with gateway.client.options(gateway.base + "/v10/bulk", data=b"{") as answer:
            told = await answer.json()
            assert b'"value":7,' in await answer.read(), "a count is no fraction"
            assert answer.status == 200
            assert answer.headers["Allow"] == "POST, OPTIONS"
            assert answer.headers["X-Request-Id"]
        assert backend.requests == []
    assert (told["dialect"], told["path"]) == ("sugarcrm", "{prefix}/{version}/bulk")
    assert told["limits"]["limits.subrequests"] == {"value": 7, "unit": "count"}
    assert told["limits"]["batch.width"]["value"] == 8
    assert told["limits"]["rate_limit.burst"]["value"] == 9
    assert not {"limits.batches", "limits.buffer_bytes"} & told["limits"].keys()


async def test_other_methods_of_an_endpoints_path_pass_through() -> None:
    async with RawBackend(echo) as backend, house(backend) as gateway:
        for method in ("GET", "PUT", "DELETE"):
            async with gateway.client.request(method, gateway.base + "/bulk") as answer:
                assert (await answer.json())["method"] == method
        assert len(backend.requests) == 3


# --- how much each client may ask ----------------------------------------------------------------

LITTLE = RateLimit(per_second=0.001, burst=5)


def over(contents: Any) -> int:
    """How many of these results were over the quota."""
    return sum(result["status"] == 429 for result in contents)


async def test_every_subrequest_takes_a_token_and_those_without_one_are_429_results() -> None:
    async with RawBackend(echo) as backend, house(backend, rate_limit=LITTLE) as gateway:
        async with gateway.post("/bulk", batch(8)) as answer:
            assert answer.status == 200
            results = await answer.json()
        assert [r["status"] for r in results] == [200] * 5 + [429] * 3
        fields = results[5]["headers"]
        assert int(fields["Retry-After"]) == 1000
        assert 'http_request_denied; details="rate_limited"; sent=?0' in fields["Proxy-Status"]
        assert len(backend.requests) == 5
        async with gateway.post("/bulk", batch(3)) as answer:
            assert over(await answer.json()) == 3
        limited = 'gateway_subrequests_rate_limited_total{dialect="sugarcrm"}'
        assert await gateway.metric(limited) == 6
        assert await gateway.metric("gateway_subrequests_total") == 5


LOOP = {
    "integrated_account_id": "A",
    "args": {"ids": list(range(8))},
    "resources": [
        {"resource": "users", "method": "get", "id": "{{args.ids}}", "loop_on": "{{args.ids}}"}
    ],
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/batch", {"requests": [{"method": "get", "path": "/a"}] * 8}),
        ("/api/2.3/batch", {"requests": [{"method": "GET", "path": "/a"}] * 8}),
        ("/batch-request", LOOP),
    ],
    ids=["guidewire", "agendize", "truto"],
)
async def test_a_quota_is_one_for_all_dialects_and_charged_after_expansion(
    path: str, body: Any
) -> None:
    async with RawBackend(echo) as backend, house(backend, rate_limit=LITTLE) as gateway:
        async with gateway.post("/bulk", batch(2)) as answer:
            assert over(await answer.json()) == 0
        async with gateway.post(path, body) as answer:
            assert answer.status == 200
            said = await answer.text()
            assert "429" in said
            assert "1000" in said  # seconds
        assert len(backend.requests) == 5
        assert await gateway.metric("gateway_subrequests_rate_limited_total") == 5


async def test_what_the_rules_refuse_and_what_passes_through_costs_nothing() -> None:
    sections = {"rate_limit": LITTLE, "paths": Paths(deny=("/no/**",))}
    async with RawBackend(echo) as backend, house(backend, **sections) as gateway:
        denied = {"requests": [{"url": f"/no/{number}"} for number in range(20)]}
        async with gateway.post("/bulk", denied) as answer:
            assert {r["status"] for r in await answer.json()} == {403}
        for _ in range(8):
            async with gateway.client.get(gateway.base + "/x") as answer:
                assert answer.status == 200
        async with gateway.post("/bulk", batch(6)) as answer:
            assert over(await answer.json()) == 1


async def test_behind_a_trusted_proxy_every_client_has_its_own_quota() -> None:
    sections = {"rate_limit": LITTLE, "headers": HeaderLists(trusted_proxies=("127.0.0.1",))}
    async with RawBackend(echo) as backend, house(backend, **sections) as gateway:
        for client, left in (("203.0.113.1", 5), ("203.0.113.2", 5), ("203.0.113.1", 0)):
            fields = {"X-Forwarded-For": f"6.6.6.6, {client}"}
            async with gateway.post("/bulk", batch(5), headers=fields) as answer:
                assert over(await answer.json()) == 5 - left


async def test_without_one_nobody_gets_round_a_quota_by_what_it_says() -> None:
    async with RawBackend(echo) as backend, house(backend, rate_limit=LITTLE) as gateway:
        total = 0
        for number in range(4):
            fields = {
                "X-Forwarded-For": f"203.0.113.{number}",
                "X-Real-IP": f"203.0.113.{number}",
                "Forwarded": f"for=203.0.113.{number}",
            }
            async with gateway.post("/bulk", batch(5), headers=fields) as answer:
                total += over(await answer.json())
        assert total == 15


# --- more than can be done -----------------------------------------------------------------------


async def shed(gateway: House) -> None:
    async with gateway.post("/bulk", batch(1), headers={"Origin": PAGE}) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert (await answer.json())["error"] == "service_unavailable"
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    async with gateway.client.get(gateway.base + "/x") as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Content-Type"] == "application/problem+json"


async def test_while_the_event_loop_is_late_new_work_is_turned_away_and_old_work_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = asyncio.Event()
    late, noticed = 0.0, asyncio.Event()

    def observe(lag: LoopLag, *_: float) -> None:
        lag.latest = late
        if late:
            noticed.set()

    monkeypatch.setattr(LoopLag, "observe", observe)
    async with RawBackend(gated(gate)) as backend:
        async with house(backend, shed=Shed(lag=0.2), cors=CORS) as gateway:
            first = asyncio.ensure_future(gateway.post("/bulk", batch(1)).__aenter__())
            await backend.until(lambda: bool(backend.requests))
            late = 0.3
            await noticed.wait()
            await shed(gateway)
            gate.set()
            async with await first as answer:
                assert answer.status == 200
            assert await gateway.metric('gateway_shed_requests_total{reason="lag"}') == 2


async def test_above_the_memory_mark_one_request_at_a_time_is_served() -> None:
    gate = asyncio.Event()
    sections = {"shed": Shed(memory=1), "cors": CORS}
    async with RawBackend(gated(gate)) as backend, house(backend, **sections) as gateway:
        first = asyncio.ensure_future(gateway.post("/bulk", batch(1)).__aenter__())
        await backend.until(lambda: bool(backend.requests))
        await shed(gateway)
        gate.set()
        async with await first as answer:
            assert answer.status == 200
        async with gateway.post("/bulk", batch(1)) as answer:
            assert answer.status == 200
        assert await gateway.metric('gateway_shed_requests_total{reason="memory"}') == 2


@asynccontextmanager
async def uploading(gateway: House, size: int, of: int) -> AsyncIterator[Raw]:
    """A bulk call whose body has come but for its end."""
    async with raw(gateway.base.removeprefix("http://")) as client:
        head = f"POST /bulk HTTP/1.1\r\nHost: g\r\nContent-Length: {of}\r\n\r\n"
        client.send(head.encode() + b" " * size)
        yield client


async def test_bodies_that_are_being_read_have_a_bound_together_and_small_ones_always_room() -> (
    None
):
    limits = Limits(request_bytes=2**20, buffer_bytes=2**20)
    whole, part = 2**20, 2**20 - 20
    async with RawBackend(echo) as backend, house(backend, limits=limits) as gateway:
        async with uploading(gateway, part, whole) as first:
            while await gateway.metric("gateway_buffered_bytes") < part:
                pass
            async with uploading(gateway, part, whole) as second:
                head, body = await second.answer()
                assert head.startswith(b"HTTP/1.1 503 ")
                assert b"Retry-After: 1\r\n" in head
                assert b"service_unavailable" in body
            async with gateway.post("/bulk", batch(3)) as answer:
                assert answer.status == 200
            first.send(b'{"requests":[]}'.rjust(20))
            assert (await first.answer())[0].startswith(b"HTTP/1.1 200 ")
        assert await gateway.metric("gateway_buffered_bytes") == 0


async def test_calls_whose_bodies_come_together_are_counted_when_they_have_come() -> None:
    gate = asyncio.Event()
    body = b'{"requests":[{"url":"/a"}]}'
    async with RawBackend(gated(gate)) as backend, house(backend, limits=Limits(batches=1)) as g:
        async with uploading(g, 5, 5 + len(body)) as one, uploading(g, 5, 5 + len(body)) as two:
            while await g.metric("gateway_buffered_bytes") < 10:
                pass
            one.send(body)
            await backend.until(lambda: len(backend.requests) == 1)
            two.send(body)
            assert (await two.answer())[0].startswith(b"HTTP/1.1 503 ")
            gate.set()
            assert (await one.answer())[0].startswith(b"HTTP/1.1 200 ")


async def test_a_body_that_is_refused_or_left_holds_nothing() -> None:
    limits = Limits(request_bytes=10_000)
    async with RawBackend(echo) as backend, house(backend, limits=limits) as gateway:
        async with uploading(gateway, 5_000, 10_000):
            while await gateway.metric("gateway_buffered_bytes") != 5_000:
                pass
        while await gateway.metric("gateway_buffered_bytes"):
            pass
        async with gateway.post("/bulk", b" " * 10_001) as answer:
            assert answer.status == 413
        assert await gateway.metric("gateway_buffered_bytes") == 0


# --- what helps whoever looks at an answer -------------------------------------------------------


async def test_an_answer_tells_where_the_time_went() -> None:
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as backend, house(backend) as gateway:
        task = asyncio.ensure_future(gateway.post("/bulk", batch(3)).__aenter__())
        await backend.until(lambda: len(backend.requests) == 3)
        gate.set()
        async with await task as answer:
            timing = answer.headers["Server-Timing"]
            await answer.read()
    found = re.fullmatch(r"parse;dur=([\d.]+), queue;dur=([\d.]+), first;dur=([\d.]+)", timing)
    assert found is not None
    parse, queue, first = map(float, found.groups())
    assert parse + queue <= first + 0.2  # rounded


async def test_nothing_sent_is_no_time_in_a_queue() -> None:
    async with RawBackend(echo) as backend, house(backend) as gateway:
        async with gateway.post("/bulk", b'{"requests":[]}') as answer:
            assert "queue;dur=0.0," in answer.headers["Server-Timing"]


# --- the backend's health ------------------------------------------------------------------------


async def ready(gateway: House) -> tuple[int, list[str]]:
    async with gateway.client.get(gateway.ops + "/readyz") as answer:
        return answer.status, (await answer.json())["reasons"]


async def until_ready(gateway: House, *reasons: str) -> int:
    while True:
        status, told = await ready(gateway)
        if told == list(reasons):
            return status


async def test_readiness_and_a_gauge_follow_the_backends_health() -> None:
    well = True

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(ok(status="200 OK" if well else "500 Ill"))

    async with RawBackend(script) as backend:
        upstream = Upstream(url=backend.url, probe=Probe(path="/health", interval=0.01))
        async with house(backend, upstream=upstream) as gateway:
            assert await until_ready(gateway) == 200
            assert await gateway.metric("gateway_upstream_up") == 1
            well = False
            assert await until_ready(gateway, "upstream: status_500") == 503
            assert await gateway.metric("gateway_upstream_up") == 0
            async with gateway.client.get(gateway.base + "/x") as answer:
                assert answer.status == 500  # what comes all the same is served
            well = True
            assert await until_ready(gateway) == 200
            assert {request.target for request in backend.requests} == {"/health", "/x"}


async def test_until_the_backend_was_asked_it_is_not_known_to_be_well() -> None:
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as backend:
        upstream = Upstream(url=backend.url, probe=Probe(path="/health"))
        async with house(backend, upstream=upstream) as gateway:
            assert await ready(gateway) == (503, ["upstream: not_asked_yet"])
            gate.set()
            assert await until_ready(gateway) == 200


async def test_without_a_probe_the_backend_is_not_asked() -> None:
    async with house(f"http://127.0.0.1:{free_port()}") as gateway:
        assert await ready(gateway) == (200, [])
        async with gateway.client.get(gateway.ops + "/metrics") as answer:
            assert "\ngateway_upstream_up " not in await answer.text()


# --- single settings -----------------------------------------------------------------------------

DENIED = ok(b'{"mine": 1}', 'WWW-Authenticate: Bearer realm="x"', status="401 No")


async def first_401(path: str, body: Any, **entry: Any) -> tuple[int, bytes, str | None]:
    endpoint = Endpoint(path=path, **entry)
    async with RawBackend(answering(DENIED)) as backend:
        async with house(backend, endpoints=(endpoint,)) as gateway:
            async with gateway.post(path, body) as answer:
                return answer.status, await answer.read(), answer.headers.get("WWW-Authenticate")


GUIDEWIRE = {"requests": [{"method": "get", "path": "/a"}, {"method": "get", "path": "/b"}]}
BEARER = 'Bearer realm="x"'


async def test_a_gate_makes_a_first_401_the_whole_answer_in_any_dialect() -> None:
    told = await first_401("/batch", GUIDEWIRE, dialect="guidewire", gate=True)
    assert told == (401, b'{"mine": 1}', BEARER)
    told = await first_401("/bulk", batch(2), dialect="sugarcrm", gate=True)
    assert told == (401, b'{"mine": 1}', BEARER)


async def test_without_a_gate_a_401_is_one_of_the_results() -> None:
    status, body, _ = await first_401("/batch", GUIDEWIRE, dialect="guidewire")
    assert (status, body.count(b'"mine"')) == (200, 2)
    for gate, status in ((None, 401), (False, 200)):
        told = await first_401("/batch-request", LOOP, dialect="truto", gate=gate)
        assert told[0] == status


@pytest.mark.parametrize(("names", "status"), [((), 400), (("X-Odd.Name",), 200)])
async def test_an_odd_name_needs_to_be_allowed(names: tuple[str, ...], status: int) -> None:
    field = [{"name": "x_odd-name", "value": "1"}]
    body = {"requests": [{"method": "get", "path": "/a", "headers": field}]}
    lists = HeaderLists(odd_names=names)
    async with RawBackend(echo) as backend, house(backend, headers=lists) as gateway:
        async with gateway.post("/batch", body) as answer:
            assert answer.status == status
        assert [r.header("x_odd-name") for r in backend.requests] == [b"1"][: status == 200]


async def test_where_nothing_passes_through_bulk_calls_still_run() -> None:
    passing = PassThrough(enabled=False)
    async with RawBackend(echo) as backend, house(backend, passthrough=passing) as gateway:
        async with gateway.client.get(gateway.base + "/x") as answer:
            assert answer.status == 404
            assert answer.headers["Content-Type"] == "application/problem+json"
        async with gateway.post("/bulk", batch(1)) as answer:
            assert (await answer.json())[0]["status"] == 200

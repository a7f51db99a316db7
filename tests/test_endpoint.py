"""Bulk calls from first byte to last: the whole gateway over real sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gateway import endpoint
from gateway.config.settings import Limits, Listener, Paths, Settings, Upstream
from gateway.endpoint import _Writing
from gateway.execution import Run
from gateway.server import serving
from gateway.server.worker import Gateway
from gateway.upstream.connection import Connection
from tests.support.ports import free_port
from tests.support.raw_backend import (
    Peer,
    RawBackend,
    Request,
    answering,
    gated,
    ok,
    silent,
)
from tests.support.rings import remain, uncollected

LOOPBACK = Listener(address="127.0.0.1:0")


class House:
    """A gateway in front of a backend, and a client."""

    def __init__(self, gateway: Gateway, client: aiohttp.ClientSession) -> None:
        self.base = f"http://{gateway.address}"
        self.ops = f"http://{gateway.ops_address}"
        self.stop = gateway.stop
        self.client = client

    def post(
        self, path: str, body: bytes | dict[str, Any], *, chunked: bool = False, **more: Any
    ) -> Any:
        data: Any = body if isinstance(body, bytes) else json.dumps(body).encode()
        if chunked:
            data = _pieces(data)
        headers = {"Content-Type": "application/json", **more.pop("headers", {})}
        return self.client.post(self.base + path, data=data, headers=headers, **more)

    async def metric(self, name: str) -> float:
        async with self.client.get(self.ops + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


@asynccontextmanager
async def house(backend: RawBackend | str, **sections: Any) -> AsyncIterator[House]:
    url = backend if isinstance(backend, str) else backend.url
    settings = Settings(listen=(LOOPBACK,), ops=LOOPBACK, upstream=Upstream(url=url))
    settings = dataclasses.replace(settings, **sections)
    async with serving(settings) as gateway, aiohttp.ClientSession() as client:
        yield House(gateway, client)


async def echo(peer: Peer) -> None:
    """Answers with what it was asked."""
    while True:
        request = await peer.request()
        await peer.send(ok(json.dumps({"method": request.method, "url": request.target}).encode()))


def batch(count: int, **entry: Any) -> dict[str, Any]:
    return {"requests": [{"url": f"/things/{i}", **entry} for i in range(count)]}


# --- the main job --------------------------------------------------------------------------------


async def test_results_come_in_client_order_and_metrics_count_what_was_sent() -> None:
    async with RawBackend(echo) as backend, house(backend) as gateway:
        async with gateway.post("/bulk", batch(20)) as answer:
            assert answer.status == 200
            results = await answer.json()
        assert [r["contents"]["url"] for r in results] == [f"/things/{i}" for i in range(20)]
        assert sorted(r.target for r in backend.requests) == sorted(
            f"/things/{i}" for i in range(20)
        )
        assert await gateway.metric("gateway_subrequests_total") == 20
        assert await gateway.metric("gateway_batches_total") == 1


async def test_the_first_result_leaves_while_a_later_one_still_runs() -> None:
    gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            if (await peer.request()).target == "/slow":
                await gate.wait()
            await peer.send(ok(b'{"ok":true}'))

    body = {"requests": [{"url": "/fast"}, {"url": "/slow"}]}
    async with RawBackend(script) as backend, house(backend) as gateway:
        async with gateway.post("/bulk", body) as answer:
            first = await answer.content.readany()
            assert first.startswith(b'[{"contents":{"ok":true}')
            assert not gate.is_set()
            gate.set()
            whole = first + await answer.read()
        assert len(json.loads(whole)) == 2
        assert answer.headers["X-Accel-Buffering"] == "no"


async def test_a_write_stands_where_it_stood_among_reads() -> None:
    entries = [{"url": "/a"}, {"url": "/w", "method": "POST", "data": "{}"}, {"url": "/b"}]
    async with RawBackend(echo) as backend, house(backend) as gateway:
        async with gateway.post("/bulk", {"requests": entries}) as answer:
            await answer.read()
        assert [r.target for r in backend.requests] == ["/a", "/w", "/b"]


async def test_bytes_of_bodies_survive_both_ways() -> None:
    up = b'{"id":18446744073709551617,  "x":1.10,"z":0,"a":-0}'
    down = b'{"n":12345678901234567890123,"f":1.10,"z":1E400,"a":"\\ud83d\\ude00"}'
    async with RawBackend(answering(ok(down))) as backend, house(backend) as gateway:
        body = b'{"requests":[{"method":"post","path":"/x","body":' + up + b"}]}"
        async with gateway.post("/batch", body) as answer:
            assert down in await answer.read()
        assert backend.requests[0].body == up


async def test_large_documents_and_small_ones_take_turns_on_one_connection() -> None:
    async with RawBackend(echo) as backend, house(backend) as gateway:
        for size in (10, 900_000, 10, 100_000, 10):
            body = batch(1, method="POST", data={"x": "y" * size})
            async with gateway.post("/bulk", body) as answer:
                assert answer.status == 200
                assert len(await answer.json()) == 1


async def test_what_a_subrequest_is_sent_with() -> None:
    async with RawBackend(answering(ok())) as backend, house(backend) as gateway:
        fields = {
            "Authorization": "Bearer t",
            "X-Real-IP": "6.6.6.6",
            "X_Forwarded-For": "6.6.6.6",
            "If-None-Match": '"e"',
            "Connection": "close, Authorization",
            "X-Keep": "1",
        }
        own = {"X-REAL-IP": "7.7.7.7", "Host": "evil", "X-Own": "2", "Transfer-Encoding": "chunked"}
        body = {"requests": [{"url": "/x", "method": "POST", "data": '{"a":1}', "headers": own}]}
        async with gateway.post("/bulk", body, headers=fields) as answer:
            await answer.read()
            request = backend.requests[0]
    names = [name.lower() for name, _ in request.headers]
    assert len(set(names)) == len(names)
    assert request.header("host") == gateway.base.removeprefix("http://").encode()
    assert request.header("authorization") == b"Bearer t"
    assert request.header("x-keep") == b"1"
    assert request.header("x-own") == b"2"
    assert request.header("x-forwarded-for") == b"127.0.0.1"
    assert request.header("accept-encoding") == b"identity"
    assert request.header("content-type") == b"application/json"
    assert request.header("via") is not None
    assert request.header("x-request-id") == answer.headers["X-Request-Id"].encode() + b".0"
    for name in ("x-real-ip", "x_forwarded-for", "if-none-match", "transfer-encoding"):
        assert request.header(name) is None
    assert request.body == b'{"a":1}'


# --- mistakes: a clear error in the dialect's shape, and nothing sent ----------------------------

DEEP = b'{"requests":[{"url":"/a","data":' + b"[" * 10_000 + b"]" * 10_000 + b"}]}"

MISTAKES: list[tuple[str, bytes, int, str]] = [
    ("not JSON", b"hello", 422, "line 1, column 1"),
    ("a trailing comma", b'{"requests":[{"url":"/a"},]}', 422, "line 1, column 27"),
    ("the document is a list", b"[]", 422, "expected"),
    ("no requests", b"{}", 422, "requests"),
    ("requests is a text", b'{"requests":"x"}', 422, "requests"),
    ("an entry is a number", b'{"requests":[1]}', 422, "requests[0]"),
    ("url is missing", b'{"requests":[{"url":"/a"},{}]}', 422, "URL is missing"),
    ("url is a number", b'{"requests":[{"url":1}]}', 422, "requests[0].url"),
    ("method is a list", b'{"requests":[{"url":"/a","method":[]}]}', 422, "requests[0].method"),
    ("nested 10,000 deep", DEEP, 422, "deep"),
    ("invalid UTF-8", b'{"requests":[{"url":"/\xff"}]}', 422, "UTF-8"),
    ("a byte order mark", b'\xef\xbb\xbf{"requests":[]}', 422, ""),
    ("one too many", json.dumps(batch(101)).encode(), 413, "100"),
]


@pytest.mark.parametrize(
    ("body", "status", "says"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
async def test_a_mistake_in_the_document_refuses_the_whole_of_it(
    body: bytes, status: int, says: str
) -> None:
    async with RawBackend(echo) as backend, house(backend) as gateway:
        async with gateway.post("/bulk", body) as answer:
            error = await answer.json()
            assert answer.status == status
            assert says in error["error_message"]
            assert error["error"]
        assert backend.requests == []
        assert await gateway.metric("gateway_refused_batches_total") == 1


GUIDEWIRE: list[tuple[str, bytes]] = [
    ("another host", b'{"requests":[{"method":"get","path":"http://evil/x"}]}'),
    ("dots", b'{"requests":[{"method":"get","path":"/a/../b"}]}'),
    ("encoded dots", b'{"requests":[{"method":"get","path":"/a/%2e%2e/b"}]}'),
    ("twice encoded dots", b'{"requests":[{"method":"get","path":"/a/%252e%252e/b"}]}'),
    ("a line break in the path", b'{"requests":[{"method":"get","path":"/a\\r\\nX: 1"}]}'),
    ("a line break in the method", b'{"requests":[{"method":"get\\r\\n","path":"/a"}]}'),
    (
        "a line break in a header name",
        b'{"requests":[{"method":"get","path":"/a","headers":[{"name":"X\\r\\nY","value":"1"}]}]}',
    ),
    (
        "a line break in a header value",
        b'{"requests":[{"method":"get","path":"/a","headers":[{"name":"X","value":"1\\r\\nY"}]}]}',
    ),
    ("a header list of numbers", b'{"requests":[{"method":"get","path":"/a","headers":[1]}]}'),
    ("unknown onFail", b'{"requests":[{"method":"get","path":"/a","onFail":"x"}]}'),
    ("both data and body", b'{"requests":[{"method":"post","path":"/a","data":{},"body":{}}]}'),
]


@pytest.mark.parametrize("body", [m[1] for m in GUIDEWIRE], ids=[m[0] for m in GUIDEWIRE])
async def test_guidewire_names_the_subrequest_and_sends_nothing(body: bytes) -> None:
    async with RawBackend(echo) as backend, house(backend) as gateway:
        async with gateway.post("/batch", body) as answer:
            error = await answer.json()
            assert answer.status == 400
            assert error["errorCode"] == "gw.api.rest.exceptions.BadInputException"
            assert "requests[0]" in error["userMessage"]
            assert "evil" not in error["userMessage"]
        assert backend.requests == []


@pytest.mark.parametrize("path", ["/bulk", "/batch"])
async def test_an_empty_list_has_an_empty_answer(path: str) -> None:
    async with RawBackend(echo) as backend, house(backend) as gateway:
        async with gateway.post(path, b'{"requests":[]}') as answer:
            assert await answer.json() in ([], {"responses": []})
            assert answer.status == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "br"}, 415),
    ],
)
async def test_only_plain_json_is_taken(fields: dict[str, str], status: int) -> None:
    async with RawBackend(echo) as backend, house(backend) as gateway:
        async with gateway.post("/bulk", batch(1), headers=fields) as answer:
            assert answer.status == status
            assert (await answer.json())["error"]
        assert backend.requests == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_while_it_is_read(chunked: bool) -> None:
    limits = Limits(request_bytes=1000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    async with RawBackend(echo) as backend, house(backend, limits=limits) as gateway:
        data: Any = pieces() if chunked else b" " * 2000
        async with gateway.client.post(gateway.base + "/bulk", data=data) as answer:
            assert answer.status in (413, 415)
        fields = {"Content-Type": "application/json"}
        data = pieces() if chunked else b" " * 2000
        async with gateway.client.post(gateway.base + "/bulk", data=data, headers=fields) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"] == "request_too_large"
        assert backend.requests == []


async def test_sugarcrms_wrong_entry_is_that_entrys_404_and_the_rest_runs() -> None:
    urls = ["http://evil/x", "/a/../b", "/a/%2e%2e/b", "/a\\b", "/fine"]
    async with RawBackend(echo) as backend, house(backend) as gateway:
        body = {"requests": [{"url": url} for url in urls]}
        async with gateway.post("/bulk", body) as answer:
            results = await answer.json()
        assert [r["status"] for r in results] == [404, 404, 404, 404, 200]
        assert [r["contents"].get("error") for r in results[:4]] == ["no_method"] * 4
        assert [r.target for r in backend.requests] == ["/fine"]


async def test_a_bulk_call_inside_a_bulk_call_never_reaches_the_backend() -> None:
    paths = ["/batch", "/b%61tch", "/b%2561tch", "/x/rest/y/v1/batch", "/v10/bulk"]
    async with RawBackend(echo) as backend, house(backend) as gateway:
        body = {"requests": [{"method": "post", "path": p, "body": {}} for p in paths]}
        async with gateway.post("/batch", body) as answer:
            results = (await answer.json())["responses"]
        assert [r["status"] for r in results] == [508] * len(paths)
        assert backend.requests == []


async def test_the_operators_rules_make_403_results() -> None:
    paths = Paths(allow=("/open/**",))
    async with RawBackend(echo) as backend, house(backend, paths=paths) as gateway:
        body = {"requests": [{"url": "/open/1"}, {"url": "/closed"}, {"url": "/open%2f..%2fx"}]}
        async with gateway.post("/bulk", body) as answer:
            results = await answer.json()
        assert [r["status"] for r in results][:2] == [200, 403]
        assert results[2]["status"] >= 400
        assert results[1]["headers"]["Proxy-Status"].startswith("bulk-gateway; error=")
        assert [r.target for r in backend.requests] == ["/open/1"]


async def test_a_call_that_was_here_before_is_508() -> None:
    async with RawBackend(echo) as backend, house(backend, name="us") as gateway:
        async with gateway.post("/bulk", batch(1), headers={"Via": "1.1 a, 1.1 us"}) as answer:
            assert answer.status == 508
        assert backend.requests == []


async def test_too_many_bulk_calls_at_once_are_told_when_to_come_back() -> None:
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as backend, house(backend, limits=Limits(batches=1)) as g:
        first = asyncio.ensure_future(g.post("/bulk", batch(1)).__aenter__())
        await backend.until(lambda: bool(backend.requests))
        async with g.post("/bulk", batch(1)) as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "1"
            assert (await answer.json())["error"] == "service_unavailable"
        gate.set()
        answer = await first
        assert answer.status == 200
        answer.release()


# --- backends that fail --------------------------------------------------------------------------


async def test_a_backend_that_is_not_there_is_a_502_for_every_entry() -> None:
    async with house(f"http://127.0.0.1:{free_port()}") as gateway:
        async with gateway.post("/bulk", batch(20)) as answer:
            assert answer.status == 200
            results = await answer.json()
    assert [r["status"] for r in results] == [502] * 20
    assert results[0]["contents"]["error"] == "bad_gateway"
    assert results[0]["headers"]["Content-Type"] == "application/json"
    assert "connection_refused" in results[0]["headers"]["Proxy-Status"]
    assert "sent=?0" in results[0]["headers"]["Proxy-Status"]


async def test_a_silent_backend_is_a_504_that_says_it_was_sent() -> None:
    timeouts = dataclasses.replace(Upstream().timeouts, response=0.2)
    async with RawBackend(silent) as backend:
        upstream = Upstream(url=backend.url, timeouts=timeouts)
        async with house(backend, upstream=upstream) as gateway:
            async with gateway.post("/batch", {"requests": [{"method": "get", "path": "/x"}]}) as a:
                (result,) = (await a.json())["responses"]
    assert result["status"] == 504
    (proxy_status,) = [h["value"] for h in result["headers"] if h["name"] == "Proxy-Status"]
    assert "http_response_timeout" in proxy_status
    assert "sent=?1" in proxy_status


async def test_at_the_batchs_deadline_every_entry_has_its_result() -> None:
    limits = Limits(batch_time=1.5)  # for eight connections on a busy machine
    async with RawBackend(silent) as backend, house(backend, limits=limits) as gateway:
        async with gateway.post("/bulk", batch(20)) as answer:
            results = await answer.json()
    assert [r["status"] for r in results] == [504] * 20
    sent = ["sent=?1" in r["headers"]["Proxy-Status"] for r in results]
    assert sent == [True] * 8 + [False] * 12


async def test_a_first_401_with_sugars_label_is_an_outer_401_and_no_write_was_sent() -> None:
    body = b'{"error":"invalid_grant","error_message":"expired"}'
    entries = [{"url": "v10/a", "method": "POST", "data": "{}"}, {"url": "v10/b", "method": "PUT"}]
    refusal = ok(body, status="401 Unauthorized")
    async with RawBackend(answering(refusal)) as backend, house(backend) as gateway:
        async with gateway.post("/rest/v10/bulk", {"requests": entries}) as answer:
            assert answer.status == 401
            assert await answer.read() == body
        assert [r.target for r in backend.requests] == ["/rest/v10/a"]


READ = {"resource": "users", "method": "get", "id": "7", "persist": True}
WRITE = {"resource": "notes", "method": "create", "body": {}, "persist": True}


def truto(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"integrated_account_id": "A", "args": {}, "resources": resources}


@pytest.mark.parametrize("ended", [False, True], ids=["under way", "made"])
async def test_a_first_401_beside_a_write_that_was_made_is_a_result(ended: bool) -> None:
    """An outer 401 would have the client make that write again."""
    gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        request = await peer.request()
        if request.method == "POST":
            if not ended:
                gate.set()
                await refused.wait()
            await peer.send(ok(b'{"id": "1"}'))
            gate.set()
        else:
            await gate.wait()
            if ended:
                while not await gateway.metric('gateway_subrequests_total{dialect="truto"'):
                    pass
            await peer.send(ok(b"{}", status="401 Unauthorized"))
            refused.set()

    refused = asyncio.Event()
    async with RawBackend(script) as backend, house(backend) as gateway:
        async with gateway.post("/batch-request", truto(READ, WRITE)) as answer:
            assert answer.status == 200
            told = await answer.json()
    assert told["result"] == {"users": [], "notes": [{"id": "1"}]}
    assert [error["statusCode"] for error in told["errors"]["users"]] == [401]


@pytest.mark.parametrize("resources", [(WRITE,), (READ, WRITE), (WRITE, READ), (WRITE, WRITE)])
async def test_a_first_401_beside_writes_that_are_refused_as_well_is_the_whole_answer(
    resources: tuple[dict[str, Any], ...],
) -> None:
    """None was made: whoever has a new token may make them all again."""
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if len(backend.requests) == len(resources):
            asked.set()
        await asked.wait()
        await peer.send(ok(b"{}", status="401 Unauthorized"))

    async with RawBackend(script) as backend, house(backend) as gateway:
        async with gateway.post("/batch-request", truto(*resources)) as answer:
            assert answer.status == 401
            assert await answer.read() == b"{}"


async def test_a_first_401_beside_a_write_that_is_still_under_way_at_the_end_is_a_result() -> None:
    """Some calls, withdrawn before they had a connection, are heard of before the write is."""
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        request = await peer.request()
        if request.method == "POST":
            asked.set()
        else:
            await asked.wait()
            await peer.send(ok(b"{}", status="401 Unauthorized"))
        await peer.gone()

    async def ask() -> tuple[int, Any]:
        rest = [{**READ, "resource": "tags"}] * 5
        async with gateway.post("/batch-request", truto(READ, WRITE, *rest)) as answer:
            return answer.status, await answer.json()

    async with RawBackend(script) as backend:
        async with house(backend, upstream=Upstream(url=backend.url, connections=2)) as gateway:
            call = asyncio.create_task(ask())
            while not await gateway.metric('gateway_subrequests_total{dialect="truto"'):
                pass
            await gateway.stop(within=2.0)
            status, told = await call
    statuses = {
        key: [error["statusCode"] for error in errors] for key, errors in told["errors"].items()
    }
    assert (status, statuses) == (200, {"users": [401], "notes": [503], "tags": [503] * 5})


# --- clients that leave --------------------------------------------------------------------------


either_way = pytest.mark.parametrize("chunked", [False, True], ids=["by callbacks", "by a task"])
"""A call whose document came with its head needs no task; any other does."""


@either_way
async def test_who_comes_too_early_is_counted_at_once_told_later_and_may_leave_meanwhile(
    chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "HELD_BACK", 3600.0)
    gate = asyncio.Event()
    limits = Limits(batches=1)
    async with RawBackend(gated(gate)) as backend, house(backend, limits=limits) as gateway:
        first = asyncio.ensure_future(gateway.post("/bulk", batch(1)).__aenter__())
        await backend.until(lambda: bool(backend.requests))
        second = asyncio.ensure_future(
            gateway.post("/bulk", batch(1), chunked=chunked).__aenter__()
        )
        while not await gateway.metric('gateway_refused_batches_total{dialect="sugarcrm"'):
            pass
        assert not second.done()
        second.cancel()
        gate.set()
        (await first).release()
        assert await gateway.stop(within=30.0)


async def test_a_refusal_that_is_held_back_holds_nothing_of_what_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "HELD_BACK", 3600.0)
    others_are_in, gate = asyncio.Event(), asyncio.Event()
    blank = b" " * 2**16

    async def body() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield blank
        await others_are_in.wait()
        yield b'{"requests": []}'

    async with (
        RawBackend(gated(gate)) as backend,
        house(backend, limits=Limits(batches=1)) as gateway,
    ):
        tracemalloc.start()
        try:
            early = asyncio.ensure_future(
                gateway.client.post(
                    gateway.base + "/bulk",
                    data=body(),
                    headers={"Content-Type": "application/json"},
                )
            )
            while await gateway.metric("gateway_buffered_bytes") < 2_000_000:
                pass
            other = asyncio.ensure_future(gateway.post("/bulk", batch(1)).__aenter__())
            await backend.until(lambda: bool(backend.requests))
            others_are_in.set()
            while not await gateway.metric('gateway_refused_batches_total{dialect="sugarcrm"'):
                pass
            held = sum(trace.size for trace in tracemalloc.take_snapshot().traces)
        finally:
            tracemalloc.stop()
        assert held < 1_000_000
        early.cancel()
        gate.set()
        (await other).release()


@either_way
async def test_when_the_client_leaves_a_write_in_flight_ends_and_nothing_new_starts(
    chunked: bool,
) -> None:
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as backend, house(backend) as gateway:
        task = asyncio.ensure_future(
            gateway.post("/bulk", batch(3, method="POST", data="{}"), chunked=chunked).__aenter__()
        )
        await backend.until(lambda: len(backend.requests) == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while not await gateway.metric('gateway_subrequests_skipped_total{dialect="sugarcrm"'):
            await asyncio.sleep(0)
        gate.set()
        while not await gateway.metric(
            'gateway_batches_total{dialect="sugarcrm",outcome="client_gone"}'
        ):
            await asyncio.sleep(0)
        assert len(backend.requests) == 1
        assert await gateway.metric("gateway_buffered_bytes") == 0


@either_way
async def test_when_the_client_leaves_reads_in_flight_are_closed_at_once(chunked: bool) -> None:
    async with RawBackend(silent) as backend, house(backend) as gateway:
        post = gateway.post("/bulk", batch(3), chunked=chunked)
        task = asyncio.ensure_future(post.__aenter__())
        await backend.until(lambda: len(backend.peers) == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await backend.until(lambda: backend.open == 0)


@either_way
async def test_of_a_client_that_left_nothing_waits_for_the_collector(chunked: bool) -> None:
    async with RawBackend(silent) as backend, house(backend) as gateway:
        with uncollected():
            post = gateway.post("/bulk", batch(3), chunked=chunked)
            task = asyncio.ensure_future(post.__aenter__())
            await backend.until(lambda: len(backend.peers) == 3)
            assert remain(Run, Connection) == 4
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(20):
                while remain(Run, Connection):
                    await asyncio.sleep(0)


@either_way
async def test_a_client_that_stops_reading_is_cut_and_the_batch_says_so(chunked: bool) -> None:
    client = dataclasses.replace(Settings().client, write_stall=0.3)
    answer = ok(b'"' + b"x" * 8_000_000 + b'"')
    async with RawBackend(answering(answer)) as backend, house(backend, client=client) as gateway:
        host, port = gateway.base.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps(batch(4)).encode()
        framing = f"Content-Length: {len(body)}"
        if chunked:
            framing, body = (
                "Transfer-Encoding: chunked",
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            )
        writer.write(f"POST /bulk HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + body)
        while not await gateway.metric('gateway_batches_total{dialect="sugarcrm",outcome="cut"}'):
            await asyncio.sleep(0.05)
        assert await gateway.metric("gateway_buffered_bytes") == 0
        writer.transport.abort()


@either_way
async def test_an_answer_whose_client_is_cut_before_its_end_is_written_is_no_whole_one(
    chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = _Writing._write

    def cut_and_write(self: _Writing) -> None:
        self._outer.wire.cut()
        write(self)

    monkeypatch.setattr(_Writing, "_write", cut_and_write)
    async with RawBackend(answering(ok())) as backend, house(backend) as gateway:
        with pytest.raises(aiohttp.ClientConnectionError):
            await gateway.post("/bulk", batch(2), chunked=chunked)
        assert await gateway.metric('gateway_batches_total{dialect="sugarcrm",outcome="cut"}') == 1


@either_way
async def test_a_bug_while_the_answer_is_written_is_a_500_and_nothing_is_left(
    chunked: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with RawBackend(answering(ok(b"{}"))) as backend, house(backend) as gateway:
        with monkeypatch.context() as broken:

            def stumble_once(*_: object, **__: object) -> str:
                broken.undo()  # the 500 has a date too
                raise ZeroDivisionError

            broken.setattr("gateway.answer._date", (0, b""))
            broken.setattr("gateway.answer.formatdate", stumble_once)
            async with gateway.post("/bulk", batch(2), chunked=chunked) as answer:
                assert answer.status == 500
                assert (await answer.json())["error"] == "proxy_internal_error"
        async with gateway.post("/bulk", batch(2), chunked=chunked) as answer:
            assert len(await answer.json()) == 2
        assert await gateway.metric("gateway_batches_in_flight") == 0
        assert await gateway.metric("gateway_buffered_bytes") == 0
        assert await gateway.metric('gateway_batches_total{dialect="sugarcrm",outcome="cut"}') == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


USERS = {"resource": "users", "method": "list", "persist": True}
TRUTO = ("/batch-request", {"integrated_account_id": "A", "resources": [USERS]})
BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "gateway.dialects.sugarcrm.Entries.tail": ("/bulk", {"requests": [{"url": "/a"}]}),
    "gateway.dialects.truto.writing.Maps.open": TRUTO,
    "gateway.dialects.truto.writing.Maps.part": TRUTO,
    "gateway.dialects.truto.writing.Maps.close": TRUTO,
}


def stumble(*_: object) -> bytes:
    raise ZeroDivisionError


@pytest.mark.parametrize("place", BROKEN)
async def test_a_bug_that_spoils_more_than_one_result_is_a_500_and_nothing_is_left(
    place: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, body = BROKEN[place]
    page = ok(b'{"result": [{"id": 1}]}')
    async with RawBackend(answering(page)) as backend, house(backend) as gateway:
        with monkeypatch.context() as broken:
            broken.setattr(place, stumble)
            async with gateway.post(path, body) as answer:
                assert answer.status == 500
        assert await gateway.metric("gateway_batches_in_flight") == 0
        assert await gateway.metric("gateway_buffered_bytes") == 0
        async with gateway.post(path, body) as answer:
            assert answer.status == 200
    assert "ZeroDivisionError" in capfd.readouterr().err


async def test_such_a_bug_after_the_first_result_cuts_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = asyncio.Event()

    async def second_waits(peer: Peer) -> None:
        while "1" not in (await peer.request()).target:
            await peer.send(ok())
        await gate.wait()
        await peer.send(ok())

    monkeypatch.setattr("gateway.dialects.sugarcrm.Entries.tail", stumble)
    async with RawBackend(second_waits) as backend, house(backend) as gateway:
        async with gateway.post("/bulk", batch(2)) as answer:
            assert answer.status == 200
            gate.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_secrets_and_bodies_reach_no_log_line(capfd: pytest.CaptureFixture[str]) -> None:
    async with RawBackend(answering(ok(b'{"e":1}', status="500 No"))) as backend:
        async with house(backend) as gateway:
            fields = {"Authorization": "Bearer S3CRET", "OAuth-Token": "S3CRET"}
            body = {"requests": [{"url": "/x?token=S3CRET", "method": "POST", "data": "S3CRET"}]}
            async with gateway.post("/bulk", body, headers=fields) as answer:
                await answer.read()
            async with gateway.client.get(gateway.base + "/y?token=S3CRET", headers=fields):
                pass
    assert "S3CRET" not in "".join(capfd.readouterr())


def test_requests_are_compared_by_what_was_received() -> None:
    """The helper these tests lean on reads a head as it came."""
    request = Request(b"GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\n\r\n", b"")
    assert request.all("x") == [b"1", b"2"]

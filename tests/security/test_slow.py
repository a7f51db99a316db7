"""Whoever takes his time takes nobody else's."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from gateway import execution, standstill
from gateway.config.settings import Client, Limits, Listener, ListenerTls, Upstream
from gateway.reception import Desk
from gateway.server import clients
from gateway.server.client import TURNED_AWAY
from gateway.server.client import Client as Connection
from gateway.upstream import pool
from tests.front import eventually, get, raw
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    SUGARCRM,
    TRUTO,
    Reader,
    Siege,
    echo,
    got,
    head,
    posted,
    siege,
)
from tests.support.raw_backend import Peer, RawBackend, answering, gated, ok
from tests.support.rings import remain, uncollected

TLS = Path(__file__).parents[1] / "tls"
SECRET = Listener(
    address="127.0.0.1:0",
    tls=ListenerTls(cert=str(TLS / "first.crt"), key=str(TLS / "first.key")),
)
TRUSTING = ssl.create_default_context(cafile=TLS / "first.crt")
TRUSTING.check_hostname = False

SHORT = Client(header=0.3, body_stall=0.3, write_stall=0.3, idle=0.3)
BULK = [*(form.path for form in FORMATS), TRUTO]


async def test_every_head_has_a_deadline_also_while_the_event_loop_is_always_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standstill, "LATE", 0.0)
    monkeypatch.setattr(clients, "AT_ONCE", 1)
    async with RawBackend(echo) as backend, siege(backend, client=Client(header=0.3)) as gate:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            for idle in [await enter(raw(gate.address)) for _ in range(5)]:
                idle.send(got("/x"))
                await idle.head()
            slow = [await enter(raw(gate.address)) for _ in range(5)]
            for client in slow:
                client.send(b"GET /x HTTP/1.1\r\n")
            for client in slow:
                assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("drips", [False, True])
async def test_a_head_has_a_deadline_from_its_first_byte(drips: bool) -> None:
    async with RawBackend(echo) as backend, siege(backend, client=SHORT) as gate:
        async with raw(gate.address) as client, asyncio.timeout(20):
            client.send(b"GET /x HTTP/1.1\r\nHost: gw\r\nX: ")
            while drips and not gate.gateway.worker.clients.refusals:
                client.send(b"y")
                await gate.alive()
            assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        assert "/x" not in [request.target for request in backend.requests]


@pytest.mark.parametrize("path", [*BULK, "/passed"])
async def test_a_body_that_stops_is_a_408_and_nothing_of_it_is_done(path: str) -> None:
    whole = posted(path, json.dumps({"requests": []}).encode())
    async with RawBackend(echo) as backend, siege(backend, client=SHORT) as gate:
        answers = await gate.talk(whole[:-3])
        assert [answer.status for answer in answers] == [408]
        assert not backend.requests


async def test_a_bulk_call_that_drips_has_a_deadline_for_the_whole_of_it() -> None:
    """Every byte is in time, and the last one would come in a year."""
    bulk = head("POST /bulk HTTP/1.1", [("Content-Length", "4000000")])
    async with RawBackend(echo) as backend, siege(backend, limits=Limits(batch_time=0.4)) as gate:
        async with raw(gate.address) as client, asyncio.timeout(20):
            client.send(bulk)
            reader = Reader()
            answer = asyncio.create_task(client.reader.read(65536))
            while not answer.done():
                client.send(b" ")
                await asyncio.sleep(0)
            reader.feed(answer.result())
            assert [a.status for a in reader.answers] == [408]


async def test_who_says_nothing_is_told_nothing_and_leaves() -> None:
    async with RawBackend(echo) as backend, siege(backend, client=SHORT) as gate:
        assert await gate.talk() == []
        answers = await gate.talk(got("/x"))
        assert [answer.status for answer in answers] == [200]


@pytest.mark.parametrize("path", [*(form.path for form in FORMATS), "/passed"])
async def test_who_does_not_read_his_answer_is_cut_and_so_is_what_is_done_for_him(
    path: str,
) -> None:
    """Meanwhile what waits for him stays within the batch's budget."""
    large = {"/x": ok(b'"%b"' % (b"x" * 2**20)), "/passed": ok(b'"%b"' % (b"x" * 2**25))}

    async def script(peer: Peer) -> None:
        while True:
            await peer.send(large.get((await peer.request()).target) or ok())

    documents = {form.path: form.document([form.entry("/x")] * 100) for form in FORMATS}
    limits = Limits(batch_buffer_bytes=8 * 2**20)
    async with RawBackend(script) as backend:
        async with siege(backend, client=SHORT, limits=limits) as gate:
            async with raw(gate.address, limit=1000) as client:
                client.send(posted(path, documents.get(path, b"")))
                most = 0
                open_clients = gate.gateway.worker.clients.open
                await eventually(lambda: open_clients)
                while open_clients:
                    page = await gate.metrics()
                    held = page.partition("\ngateway_buffered_bytes ")[2].partition("\n")[0]
                    most = max(most, int(float(held)))
            assert most <= 8 * 2**20 + 8 * (2**20 + 2**18)
            await backend.until(lambda: backend.open == 0 or path != "/passed")
            assert "gateway_buffered_bytes 0.0" in await gate.metrics()
            await gate.alive()


LARGE_ANSWER = ok(b'"%b"' % (b"x" * 2**23))
LINGERING = {
    "uploads": head("POST /slow HTTP/1.1", [("Content-Length", "100000")]) + b"x",
    "readers": got("/large"),
    "readers of results": posted("/batch", GUIDEWIRE.document([GUIDEWIRE.entry("/large")])),
}


@pytest.mark.parametrize("kind", LINGERING)
async def test_who_keeps_a_connection_waiting_keeps_it_from_nobody(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many as there are connections to the backend, and more than memory is for."""
    monkeypatch.setattr(pool, "KEPT_WAITING", 0.05)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(LARGE_ANSWER if request.target == "/large" else ok())

    limits = Limits(batch_buffer_bytes=2**20, buffer_bytes=2**22)
    async with RawBackend(script) as backend, AsyncExitStack() as stack:
        upstream = Upstream(url=backend.url, connections=4)
        gate = await stack.enter_async_context(siege(backend, upstream=upstream, limits=limits))
        async with AsyncExitStack() as slow:
            for number in range(8):
                client = await slow.enter_async_context(raw(gate.address, limit=1000))
                client.send(LINGERING[kind])
                seen = backend.peers if kind == "uploads" else backend.requests
                await backend.until(lambda: len(seen) > number)  # noqa: B023
            for form in FORMATS:
                assert form.statuses(await gate.bulk(form, [form.entry("/x")] * 8)) == [200] * 8
            await gate.alive()
        await backend.until(lambda: backend.open <= 4)
        assert "gateway_subrequests_in_flight 0.0" in await gate.metrics()
        assert [each.extra for each in gate.gateway.worker.app.pools] == [0]  # type: ignore[attr-defined]


async def test_a_batch_whose_client_does_not_read_takes_no_others_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "KEPT_WAITING", 0.0)
    async with RawBackend(answering(LARGE_ANSWER)) as backend, AsyncExitStack() as stack:
        gate = await stack.enter_async_context(siege(backend, limits=Limits(batches=2)))
        await stack.enter_async_context(asyncio.timeout(20))
        for number in range(6):
            client = await stack.enter_async_context(raw(gate.address, limit=1000))
            client.send(LINGERING["readers of results"])
            while len(backend.requests) == number:  # it was let in, if not at once
                if client.reader.at_eof() or b" 503 " in await client.reader.readline():
                    client = await stack.enter_async_context(raw(gate.address, limit=1000))
                    client.send(LINGERING["readers of results"])
        assert "gateway_batches_in_flight 6.0" in await gate.metrics()


async def hundred(gate: Siege, number: int) -> None:
    form = FORMATS[number % len(FORMATS)]
    answer = await gate.bulk(form, [form.entry("/x")] * 20)
    assert form.statuses(answer) == [200] * 20


async def test_the_healthy_are_served_beside_the_slow() -> None:
    """Slow heads, slow bodies and slow readers, as many as half of the connections."""
    openings = [
        b"GET / HTTP/1.1\r\nHost: ",
        b"",
        head("POST /bulk HTTP/1.1", [("Content-Length", "1000000")]) + b"[" * 1000,
        head("POST /passed HTTP/1.1", [("Content-Length", "1000000")]) + b"x" * 1000,
        posted("/batch", GUIDEWIRE.document([GUIDEWIRE.entry("/x")] * 100)),
    ]
    async with RawBackend(answering(ok(b'"%b"' % (b"x" * 5000)))) as backend:
        async with siege(backend, client=Client(connections=400)) as gate:
            async with AsyncExitStack() as stack:
                for number in range(200):
                    client = await stack.enter_async_context(raw(gate.address, limit=1000))
                    client.send(openings[number % len(openings)])
                await asyncio.gather(*(hundred(gate, number) for number in range(30)))
                assert (await gate.ask(got("/x"))).status == 200


UNFINISHED = head("POST /bulk HTTP/1.1", [("Content-Length", "1000000")]) + b"["


async def test_connections_have_a_bound_and_are_free_again() -> None:
    async with RawBackend(echo) as backend, siege(backend, client=Client(connections=8)) as gate:
        async with AsyncExitStack() as stack:
            stack.enter_context(uncollected())
            for _ in range(8):
                client = await stack.enter_async_context(raw(gate.address))
                client.send(UNFINISHED)
            await eventually(lambda: len(gate.gateway.worker.clients.open) == 8)
            for _ in range(50):
                (answer,) = await gate.talk(got("/x"))
                assert (answer.status, answer.all("retry-after")) == (503, ["1"])
            await eventually(lambda: remain(Connection) == 8)
        await eventually(lambda: not gate.gateway.worker.clients.open)
        assert (await gate.ask(got("/x"))).status == 200


async def test_when_every_place_is_taken_those_who_ask_for_nothing_give_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Silent from the first, silent since their answer, or slow to say what they want."""
    monkeypatch.setattr(clients, "QUIET", 0.0)
    async with RawBackend(echo) as backend, siege(backend, client=Client(connections=4)) as gate:
        async with raw(gate.address) as busy, raw(gate.address) as slow, AsyncExitStack() as stack:
            busy.send(UNFINISHED)
            slow.send(b"GET /x HTTP/1.1\r\nHost: ")
            idle = await stack.enter_async_context(raw(gate.address))
            idle.send(got("/idle"))
            assert (await idle.head()).startswith(b"HTTP/1.1 200 ")
            silent = await stack.enter_async_context(raw(gate.address))
            assert (await slow.rest()).startswith(b"HTTP/1.1 408 ")
            for _ in range(2):
                await stack.enter_async_context(raw(gate.address))
            assert await silent.rest() == b""
            assert b"HTTP/1.1" not in await idle.rest()
            busy.send(b" " * (1_000_000 - 2) + b"]")
            assert (await busy.head()).startswith(b"HTTP/1.1 422 ")


async def test_handshakes_that_are_not_finished_give_way_and_are_forgotten() -> None:
    """However many there are, an honest client has time for its own."""
    async with RawBackend(echo) as backend:
        async with siege(backend, listen=(SECRET,), client=Client(connections=4)) as gate:
            worker = gate.gateway.worker
            most = 4 + TURNED_AWAY
            async with AsyncExitStack() as stack:
                enter = stack.enter_async_context
                opened = [await enter(raw(gate.address)) for _ in range(2 * most)]
                for early in opened[:most]:
                    with suppress(ConnectionResetError):
                        assert await early.reader.read() == b""
                assert worker.clients.refusals["gateway_overloaded"] == most
                async with raw(gate.address, ssl=TRUSTING) as client:
                    client.send(got("/x"))
                    assert (await client.head()).startswith(b"HTTP/1.1 200 ")
                for late in opened[-2:]:
                    late.send(b"no TLS at all")
                    with suppress(ConnectionResetError):
                        await late.reader.read()
            await eventually(lambda: not worker.handshakes.going_on)
            assert not worker.clients.open


async def test_a_thousand_requests_in_one_breath_are_answered_one_by_one() -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answers = await gate.talk(*[b"".join(get(f"/{i}") for i in range(1000))], answers=1000)
        assert [answer.json["target"] for answer in answers] == [f"/{i}" for i in range(1000)]
        assert len(backend.peers) == 1
        document = AGENDIZE.document([AGENDIZE.entry("/x")])
        answers = await gate.talk(posted(AGENDIZE.path, document) * 100, answers=100)
        assert {answer.status for answer in answers} == {200}
        (answer,) = await gate.talk(posted("/bulk", SUGARCRM.document([])), answers=1)
        assert answer.json == []


# --- documents that take long to read ------------------------------------------------------------

LARGE = SUGARCRM.document([SUGARCRM.entry("/large")]) + b" " * 100_000


@asynccontextmanager
async def reading(
    gate: Siege, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[asyncio.Task[Any], Event]]:
    """A large document that is being read until the event is set."""
    begun, go_on = Event(), Event()
    plan = Desk.plan

    def slowly(desk: Desk, outer: Any, path: str, params: Any, body: bytes) -> Any:
        if len(body) > 100_000:
            begun.set()
            assert go_on.wait(20)
        return plan(desk, outer, path, params, body)

    monkeypatch.setattr(Desk, "plan", slowly)
    task = asyncio.create_task(gate.post("/bulk", LARGE))
    await eventually(begun.is_set)
    try:
        yield task, go_on
    finally:
        go_on.set()


async def test_while_a_large_document_is_read_everybody_else_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others as large wait for their turn, and count as bodies that are being read."""
    limits = Limits(buffer_bytes=250_000)
    async with RawBackend(echo) as backend, siege(backend, limits=limits) as gate:
        async with reading(gate, monkeypatch) as (large, go_on):
            await gate.alive()
            for form in FORMATS:
                assert form.statuses(await gate.bulk(form, [form.entry("/x")])) == [200]
            another = asyncio.create_task(gate.post("/bulk", LARGE))
            page = f"gateway_buffered_bytes {2.0 * len(LARGE)}\n"
            while page not in await gate.metrics():
                pass
            assert (await gate.post("/bulk", LARGE)).status == 503
            assert not large.done()
            assert not another.done()
            go_on.set()
            assert [(await task).status for task in (large, another)] == [200, 200]
        assert "gateway_buffered_bytes 0.0" in await gate.metrics()


async def test_large_documents_that_are_carried_out_count_with_those_being_read() -> None:
    gate_open = asyncio.Event()
    limits = Limits(buffer_bytes=250_000)
    async with RawBackend(gated(gate_open)) as backend, siege(backend, limits=limits) as gate:
        tasks = [asyncio.create_task(gate.post("/bulk", LARGE)) for _ in range(2)]
        await backend.until(lambda: len(backend.requests) == 2)
        assert (await gate.post("/bulk", LARGE)).status == 503
        small = asyncio.create_task(gate.bulk(GUIDEWIRE, [GUIDEWIRE.entry("/x")]))
        await backend.until(lambda: any(r.target == "/x" for r in backend.requests))
        gate_open.set()
        assert [(await task).status for task in tasks] == [200, 200]
        assert GUIDEWIRE.statuses(await small) == [200]
        assert (await gate.post("/bulk", LARGE)).status == 200


async def test_a_document_that_was_read_needs_a_place_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate_open = asyncio.Event()
    limits = Limits(batches=1)
    async with RawBackend(gated(gate_open)) as backend, siege(backend, limits=limits) as gate:
        async with reading(gate, monkeypatch) as (large, go_on):
            small = asyncio.create_task(gate.bulk(GUIDEWIRE, [GUIDEWIRE.entry("/x")]))
            await backend.until(lambda: len(backend.requests) == 1)
            go_on.set()
            assert (await large).status == 503
            gate_open.set()
            assert (await small).status == 200


async def test_a_client_that_leaves_while_its_document_waits_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        async with reading(gate, monkeypatch) as (large, go_on):
            large.cancel()
            while "gateway_buffered_bytes 0.0" not in await gate.metrics():
                pass
            go_on.set()
        assert (await gate.post("/bulk", LARGE.replace(b"large", b"other"))).status == 200
    assert [request.target for request in backend.requests] == ["/other"]

"""A client that leaves, or stays and does not listen: what it sent is accounted for, what it left
is let go of, and others are served."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
from aiohttp import web

from gateway.answer import ClientAnswer
from gateway.config.settings import Client, Timeouts
from tests.faults.conftest import SetStage
from tests.faults.stage import WELL, Stage, committing
from tests.front import Raw, eventually, house, raw
from tests.security.siege import got, head
from tests.support.raw_backend import Peer, RawBackend, Script, ok

Leaving = Callable[[Raw], None]


def closes(client: Raw) -> None:
    client.close()


def resets(client: Raw) -> None:
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


def closes_half(client: Raw) -> None:
    """It says that it will say no more; it still listens."""
    client.writer.write_eof()


LEAVING = {"close": closes, "reset": resets, "half-close": closes_half}


def behind(gate: asyncio.Event) -> Script:
    """`/fault/` is answered when the gate opens."""

    async def waits(peer: Peer) -> None:
        await gate.wait()
        await peer.send(ok(WELL))

    return committing(waits)


async def arrived(backend: RawBackend, number: int = 1) -> None:
    await backend.until(
        lambda: sum(r.target.startswith("/fault/") for r in backend.requests) == number
    )


@pytest.mark.parametrize("how", LEAVING)
async def test_a_client_that_leaves_before_its_bulk_call_is_whole(
    how: str, stage: SetStage
) -> None:
    """Nothing was sent, and what had come is let go of."""
    async with RawBackend(behind(asyncio.Event())) as backend, stage(backend.url) as it:
        it.watch(backend)
        async with it.client() as client:
            client.send(head("POST /bulk HTTP/1.1", [("Content-Length", "9000")]) + b'{"requ')
            await eventually(lambda: it.gateway.worker.clients.busy)
            LEAVING[how](client)
            await it.settled()
        assert backend.requests == []
        await it.works()


@pytest.mark.parametrize("how", LEAVING)
async def test_a_client_that_leaves_while_a_write_is_in_flight(how: str, stage: SetStage) -> None:
    """The write runs to its end and is logged as sent; nothing after it starts."""
    gate = asyncio.Event()
    async with RawBackend(behind(gate)) as backend, stage(backend.url) as it:
        it.watch(backend)
        bulk = it.bulk("POST fault", "POST well", "GET well", "POST well")
        async with it.client() as client:
            client.send(bulk.request)
            await arrived(backend)
            LEAVING[how](client)
            await skipped(it, 3)
            assert len(it.app.execution) == 1
            gate.set()
            await it.settled()
        assert [r.target for r in backend.requests] == [bulk.writes[0]]
        await it.works()


@pytest.mark.parametrize("how", LEAVING)
async def test_a_client_that_leaves_while_reads_are_in_flight(how: str, stage: SetStage) -> None:
    """They are closed at once, and not because any time is up."""
    upstream = {"timeouts": Timeouts(response=300.0)}
    sections = {"upstream": upstream, "client": Client(gone_grace=300.0)}
    async with RawBackend(committing(Peer.gone)) as backend, stage(backend.url, **sections) as it:
        it.watch(backend)
        bulk = it.bulk("GET fault", "GET fault", "POST well")
        async with it.client() as client:
            client.send(bulk.request)
            await arrived(backend, 2)
            LEAVING[how](client)
            await backend.until(lambda: backend.open == 0)
            await it.settled()
        await it.works()


@pytest.mark.parametrize("how", LEAVING)
async def test_a_client_that_leaves_in_the_middle_of_its_answer(how: str, stage: SetStage) -> None:
    gate = asyncio.Event()
    async with RawBackend(behind(gate)) as backend, stage(backend.url) as it:
        it.watch(backend)
        bulk = it.bulk("GET well", "POST fault", "POST well")
        async with it.client() as client:
            client.send(bulk.request)
            await client.until(b'"well"')
            await arrived(backend)
            LEAVING[how](client)
            await skipped(it, 1)
            gate.set()
            await it.settled()
        await it.works()


@pytest.mark.parametrize("how", LEAVING)
async def test_a_client_that_leaves_after_its_answer(how: str, stage: SetStage) -> None:
    async with RawBackend(behind(asyncio.Event())) as backend, stage(backend.url) as it:
        it.watch(backend)
        async with it.client() as client:
            client.send(it.bulk("GET well", "POST well").request)
            await client.until(b"}]")
            LEAVING[how](client)
            await it.settled()
        await it.works()


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("when", ["in its body", "before the answer", "in the answer"])
async def test_a_client_that_leaves_ends_what_passes_through_for_it(
    how: str, when: str, stage: SetStage
) -> None:
    """The backend's connection is closed, so that it can tell; half a body is never a whole one."""
    read = asyncio.Event()

    async def begins(peer: Peer) -> None:
        await peer.head()
        read.set()
        if when == "in the answer":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"begun")
        await peer.gone()

    patient = {"timeouts": Timeouts(response=300.0)}
    async with RawBackend(begins) as backend, stage(backend.url, upstream=patient) as it:
        it.watch(backend)
        it.passes += 1
        async with it.client() as client:
            if when == "in its body":
                client.send(head("POST /x HTTP/1.1", [("Content-Length", "9")]) + b"abc")
            else:
                client.send(got("/x"))
            await read.wait()
            if when == "in the answer":
                await client.until(b"begun")
            LEAVING[how](client)
            await backend.until(lambda: backend.open == 0)
            await it.settled()
        assert backend.requests == []
        backend.scripts = [behind(asyncio.Event())]
        await it.works()


# --- clients that stop reading -------------------------------------------------------------------

DEAF = Client(write_stall=0.5)
LARGE = b'"' + b"x" * 12_000_000 + b'"'
"""More than the kernel takes for a client that does not."""


async def large(peer: Peer) -> None:
    await peer.send(ok(LARGE))


async def test_a_client_that_stops_reading_its_results_is_cut(stage: SetStage) -> None:
    """What was held for it is let go of; its writes are accounted for like any."""
    async with RawBackend(committing(large)) as backend, stage(backend.url, client=DEAF) as it:
        it.watch(backend)
        bulk = it.bulk("GET fault", "POST fault", "POST well")
        async with it.client() as client:
            client.send(bulk.request)
            await client.head()
            await it.settled()
            await cut(client)
        await it.works()


async def test_a_client_that_stops_reading_what_passes_through_is_cut(stage: SetStage) -> None:
    async with RawBackend(committing(large)) as backend, stage(backend.url, client=DEAF) as it:
        it.watch(backend)
        it.passes += 1
        async with it.client() as client:
            client.send(got(it.target("fault")))
            await client.head()
            await it.settled()
            await cut(client)
        await it.works()


async def cut(client: Raw) -> None:
    """What is in the kernel still comes, and then no end."""
    with pytest.raises(ConnectionResetError):
        await client.rest()


async def skipped(it: Stage, number: int) -> None:
    """Until the run knows that so many will never start."""
    await eventually(lambda: [run.record.skipped for run in it.app.execution._runs] == [number])


async def test_an_answer_whose_client_has_just_gone_can_still_be_cut() -> None:
    """The backend's answer breaks off before whoever waits for it is told of the client."""
    cut = asyncio.Event()

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200)
        answer.send(b"first")
        try:
            await asyncio.Event().wait()
        finally:
            answer.cut()
            cut.set()
        return answer

    async with asyncio.timeout(10), house(handle) as gateway:
        async with raw(gateway.address) as client:
            client.send(got("/"))
            await client.head()
        await cut.wait()

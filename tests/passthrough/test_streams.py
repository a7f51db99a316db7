"""What a backend says bit by bit, and what it says late: it arrives when it was said."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.config.settings import Upstream
from tests.front import get, raw
from tests.passthrough.messages import read_answer
from tests.passthrough.shapes import tell
from tests.security.siege import siege
from tests.support.raw_backend import Peer, RawBackend, ok

PIECES = [
    b": hello\n\n",
    b"data: 1\n\n",
    b"id: 2\r\nevent: x\r\ndata: caf\xc3\xa9\r\n\r\n",
    b"\n",
    b"e",
]
KINDS = {
    "events": ("Content-Type: text/event-stream; charset=utf-8", "Cache-Control: no-store"),
    "lines": ("Content-Type: application/x-ndjson",),
    "frames": ("Content-Type: multipart/x-mixed-replace; boundary=b",),
    "nothing said of it": (),
    "in chunks": ("Content-Type: text/event-stream", "Transfer-Encoding: chunked"),
    "of a length": (f"Content-Length: {sum(map(len, PIECES))}",),
    "compressed": ("Content-Type: text/event-stream", "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("kind", KINDS)
async def test_each_piece_arrives_before_the_next_is_said(kind: str, version: str) -> None:
    """Nothing waits for more: the backend goes on only when the client has read."""
    read = asyncio.Semaphore(0)
    in_chunks = kind == "in chunks"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(tell("200 OK", *KINDS[kind], length=False))
        for piece in PIECES:
            await read.acquire()
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece) if in_chunks else piece)
        if in_chunks:
            await peer.send(b"0\r\n\r\n")

    async with RawBackend(script) as backend, siege(backend) as gateway:
        async with raw(gateway.address) as client:
            client.send(get("/events", "Last-Event-ID: 1", version=version))
            head = await client.head()
            for piece in PIECES:
                read.release()
                await client.until(piece)
            end = b"\r\n0\r\n\r\n" if b"chunked" in head else b""
            assert await client.exactly(len(end)) == end


async def test_answers_that_come_late_come_to_those_who_wait_for_them() -> None:
    gates = {f"/poll/{number}": asyncio.Event() for number in range(10)}

    async def script(peer: Peer) -> None:
        while True:
            target = (await peer.request()).target
            await gates[target].wait()
            await peer.send(ok(target.encode()))

    async def poll(target: str) -> bytes:
        async with raw(gateway.address) as client:
            client.send(get(target))
            return (await read_answer(client, "GET")).body

    async with RawBackend(script) as backend, siege(backend) as gateway:
        polls = {target: asyncio.create_task(poll(target)) for target in gates}
        await backend.until(lambda: len(backend.requests) == len(gates))
        for target in reversed(gates):
            assert not polls[target].done()
            gates[target].set()
            assert await polls[target] == target.encode()


async def test_event_streams_leave_connections_to_others() -> None:
    """As many as there are clients, whatever `upstream.connections` says."""

    async def script(peer: Peer) -> None:
        while (await peer.request()).target != "/events":
            await peer.send(ok())
        await peer.send(
            tell("200 OK", "Content-Type: text/event-stream", length=False) + b"data: 1\n\n"
        )
        await peer.gone()

    async with RawBackend(script) as backend:
        upstream = Upstream(url=backend.url, connections=2)
        async with siege(backend, upstream=upstream) as gateway, AsyncExitStack() as clients:
            for _ in range(20):
                client = await clients.enter_async_context(raw(gateway.address))
                client.send(get("/events"))
                await client.until(b"data: 1\n\n")
            client = await clients.enter_async_context(raw(gateway.address))
            client.send(get())
            assert (await read_answer(client, "GET")).status == 200

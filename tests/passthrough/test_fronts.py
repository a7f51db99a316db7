"""Real front ends, as people put them in front of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import websockets

from gateway.config.settings import HeaderLists
from tests.front import Raw, get, raw
from tests.passthrough.fronts import FRONTS
from tests.passthrough.messages import (
    LENGTHS,
    OF_ONE_HOP,
    Answer,
    Arrived,
    end_to_end,
    final_answer,
    read_answer,
)
from tests.passthrough.scripts import ends_by_itself
from tests.passthrough.shapes import OK, SHAPES, Shape
from tests.security.siege import Siege, posted, siege
from tests.support.raw_backend import Peer, RawBackend, Script, after_request, answering, ok

UNBUFFERED = ["nginx that buffers nothing", "Envoy"]
KEEPING = [name for name in FRONTS if name != "nginx at its defaults"]


@dataclass
class Place:
    backend: RawBackend
    gateway: Siege
    through: str
    """The address of the front end, with the gateway between it and the backend..."""
    straight: str
    """... and with nothing between them."""


@asynccontextmanager
async def behind(front: str, folder: Path, script: Script) -> AsyncIterator[Place]:
    lists = HeaderLists(trusted_proxies=("127.0.0.1",))
    async with RawBackend(script) as backend, siege(backend, headers=lists) as gateway:
        addresses = (gateway.address, f"127.0.0.1:{backend.port}")
        async with FRONTS[front](folder, *addresses) as steps, asyncio.timeout(60):
            yield Place(backend, gateway, *steps)


# --- nothing is different ------------------------------------------------------------------------

BESIDE_THE_POINT = (
    "answer, options of one connection",  # these hand on what RFC 9110 7.6.1 says they must not
    "answer, early hints",  # and this nginx takes an interim answer for the answer
    "answer, two interim answers",
    "answer, an invitation nobody asked for",
)
ROWS = {
    name: shape
    for name, shape in SHAPES.items()
    if len(shape.says) == len(shape.methods) == 1 and name not in BESIDE_THE_POINT
}
OF_THE_FRONT = OF_ONE_HOP | {
    *(b"date", b"via", b"x-envoy-upstream-service-time"),
    *(b"x-envoy-expected-rq-timeout-ms", b"x-request-id"),
}


class Told:
    """A backend's script that answers every request with what it was told last."""

    answer = OK

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(self.answer)
            if not ends_by_itself(self.answer):
                return


@pytest.mark.parametrize("front", FRONTS)
async def test_behind_a_front_end_both_ends_get_what_they_would_get_without_the_gateway(
    front: str, tmp_path: Path
) -> None:
    told, different = Told(), {}
    async with behind(front, tmp_path, told) as place:
        for name, shape in ROWS.items():
            if not isinstance(shape.told, tuple):
                continue
            (told.answer,) = shape.told
            expected = await tried(place, place.straight, shape)
            got = await tried(place, place.through, shape)
            if got != expected:
                different[name] = (expected, got)
    assert different == {}


async def tried(place: Place, address: str, shape: Shape) -> tuple[Answer, list[Arrived]]:
    """What the client gets and what the backend gets, without what the front end says for itself.

    A front end tells nobody how it was told where an answer ends."""
    place.backend.requests.clear()
    async with raw(address) as client:
        client.send(shape.says[0])
        answer = await final_answer(client, shape.methods[0])
    fields = end_to_end(answer.fields, OF_THE_FRONT | LENGTHS)
    arrived = [Arrived.of(request) for request in place.backend.requests]
    return replace(answer, fields=fields), [
        replace(request, fields=end_to_end(request.fields, OF_THE_FRONT)) for request in arrived
    ]


@pytest.mark.parametrize("front", KEEPING)
async def test_a_front_end_keeps_its_connection_to_the_gateway(front: str, tmp_path: Path) -> None:
    async with behind(front, tmp_path, answering(ok())) as place:
        for request in (get(), bulk("/a", "/b"), get(method="HEAD"), bulk("/c"), get()) * 2:
            async with raw(place.through) as client:
                client.send(request)
                answer = await final_answer(client, request.split()[0].decode())
                assert answer.status == 200
        assert len(place.gateway.gateway.worker.clients.open) == 1


# --- as it comes ---------------------------------------------------------------------------------


def bulk(*targets: str) -> bytes:
    return posted("/bulk", {"requests": [{"url": target} for target in targets]})


@pytest.mark.parametrize("front", FRONTS)
async def test_results_of_a_bulk_call_arrive_while_later_ones_still_run(
    front: str, tmp_path: Path
) -> None:
    """Also behind an nginx that buffers, by the word of the gateway: X-Accel-Buffering."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            if (await peer.request()).target == "/slow":
                await go.wait()
            await peer.send(ok(b'"done"'))

    async with behind(front, tmp_path, script) as place, raw(place.through) as client:
        client.send(bulk("/fast", "/slow"))
        await client.until(b'"done"')
        go.set()
        assert b'"done"' in await client.until(b"0\r\n\r\n")


@pytest.mark.parametrize("front", FRONTS)
async def test_events_arrive_while_the_backend_still_speaks(front: str, tmp_path: Path) -> None:
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        # To a buffering nginx the backend says so itself, with the gateway or without.
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n\r\n"
        )
        for number in range(3):
            await peer.send(b"data: %d\n\n" % number)
            await heard.wait()
            heard.clear()

    async with behind(front, tmp_path, script) as place, raw(place.through) as client:
        client.send(get())
        for number in range(3):
            await client.until(b"data: %d\n\n" % number)
            heard.set()
        assert await client.until(b"0\r\n\r\n") == b"\r\n0\r\n\r\n"


@pytest.mark.parametrize("framing", ["Content-Length: 6", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("front", UNBUFFERED)
async def test_a_body_arrives_while_its_client_still_sends(
    front: str, framing: str, tmp_path: Path
) -> None:
    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        while b"one" not in await peer.read_some():
            pass
        begun.set()
        while b"two" not in await peer.read_some():
            pass
        await peer.send(ok())
        await peer.gone()

    async with behind(front, tmp_path, script) as place, raw(place.through) as client:
        client.send(get("/", framing, method="POST"))
        client.send(b"3\r\none\r\n" if "chunked" in framing else b"one")
        await begun.wait()
        client.send(b"3\r\ntwo\r\n0\r\n\r\n" if "chunked" in framing else b"two")
        assert (await read_answer(client, "POST")).status == 200


@pytest.mark.parametrize("front", KEEPING)
async def test_a_websocket_reaches_the_backend(front: str, tmp_path: Path) -> None:
    async def echo(socket: websockets.ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with siege(f"http://127.0.0.1:{port}") as gateway:
            async with FRONTS[front](tmp_path, gateway.address) as (address,):
                async with websockets.connect(f"ws://{address}/chat") as socket:
                    for message in ("caf\xe9", b"\0\1", b"x" * 500_000):
                        await socket.send(message)
                        assert await socket.recv() == message


# --- what cannot be finished ---------------------------------------------------------------------


@pytest.mark.parametrize("front", FRONTS)
async def test_a_bulk_answer_that_is_cut_arrives_broken(front: str, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        while (await peer.request()).target != "/never":
            await peer.send(ok(b'"done"'))
        await peer.gone()

    async with behind(front, tmp_path, script) as place, raw(place.through) as client:
        client.send(bulk("/fast", "/never"))
        head = await client.head()
        assert b"chunked" in head
        await client.until(b'"done"')
        worker = place.gateway.gateway.worker
        assert not await worker.drain(0, 0)
        await worker.close()
        assert not (await whatever_comes(client)).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("framing", [b"Content-Length: 99", b"Transfer-Encoding: chunked"])
async def test_a_passed_answer_that_stops_arrives_broken(
    front: str, framing: bytes, tmp_path: Path
) -> None:
    sent = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nbegun\r\n"
    stopping = after_request(sent, end="reset")
    async with behind(front, tmp_path, stopping) as place, raw(place.through) as client:
        client.send(get())
        answer = await whatever_comes(client)
        head, _, body = answer.partition(b"\r\n\r\n")
        whole = body.endswith(b"0\r\n\r\n") or len(body) == 99
        assert head.startswith(b"HTTP/1.1 502 ") or not whole


async def whatever_comes(client: Raw) -> bytes:
    """Up to the end, however it ends."""
    received = b""
    async with asyncio.timeout(20):
        try:
            while data := await client.reader.read(65536):
                received += data
        except ConnectionResetError:
            pass
    return received

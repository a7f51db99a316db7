"""WebSockets and other protocols that HTTP is left for: what both ends notice, straight and through
the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
import websockets
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.front import get, raw
from tests.passthrough.messages import OF_ONE_HOP, end_to_end, read_answer
from tests.security.siege import siege
from tests.support.raw_backend import Peer, RawBackend

MIB = 2**20
NOISE = bytes(range(251)) * (10 * MIB // 251)

Client = websockets.ClientConnection
Server = websockets.ServerConnection
Talk = Callable[[Client], Awaitable[object]]


# --- what the backend does, by path --------------------------------------------------------------


async def serve(socket: Server) -> None:
    assert socket.request is not None
    await PATHS[socket.request.path.partition("?")[0]](socket)


async def echo(socket: Server) -> None:
    async for message in socket:
        await socket.send(message)


async def greet(socket: Server) -> None:
    """Speaks first, in the packet of its 101 or right behind it."""
    await socket.send("hello")
    await socket.send(["in ", "pie", "ces"])
    await socket.send([b"\0", b"", b"\1"])
    await (await socket.ping(b"there?"))
    await socket.send("you are")


async def count(socket: Server) -> None:
    """Says how large messages are, and sends ones as large."""
    async for message in socket:
        await socket.send(str(len(message)))
        await socket.send(message[::-1])


async def leave(socket: Server) -> None:
    await socket.close(4001, "enough caf\xe9")


async def vanish(socket: Server) -> None:
    await socket.send("last words")
    socket.transport.abort()


async def hear_out(socket: Server) -> None:
    """Ends as its client does; what it heard is left in `ends`."""
    try:
        async for _ in socket:
            pass
    finally:
        ends.put_nowait((socket.close_code, socket.close_reason))


async def tell(socket: Server) -> None:
    """What it was asked."""
    assert socket.request is not None
    fields = [(name.lower(), value) for name, value in socket.request.headers.raw_items()]
    mine = [field for field in fields if field[0] in ("origin", "cookie", "authorization", "x-a")]
    await socket.send(f"{socket.request.path} {socket.subprotocol} {mine}")


PATHS = {
    "/echo": echo, "/greet": greet, "/count": count, "/leave": leave, "/vanish": vanish,
    "/hear": hear_out, "/tell": tell,
}  # fmt: skip
ends: asyncio.Queue[tuple[int | None, str | None]]


def decline(socket: Server, request: Request) -> Response | None:
    if request.path == "/declined":
        return socket.respond(HTTPStatus.FORBIDDEN, "not you\n")
    return None


def choose(socket: Server, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((protocol for protocol in offered if protocol == "a"), None)


@asynccontextmanager
async def addresses() -> AsyncIterator[tuple[str, str]]:
    """Of the backend, and of a gateway in front of it."""
    global ends
    ends = asyncio.Queue()
    options: Any = {"process_request": decline, "select_subprotocol": choose, "max_size": None}
    async with websockets.serve(serve, "127.0.0.1", 0, **options) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with siege(f"http://{address}") as gateway, asyncio.timeout(60):
            yield address, gateway.address


# --- what the client does ------------------------------------------------------------------------


async def heard(socket: Client) -> list[object]:
    """All that comes, and how it ends."""
    said: list[object] = []
    try:
        while True:
            said.append(await socket.recv())
    except websockets.ConnectionClosed:
        return [*said, socket.close_code, socket.close_reason]


async def says_and_hears(socket: Client) -> list[object]:
    answers: list[object] = []
    for message in ("", "caf\xe9 \u2603", b"", bytes(range(256)), "x" * 100_000):
        await socket.send(message)
        answers.append(await socket.recv())
    await socket.send(["a", "", "b" * 70_000, "c"])
    return [*answers, await socket.recv()]


async def many_at_once(socket: Client) -> list[object]:
    for number in range(500):
        await socket.send(f"{number}")
    return [await socket.recv() for _ in range(500)]


async def pings(socket: Client) -> list[object]:
    waiting = [await socket.ping(data) for data in (b"", b"1", b"2" * 125)]
    return [await pong is not None for pong in waiting]


async def large(socket: Client) -> list[object]:
    answers = []
    for message in (NOISE, "y" * len(NOISE)):
        await socket.send(message)
        answers += [await socket.recv(), await socket.recv()]
    return answers


def leaving(code: int, reason: str) -> Talk:
    async def talk(socket: Client) -> object:
        await socket.close(code, reason)
        return socket.close_code, socket.close_reason, await ends.get()

    return talk


async def breaking_off(socket: Client) -> object:
    socket.transport.abort()
    return await ends.get()


TALKS: dict[str, tuple[str, Talk, dict[str, Any]]] = {
    "says and hears": ("/echo", says_and_hears, {}),
    "uncompressed": ("/echo", says_and_hears, {"compression": None}),
    "many at once": ("/echo", many_at_once, {}),
    "pings": ("/echo", pings, {}),
    "is spoken to first": ("/greet", heard, {}),
    "10 MB": ("/count", large, {}),
    "10 MB, uncompressed": ("/count", large, {"compression": None}),
    "is left": ("/leave", heard, {}),
    "is dropped": ("/vanish", heard, {}),
    "leaves": ("/hear", leaving(1000, ""), {}),
    "leaves with a word": ("/hear", leaving(3000, "x" * 123), {}),
    "leaves for an error": ("/hear", leaving(1011, "caf\xe9"), {}),
    "breaks off": ("/hear", breaking_off, {}),
    "asks for a protocol": ("/tell?a=%2F&b", heard, {"subprotocols": ["a", "c"]}),
    "says who it is": (
        "/tell",
        heard,
        {
            "origin": "https://a.example",
            "additional_headers": [("Cookie", "a=1"), ("Authorization", "Bearer b"), ("X-A", "1")],
        },
    ),
}


@pytest.mark.parametrize("name", TALKS)
async def test_both_ends_of_a_websocket_notice_nothing(name: str) -> None:
    path, talk, options = TALKS[name]
    seen = []
    async with addresses() as both:
        for address in both:
            url = f"ws://{address}{path}"
            async with websockets.connect(url, max_size=None, proxy=None, **options) as socket:
                said = await talk(socket)
                seen.append((said, socket.subprotocol, answered(socket)))
    assert seen[1] == seen[0]


def answered(socket: Client) -> list[tuple[str, str]]:
    """The fields of the 101."""
    assert socket.response is not None
    own = ("connection", "date", "sec-websocket-accept", "via")
    fields = socket.response.headers.raw_items()
    return [field for field in fields if field[0].lower() not in own]


async def test_a_websocket_that_is_declined_is_told_why() -> None:
    seen = []
    async with addresses() as both:
        for address in both:
            with pytest.raises(websockets.InvalidStatus) as declined:
                await websockets.connect(f"ws://{address}/declined", proxy=None)
            answer = declined.value.response
            seen.append((answer.status_code, answer.reason_phrase, answer.body))
    assert seen[1] == seen[0]
    assert seen[0] == (403, "Forbidden", b"not you\n")


async def test_many_websockets_do_not_meet_each_other() -> None:
    async def one(number: int) -> None:
        async with websockets.connect(f"ws://{address}/echo", proxy=None) as socket:
            for turn in range(5):
                await socket.send(f"{number} {turn}")
                assert await socket.recv() == f"{number} {turn}"

    async with addresses() as (_, address), asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(one(number))


# --- other protocols -----------------------------------------------------------------------------


async def upper(peer: Peer) -> None:
    """Takes up what is offered, says hello with it, and repeats all in capitals."""
    head = await peer.head()
    offered = next(x for x in head.split(b"\r\n") if x.lower().startswith(b"upgrade:"))
    chosen = offered.partition(b":")[2].split(b",")[0].strip()
    fields = b"Upgrade: %b\r\nX-A: 1\r\nconnection: UPGRADE\r\n\r\n" % chosen
    await peer.send(b"HTTP/1.1 101 Gladly\r\n" + fields + b"\0hello")
    while data := await peer.read_some():
        await peer.send(data.upper())


@pytest.mark.parametrize(
    "protocol", ["odd/1", "IRC/6.9, RTA/x11", "mqtt", "TLS/1.0", "WebSocket", "tcp", "x-y; q=1"]
)
@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, upgrade", "X-Hop, UPGRADE"])
async def test_other_protocols_are_spoken_as_if_nothing_stood_between(
    protocol: str, connection: str
) -> None:
    seen = []
    async with RawBackend(upper) as backend, siege(backend) as gateway, asyncio.timeout(20):
        for address in (f"127.0.0.1:{backend.port}", gateway.address):
            async with raw(address) as client:
                client.send(
                    get("/a?", f"Connection: {connection}", f"Upgrade: {protocol}", "X-Hop: 1")
                )
                answer = await read_answer(client, "GET")
                fields = end_to_end(answer.fields, (OF_ONE_HOP - {b"upgrade"}) | {b"via"})
                said = await client.exactly(6)
                for word in (b"\x16\x03\x01", b"get / http/1.1\r\n\r\n", b"x" * MIB):
                    client.send(word)
                    said += await client.exactly(len(word))
            seen.append((answer.status, answer.reason, fields, said))
    assert seen[1] == seen[0]

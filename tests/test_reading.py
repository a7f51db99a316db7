"""What aiohttp's parser is not left alone with: each read here is one read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gateway.answer import ClientAnswer, wire
from gateway.server.client import Client
from gateway.server.reading import HEAD
from tests.front import Raw, eventually, get, house, raw

GARBAGE = b"\x01\x02 no request\r\n\r\n"
LARGE = get("/large", *[f"X-{number}: " + "x" * 10_000 for number in range(7)])
"""70 kB in fields of which none is too long."""


async def echo(request: web.BaseRequest) -> ClientAnswer:
    body = await request.content.read()
    return ClientAnswer(request, 200).finish(request.raw_path.encode() + b" " + body)


@asynccontextmanager
async def reading(handle: Any = echo) -> AsyncIterator[tuple[Any, Raw]]:
    """The server's end of a connection, and the client's."""
    async with house(handle) as gateway, raw(gateway.address) as client:
        await eventually(lambda: gateway.worker.clients.open)
        (connection,) = gateway.worker.clients.open
        await eventually(lambda: connection._idle)
        yield connection, client


def post(body: bytes) -> bytes:
    return b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def answers(client: Raw) -> list[bytes]:
    """Contents of good answers, statuses of others, up to the end."""
    got, said = [], await client.rest()
    while said:
        head, _, said = said.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        status = head[9:12]
        got.append(said[:size] if status == b"200" else status)
        said = said[size:]
    return got


GOOD_BEFORE_BAD = {
    "one": (get("/a") + GARBAGE, [b"/a ", b"400"]),
    "several": (get("/a") + post(b"b") + get("/c") + GARBAGE, [b"/a ", b"/post b", b"/c ", b"400"]),
    "empty lines first": (b"\r\n\r\n" + get("/a") + GARBAGE, [b"/a ", b"400"]),
    "a body like a head": (post(get("/x")) + GARBAGE, [b"/post " + get("/x"), b"400"]),
    "a bad head": (get("/a") + b"GET /b HTTP/1.1\r\n\r\n", [b"/a ", b"400"]),
    "bad chunks": (
        get("/a") + b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n",
        [b"/a ", b"400"],
    ),
    "one more after the last": (get("/a", "Connection: close") + get("/b"), [b"/a "]),
    "a head that is too large": (get("/a") + LARGE + get("/c"), [b"/a ", b"431"]),
}


@pytest.mark.parametrize("name", GOOD_BEFORE_BAD)
async def test_what_is_good_is_answered_before_what_is_bad_ends_the_connection(name: str) -> None:
    said, expected = GOOD_BEFORE_BAD[name]
    async with reading() as (connection, client):
        connection.data_received(said)
        assert await answers(client) == expected


async def test_the_same_holds_for_later_reads_of_a_connection() -> None:
    async with reading() as (connection, client):
        for _ in range(2):
            connection.data_received(get("/a"))
            assert (await client.answer())[1] == b"/a "
            await eventually(lambda: connection._idle)
        connection.data_received(get("/b") + GARBAGE)
        assert await answers(client) == [b"/b ", b"400"]


async def test_a_read_that_begins_within_a_head_is_never_read_as_if_it_began_with_one() -> None:
    async with reading() as (connection, client):
        connection.data_received(get("/a") + b"GET /b HTTP/1.1\r\nHost: a\r\nX: ")
        assert (await client.answer())[1] == b"/a "
        await eventually(lambda: connection._idle)
        connection.data_received(get("/smuggled") + GARBAGE)
        assert await answers(client) == [b"400"]


async def test_a_head_that_began_behind_chunks_is_never_read_from_its_middle() -> None:
    chunks = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n"
    begun, rest = get("/b", "X: y"), get("/smuggled")
    async with reading() as (connection, client):
        connection.data_received(chunks + begun[:-4])
        head, body = await client.answer()
        assert body == b"/a b"
        assert b"Connection: close" in head
        connection.data_received(rest)
        assert await client.rest() == b""


@pytest.mark.parametrize("pieces", [1, 4, 100])
async def test_behind_whole_chunks_a_request_is_read_however_they_came(pieces: int) -> None:
    chunks = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n"
    size = -(-len(chunks) // pieces)
    async with reading() as (connection, client):
        for start in range(0, len(chunks), size):
            connection.data_received(chunks[start : start + size])
        assert (await client.answer())[1] == b"/a b"
        connection.data_received(get("/c"))
        assert (await client.answer())[1] == b"/c "


async def test_a_first_read_may_come_before_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Client.connection_made

    def made_and_read(self: Client, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        self.data_received(get("/a") + GARBAGE)

    monkeypatch.setattr(Client, "connection_made", made_and_read)
    async with house(echo) as gateway, raw(gateway.address) as client:
        assert await answers(client) == [b"/a ", b"400"]


async def test_a_head_is_bounded_as_a_whole_also_when_it_comes_at_once() -> None:
    assert len(LARGE) > HEAD
    async with reading() as (connection, client):
        connection.data_received(LARGE)
        assert await answers(client) == [b"431"]


async def test_a_head_that_comes_while_a_request_is_in_hand_is_bounded_too() -> None:
    go = asyncio.Event()

    async def slow(request: web.BaseRequest) -> ClientAnswer:
        await go.wait()
        return await echo(request)

    async with reading(slow) as (connection, client):
        connection.data_received(get("/a") + get("/b"))
        await eventually(lambda: connection._current_request)
        for start in range(0, len(LARGE), 1000):
            connection.data_received(LARGE[start : start + 1000])
        go.set()
        assert await answers(client) == [b"/a ", b"/b ", b"431"]


async def test_a_body_that_comes_while_another_request_is_in_hand_is_no_head() -> None:
    go, body = asyncio.Event(), b"x" * 2 * HEAD

    async def slow(request: web.BaseRequest) -> ClientAnswer:
        await go.wait()
        return await echo(request)

    async with reading(slow) as (connection, client):
        connection.data_received(get("/a"))
        await eventually(lambda: connection._current_request)
        said = post(body)
        for start in range(0, len(said), 10_000):
            connection.data_received(said[start : start + 10_000])
        go.set()
        assert (await client.answer())[1] == b"/a "
        assert (await client.answer())[1] == b"/post " + body


UPGRADE = get("/up", "Connection: Upgrade", "Upgrade: whatever")


@pytest.mark.parametrize("before", [b"", b"\r\n\r\n"], ids=["", "empty lines first"])
async def test_what_stands_behind_an_offer_that_is_declined_is_a_request(before: bytes) -> None:
    async with reading() as (connection, client):
        connection.data_received(before + UPGRADE + get("/a") + get("/b")[:10])
        connection.data_received(get("/b")[10:])
        for path in (b"/up ", b"/a ", b"/b "):
            assert (await client.answer())[1] == path


async def switch(request: web.BaseRequest) -> ClientAnswer:
    await request.content.read()
    said = wire(request).tunnel()
    answer = ClientAnswer(request, 101, declared=True)
    answer.send()
    answer.send(await said.readexactly(10))
    return answer.finish()


async def test_what_stands_behind_an_offer_that_is_taken_is_the_protocol_s() -> None:
    async with reading(switch) as (connection, client):
        connection.data_received(UPGRADE + b"early")
        connection.data_received(b" bird")
        assert (await client.rest()).endswith(b"\r\n\r\nearly bird")


@pytest.mark.parametrize("protocol", [b"whatever", b"websocket"])
async def test_the_protocol_is_listened_to_also_behind_chunks(protocol: bytes) -> None:
    chunked = UPGRADE.replace(b"whatever\r\n", protocol + b"\r\nTransfer-Encoding: chunked\r\n")
    async with reading(switch) as (connection, client):
        connection.data_received(chunked + b"0\r\n\r\n")
        await client.head()
        connection.data_received(b"early")
        connection.data_received(b" bird")
        assert await client.rest() == b"early bird"


async def test_behind_an_offer_with_a_body_nothing_is_listened_to() -> None:
    said = UPGRADE.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n")
    async with reading() as (connection, client):
        connection.data_received(said)
        connection.data_received(b"body" + get("/lost?")[:10])
        connection.data_received(get("/lost?")[10:])
        assert await answers(client) == [b"/up body"]

"""Answers of a backend: one reading, whatever the pieces, or a failure of that call alone.

An input's first byte says what is asked and how the connection ends, the second how the bytes are
cut; the rest is what the backend says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from gzip import compress
from random import Random
from typing import NamedTuple

import h11

from gateway.batch import STATUS_OF, Call, Failure, RawHeaders, Reply
from gateway.config import Limits, Upstream
from gateway.upstream import Pool
from tests.fuzz.hunt import Signs
from tests.fuzz.wires import HOST, Origin, Owner, Wire, pool, turns

WORDS = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 304 x\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 x\r\n",
    b"HTTP/2.0 200\r\n", b"HTTP/1.1 600 x\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b": ",
    b"Content-Length: 3\r\n", b"content-length: 0\r\n", b"Content-Length: 5, 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n", b"Upgrade: x\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n", b"3;a=b\r\nabc\r\n", b"ffffffffffffffff\r\n", b"abc", b" folded\r\n",
    b"X: \xff\r\n", b"X: a\0b\r\n", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    b"Set-Cookie: a\r\n",
)  # fmt: skip
SEEDS = (
    b"\0\0HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"\2\1HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n",
    b"\1\2HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
    b"\0\3HTTP/1.0 404 Not Found\r\n\r\nuntil the end",
    b"\4\4HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + compress(b"abc", mtime=0),
)

METHODS = ("GET", "HEAD", "POST", "DELETE")
LIMITS = Limits(response_bytes=4096)


class Outcome(NamedTuple):
    end: str
    """`whole`, or how it failed."""
    status: int = 0
    body: bytes = b""
    fields: RawHeaders = ()


class Exchange(NamedTuple):
    """What is asked, and how the connection ends if the answer does not."""

    method: str
    reset: bool

    @property
    def call(self) -> Call:
        return Call(self.method, "/x", HOST, b"{}" if self.method == "POST" else None)


def run(data: bytes) -> Signs:
    if len(data) < 2:
        return frozenset()
    exchange = Exchange(METHODS[data[0] & 3], bool(data[0] & 4))
    return asyncio.run(_check(exchange, data[2:], Random(data[1])))


async def _check(exchange: Exchange, said: bytes, random: Random) -> Signs:
    cuts = [[said], [said[i : i + 1] for i in range(len(said))], [*_cut(said, random)]]
    whole = _one([await _collected(exchange, pieces) for pieces in cuts])
    passed = _one([await _streamed(exchange, pieces) for pieces in cuts])
    if whole.end == passed.end == "whole" and whole.fields == passed.fields:  # nothing was decoded
        assert whole == passed
    if whole.end == "whole":
        _compare_with_h11(exchange, said, whole)
    return frozenset({f"{exchange.method} {o.end} {o.status // 100}" for o in (whole, passed)})


def _one(outcomes: list[Outcome]) -> Outcome:
    """All are the same, but that an answer with two mistakes fails for either."""
    whole = {outcome for outcome in outcomes if outcome.end == "whole"}
    assert not whole or {*outcomes} == whole, outcomes
    assert len(whole) < 2, outcomes
    return outcomes[0]


def _cut(said: bytes, random: Random) -> Iterator[bytes]:
    while said:
        size = random.choice((1, 2, 3, 10, 100))
        yield said[:size]
        said = said[size:]


async def _say(wire: Wire, pieces: list[bytes], exchange: Exchange) -> None:
    """All of it, and then the end, whether it is still heard or not."""
    for piece in pieces:
        wire.say(piece)
    if wire.connection.lane is not None:
        wire.reset() if exchange.reset else wire.end()
    await turns()


# --- whole, for a bulk call ----------------------------------------------------------------------


async def _collected(exchange: Exchange, pieces: list[bytes]) -> Outcome:
    origin = Origin()
    backend = pool(origin, Upstream(connections=1), LIMITS)
    owner = Owner(backend)
    owner.lane.submit(exchange.call)
    await turns()
    (wire,) = origin.wires
    await _say(wire, pieces, exchange)
    ((_, reply),) = owner.replies  # exactly one
    assert backend.memory.held == owner.lane.held == reply.held
    owner.lane.release(reply.held)
    assert backend.memory.held == 0
    if backend.idle:
        await _next_is_its_own(owner, wire)
    await backend.close()
    return _outcome(reply)


async def _next_is_its_own(owner: Owner, wire: Wire) -> None:
    """A connection that was kept: nothing of the last answer is left in it."""
    owner.replies.clear()
    owner.lane.submit(Call("DELETE", "/next", HOST))
    await turns()
    assert wire.written.count(b"/next") == 1
    wire.say(b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"next"')
    await turns()
    ((_, reply),) = owner.replies
    assert reply.headers == ((b"Content-Length", b"6"),)
    assert (reply.status, reply.body) == (200, b'"next"')


def _outcome(reply: Reply) -> Outcome:
    if reply.failure is not None:
        assert reply.failure.sent
        assert not reply.body
        return Outcome(_told(reply.failure))
    assert 200 <= reply.status <= 599
    assert len(reply.body) <= LIMITS.response_bytes
    for name, value in reply.headers:
        assert name
        assert not {*b"\r\n\0"} & {*name, *value}
    return Outcome("whole", reply.status, reply.body, reply.headers)


def _told(failure: Failure) -> str:
    assert failure.error in STATUS_OF
    return f"{failure.error} {failure.details}"


# --- streamed, for a request that passes through -------------------------------------------------


class _Sink:
    """A client's side: the head first, then pieces, then one end."""

    def __init__(self) -> None:
        self.head: Reply | None = None
        self.body = b""
        self.end = ""

    def received(self, head: Reply | None, data: bytes, last: bool) -> None:
        assert not self.end
        assert (head is None) == (self.head is not None)
        self.head = self.head or head
        self.body += data
        self.end = "whole" if last else ""

    def failed(self, failure: Failure) -> None:
        assert not self.end
        self.end = _told(failure)


async def _streamed(exchange: Exchange, pieces: list[bytes]) -> Outcome:
    origin = Origin()
    backend: Pool = pool(origin, Upstream(connections=1), LIMITS)
    sink = _Sink()
    backend.open(exchange.call, sink)
    await turns()
    (wire,) = origin.wires
    await _say(wire, pieces, exchange)
    assert sink.end
    assert backend.memory.held == 0
    await backend.close()
    if sink.end != "whole" or sink.head is None:
        return Outcome(sink.end)
    return Outcome("whole", sink.head.status, sink.body, sink.head.headers)


# --- another parser ------------------------------------------------------------------------------


def _compare_with_h11(exchange: Exchange, said: bytes, ours: Outcome) -> None:
    """If it takes the answer at all, it takes it as we do."""
    theirs = _by_h11(exchange, said)
    if theirs is not None:
        assert theirs == ours[1:3]


def _by_h11(exchange: Exchange, said: bytes) -> tuple[int, bytes] | None:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    client.send(h11.Request(method=exchange.method, target="/x", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(said)
    if not exchange.reset:
        client.receive_data(b"")
    status, body = 0, b""
    try:
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
                if any(name == b"content-encoding" for name, _ in event.headers):
                    return None
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                return None  # it wants more, or gives up
    except h11.RemoteProtocolError:
        return None
    return status, body

"""Passed-through requests: both ways streamed, each held up by whoever is slower."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import threading
from time import monotonic
from typing import Any

import pytest

from gateway.batch import Call, Failure, Reply
from gateway.upstream import CHUNKED, Exchange, Pool
from tests.support.ports import free_port
from tests.support.raw_backend import (
    Peer,
    RawBackend,
    after_request,
    answering,
    gated,
    ok,
    silent,
)
from tests.upstream.conftest import HOST, MakePool, Owner, until

HEAD = b"HTTP/1.1 200 OK\r\n"


class Client:
    """Sends one request through a pool and keeps what is handed to it."""

    def __init__(self, pool: Pool, method: str = "GET", **fields: Any) -> None:
        self.head: Reply | None = None
        self.body = bytearray()
        self.reads: list[tuple[bool, bytes, bool]] = []
        """What each `received` brought: with the head, which bytes, the last."""
        self.failure: Failure | None = None
        self.complete = False
        self._news = asyncio.Event()
        names = ("upload", "upgrade", "invite")
        opening = {name: fields.pop(name) for name in names if name in fields}
        self.call = Call(method, fields.pop("target", "/"), HOST, **fields)
        self.exchange: Exchange = pool.open(self.call, self, **opening)

    def received(self, head: Reply | None, data: bytes, last: bool) -> None:
        assert not self.complete
        assert not self.failure
        assert (head is None) == (self.head is not None)
        self.head = head or self.head
        self.body += data
        self.reads.append((head is not None, data, last))
        self.complete = last
        self._news.set()

    def failed(self, failure: Failure) -> None:
        assert not self.complete
        assert not self.failure
        self.failure = failure
        self._news.set()

    async def over(self) -> Client:
        await self.until(lambda: self.complete or self.failure)
        return self

    async def until(self, condition: Any) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()


# --- answers -------------------------------------------------------------------------------------


async def test_an_answer_that_comes_in_one_read_is_handed_on_in_one_piece(
    pool_for: MakePool,
) -> None:
    async with RawBackend(answering(ok(b"hello"))) as backend, pool_for(backend.url) as pool:
        client = await Client(pool).over()
        assert client.reads == [(True, b"hello", True)]
        assert client.head
        assert (client.head.status, client.head.reason) == (200, b"OK")
        await Client(pool).over()
    assert len(backend.peers) == 1


async def test_an_answer_is_handed_on_as_it_comes(pool_for: MakePool) -> None:
    gate = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await gate.wait()
        await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")
        await peer.gone()

    async with RawBackend(slow) as backend, pool_for(backend.url) as pool:
        client = Client(pool)
        await client.until(lambda: client.body == b"one")
        gate.set()
        await client.over()
        assert client.body == b"onetwo"
        assert len(pool.idle) == 1


async def test_contents_stay_coded_and_fields_as_they_were(pool_for: MakePool) -> None:
    body = gzip.compress(b"hello")
    answer = ok(body, "content-ENCODING: gzip", "Content-Encoding: br", "X: 1", "x: 2")
    async with RawBackend(answering(answer)) as backend, pool_for(backend.url) as pool:
        client = await Client(pool).over()
    assert client.body == body
    assert client.head
    assert client.head.headers == (
        (b"Content-Type", b"application/json"),
        (b"content-ENCODING", b"gzip"),
        (b"Content-Encoding", b"br"),
        (b"X", b"1"),
        (b"x", b"2"),
        (b"Content-Length", str(len(body)).encode()),
    )


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", HEAD + b"Content-Length: 500\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        ("PROPFIND", b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"")),
    ],
)
async def test_an_answer_without_contents_is_over_with_its_head(
    pool_for: MakePool, method: str, answer: bytes
) -> None:
    async with RawBackend(answering(answer)) as backend, pool_for(backend.url) as pool:
        client = await Client(pool, method).over()
        assert client.reads == [(True, b"", True)]
        assert (await Client(pool, method).over()).complete
    assert len(backend.peers) == 1


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_an_answer_that_breaks_off_fails_in_its_middle(pool_for: MakePool, end: str) -> None:
    script = after_request(HEAD + b"Content-Length: 9\r\n\r\n", b"abc", end=end)
    async with RawBackend(script, answering(ok())) as backend, pool_for(backend.url) as pool:
        client = await Client(pool).over()
        assert client.head
        assert client.failure
        assert client.failure.error == "http_response_incomplete"
        assert (await Client(pool).over()).complete


async def test_an_answer_that_ends_with_its_connection_is_complete(pool_for: MakePool) -> None:
    script = after_request(HEAD + b"\r\n", b"all of it", end="close")
    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        assert (await Client(pool).over()).body == b"all of it"


async def test_a_streamed_answer_has_no_limit_and_is_not_charged(pool_for: MakePool) -> None:
    body = bytes(5_000_000)
    async with (
        RawBackend(answering(ok(body))) as backend,
        pool_for(backend.url, response_bytes=1000, batch_buffer_bytes=1000) as pool,
    ):
        client = await Client(pool).over()
        assert len(client.body) == len(body)
        assert len(client.reads) > 1
        assert pool.memory.held == 0


async def test_a_slow_client_makes_the_backend_wait(pool_for: MakePool) -> None:
    size = 30_000_000

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % size, b"x")
        await peer.send(bytes(size - 1))
        await peer.gone()

    async with RawBackend(script) as backend, pool_for(backend.url, stall=30.0) as pool:
        client = Client(pool)
        await client.until(lambda: client.body)
        client.exchange.pause()
        read = len(client.body)
        await until(lambda: backend.peers[0].backed_up)
        pool._look_at_clocks(monotonic() + 60)
        assert len(client.body) == read
        assert client.failure is None  # its time stood still
        client.exchange.resume()
        await client.over()
        assert len(client.body) == size


async def test_a_bug_in_a_sink_ends_its_exchange_alone_and_is_told_to_it(
    pool_for: MakePool,
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    class Clumsy(Client):
        def received(self, head: Reply | None, data: bytes, last: bool) -> None:
            raise RuntimeError("a bug")

    for script in (answering(ok(b"hello")), after_request(ok(b"hello")[:-1])):
        async with (
            RawBackend(script, answering(ok())) as backend,
            pool_for(backend.url) as pool,
        ):
            clumsy = await Clumsy(pool).over()
            assert isinstance(reported.pop()["exception"], RuntimeError)
            assert clumsy.failure
            assert clumsy.failure.error == "proxy_internal_error"
            assert (await Client(pool).over()).complete


# --- requests ------------------------------------------------------------------------------------


async def upload(client: Client, *pieces: bytes) -> None:
    for piece in pieces:
        if not await client.exchange.drain():
            return
        client.exchange.write(piece)
    if await client.exchange.drain():
        client.exchange.write_eof()


async def test_a_complete_request_leaves_in_one_write(pool_for: MakePool) -> None:
    first: list[bytes] = []

    async def script(peer: Peer) -> None:
        first.append(await peer.read_some())
        await peer.send(ok())
        await peer.gone()

    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        await Client(pool, "POST", body=b"hello").over()
    assert first == [
        b"POST / HTTP/1.1\r\nHost: backend.test\r\nContent-Length: 5\r\n\r\nhello",
    ]


async def test_an_upload_of_known_length_is_sent_as_it_comes(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        client = Client(pool, "POST", upload=6)
        await upload(client, b"abc", b"", b"def")
        await client.over()
        assert len(pool.idle) == 1
    assert bytes(backend.peers[0].received) == (
        b"POST / HTTP/1.1\r\nHost: backend.test\r\nContent-Length: 6\r\n\r\nabcdef"
    )


async def test_an_upload_of_unknown_length_is_sent_in_chunks(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        client = Client(pool, "POST", upload=CHUNKED)
        await upload(client, b"abc", b"", bytes(16))
        await client.over()
        assert len(pool.idle) == 1
    assert bytes(backend.peers[0].received).endswith(
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10\r\n" + bytes(16) + b"\r\n0\r\n\r\n"
    )


async def test_a_length_of_zero_is_said_when_the_client_said_it(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        await Client(pool, "DELETE", upload=0).over()
        await Client(pool, "DELETE").over()
    assert [request.header("content-length") for request in backend.requests] == [b"0", None]


async def test_no_byte_of_a_body_leaves_before_its_head(pool_for: MakePool) -> None:
    """Its sender is the next to run when it gets its connection. The backend would take a body that
    comes first for a request."""
    gate = asyncio.Event()
    async with (
        RawBackend(gated(gate)) as backend,
        pool_for(backend.url, connections=1) as pool,
    ):
        owner, sending = Owner(pool), list[asyncio.Task[None]]()
        owner.send()
        await backend.until(lambda: len(backend.requests) == 1)
        client = Client(pool, "POST", upload=5)
        owner.then = lambda reply: sending.append(asyncio.ensure_future(upload(client, b"hello")))
        gate.set()
        await client.over()
        await asyncio.gather(*sending)
        assert client.head
        assert backend.requests[1].line == b"POST / HTTP/1.1"
        assert backend.requests[1].body == b"hello"
        owner.free()


@pytest.mark.parametrize(
    ("pieces", "slug"),
    [([b"abcdefg"], "longer_than_its_length"), ([b"abc"], "shorter_than_its_length")],
)
async def test_an_upload_keeps_to_its_length_or_is_cut(
    pool_for: MakePool, pieces: list[bytes], slug: str
) -> None:
    async with (
        RawBackend(answering(ok())) as backend,
        pool_for(backend.url) as pool,
    ):
        client = Client(pool, "POST", upload=6)
        await upload(client, *pieces)
        await client.over()
        assert client.failure
        assert client.failure.details == slug
        await backend.peers[0].closed.wait()
    assert not backend.requests


async def test_a_slow_backend_makes_the_client_wait(pool_for: MakePool) -> None:
    gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await gate.wait()
        await peer.read(30_000_000)
        await peer.send(ok())
        await peer.gone()

    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        client = Client(pool, "PUT", upload=30_000_000)
        uploading = asyncio.create_task(upload(client, *[bytes(100_000)] * 300))
        await until(lambda: client.exchange._connection and not client.exchange._writable)
        assert not uploading.done()
        gate.set()
        await uploading
        await client.over()
        assert client.complete


async def test_an_early_answer_ends_the_upload(pool_for: MakePool) -> None:
    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"", status="413 Too Large"))
        await peer.gone()

    async with RawBackend(early, answering(ok())) as backend, pool_for(backend.url) as pool:
        client = Client(pool, "PUT", upload=10**9)
        assert await client.exchange.drain()
        client.exchange.write(b"some")
        await client.over()
        assert client.head
        assert client.head.status == 413
        assert not await client.exchange.drain()
        client.exchange.write(b"more")
        client.exchange.write_eof()
        assert (await Client(pool).over()).complete
    assert len(backend.peers) == 2


async def test_a_short_upload_that_is_refused_costs_no_connection(pool_for: MakePool) -> None:
    refusing = answering(ok(status="404 Not Found"))
    async with RawBackend(refusing) as backend, pool_for(backend.url) as pool:
        for _ in range(2):
            client = Client(pool, "POST", upload=4)
            assert await client.exchange.drain()
            client.exchange.write(b"some")
            client.exchange.write_eof()
            assert (await client.over()).complete
    assert len(backend.peers) == 1


async def test_an_early_answer_is_not_lost_when_the_upload_fails_before_it_is_read(
    pool_for: MakePool,
) -> None:
    asked, writing, closed = (threading.Event() for _ in range(3))

    def early(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        peer.recv(4096)
        asked.set()
        writing.wait(5)
        peer.sendall(ok(b"enough", status="413 Too Large"))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=early, args=[listener])
        thread.start()
        async with pool_for(f"http://127.0.0.1:{listener.getsockname()[1]}") as pool:
            client = Client(pool, "PUT", upload=10**9)
            assert await client.exchange.drain()
            await until(asked.is_set)
            writing.set()
            closed.wait(5)
            client.exchange.write(bytes(1_000_000))  # before anything is read
            await client.over()
            assert client.head
            assert (client.head.status, client.body) == (413, b"enough")
            assert not pool.connections
        thread.join()


async def test_an_answer_may_be_given_while_the_request_still_comes(pool_for: MakePool) -> None:
    async def echo(peer: Peer) -> None:
        await peer.head()
        await peer.send(HEAD + b"Content-Length: 6\r\n\r\n")
        for _ in range(2):
            await peer.send(await peer.read(3))
        await peer.gone()

    async with RawBackend(echo) as backend, pool_for(backend.url) as pool:
        client = Client(pool, "POST", upload=6)
        assert await client.exchange.drain()
        client.exchange.write(b"abc")
        await client.until(lambda: client.body == b"abc")
        client.exchange.write(b"def")
        client.exchange.write_eof()
        assert (await client.over()).body == b"abcdef"
        assert len(pool.idle) == 1


# --- retries and failures ------------------------------------------------------------------------


async def test_a_read_on_a_connection_that_closes_unanswered_is_repeated(
    pool_for: MakePool,
) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.request()

    async with RawBackend(once, answering(ok(b"again"))) as backend, pool_for(backend.url) as pool:
        await Client(pool).over()
        assert (await Client(pool).over()).body == b"again"
        assert pool.retries == {"closed": 1}


async def test_an_upload_is_never_repeated(pool_for: MakePool) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.head()

    async with RawBackend(once, answering(ok())) as backend, pool_for(backend.url) as pool:
        await Client(pool).over()
        client = Client(pool, "OPTIONS", upload=CHUNKED)
        assert await client.exchange.drain()
        await client.over()
        assert client.failure
        assert client.failure.error == "connection_terminated"


async def test_a_backend_that_is_not_there_is_a_failure(pool_for: MakePool) -> None:
    async with pool_for(f"http://127.0.0.1:{free_port()}") as pool:
        client = await Client(pool, "POST", upload=5).over()
        assert client.failure
        assert (client.failure.error, client.failure.sent) == ("connection_refused", False)
        assert not await client.exchange.drain()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SSH-2.0\r\n", "http_protocol_error"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "http_protocol_error"),
        (ok(b"", "X: " + "x" * 40_000), "http_response_header_section_size"),
    ],
)
async def test_a_bad_answer_is_a_failure(pool_for: MakePool, answer: bytes, error: str) -> None:
    async with RawBackend(after_request(answer)) as backend, pool_for(backend.url) as pool:
        client = await Client(pool).over()
        assert client.failure
        assert client.failure.error == error


# --- clocks --------------------------------------------------------------------------------------


async def test_the_head_has_a_deadline(pool_for: MakePool) -> None:
    async with RawBackend(silent) as backend, pool_for(backend.url, response=0.1) as pool:
        client = await Client(pool).over()
        assert client.failure
        assert client.failure.error == "http_response_timeout"


async def test_a_body_may_take_long_but_not_stand_still(pool_for: MakePool) -> None:
    async def stalls(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 100\r\n\r\n")
        for _ in range(4):
            await peer.send(b"x")
            await asyncio.sleep(0.1)
        await peer.gone()

    async with (
        RawBackend(stalls) as backend,
        pool_for(backend.url, response=0.2, stall=0.25) as pool,
    ):
        client = await Client(pool).over()
        assert client.failure
        assert client.failure.error == "http_response_timeout"
        assert client.body == b"xxxx"


async def test_an_upload_that_nobody_reads_stands_still(pool_for: MakePool) -> None:
    async def never_reads(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with RawBackend(never_reads) as backend, pool_for(backend.url, stall=0.2) as pool:
        client = Client(pool, "PUT", upload=30_000_000)
        await upload(client, *[bytes(100_000)] * 300)
        await client.over()
        assert client.failure
        assert client.failure.error == "http_response_timeout"


async def test_an_upload_has_the_time_of_a_stall_not_of_an_answer(pool_for: MakePool) -> None:
    """Its client may be slow, and until all of it has come there is little to answer."""
    async with (
        RawBackend(answering(ok())) as backend,
        pool_for(backend.url, response=0.0, stall=60.0) as pool,
    ):
        client = Client(pool, "PUT", upload=3)
        await client.exchange.drain()
        (connection,) = pool.connections
        assert connection.deadline == connection.started + 60.0
        client.exchange.abort()


async def test_while_a_client_says_nothing_the_backend_is_not_late(pool_for: MakePool) -> None:
    """How long it may be silent in the middle of a body is for its own side to say."""
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        client = Client(pool, "PUT", upload=3)
        await client.exchange.drain()
        pool._look_at_clocks(monotonic() + 3600)
        client.exchange.write(b"abc")
        client.exchange.write_eof()
        assert (await client.over()).complete


async def test_a_client_that_waits_to_be_invited_waits_for_the_backend(pool_for: MakePool) -> None:
    async with RawBackend(silent) as backend, pool_for(backend.url) as pool:
        client = Client(pool, "PUT", upload=3, invite=lambda: None)
        await client.exchange.drain()
        pool._look_at_clocks(monotonic() + 3600)
        assert client.failure
        assert client.failure.error == "http_response_timeout"


@pytest.mark.parametrize("kind", ["an event stream", "a tunnel"])
async def test_silence_is_no_fault_of(pool_for: MakePool, kind: str) -> None:
    head = HEAD + b"Content-Type: text/event-stream; charset=utf-8\r\n\r\n"
    if kind == "a tunnel":
        head = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    async with (
        RawBackend(after_request(head)) as backend,
        pool_for(backend.url, response=0.1, stall=0.1) as pool,
    ):
        client = Client(pool, upgrade=True)
        await client.until(lambda: client.head)
        await asyncio.sleep(0.4)
        assert not client.failure
        # It takes nobody's place.
        assert len(pool.detached) == 1
        assert pool.busy == 0
        client.exchange.abort()
        await backend.peers[0].closed.wait()


async def test_an_event_stream_that_ends_is_not_kept(pool_for: MakePool) -> None:
    head = HEAD + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head, b"5\r\ndata:\r\n")
        await gate.wait()
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    gate = asyncio.Event()
    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        client = Client(pool)
        await client.until(lambda: client.body)
        gate.set()
        assert (await client.over()).complete
        assert not pool.idle
        assert not pool.detached


# --- turns ---------------------------------------------------------------------------------------


async def test_streams_and_batches_take_turns(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok())) as backend,
        pool_for(backend.url, connections=1) as pool,
    ):
        owner = Owner(pool)
        for number in range(3):
            owner.send(target=f"/batch/{number}")
        clients = [Client(pool, target=f"/stream/{number}") for number in range(2)]
        for client in clients:
            await client.over()
        await owner.count(3)
    assert [request.target for request in backend.requests] == [
        "/batch/0",
        "/stream/0",
        "/stream/1",
        "/batch/1",
        "/batch/2",
    ]


async def test_a_stream_waits_a_second_for_its_turn(pool_for: MakePool) -> None:
    async with (
        RawBackend(silent) as backend,
        pool_for(backend.url, connections=1) as pool,
    ):
        owner = Owner(pool)
        owner.send()
        await until(lambda: pool.busy)
        client = await Client(pool).over()
        assert client.failure
        assert (client.failure.error, client.failure.code) == ("connection_limit_reached", 503)
        assert not client.failure.sent
        owner.lane.close()


async def test_while_a_connection_is_being_made_a_stream_waits_for_that(
    pool_for: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_for("http://crm.test", connections=1, connect=15.0) as pool:
        monkeypatch.setattr(pool.origin, "connect", lambda make: asyncio.Event().wait())
        client = Client(pool)
        await until(lambda: pool.connecting)
        for seconds in (15.0, 17.0):
            pool._look_at_clocks(client.exchange.opened + seconds)
            assert bool(client.failure) == (seconds == 17.0)


async def test_streams_that_wait_are_bounded_in_number(pool_for: MakePool) -> None:
    async with (
        RawBackend(silent) as backend,
        pool_for(backend.url, connections=1, waiting=2) as pool,
    ):
        owner = Owner(pool)
        owner.send()
        await until(lambda: pool.busy)
        waiting = [Client(pool) for _ in range(2)]
        refused = Client(pool)
        early = refused.failure
        assert early is None  # never from within `open`
        await refused.over()
        assert refused.failure
        assert refused.failure.error == "connection_limit_reached"
        assert not any(client.failure for client in waiting)  # nobody's time was up
        for client in waiting:
            client.exchange.abort()
        assert pool.waiting == 0
        owner.lane.close()


async def test_a_connection_that_made_room_for_another_ends_with_its_call(
    pool_for: MakePool,
) -> None:
    """Else there would be one too many for as long as it lives."""
    async with (
        RawBackend(answering(ok())) as backend,
        pool_for(backend.url, connections=1) as pool,
    ):
        slow = Client(pool, "PUT", upload=3)
        await slow.exchange.drain()
        other = Client(pool)
        pool._look_at_clocks(slow.exchange.opened + 0.5)
        await other.over()
        assert (pool.extra, len(pool.connections)) == (1, 2)
        await upload(slow, b"abc")
        await slow.over()
        assert (pool.extra, len(pool.connections)) == (0, 1)


# --- clients that leave --------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["waiting for a head", "in the body", "uploading"])
async def test_when_the_client_goes_its_connection_is_closed_at_once(
    pool_for: MakePool, phase: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        if phase == "in the body":
            await peer.send(HEAD + b"Content-Length: 9\r\n\r\nabc")
        await peer.gone()

    async with RawBackend(script, answering(ok())) as backend, pool_for(backend.url) as pool:
        client = Client(pool, "PUT", upload=9 if phase == "uploading" else None)
        await until(lambda: pool.busy)
        if phase == "in the body":
            await client.until(lambda: client.body)
        client.exchange.abort()
        await backend.peers[0].closed.wait()
        assert not client.failure
        assert not client.complete
        assert (await Client(pool).over()).complete


async def test_a_client_that_goes_before_its_turn_is_never_sent(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        Client(pool).exchange.abort()
        await until(lambda: pool.idle)
    assert not backend.requests


# --- tunnels -------------------------------------------------------------------------------------

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
UPGRADE = (("Connection", "Upgrade"), ("Upgrade", "echo"))


async def test_after_101_bytes_go_both_ways_as_they_are(pool_for: MakePool) -> None:
    async def echo(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCHING + b"HTTP/1.1 200 OK\r\n\r\n")
        while data := await peer.read_some():
            await peer.send(data)

    async with RawBackend(echo) as backend, pool_for(backend.url) as pool:
        client = Client(pool, extra=UPGRADE, upgrade=True)
        await client.until(lambda: client.body == b"HTTP/1.1 200 OK\r\n\r\n")
        assert client.head
        assert client.head.status == 101
        for size in (1, 1000, 300_000):
            expected = client.body + bytes(size)
            assert await client.exchange.drain()
            client.exchange.write(bytes(size))
            await client.until(lambda want=expected: client.body == want)
        client.exchange.write_eof()
        await client.over()
        assert client.complete
        assert not pool.detached
    assert backend.requests[0].header("upgrade") == b"echo"


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_tunnel_ends_with_the_backend(pool_for: MakePool, end: str) -> None:
    async with (
        RawBackend(after_request(SWITCHING, b"bye", end=end)) as backend,
        pool_for(backend.url) as pool,
    ):
        client = await Client(pool, upgrade=True).over()
        assert client.complete == (end == "close")
        assert (client.failure is not None) == (end == "reset")


async def test_an_upgrade_that_is_declined_is_an_ordinary_answer(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok(b"no"))) as backend, pool_for(backend.url) as pool:
        client = await Client(pool, extra=UPGRADE, upgrade=True).over()
        assert client.body == b"no"
        assert (await Client(pool).over()).complete
    assert len(backend.peers) == 1


async def test_101_without_its_upgrade_is_garbled(pool_for: MakePool) -> None:
    async with (
        RawBackend(after_request(b"HTTP/1.1 101 Switching\r\n\r\nraw")) as backend,
        pool_for(backend.url) as pool,
    ):
        client = await Client(pool, upgrade=True).over()
        assert client.failure
        assert client.failure.error == "http_protocol_error"

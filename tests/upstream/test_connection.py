"""What one answer may look like, and what every other one becomes (RELIABILITY parts 5.3 and 9)."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from tests.support.raw_backend import Peer, RawBackend, after_request, answering, ok, silent
from tests.upstream.conftest import MakePool, Owner, failure, until

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


# --- good answers --------------------------------------------------------------------------------


async def test_an_answer_is_status_reason_fields_as_spelled_and_body(pool_for: MakePool) -> None:
    answer = (
        b"HTTP/1.1 201 Made It\r\nX-oDD: \ta \t\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nEmpty:\r\n"
    )
    answer += b"Content-Length: 3\r\n\r\nabc"
    async with RawBackend(answering(answer)) as backend, pool_for(backend.url) as pool:
        reply = await Owner(pool).get()
    assert (reply.status, reply.reason, reply.body) == (201, b"Made It", b"abc")
    assert reply.headers == (
        (b"X-oDD", b"a"),
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"Empty", b""),
        (b"Content-Length", b"3"),
    )
    assert reply.failure is None
    assert reply.seconds > 0


GOOD = {
    "length": (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "chunks": (CHUNKED + b"2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\n\r\n", b"hello"),
    "chunks and trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", b"hello"),
    "no reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "HTTP/1.0 kept alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "empty": (HEAD + b"Content-Length: 0\r\n\r\n", b""),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304 with the length of what it stands for": (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
        b"",
    ),
    "interim answers first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + ok(b"hello"),
        b"hello",
    ),
    "sixteen interim answers": (b"HTTP/1.1 102 P\r\n\r\n" * 16 + ok(b"hello"), b"hello"),
    "a header of 16 KiB": (ok(b"hello", "X: " + "x" * 16384), b"hello"),
    "an offer to upgrade": (ok(b"hello", "Upgrade: h2c", "Connection: Upgrade"), b"hello"),
}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "by bytes"])
@pytest.mark.parametrize(("answer", "body"), GOOD.values(), ids=GOOD)
async def test_a_good_answer_leaves_its_connection_for_the_next_call(
    pool_for: MakePool, answer: bytes, body: bytes, whole: bool
) -> None:
    if len(answer) > 10_000 and not whole:
        pytest.skip("too many pieces")
    pieces = [answer] if whole else [bytes([byte]) for byte in answer]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.request()
        await peer.send(ok(b"next"))
        await peer.gone()

    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        first = await owner.get()
        second = await owner.get(method="POST")
    assert (first.body, second.body) == (body, b"next")
    assert len(backend.peers) == 1


async def test_head_ends_with_its_head_and_keeps_its_length(pool_for: MakePool) -> None:
    head = HEAD + b"Content-Length: 500\r\n\r\n"
    async with RawBackend(answering(head, ok(b"next"))) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        reply = await owner.get(method="HEAD")
        assert (reply.body, reply.header(b"content-length")) == (b"", b"500")
        assert (await owner.get()).body == b"next"
    assert len(backend.peers) == 1


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_without_a_length_ends_with_the_connection(
    pool_for: MakePool, version: bytes
) -> None:
    script = after_request(b"HTTP/" + version + b" 200 OK\r\n\r\nall ", b"of it", end="close")
    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        assert (await Owner(pool).get()).body == b"all of it"


CODED = {
    "gzip": gzip.compress(b"hello" * 1000),
    "x-gzip": gzip.compress(b"hello" * 1000),
    "gzip in two members": gzip.compress(b"hello" * 400) + gzip.compress(b"hello" * 600),
    "deflate": zlib.compress(b"hello" * 1000),
    "deflate without its wrapper": zlib.compress(b"hello" * 1000, wbits=-15),
}


@pytest.mark.parametrize("name", CODED)
async def test_a_content_coding_is_undone_and_no_field_still_claims_it(
    pool_for: MakePool, name: str
) -> None:
    answer = ok(CODED[name], f"Content-Encoding: {name.split()[0]}")
    async with RawBackend(answering(answer)) as backend, pool_for(backend.url) as pool:
        reply = await Owner(pool).get()
    assert reply.body == b"hello" * 1000
    assert reply.header(b"content-encoding") is None
    assert reply.header(b"content-length") is None


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", HEAD + b"Content-Encoding: br\r\nContent-Length: 9\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Encoding: gzip\r\n\r\n"),
        ("GET", ok(b"", "Content-Encoding: gzip")),
        ("GET", ok(b"", "Content-Encoding: identity")),
    ],
)
async def test_a_coding_of_no_content_is_nothing_to_undo(
    pool_for: MakePool, method: str, answer: bytes
) -> None:
    async with RawBackend(answering(answer)) as backend, pool_for(backend.url) as pool:
        assert (await Owner(pool).get(method=method)).failure is None


# --- bad answers ---------------------------------------------------------------------------------

BOMB = gzip.compress(bytes(3_000_000))

BAD = {
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "http_protocol_error"),
    "RTSP": (b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "HTTP/2.0": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "HTTP/0.9": (b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "status 000": (b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "status 099": (b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "status 600": (b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "status 1000": (b"HTTP/1.1 1000 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "no status": (b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "http_protocol_error"),
    "obs-fold": (HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "space before colon": (HEAD + b"X : a\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "NUL in a value": (HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "CR in a value": (HEAD + b"X: a\rb\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
    "two lengths": (
        HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "http_protocol_error",
    ),
    "a list of lengths": (HEAD + b"Content-Length: 1, 1\r\n\r\na", "http_protocol_error"),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", "http_protocol_error"),
    "an endless length": (
        HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        "http_protocol_error",
    ),
    "length and chunks": (
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "http_protocol_error",
    ),
    "chunked twice": (
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "http_protocol_error",
    ),
    "gzip, chunked": (
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "http_protocol_error",
    ),
    "transfer coding xchunked": (
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\nabc",
        "http_protocol_error",
    ),
    "chunks from HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "http_protocol_error",
    ),
    "bad chunk size": (CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n", "http_protocol_error"),
    "huge chunk size": (CHUNKED + b"f" * 20 + b"\r\nabc", "http_protocol_error"),
    "chunk longer than its size": (CHUNKED + b"1\r\nabc\r\n0\r\n\r\n", "http_protocol_error"),
    "101 unasked": (
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw",
        "http_protocol_error",
    ),
    "interim answers without end": (b"HTTP/1.1 102 P\r\n\r\n" * 17, "http_protocol_error"),
    "HTTP/2.0 after an interim answer": (
        b"HTTP/1.1 100 C\r\n\r\nHTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "http_protocol_error",
    ),
    "a head too large": (ok(b"", "X: " + "x" * 32768), "http_response_header_section_size"),
    "too many fields": (ok(b"", *["X: 1"] * 129), "http_response_header_section_size"),
    "a body over the limit": (ok(bytes(1_000_001)), "http_response_body_size"),
    "chunks over the limit": (
        CHUNKED
        + b"186a1\r\n"
        + bytes(100_001)
        + b"\r\n"
        + (b"186a0\r\n" + bytes(100_000) + b"\r\n") * 9,
        "http_response_body_size",
    ),
    "a bomb": (ok(BOMB, "Content-Encoding: gzip"), "http_response_body_size"),
    "a coding we do not know": (ok(b"abc", "Content-Encoding: br"), "http_response_content_coding"),
    "two codings": (
        ok(gzip.compress(gzip.compress(b"a")), "Content-Encoding: gzip, gzip"),
        "http_response_content_coding",
    ),
    "two codings in two fields": (
        ok(b"abc", "Content-Encoding: gzip", "Content-Encoding: gzip"),
        "http_response_content_coding",
    ),
    "a coding that is none": (
        ok(b"hello", "Content-Encoding: gzip"),
        "http_response_content_coding",
    ),
    "a coded body cut short": (
        ok(gzip.compress(b"hello" * 1000)[:-9], "Content-Encoding: gzip"),
        "http_response_content_coding",
    ),
}


@pytest.mark.parametrize(("answer", "error"), BAD.values(), ids=BAD)
async def test_a_bad_answer_is_a_failure_of_that_call_alone(
    pool_for: MakePool, answer: bytes, error: str
) -> None:
    async with (
        RawBackend(after_request(answer), answering(ok())) as backend,
        pool_for(backend.url, response_bytes=1_000_000) as pool,
    ):
        owner = Owner(pool)
        bad = await owner.get()
        assert failure(bad)[0] == error
        assert bad.failure
        assert bad.failure.sent
        assert (bad.body, bad.headers, bad.held, owner.lane.held) == (b"", (), 0, 0)
        assert (await owner.get()).status == 200
    assert len(backend.peers) == 2


@pytest.mark.parametrize("name", ["a head too large", "too many fields", "bad chunk size", "RTSP"])
async def test_a_bad_answer_is_as_bad_in_small_pieces(pool_for: MakePool, name: str) -> None:
    answer, error = BAD[name]
    pieces = [answer[:1], *(answer[i : i + 1000] for i in range(1, len(answer), 1000))]
    script = after_request(*pieces)
    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        assert failure(await Owner(pool).get())[0] == error


async def test_a_later_answer_of_a_connection_in_pieces_is_as_bad(pool_for: MakePool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.request()
        await peer.send(b"HTTP/")
        await until(lambda: owner.lane.held)
        await peer.send(b"2.0 200 OK\r\nContent-Length: 0\r\n\r\n")
        await peer.gone()

    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        assert (await owner.get()).status == 200
        owner.free()
        assert failure(await owner.get()) == ("http_protocol_error", "version")
    assert len(backend.peers) == 1


@pytest.mark.parametrize(
    "endless",
    [CHUNKED + b"1;" + b"x" * 70_000, CHUNKED + b"0\r\nX: " + b"x" * 70_000],
    ids=["a chunk extension", "a trailer"],
)
async def test_what_stands_between_chunks_is_bounded(pool_for: MakePool, endless: bytes) -> None:
    script = after_request(*[endless[i : i + 9000] for i in range(0, len(endless), 9000)])
    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        assert failure(await Owner(pool).get()) == ("http_protocol_error", "endless_framing")


async def test_chunks_of_a_byte_each_take_little_more_than_what_they_bring(
    pool_for: MakePool,
) -> None:
    million = CHUNKED + b"1\r\nx\r\n" * 1_000_000 + b"0\r\n\r\n"
    async with RawBackend(answering(million)) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        tracemalloc.start()
        reply = await owner.get()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(reply.body) == 1_000_000
        assert peak < 40_000_000
        owner.free()
        assert (await owner.get()).failure is None  # reading went on
    assert len(backend.peers) == 1


# --- answers that break off ----------------------------------------------------------------------

BROKEN = {
    "before the first byte": ([], "connection_terminated"),
    "in the head": ([HEAD + b"Content-Le"], "http_response_incomplete"),
    "in a body with a length": (
        [HEAD + b"Content-Length: 9\r\n\r\n", b"abc"],
        "http_response_incomplete",
    ),
    "in a chunk": ([CHUNKED, b"5\r\nhe"], "http_response_incomplete"),
    "before the last chunk": ([CHUNKED, b"5\r\nhello\r\n"], "http_response_incomplete"),
    "after an interim answer": ([b"HTTP/1.1 100 Continue\r\n\r\n"], "connection_terminated"),
}


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(("pieces", "error"), BROKEN.values(), ids=BROKEN)
async def test_an_answer_that_breaks_off_is_a_failure(
    pool_for: MakePool, pieces: list[bytes], error: str, end: str
) -> None:
    async with (
        RawBackend(after_request(*pieces, end=end), answering(ok())) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        reply = await owner.get()
        assert failure(reply)[0] == error
        assert reply.failure
        assert reply.failure.sent
        assert owner.lane.held == 0
        assert (await owner.get()).status == 200


async def test_a_reset_is_no_end_of_an_answer_without_a_length(pool_for: MakePool) -> None:
    script = after_request(HEAD + b"\r\n", b"half of", end="reset")
    async with RawBackend(script) as backend, pool_for(backend.url) as pool:
        assert failure(await Owner(pool).get())[0] == "http_response_incomplete"


# --- more than one answer ------------------------------------------------------------------------

EXTRA = {
    "a second answer": ok(b"first") + ok(b"second"),
    "the beginning of a second answer": ok(b"first") + b"H",
    "junk": ok(b"first") + b"junk",
    "a body after HEAD's answer": None,
    "bytes after a closing answer": ok(b"first", "Connection: close") + b"HTTP/1.1 2",
    "a body after 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nsecond",
}


@pytest.mark.parametrize("name", EXTRA)
async def test_whatever_follows_an_answer_is_nobodys_answer(pool_for: MakePool, name: str) -> None:
    method = "HEAD" if EXTRA[name] is None else "GET"
    answer = EXTRA[name] or HEAD + b"Content-Length: 6\r\n\r\nsecond"
    async with (
        RawBackend(after_request(answer), answering(ok(b"third"))) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        first = await owner.get(method=method)
        assert first.failure is None
        assert first.body in (b"first", b"")
        assert (await owner.get()).body == b"third"
    assert len(backend.peers) == 2


@pytest.mark.parametrize(
    ("field", "then"),
    [
        (b"Content-Length: 6", b"third"),
        (b"Transfer-Encoding: chunked", b"third"),
        (b"Content-Length: 0", b"second"),
        (b"Server: x", b"second"),
    ],
)
async def test_a_body_that_204_announces_may_yet_come_and_is_nobodys_answer(
    pool_for: MakePool, field: bytes, then: bytes
) -> None:
    empty = b"HTTP/1.1 204 No Content\r\n" + field + b"\r\n\r\n"
    async with (
        RawBackend(answering(empty, ok(b"second")), answering(ok(b"third"))) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        assert (await owner.get()).status == 204
        assert (await owner.get()).body == then


async def test_a_slow_head_ends_at_the_deadline_however_it_drips(pool_for: MakePool) -> None:
    script = after_request(HEAD + b"X: ", *[b"x"] * 20)
    async with (
        RawBackend(script, silent) as backend,
        pool_for(backend.url, response=0.2) as pool,
    ):
        owner = Owner(pool)
        drip, silence = owner.send(), owner.send()
        for call in (drip, silence):
            assert failure(await owner.reply(call))[0] == "http_response_timeout"

"""A backend whose answer is wrong: each fault for a read and a write of a bulk call among others
that go well, and for a request that passes through."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any, NamedTuple

import pytest

from gateway.config.settings import Limits, Timeouts, UpstreamTls
from tests.faults.conftest import SetStage
from tests.faults.stage import WELL, Fault, committing, errors, statuses
from tests.support.raw_backend import Peer, RawBackend, Request, ok
from tests.upstream.test_origin import CA, server

HEAD = b"HTTP/1.1 200 OK\r\n"
JSON = HEAD + b"Content-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
LIMITS = Limits(response_bytes=100_000)
TIMEOUTS = Timeouts(response=0.5, stall=0.5)
"""For the faults whose cause is silence."""

CUT = "cut"
"""An answer that has begun, and ends so that nobody can take it for whole."""
PROTOCOL = "http_protocol_error"
INCOMPLETE = "http_response_incomplete"
TERMINATED = "connection_terminated"
TIMEOUT = "http_response_timeout"
CODING = "http_response_content_coding"
BIG = "http_response_body_size"
BIG_HEAD = "http_response_header_section_size"


def says(*pieces: bytes, end: str = "stay") -> Fault:
    """Sends this; then waits for what comes next, closes, or resets."""

    async def fault(peer: Peer) -> None:
        await peer.send(*pieces)
        if end == "reset":
            peer.reset()
        elif end == "close":
            peer.close()

    return fault


async def drips(peer: Peer) -> None:
    """A head that goes on for ever, a byte at a time."""
    await peer.send(JSON + b"X: ")
    while True:
        await peer.send(b"x")
        await asyncio.sleep(0.02)


class Wrong(NamedTuple):
    fault: Fault
    bulk: int
    error: str
    passed: int | str
    """A status, or `CUT`."""


def same(fault: Fault, error: str, status: int = 502) -> Wrong:
    """The same status for both."""
    return Wrong(fault, status, error, status)


FAULTS = {
    # --- it breaks off
    "closed before the head": same(says(end="close"), TERMINATED),
    "reset before the head": same(says(end="reset"), TERMINATED),
    "closed in the head": same(says(HEAD + b"Content-Le", end="close"), INCOMPLETE),
    "reset in the head": same(says(HEAD + b"Content-Le", end="reset"), INCOMPLETE),
    "closed in the body": Wrong(
        says(JSON + b"Content-Length: 9\r\n\r\n{}", end="close"), 502, INCOMPLETE, CUT
    ),
    "reset in the body": Wrong(
        says(JSON + b"Content-Length: 9\r\n\r\n{}", end="reset"), 502, INCOMPLETE, CUT
    ),
    "closed in a chunk": Wrong(says(CHUNKED + b"5\r\n{}", end="close"), 502, INCOMPLETE, CUT),
    "no last chunk": Wrong(says(CHUNKED + b"2\r\n{}\r\n", end="close"), 502, INCOMPLETE, CUT),
    "reset in a body that ends with the connection": Wrong(
        says(JSON + b"\r\n", b"{}", end="reset"), 502, INCOMPLETE, CUT
    ),
    "only an interim answer": same(says(b"HTTP/1.1 100 C\r\n\r\n", end="close"), TERMINATED),
    # --- it is no HTTP
    "garbage": same(says(b"SSH-2.0-OpenSSH_9.2\r\n"), PROTOCOL),
    "HTTP/2.0": same(says(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), PROTOCOL),
    "status 099": same(says(b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"), PROTOCOL),
    "bare LF": same(says(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"), PROTOCOL),
    "obs-fold": same(says(HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n"), PROTOCOL),
    "two lengths": same(says(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\naa"), PROTOCOL),
    "length and chunks": same(
        says(HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), PROTOCOL
    ),
    "bad chunk": Wrong(says(CHUNKED, b"2\r\n{}\r\nzz\r\n"), 502, PROTOCOL, CUT),
    "endless interim answers": same(says(b"HTTP/1.1 102 P\r\n\r\n" * 17), PROTOCOL),
    "101 unasked": same(
        says(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw"), PROTOCOL
    ),
    # --- it is too much
    "head too large": same(says(ok(b"", "X: " + "x" * 32768)), BIG_HEAD),
    "too many headers": same(says(ok(b"", *["X: 1"] * 129)), BIG_HEAD),
    "body too large": Wrong(says(ok(bytes(100_001))), 502, BIG, 200),
    "a bomb": Wrong(
        says(ok(gzip.compress(bytes(1_000_000)), "Content-Encoding: gzip")), 502, BIG, 200
    ),
    # --- it is coded in some way
    "a coding nobody knows": Wrong(says(ok(b"{}", "Content-Encoding: br")), 502, CODING, 200),
    "a coding that lies": Wrong(says(ok(b"{}", "Content-Encoding: gzip")), 502, CODING, 200),
    "a coding cut short": Wrong(
        says(ok(gzip.compress(b"[1, 2, 3]")[:-9], "Content-Encoding: gzip")), 502, CODING, 200
    ),
    # --- it is slow
    "silence": same(says(), TIMEOUT, 504),
    "slow head": same(drips, TIMEOUT, 504),
    "slow body": Wrong(says(JSON + b"Content-Length: 9\r\n\r\n{}"), 504, TIMEOUT, CUT),
}
SLOW = ("silence", "slow head", "slow body")


def settings(name: str) -> dict[str, Any]:
    upstream = {"timeouts": TIMEOUTS} if name in SLOW else {}
    return {"limits": LIMITS, "upstream": upstream}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_bad_answer_is_a_result_of_its_subrequest_alone(name: str, stage: SetStage) -> None:
    wrong = FAULTS[name]
    backend = RawBackend(committing(wrong.fault))
    async with backend, stage(backend.url, **settings(name)) as it:
        it.watch(backend)
        results = await it.results("GET well", "POST fault", "GET well", "GET fault", "POST well")
        assert statuses(results) == [200, wrong.bulk, 200, wrong.bulk, 200]
        assert errors(results) == ["", wrong.error, "", wrong.error, ""]
        assert [r.sent for r in results] == [None, True, None, True, None]
        await it.works()


@pytest.mark.parametrize("name", FAULTS)
async def test_a_bad_answer_to_a_passed_request_is_an_error_or_visibly_cut(
    name: str, stage: SetStage
) -> None:
    wrong = FAULTS[name]
    backend = RawBackend(committing(wrong.fault))
    async with backend, stage(backend.url, **settings(name)) as it:
        it.watch(backend)
        for method in ("GET", "POST"):
            passed = await it.passed(method, "fault", b"" if method == "GET" else b"{}")
            if wrong.passed == CUT:
                assert passed.cut
            else:
                assert (passed.status, passed.cut) == (wrong.passed, False)
                assert passed.error == ("" if wrong.passed == 200 else wrong.error)
        await it.works()


async def test_tls_that_is_cut_without_a_goodbye_is_no_end_of_an_answer(stage: SetStage) -> None:
    """Anybody on the way can cut a TCP connection; only the backend can say goodbye."""

    async def cut(peer: Peer) -> None:
        await peer.send(JSON + b"\r\n", b"[1, 2")
        peer.abort()

    tls = {"tls": UpstreamTls(ca=CA)}
    async with RawBackend(committing(cut), tls=server()) as backend:
        async with stage(backend.url, upstream=tls) as it:
            it.watch(backend)
            results = await it.results("GET fault", "POST fault", "GET well")
            assert statuses(results) == [502, 502, 200]
            assert errors(results) == [INCOMPLETE, INCOMPLETE, ""]
            assert (await it.passed("GET", "fault")).cut
            await it.works()


# --- answers that are good all the same -----------------------------------------------------------

TOO_DEEP = "[" * 50_000 + "]" * 50_000
"""Deeper than the interpreter's bound, also where hypothesis has raised it in this process."""


class Odd(NamedTuple):
    fault: Fault
    contents: Any
    """Of its entry."""
    body: bytes = b"[1]"
    """Of the passed answer."""


ODD = {
    "an interim answer before": Odd(says(b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n" + ok(b"[1]")), [1]),
    "it ends with the connection": Odd(says(JSON + b"\r\n[1]", end="close"), [1]),
    "longer than announced": Odd(says(ok(b"[1]") + b"[2]"), [1]),
    "two at once": Odd(says(ok(b"[1]") + ok(b"[2]")), [1]),
    "another after closing": Odd(says(ok(b"[1]", "Connection: close") + ok(b"[2]")), [1]),
    "it says JSON and is none": Odd(says(ok(b"{'no'}")), "{'no'}", b"{'no'}"),
    "it says JSON and is too deep": Odd(says(ok(TOO_DEEP.encode())), TOO_DEEP, TOO_DEEP.encode()),
    "it says JSON and is no UTF-8": Odd(says(ok(b'"\xff"')), "Iv8i", b'"\xff"'),
}


@pytest.mark.parametrize("name", ODD)
async def test_what_is_odd_about_an_answer_stays_with_it(name: str, stage: SetStage) -> None:
    odd = ODD[name]
    async with RawBackend(committing(odd.fault)) as backend, stage(backend.url) as it:
        it.watch(backend)
        results = await it.results("GET fault", "POST fault", "GET well", "POST well")
        assert statuses(results) == [200] * 4
        contents = [odd.contents, odd.contents, {"well": 1}, {"well": 1}]
        assert [r.contents for r in results] == contents
        for method in ("GET", "POST"):
            passed = await it.passed(method, "fault")
            assert (passed.status, passed.body, passed.cut) == (200, odd.body, False)
        await it.works()


@pytest.mark.parametrize("status", ["401 Unauthorized", "429 Too Many", "503 Unavailable"])
async def test_a_status_of_the_backends_is_passed_on_and_never_asked_twice(
    status: str, stage: SetStage
) -> None:
    fault = says(ok(b"[1]", "Retry-After: 7", status=status))
    async with RawBackend(committing(fault)) as backend, stage(backend.url) as it:
        it.watch(backend)
        results = await it.results("GET well", "POST fault", "GET fault")
        assert statuses(results) == [200, int(status[:3]), int(status[:3])]
        assert (await it.passed("GET", "fault")).status == int(status[:3])
        assert len(backend.requests) == 4
        await it.works()


# --- kept-alive connections ----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_kept_connection_that_closes_as_the_next_goes_out(
    end: str, stage: SetStage
) -> None:
    """A read is repeated on a new connection; a write fails and says that it was sent."""

    async def second_ends_it(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(WELL))
        await peer.request()
        if end == "reset":
            peer.reset()

    async with RawBackend(second_ends_it) as backend, stage(backend.url) as it:
        it.watch(backend)
        results = await it.results("POST well", "GET well", "POST well", "POST well")
        assert statuses(results) == [200, 200, 502, 200]
        assert (results[2].error, results[2].sent) == (TERMINATED, True)
        assert (await it.passed("GET", "well")).status == 200
        assert (await it.passed("POST", "well", b"{}")).status == 502
        backend.scripts = [committing(says())]
        await it.works()


async def test_what_comes_on_an_idle_connection_is_nobodys_answer(stage: SetStage) -> None:
    said = asyncio.Event()

    async def speaks_unasked(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(WELL))
        await said.wait()
        await peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 6\r\n\r\nforged")
        await peer.gone()

    scripts = (speaks_unasked, committing(says()))
    async with RawBackend(*scripts) as backend, stage(backend.url) as it:
        it.watch(backend)
        assert statuses(await it.results("POST well")) == [200]
        said.set()
        await backend.until(lambda: backend.peers[0].closed.is_set())
        await it.works()


# --- answers that overtake their request ---------------------------------------------------------


async def test_an_answer_before_the_request_was_sent(stage: SetStage) -> None:
    """It is that request's answer, and nothing more goes out on that connection."""

    async def hasty(peer: Peer) -> None:
        while True:
            request = Request(await peer.head(), b"")
            if request.target.startswith("/hasty"):
                await peer.send(ok(b"[1]", "Connection: close", status="413 Too Large"))
                return await peer.gone()
            await peer.read(int(request.header("content-length") or 0))
            await peer.send(ok(WELL))

    async with RawBackend(hasty) as backend, stage(backend.url) as it:
        results = await it.results("POST hasty", "POST hasty", data=f'"{"x" * 900_000}"')
        assert statuses(results) == [413, 413]
        assert (await it.passed("POST", "hasty", b"x" * 3_000_000)).status == 413
        await it.works()

"""Pass-through: what goes in comes out, both ways, over real sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway import headers
from gateway.admission import Admission
from gateway.batch import Headers, PassRecord, RawHeaders, Trace
from gateway.config.settings import Limits, Shed, Timeouts, Upstream
from gateway.headers import HeaderPolicy, TrustedProxies
from gateway.proxy import Proxy
from gateway.proxy.fields import Downward, Upward
from gateway.proxy.passage import Passage
from gateway.reception import Manners
from gateway.server.worker import Gateway
from gateway.target import PathRules, Pattern
from gateway.upstream import Pool, encode
from tests.front import Raw, eventually, get, house, raw
from tests.support.ports import free_port
from tests.support.raw_backend import (
    Peer,
    RawBackend,
    Request,
    Script,
    after_request,
    answering,
    ok,
)
from tests.support.rings import remain, uncollected

NAME = "bulk-gateway-test"
VIA = f"Via: 1.1 {NAME}\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 2**20


class Records:
    """A recorder that keeps what it is told of requests that passed through."""

    def __init__(self) -> None:
        self.passed: list[PassRecord] = []

    def trace(self, *_: Any) -> Trace | None:
        return None

    def passthrough(self, record: PassRecord) -> None:
        self.passed.append(record)


@dataclasses.dataclass
class Passing:
    backend: RawBackend
    gateway: Gateway
    pool: Pool
    admission: Admission
    passed: list[PassRecord]

    @property
    def address(self) -> str:
        return self.gateway.address


@asynccontextmanager
async def passing(
    *scripts: Script,
    url: str | None = None,
    upstream: dict[str, Any] | None = None,
    trusted: tuple[str, ...] = (),
    policy: HeaderPolicy = HeaderPolicy(),  # noqa: B008  frozen
    **options: Any,
) -> AsyncIterator[Passing]:
    """The server with the proxy in it, and a backend with these scripts behind it."""
    async with RawBackend(*scripts or (answering(ok()),)) as backend:
        changed = {"timeouts": Timeouts(idle=60.0), **(upstream or {})}  # idleness hides nothing
        pool = Pool(Upstream(url=url or backend.url, **changed), Limits())
        manners = Manners(NAME, "preserve", "backend", policy, TrustedProxies(trusted))
        records = Records()
        admission = Admission(Shed(), lag=lambda: 0.0, in_hand=lambda: False)
        proxy = Proxy(pool, manners, records, admission, **options)  # type: ignore[arg-type]
        async with house(proxy.answer, begin=proxy.begin) as gateway:
            yield Passing(backend, gateway, pool, admission, records.passed)
        await pool.close()
        assert not pool.busy


@asynccontextmanager
async def client_of(place: Passing) -> AsyncIterator[Raw]:
    async with raw(place.address) as client:
        yield client


# --- up ------------------------------------------------------------------------------------------

ADDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via")


def essence(request: Request) -> list[bytes]:
    """What the backend got, without the fields that the gateway must add."""
    kept = [f"{k}: {v}" for k, v in texts(request) if k.lower() not in ADDED]
    return [request.line, *(line.encode("latin-1") for line in kept)]


def texts(request: Request) -> list[tuple[str, str]]:
    return [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers]


SAME = [
    "GET / HTTP/1.1|Host: a",
    "GET /? HTTP/1.1|Host: a",
    "GET /a//b///c?x=1&x=2&&y=%20+%2B HTTP/1.1|Host: a",
    "GET /%2f%2F%7e%41;v=1;w/..%2e/./../x HTTP/1.1|Host: a",
    "GET /a?b?c=http://x/y#"[:-1] + " HTTP/1.1|Host: a",
    "GET /" + "x" * 8000 + " HTTP/1.1|Host: a",
    "GET /'()*!$,:@~[]{}|\\^` HTTP/1.1|Host: a".replace("|\\", "\\"),
    "OPTIONS * HTTP/1.1|Host: a",
    "HEAD /x HTTP/1.1|Host: a",
    "DELETE /x HTTP/1.1|Host: a",
    "PROPFIND /dav/ HTTP/1.1|Host: a|Depth: 1",
    "REPORT /dav/ HTTP/1.1|Host: a",
    "MKCALENDAR /dav/ HTTP/1.1|Host: a",
    "M-SEARCH / HTTP/1.1|Host: a",
    "GET / HTTP/1.1|Host: a:8080|Accept: a|aCCEPT: b|X-Empty:|X-Odd-CASE: c|Cookie: a|Cookie: b",
    'GET / HTTP/1.1|Host: a|X-Latin: caf\xe9 \xff|Authorization: Bearer x|If-None-Match: W/"1"',
    "GET / HTTP/1.1|Host: a|Accept-Encoding: gzip, br;q=0.5|Range: bytes=0-1|X_Under.Score: 1",
    "GET / HTTP/1.1|Host: a|Idempotency-Key: k|X-HTTP-Method-Override: PATCH|Max-Forwards: 3",
    "GET / HTTP/1.1|Host: a|X-Long: " + "v" * 8000,
]


@pytest.mark.parametrize("text", SAME, ids=range(len(SAME)))
async def test_a_request_reaches_the_backend_as_it_was_sent(text: str) -> None:
    lines = text.split("|")
    async with passing() as place, client_of(place) as client:
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await client.head()
        expected = [line if not line.endswith(":") else line + " " for line in lines]
        assert essence(place.backend.requests[0]) == [x.encode("latin-1") for x in expected]


async def test_the_gateway_says_who_called_and_which_way() -> None:
    async with passing() as place, client_of(place) as client:
        client.send(get("/", "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "Via: 1.0 edge"))
        await client.head()
        got = place.backend.requests[0]
        assert got.all("x-forwarded-for") == [b"127.0.0.1"]
        assert got.all("x-forwarded-proto") == [b"http"]
        assert got.all("x-forwarded-host") == [b"gateway"]
        assert got.all("x-real-ip") == []
        assert got.all("via") == [f"1.0 edge, 1.1 {NAME}".encode()]


async def test_a_trusted_proxy_is_believed() -> None:
    async with passing(trusted=("127.0.0.1",)) as place, client_of(place) as client:
        client.send(get("/", "X-Forwarded-For: 9.9.9.9", "X-Real-IP: 9.9.9.9"))
        await client.head()
        assert place.backend.requests[0].all("x-forwarded-for") == [b"9.9.9.9, 127.0.0.1"]
        assert place.backend.requests[0].all("x-real-ip") == [b"9.9.9.9"]


async def test_fields_of_one_hop_stay_there_and_others_cannot_be_made_so() -> None:
    hop = (
        "Connection: keep-alive, X-Mine, Authorization, X-Forwarded-For",
        "X-Mine: 1",
        "TE: gzip",
    )
    end = ("Authorization: Bearer x", "Keep-Alive: timeout=5", "Proxy-Authorization: y")
    async with passing() as place, client_of(place) as client:
        client.send(get("/", *hop, *end))
        await client.head()
        got = place.backend.requests[0]
        assert essence(got) == [b"GET / HTTP/1.1", b"Host: gateway", b"Authorization: Bearer x"]
        assert got.all("x-forwarded-for") == [b"127.0.0.1"]


async def test_a_target_in_absolute_form_says_which_host_is_meant() -> None:
    async with passing() as place, client_of(place) as client:
        client.send(get("http://other:81/a?b=//c"))
        await client.head()
        assert essence(place.backend.requests[0]) == [b"GET /a?b=//c HTTP/1.1", b"Host: other:81"]


@pytest.mark.parametrize(
    ("fields", "body", "framing"),
    [
        (("Content-Length: 5",), b"hello", [b"Content-Length: 5"]),
        (("Content-Length: 0",), b"", [b"Content-Length: 0"]),
        (
            ("Transfer-Encoding: chunked",),
            b"5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\n",
            [b"Transfer-Encoding: chunked"],
        ),
    ],
    ids=["length", "empty", "chunked"],
)
async def test_a_body_that_is_there_goes_up_with_its_head(
    fields: tuple[str, ...], body: bytes, framing: list[bytes]
) -> None:
    async with passing() as place, client_of(place) as client:
        client.send(get("/", *fields, method="POST") + body)
        await client.head()
        got = place.backend.requests[0]
        assert essence(got)[2:] == framing
        assert got.body == (b"hello" if b"hello" in body else b"")
        assert len(place.passed) == 1
        assert place.passed[0].bytes_in == len(got.body)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_goes_up_as_it_comes(chunked: bool) -> None:
    first, second, got = asyncio.Event(), asyncio.Event(), bytearray()

    async def script(peer: Peer) -> None:
        await peer.head()
        while b"second" not in got:
            got.extend(await peer.read_some())
            first.set()
        await peer.send(ok(b"got it"))
        await peer.gone()

    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 11"
    async with passing(script) as place, client_of(place) as client:
        client.send(get("/", framing, method="PUT") + (b"5\r\nfirst\r\n" if chunked else b"first"))
        async with asyncio.timeout(10):
            await first.wait()
        assert bytes(got) == (b"5\r\nfirst\r\n" if chunked else b"first")
        client.send(b"6\r\nsecond\r\n0\r\n\r\n" if chunked else b"second")
        assert (await client.answer())[1] == b"got it"
        second.set()


HELD_BACK = get("/", "Content-Length: 5", "Expect: 100-continue", method="POST")


async def test_a_client_that_holds_its_body_back_is_asked_for_it_when_the_backend_asks() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        assert b"\r\nExpect: 100-continue\r\n" in await peer.head()
        await go.wait()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.read(5) == b"hello"
        await peer.send(ok(b"1"))
        await peer.request()
        await peer.send(ok(b"2"))
        await peer.gone()

    async with passing(script) as place, client_of(place) as client:
        client.send(HELD_BACK)
        await place.backend.until(lambda: bool(place.backend.peers))
        go.set()
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert (await client.answer())[1] == b"1"
        client.send(get())
        assert (await client.answer())[1] == b"2"


async def test_a_client_that_does_not_wait_to_be_asked_is_heard_all_the_same() -> None:
    async with passing() as place, client_of(place) as client:
        client.send(HELD_BACK)
        await place.backend.until(lambda: bool(place.backend.peers))
        client.send(b"hello")
        head, _ = await client.answer()
        assert b"100 Continue" not in head
        assert b"close" not in head
        assert place.backend.requests[0].body == b"hello"


async def test_a_connection_is_not_used_again_if_its_backend_answers_instead_of_asking() -> None:
    """What the backend did not ask for, it may take for a request."""
    async with passing() as place, asyncio.timeout(10):
        for _ in range(2):
            async with client_of(place) as client:
                client.send(HELD_BACK)
                await place.backend.until(lambda: place.backend.open == 1)
                client.send(b"hello")
                await client.answer()
            await place.backend.until(lambda: not place.backend.open)
        assert len(place.backend.peers) == 2


async def test_an_answer_instead_of_an_invitation_reaches_the_client_that_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"who?", status="401 No"))
        await peer.gone()

    async with passing(script) as place, client_of(place) as client:
        client.send(HELD_BACK)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 401 No\r\n")
        assert b"\r\nConnection: close\r\n" in answer


async def test_a_client_that_expects_100_is_not_asked_for_a_body_that_nobody_takes() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with passing(url=url) as place, client_of(place) as client:
        client.send(HELD_BACK)
        assert (await client.rest()).startswith(b"HTTP/1.1 502 ")


NAMES = [
    *("Accept", "accept", "X-A", "x_a", "Cookie", "Authorization", "Content-Type", "X-Caf\xe9"),
    *("Connection", "connection", "Keep-Alive", "TE", "Upgrade", "Expect", "Content-Length"),
    *("X-Real-IP", "X_Real_IP", "Via", "X-Forwarded-For", "x_forwarded_for", "X-Forwarded-Proto"),
    *("Forwarded", "X-HTTP-Method-Override", "Accept-Encoding", "X-Request-Id"),
]
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(["", "a", "close", "Keep-Alive", "X-A, close", "cookie", "caf\xe9", "5"]),
    ),
    max_size=6,
)


def or_refused(encoded: Callable[[], str]) -> str | None:
    try:
        return encoded()
    except ValueError:
        return None


@given(FIELDS, st.booleans(), st.booleans(), st.sampled_from(["127.0.0.1", None]))
def test_what_is_remembered_of_names_changes_nothing(
    pairs: list[tuple[str, str]], trusted: bool, overrides: bool, peer: str | None
) -> None:
    fields = (("Host", "gateway"), *pairs)
    words = ("127.0.0.1", "unix") if trusted else ()
    manners = Manners(NAME, "preserve", "backend", HeaderPolicy(), TrustedProxies(words))
    request = SimpleNamespace(
        headers=CIMultiDict(fields),
        raw_headers=raw_fields(fields),
        raw_path="/",
        remote=peer,
        secure=False,
        version=(1, 1),
    )
    written = headers.managed(
        headers.by_name(fields), host="preserve", authority="backend", peer=peer,
        trusted=trusted, scheme="http", via=NAME, bulk=False,
    )  # fmt: skip
    expected = headers.forward_request(
        fields, written, HeaderPolicy(), trusted=trusted, overrides=overrides
    )
    up = Upward(manners, overrides=overrides)
    for _ in range(2):
        goes = or_refused(lambda: up.fields(request, None, False, None))  # type: ignore[arg-type]  # enough
        assert goes == or_refused(lambda: encode(expected))
    down, raw = Downward(NAME), raw_fields(fields)
    declared = any(name.lower() == b"content-length" for name, _ in raw)
    for _ in range(2):
        assert down.fields(raw) == (headers.forward_response(raw, via=VIA[5:-2]), declared)


def raw_fields(fields: Headers) -> RawHeaders:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields)


# --- down ----------------------------------------------------------------------------------------

HEADS = {
    "plain": (b"200 OK", b"Content-Length: 2\r\n", b"hi"),
    "no type, no date": (b"200 OK", b"Content-Length: 0\r\n", b""),
    "cookies": (b"200 OK", b"Set-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 0\r\n", b""),
    "own date and server": (b"200 OK", b"Date: x\r\nServer: y\r\nContent-Length: 0\r\n", b""),
    "latin-1": (b"200 caf\xe9", b"X: caf\xe9\xff\r\nContent-Length: 0\r\n", b""),
    "odd case": (b"200 OK", b"x-ODD: 1\r\ncontent-LENGTH: 2\r\n", b"hi"),
    "no reason": (b"200 ", b"Content-Length: 0\r\n", b""),
    "own reason": (b"404 Nobody Here", b"Content-Length: 0\r\n", b""),
    "unknown": (b"599 Odd", b"Content-Length: 3\r\n", b"odd"),
    "redirect to nowhere": (b"301 Moved", b"Content-Length: 0\r\n", b""),
    "gzip": (b"200 OK", b"Content-Encoding: gzip\r\nContent-Length: 3\r\n", b"\x1f\x8b\x00"),
    "challenge": (b"401 No", b"WWW-Authenticate: Basic\r\nContent-Length: 0\r\n", b""),
    "not modified": (b"304 Not Modified", b"ETag: 1\r\nContent-Length: 42\r\n", b""),
    "not modified, short": (b"304 Not Modified", b"", b""),
    "no content": (b"204 No Content", b"", b""),
}


@pytest.mark.parametrize("name", HEADS)
async def test_an_answer_reaches_the_client_as_it_was_sent(name: str) -> None:
    status, fields, body = HEADS[name]
    sent = b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n" + body
    async with passing(answering(sent)) as place, client_of(place) as client:
        client.send(get("/1") + get("/2"))
        expected = b"HTTP/1.1 " + status + b"\r\n" + fields + VIA + b"\r\n" + body
        assert await client.exactly(2 * len(expected)) == expected * 2


async def test_an_answer_to_head_keeps_its_length() -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with passing(answering(sent)) as place, client_of(place) as client:
        client.send(get(method="HEAD") + get(method="HEAD"))
        expected = sent[:-2] + VIA + b"\r\n"
        assert await client.exactly(2 * len(expected)) == expected * 2


async def test_fields_of_the_backends_hop_stay_there() -> None:
    fields = b"Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nX-Ours: 2\r\n"
    sent = b"HTTP/1.1 200 OK\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    async with passing(after_request(sent)) as place, client_of(place) as client:
        client.send(get())
        expected = b"HTTP/1.1 200 OK\r\nX-Ours: 2\r\n" + VIA + CHUNKED
        assert await client.head() == expected


async def test_interim_answers_and_trailers_are_dropped() -> None:
    sent = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n"
    )
    async with passing(answering(sent)) as place, client_of(place) as client:
        client.send(get())
        expected = b"HTTP/1.1 200 OK\r\n" + VIA + CHUNKED + b"2\r\nhi\r\n0\r\n\r\n"
        assert await client.exactly(len(expected)) == expected


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_answer_goes_down_as_it_comes(version: str) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await peer.send(b"data: 1\n\n")
        await go.wait()
        await peer.send(b"data: 2\n\n")

    async with passing(script) as place, client_of(place) as client:
        client.send(get(version=version))
        beginning = await client.until(b"data: 1\n\n")
        assert (b"chunked" in beginning) == (version == "1.1")
        await eventually(place.gateway.worker.clients.quiet.is_set)  # a drain would not wait
        go.set()
        end = await (client.until(b"0\r\n\r\n") if version == "1.1" else client.rest())
        assert b"data: 2\n\n" in end


async def test_an_answer_may_come_before_the_request_is_complete() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"enough", status="413 Enough"))
        await peer.gone()

    async with passing(script) as place, client_of(place) as client:
        client.send(get("/", "Content-Length: 100000000", method="POST") + b"x" * 1_000_000)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 413 Enough\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"enough")


async def test_both_sides_may_talk_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not (data := await peer.read_some()).endswith(b"0\r\n\r\n"):
            await peer.send(data)
        await peer.send(data)
        await peer.gone()

    async with passing(script) as place, client_of(place) as client:
        client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        await client.head()
        for _ in range(3):
            client.send(b"3\r\nabc\r\n")
            assert await client.until(b"abc\r\n") == b"3\r\nabc\r\n"
        client.send(b"0\r\n\r\n")
        assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"


# --- back-pressure -------------------------------------------------------------------------------


async def test_a_slow_client_holds_its_backend_up_and_loses_nothing() -> None:
    size, piece = 64 * MIB, b"0123456789abcdef" * 4096
    held = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            if peer.backed_up:
                held.set()
            await peer.send(piece)
        await peer.gone()

    async with passing(script) as place, raw(place.address, limit=65536) as client:
        client.send(get())
        await client.head()
        async with asyncio.timeout(20):
            await eventually(lambda: place.backend.peers[0].backed_up)
        (door,) = place.gateway.worker.clients.open
        assert door._socket.get_write_buffer_size() < MIB
        seen, left = hashlib.sha256(), size
        while left:
            data = await client.reader.read(MIB)
            seen.update(data)
            left -= len(data)
        assert seen.digest() == hashlib.sha256(piece * (size // len(piece))).digest()


async def test_a_slow_backend_holds_its_client_up_and_loses_nothing() -> None:
    size, piece = 64 * MIB, b"0123456789abcdef" * 4096
    go, seen = asyncio.Event(), hashlib.sha256()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        left = size
        while left:
            data = await peer.read_some()
            peer.received.clear()
            seen.update(data)
            left -= len(data)
        await peer.send(ok())
        await peer.gone()

    async with passing(script) as place, client_of(place) as client:
        client.send(get("/", f"Content-Length: {size}", method="PUT"))
        sending = asyncio.create_task(send_all(client, piece, size // len(piece)))
        (door,) = await found(place)
        await eventually(lambda: door._reading_paused)
        assert not sending.done()
        go.set()
        await client.answer()
        await sending
        assert seen.digest() == hashlib.sha256(piece * (size // len(piece))).digest()
        await eventually(lambda: place.passed)
        assert place.passed[0].bytes_in == size


async def found(place: Passing) -> list[Any]:
    await eventually(lambda: place.gateway.worker.clients.busy)
    return list(place.gateway.worker.clients.open)


async def send_all(client: Raw, piece: bytes, times: int) -> None:
    for _ in range(times):
        client.send(piece)
        await client.writer.drain()


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        (after_request(b"", end="close"), 502, "connection_terminated"),
        (after_request(b"HTTP/1.1 200 OK\r\nX: ", end="close"), 502, "http_response_incomplete"),
        (after_request(b"garbage\r\n\r\n"), 502, "http_protocol_error"),
        (after_request(b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n"), 502, "http_protocol_error"),
    ],
    ids=["closed", "half a head", "garbage", "unasked upgrade"],
)
async def test_a_backend_that_fails_before_its_head_is_a_problem_document(
    script: Script, status: int, error: str
) -> None:
    async with passing(script) as place, client_of(place) as client:
        client.send(get(method="POST"))
        head, body = await client.answer()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nContent-Type: application/problem+json\r\n" in head
        assert f"error={error};".encode() in head
        assert b'"sent":true' in body
        assert (place.passed[0].outcome, place.passed[0].error) == ("failed", error)
        client.send(get())
        assert (await client.answer())[0].startswith(b"HTTP/1.1 %d " % status), "still usable"


async def test_a_backend_that_is_not_there_is_502_and_nothing_was_sent() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with passing(url=url) as place, client_of(place) as client:
        client.send(get())
        head, body = await client.answer()
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"error=connection_refused;" in head
        assert b'"sent":false' in body


async def test_a_backend_that_says_nothing_is_504() -> None:
    timeouts = Timeouts(response=0.05, stall=0.05)
    slow = passing(after_request(), upstream={"timeouts": timeouts})
    async with slow as place, client_of(place) as client:
        client.send(get())
        assert (await client.head()).startswith(b"HTTP/1.1 504 ")


async def test_a_request_without_a_turn_is_503() -> None:
    narrow = passing(after_request(), upstream={"connections": 1, "waiting": 0})
    async with narrow as place, client_of(place) as first, client_of(place) as second:
        first.send(get())
        await place.backend.until(lambda: bool(place.backend.requests))
        second.send(get())
        head, _ = await second.answer()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in head


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_an_answer_that_stops_in_the_middle_is_cut(
    version: str, framing: bytes, end: str
) -> None:
    sent = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + b"5\r\nbegun\r\n"
    async with passing(after_request(sent, end=end)) as place, client_of(place) as client:
        client.send(get(version=version))
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await eventually(lambda: place.passed)
        assert place.passed[0].outcome == "cut"


@pytest.mark.parametrize("offers", ["nothing", "an upgrade"])
async def test_a_client_that_leaves_closes_its_backend_at_once(offers: str) -> None:
    async with passing(after_request()) as place:
        async with client_of(place) as client:
            client.send(get() if offers == "nothing" else upgrade())
            await place.backend.until(lambda: bool(place.backend.requests))
        async with asyncio.timeout(10):
            await place.backend.peers[0].closed.wait()
        await eventually(lambda: place.passed)
        assert place.passed[0].outcome == "client_gone"


async def test_a_client_that_leaves_in_the_middle_of_its_body_closes_its_backend() -> None:
    async with passing() as place:
        async with client_of(place) as client:
            client.send(get("/", "Content-Length: 10", method="POST") + b"abc")
            await place.backend.until(lambda: bool(place.backend.peers))
        async with asyncio.timeout(10):
            await place.backend.peers[0].closed.wait()
        assert place.backend.requests == []


async def test_of_an_upload_whose_client_left_nothing_waits_for_the_collector() -> None:
    with uncollected():
        async with passing() as place:
            async with client_of(place) as client:
                client.send(get("/", "Content-Length: 10", method="POST") + b"abc")
                await place.backend.until(lambda: bool(place.backend.peers))
                assert remain(Passage) == 1
            await eventually(lambda: not remain(Passage))


async def test_a_body_that_breaks_its_framing_never_reaches_the_backend_as_a_whole_one() -> None:
    async with passing() as place, client_of(place) as client:
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
        await place.backend.until(lambda: bool(place.backend.peers))
        client.send(b"what?\r\n")
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"sent=?1" in answer
        assert place.backend.requests == []


async def test_a_body_that_stops_is_408_and_never_reaches_the_backend_as_a_whole_one() -> None:
    async with passing() as place, client_of(place) as client:
        client.send(get("/", "Content-Length: 10", method="POST") + b"abc")
        await place.backend.until(lambda: bool(place.backend.peers))
        (door,) = place.gateway.worker.clients.open
        deadlines = place.gateway.worker.clients.deadlines
        door.sweep(asyncio.get_running_loop().time() + deadlines.body_stall, deadlines)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"sent=?1" in answer
        assert place.backend.requests == []


async def test_a_client_whose_body_the_backend_does_not_take_is_not_told_to_hurry() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        await peer.read(32 * MIB)
        await peer.send(ok())
        await peer.gone()

    async with passing(script) as place, client_of(place) as client:
        client.send(get("/", f"Content-Length: {32 * MIB}", method="POST") + bytes(32 * MIB))
        clients = place.gateway.worker.clients
        await eventually(lambda: any(door._reading_paused for door in clients.open))
        (door,) = clients.open
        door.sweep(asyncio.get_running_loop().time() + 60.0, clients.deadlines)
        go.set()
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")


# --- rules ---------------------------------------------------------------------------------------


async def refused(request: bytes, **options: Any) -> tuple[bytes, list[Request]]:
    async with passing(**options) as place, client_of(place) as client:
        client.send(request)
        head, body = await client.answer()
        assert b"\r\nContent-Type: application/problem+json\r\n" in head
        return head.partition(b"\r\n")[0] + b" " + body, place.backend.requests


async def test_where_nothing_passes_through_it_is_404() -> None:
    answer, got = await refused(get(), enabled=False)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert got == []


@pytest.mark.parametrize(
    "via", [f"1.1 {NAME}", "1.0 a, HTTP/1.1 " + NAME.upper(), ", ".join(["1.1 bulk-gateway-0"] * 6)]
)
async def test_a_loop_is_508(via: str) -> None:
    answer, got = await refused(get("/", f"Via: {via}"))
    assert answer.startswith(b"HTTP/1.1 508 ")
    assert got == []


async def test_what_is_asked_after_the_doors_have_closed_is_503() -> None:
    async with passing() as place, client_of(place) as client:
        place.admission.closed = True
        client.send(get())
        assert (await client.answer())[0].startswith(b"HTTP/1.1 503 ")


RULES = PathRules(allow=(Pattern("/open/{any}"),), methods=frozenset({"GET"}))


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/open/a", "GET", 200),
        ("/op%65n/%7ea?x=%41", "GET", 200),
        ("/open/a", "PUT", 403),
        ("/closed", "GET", 403),
        ("/open/a/../../closed", "GET", 400),
        ("/open%2fa", "GET", 400),
        ("*", "OPTIONS", 403),
    ],
)
async def test_where_rules_hold_what_was_checked_is_what_is_sent(
    target: str, method: str, status: int
) -> None:
    async with passing(rules=RULES) as place, client_of(place) as client:
        client.send(get(target, "X-HTTP-Method-Override: DELETE", method=method))
        assert (await client.answer())[0].startswith(b"HTTP/1.1 %d " % status)
        if status == 200:
            got = place.backend.requests[0]
            assert got.target in ("/open/a", "/open/~a?x=%41")
            assert got.all("x-http-method-override") == []


async def test_max_forwards_counts_the_gateways_on_the_way() -> None:
    async with passing() as place, client_of(place) as client:
        client.send(get("/", "Max-Forwards: 2", method="OPTIONS"))
        await client.answer()
        assert place.backend.requests[0].header("max-forwards") == b"1"
        client.send(get("/", "Max-Forwards: 0", method="OPTIONS"))
        head, _ = await client.answer()
        assert b"\r\nAllow: GET, " in head
        assert b"\r\nDate: " in head  # RFC 9110 6.6.1: of whoever makes an answer
        assert len(place.backend.requests) == 1


# --- tunnels -------------------------------------------------------------------------------------

SWITCH = b"HTTP/1.1 101 Go On\r\nConnection: upgrade\r\nUpgrade: odd/1\r\nX-Mine: 1\r\n\r\n"


async def echoing(peer: Peer) -> None:
    """Switches to a protocol that says everything twice."""
    await peer.head()
    await peer.send(SWITCH + b"hello")
    while data := await peer.read_some():
        await peer.send(data * 2)
    await peer.send(b"bye")


def upgrade(*fields: str) -> bytes:
    return get("/", "Connection: Upgrade, keep-alive", "Upgrade: odd/1", *fields)


async def test_after_101_bytes_go_both_ways_as_they_are() -> None:
    async with passing(echoing) as place, client_of(place) as client:
        client.send(upgrade())
        assert await client.until(b"hello") == (
            b"HTTP/1.1 101 Go On\r\nUpgrade: odd/1\r\nX-Mine: 1\r\nConnection: Upgrade\r\n"
            + VIA
            + b"\r\nhello"
        )
        received = bytes(place.backend.peers[0].received)
        assert b"\r\nUpgrade: odd/1\r\n" in received
        assert b"\r\nConnection: Upgrade\r\n" in received
        await eventually(place.gateway.worker.clients.quiet.is_set)  # a drain would not wait
        for _ in range(3):
            client.send(b"\0GET / HTTP/1.1\r\n\r\n")
            assert await client.exactly(38) == b"\0GET / HTTP/1.1\r\n\r\n" * 2


async def test_a_tunnel_ends_when_its_backend_does_and_nothing_is_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        await peer.send(b"x" * 5 * MIB)

    async with passing(script) as place, client_of(place) as client:
        client.send(upgrade())
        await client.head()
        assert await client.rest() == b"x" * 5 * MIB
        await eventually(lambda: place.passed)
        assert place.passed[0].outcome == "tunnel"


async def test_a_tunnel_ends_when_its_client_does_and_its_last_words_arrive() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        while await peer.read_some():
            pass

    async with passing(script) as place:
        async with client_of(place) as client:
            client.send(upgrade())
            await client.head()
            client.send(b"x" * MIB + b"last words")
            await client.writer.drain()
        async with asyncio.timeout(10):
            await place.backend.peers[0].closed.wait()
        assert place.backend.peers[0].received.endswith(b"last words")


async def test_an_upgrade_that_the_backend_declines_is_an_answer_like_others() -> None:
    async with passing(answering(ok(b"no"))) as place, client_of(place) as client:
        for _ in range(2):
            client.send(upgrade())
            assert (await client.answer())[1] == b"no"
        assert len(place.backend.peers) == 1


@pytest.mark.parametrize("protocol", ["h2c", "websocket, h2c", "h2", "HTTP/2.0"])
async def test_nobody_is_let_through_to_http_in_another_form(protocol: str) -> None:
    async with passing() as place, client_of(place) as client:
        client.send(get("/", "Connection: Upgrade", f"Upgrade: {protocol}"))
        await client.answer()
        assert place.backend.requests[0].all("upgrade") == []
        assert place.backend.requests[0].all("connection") == []


async def test_a_slow_end_of_a_tunnel_holds_the_other_up() -> None:
    go = asyncio.Event()
    size = 16 * MIB

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        await go.wait()
        while len(peer.received) < size:
            await peer.read_some()
        await peer.send(b"done")
        await peer.gone()

    async with passing(script) as place, client_of(place) as client:
        client.send(upgrade())
        await client.head()
        sending = asyncio.create_task(send_all(client, b"x" * MIB, size // MIB))
        (door,) = place.gateway.worker.clients.open
        await eventually(lambda: door._reading_paused)
        assert not sending.done()
        go.set()
        assert await client.exactly(4) == b"done"
        await sending


async def test_a_websocket_works_as_if_nothing_stood_between() -> None:
    async def echo(socket: websockets.ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with passing(url=f"http://127.0.0.1:{port}") as place:
            async with websockets.connect(f"ws://{place.address}/chat", max_size=None) as socket:
                for message in ("caf\xe9", b"\0\1", "", b"x" * 10 * MIB):
                    await socket.send(message)
                    assert await socket.recv() == message
                await socket.send(["in ", "pieces"])
                assert await socket.recv() == "in pieces"
                await (await socket.ping())
                await socket.close(4321, "enough")
                assert socket.close_code == 4321
            await eventually(lambda: place.passed)

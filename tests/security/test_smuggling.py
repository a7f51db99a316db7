"""One request is one request to everybody: to us, to the backend, and so is an answer."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    SUGARCRM,
    Format,
    Siege,
    echo,
    echoed,
    got,
    siege,
)
from tests.support.raw_backend import Peer, RawBackend, Script, ok

NEXT = b"GET /smuggled HTTP/1.1\r\nHost: gw\r\n\r\n"
"""What an attacker hides; where a row says so, it is a request of its own to us as well."""

POST = b"POST /first HTTP/1.1\r\nHost: gw\r\n"
GET = b"GET /first HTTP/1.1\r\nHost: gw\r\n"
LEGACY = b"POST /first HTTP/1.0\r\nHost: gw\r\nConnection: keep-alive\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ABC = b"3\r\nabc\r\n0\r\n\r\n"


class Refused(NamedTuple):
    payload: bytes
    status: int = 400


class Read(NamedTuple):
    payload: bytes
    body: bytes
    """The first request's."""
    follows: bool = True
    """What stands behind it is served as a request of its own, since that is what it is."""


def length(value: str, body: bytes = b"abc") -> bytes:
    return POST + f"Content-Length: {value}\r\n\r\n".encode() + body + NEXT


def coded(value: str, body: bytes = ABC) -> bytes:
    return POST + f"Transfer-Encoding:{value}\r\n\r\n".encode() + body + NEXT


def chunks(body: bytes) -> bytes:
    return POST + CHUNKED + b"\r\n" + body + NEXT


HEADS: dict[str, Refused | Read] = {
    # lengths and codings together
    "TE.CL": Refused(POST + CHUNKED + b"Content-Length: 4\r\n\r\n26\r\n" + NEXT + b"0\r\n\r\n"),
    "CL.TE": Refused(POST + b"Content-Length: 6\r\n" + CHUNKED + b"\r\n0\r\n\r\nG" + NEXT),
    "CL.TE of a GET": Refused(GET + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + NEXT),
    "CL.TE in 1.0": Refused(LEGACY + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + NEXT),
    # codings
    "TE.TE, other last": Refused(POST + CHUNKED + b"Transfer-Encoding: x\r\n\r\n" + ABC + NEXT),
    "TE.TE, other first": Refused(
        POST + b"Transfer-Encoding: x\r\n" + CHUNKED + b"\r\n" + ABC + NEXT
    ),
    "TE.TE, the same": Refused(POST + CHUNKED + CHUNKED + b"\r\n" + ABC + NEXT),
    "TE twice in one": Refused(coded(" chunked, chunked")),
    "TE gzip, chunked": Refused(coded(" gzip, chunked"), 501),
    "TE chunked, gzip": Refused(coded(" chunked, gzip")),
    "TE identity": Refused(
        POST + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc" + NEXT
    ),
    "TE identity alone": Refused(coded(" identity")),
    "TE empty": Refused(POST + b"Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc" + NEXT, 501),
    "TE comma first": Refused(coded(" ,chunked"), 501),
    "TE comma last": Refused(coded(" chunked,")),
    "TE in quotes": Refused(coded(' "chunked"')),
    "TE with a parameter": Refused(coded(" chunked;q=1")),
    "TE xchunked": Refused(coded(" xchunked")),
    "TE chunked x": Refused(coded(" chunked x")),
    "TE vertical tab": Refused(coded(" \x0bchunked")),
    "TE form feed": Refused(coded(" chunked\x0c")),
    "TE nul": Refused(coded(" chunked\0")),
    "TE folded": Refused(coded("\r\n chunked")),
    "TE space before the colon": Refused(
        POST + b"Transfer-Encoding : chunked\r\n\r\n" + ABC + NEXT
    ),
    "TE tab before the colon": Refused(POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + ABC + NEXT),
    "TE behind a bare LF": Refused(GET + b"X: a\n" + CHUNKED + b"\r\n" + NEXT),
    "TE behind a bare CR": Refused(GET + b"X: a\r" + CHUNKED + b"\r\n" + NEXT),
    "TE on HTTP/1.0": Refused(LEGACY + CHUNKED + b"\r\n" + ABC + NEXT),
    "TE behind a tab": Read(coded("\tchunked"), b"abc", False),
    "TE before a space": Read(coded(" chunked "), b"abc", False),
    "TE in capitals": Read(POST + CHUNKED.upper() + b"\r\n" + ABC + NEXT, b"abc", False),
    "TE of a GET": Read(GET + CHUNKED + b"\r\n" + ABC + NEXT, b"abc", False),
    "TE with an underscore": Read(
        POST + b"Transfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc" + NEXT, b"abc"
    ),
    "TE with a dot": Read(
        POST + b"transfer.encoding: chunked\r\nContent-Length: 3\r\n\r\nabc" + NEXT, b"abc"
    ),
    # lengths
    "CL twice": Refused(POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc" + NEXT),
    "CL twice the same": Refused(
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc" + NEXT
    ),
    "CL a list": Refused(length("3, 3")),
    "CL a list of two": Refused(length("3,4")),
    "CL signed": Refused(length("+3")),
    "CL negative": Refused(length("-3")),
    "CL hexadecimal": Refused(length("0x3")),
    "CL in words of Python": Refused(length("3_0")),
    "CL with a fraction": Refused(length("3.0")),
    "CL with a space": Refused(length("3 3")),
    "CL with a parameter": Refused(length("3;x")),
    "CL empty": Refused(length("")),
    "CL of 23 digits": Refused(length("1" * 23)),
    "CL around 2^64": Refused(length("18446744073709551619")),
    "CL in other digits": Refused(POST + "Content-Length: \u0663\r\n\r\nabc".encode() + NEXT),
    "CL folded": Refused(length("3\r\n 0")),
    "CL nul": Refused(length("3\0")),
    "CL with zeros": Read(length("003"), b"abc"),
    "CL with an underscore": Read(
        POST + b"Content_Length: 50\r\nContent-Length: 3\r\n\r\nabc" + NEXT, b"abc"
    ),
    "CL of a GET": Read(GET + b"Content-Length: 3\r\n\r\nabc" + NEXT, b"abc"),
    "CL in 1.0": Read(LEGACY + b"Content-Length: 3\r\n\r\nabc" + NEXT, b"abc"),
    "CL named by Connection": Read(
        POST + b"Connection: Content-Length\r\nContent-Length: 3\r\n\r\nabc" + NEXT, b"abc"
    ),
    # lines
    "a fold": Refused(GET + b"X: a\r\n b\r\n\r\n" + NEXT),
    "a fold of the first field": Refused(b"GET /first HTTP/1.1\r\n Host: gw\r\n\r\n" + NEXT),
    "bare LF lines": Refused(b"GET /first HTTP/1.1\nHost: gw\n\n" + NEXT),
    "a bare LF in a value": Refused(GET + b"X: a\nY: b\r\n\r\n" + NEXT),
    "a bare CR in a value": Refused(GET + b"X: a\rY: b\r\n\r\n" + NEXT),
    "two CR": Refused(GET + b"X: a\r\r\n\r\n" + NEXT),
    "a head ended by LF": Refused(GET + b"X: a\r\n\n" + NEXT),
    "a nul in a value": Refused(GET + b"X: a\0b\r\n\r\n" + NEXT),
    "a control byte in a value": Refused(GET + b"X: \x07\r\n\r\n" + NEXT),
    "DEL in a value": Refused(GET + b"X: \x7f\r\n\r\n" + NEXT),
    "a name of nothing": Refused(GET + b": a\r\n\r\n" + NEXT),
    "a line without a colon": Refused(GET + b"abc\r\n\r\n" + NEXT),
    "a name with a space": Refused(GET + b"X Y: a\r\n\r\n" + NEXT),
    "a name with other letters": Refused(GET + b"X\xe9: a\r\n\r\n" + NEXT),
    "a name in brackets": Refused(GET + b"(X): a\r\n\r\n" + NEXT),
    # request lines
    "a target with a space": Refused(b"GET /first x HTTP/1.1\r\nHost: gw\r\n\r\n" + NEXT),
    "a target with a tab": Refused(b"GET /first\tx HTTP/1.1\r\nHost: gw\r\n\r\n" + NEXT),
    "a target in raw UTF-8": Refused(b"GET /\xc3\xa9 HTTP/1.1\r\nHost: gw\r\n\r\n" + NEXT),
    "a target with a fragment": Refused(b"GET /first#x HTTP/1.1\r\nHost: gw\r\n\r\n"),
    "tabs for spaces": Refused(b"GET\t/first\tHTTP/1.1\r\nHost: gw\r\n\r\n" + NEXT),
    "no version": Refused(b"GET /first\r\n\r\n", 505),
    "HTTP/2.0": Refused(b"GET /first HTTP/2.0\r\nHost: gw\r\n\r\n", 505),
    "HTTP/1.2": Refused(b"GET /first HTTP/1.2\r\nHost: gw\r\n\r\n", 505),
    "HTTP/1.10": Refused(b"GET /first HTTP/1.10\r\nHost: gw\r\n\r\n" + NEXT),
    "an HTTP/2 preface": Refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "http in small letters": Refused(b"GET /first http/1.1\r\nHost: gw\r\n\r\n" + NEXT),
    "TRACE": Refused(b"TRACE /first HTTP/1.1\r\nHost: gw\r\n\r\n", 405),
    "CONNECT": Refused(b"CONNECT gw:80 HTTP/1.1\r\nHost: gw:80\r\n\r\n", 405),
    "CONNECT with a length": Refused(
        b"CONNECT gw:80 HTTP/1.1\r\nHost: gw:80\r\nContent-Length: 3\r\n\r\n" + NEXT, 405
    ),
    # Host
    "no Host": Refused(b"GET /first HTTP/1.1\r\n\r\n"),
    "two Hosts": Refused(GET + b"Host: evil\r\n\r\n"),
    "two Hosts the same": Refused(GET + b"host: gw\r\n\r\n"),
    "a Host of two": Refused(b"GET /first HTTP/1.1\r\nHost: gw, evil\r\n\r\n"),
    "a Host with a user": Refused(b"GET /first HTTP/1.1\r\nHost: gw@evil\r\n\r\n"),
    "a Host with a path": Refused(b"GET /first HTTP/1.1\r\nHost: gw/evil\r\n\r\n"),
    "a Host with a bad port": Refused(b"GET /first HTTP/1.1\r\nHost: gw:80:80\r\n\r\n"),
    "an empty Host": Refused(b"GET /first HTTP/1.1\r\nHost:\r\n\r\n"),
    # Expect and Upgrade
    "Expect of something else": Refused(
        POST + b"Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", 417
    ),
    "a body behind Upgrade": Read(
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 36\r\n\r\n" + NEXT,
        NEXT,
        False,
    ),
    "a body behind another Upgrade": Read(
        GET + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 36\r\n\r\n" + NEXT, NEXT, False
    ),
    "h2c": Read(
        GET
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
        + NEXT,
        b"",
    ),
}

CHUNKS: dict[str, Refused | Read] = {
    "a size in 0x": Refused(chunks(b"0x3\r\nabc\r\n0\r\n\r\n")),
    "a size with a sign": Refused(chunks(b"+3\r\nabc\r\n0\r\n\r\n")),
    "a size below zero": Refused(chunks(b"-3\r\nabc\r\n0\r\n\r\n")),
    "a size of nothing": Refused(chunks(b"\r\n0\r\n\r\n")),
    "a size in words of Python": Refused(chunks(b"0_3\r\nabc\r\n0\r\n\r\n")),
    "a size past 64 bits": Refused(chunks(b"10000000000000003\r\nabc\r\n0\r\n\r\n")),
    "a space behind a size": Refused(chunks(b"3 \r\nabc\r\n0\r\n\r\n")),
    "a space before a size": Refused(chunks(b" 3\r\nabc\r\n0\r\n\r\n")),
    "sizes ended by LF": Refused(chunks(b"3\nabc\n0\n\n")),
    "a chunk ended by LF": Refused(chunks(b"3\r\nabc\n0\r\n\r\n")),
    "a chunk longer than its size": Refused(chunks(b"3\r\nabcXX\r\n0\r\n\r\n")),
    "a chunk shorter than its size": Refused(chunks(b"5\r\nabc\r\n0\r\n\r\n")),
    "an extension with LF": Refused(chunks(b"3;a\nabc\r\n0\r\n\r\n")),
    "an extension with CR": Refused(chunks(b"3;a\rb\r\nabc\r\n0\r\n\r\n")),
    "an extension with a nul": Refused(chunks(b"3;a\0\r\nabc\r\n0\r\n\r\n")),
    "an extension in open quotes": Refused(chunks(b'3;a="\r\nabc\r\n0\r\n\r\n')),
    "a trailer with a length": Refused(chunks(b"0\r\nContent-Length: 36\r\n\r\n")),
    "a trailer with a coding": Refused(chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n")),
    "a trailer with a fold": Refused(chunks(b"0\r\nX: y\r\n z\r\n\r\n")),
    "a trailer ended by LF": Refused(chunks(b"0\r\nX: y\n\r\n")),
    "a trailer without a colon": Refused(chunks(b"0\r\nX y\r\n\r\n")),
    "a thousand trailers": Refused(chunks(b"0\r\n" + b"X: y\r\n" * 1000 + b"\r\n"), 431),
    "an extension": Read(chunks(b"3;a=b\r\nabc\r\n0\r\n\r\n"), b"abc", False),
    "a long extension": Read(
        chunks(b"3;a=" + b"b" * 65536 + b"\r\nabc\r\n0\r\n\r\n"), b"abc", False
    ),
    "zeros before a size": Read(
        chunks(b"0000000000000000000003\r\nabc\r\n00\r\n\r\n"), b"abc", False
    ),
    "a trailer": Read(
        chunks(b"3\r\nabc\r\n0\r\nX-Real-IP: 6.6.6.6\r\nAuthorization: mine\r\n\r\n"), b"abc", False
    ),
}
"""Behind a chunked body in the same read, nothing is served: the connection ends."""

ROWS = HEADS | CHUNKS


async def landed(gate: Siege, backend: RawBackend) -> list[tuple[str, bytes]]:
    """All that the backend was asked: targets and bodies."""
    await gate.alive()
    return [(r.target, r.body) for r in backend.requests if r.target != "/alive"]


@pytest.mark.parametrize("name", ROWS)
async def test_a_request_is_one_request_or_none(name: str) -> None:
    row = ROWS[name]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        if isinstance(row, Refused):
            answers = await gate.talk(row.payload)
            assert [answer.status for answer in answers] == [row.status]
            assert answers[0].all("connection") == ["close"]
            assert await landed(gate, backend) == []
            return
        answers = await gate.talk(row.payload, answers=2 if row.follows else 1)
        assert {answer.status for answer in answers} == {200}
        served = [("/first", row.body), ("/smuggled", b"")]
        assert await landed(gate, backend) == served[: 2 if row.follows else 1]


async def test_the_same_holds_when_it_comes_byte_by_byte() -> None:
    """A head that is refused is refused then too, and what has gone up by then is never whole."""
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for name, row in ROWS.items():
            if len(row.payload) > 1000:
                continue
            payload = row.payload.removesuffix(NEXT)
            pieces = [payload[i : i + 1] for i in range(len(payload))]
            refused = isinstance(row, Refused)
            answers = await gate.talk(*pieces, *(() if refused else (NEXT,)), answers=1)
            expected = {row.status, 400} if isinstance(row, Refused) else {200}
            assert {answer.status for answer in answers} <= expected, name
        asked = [request.target for request in backend.requests]
        assert asked.count("/first") == sum(isinstance(row, Read) for row in ROWS.values()) - 1


async def test_the_last_field_of_a_trailer_is_not_the_first_of_the_next_request() -> None:
    """aiohttp's parser has it so: in one read, in two, with the end of the body in the second."""
    body = POST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\nAuthorization: mine\r\n\r\n"
    async with RawBackend(echo) as backend, siege(backend) as gate:
        await gate.talk(body + NEXT)
        for at in (len(body), len(body) - 2, len(body) - 10, len(body) - 25):
            await gate.talk(body[:at], body[at:] + NEXT, answers=1)
            await gate.talk(body[:at], body[at:], NEXT, answers=2)
        await gate.talk(body * 3 + NEXT)
        await gate.talk(GET + b"\r\n" + body + NEXT + NEXT)
        for request in backend.requests:
            assert request.header("authorization") is None


async def test_a_bulk_call_in_chunks_is_read_as_any_request_is() -> None:
    document = SUGARCRM.document([SUGARCRM.entry("/part")])
    head = b"POST /bulk HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\n"
    good = b"%x\r\n%b\r\n0\r\nX: y\r\n\r\n" % (len(document), document)
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for payload, status in (
            (head + CHUNKED + b"\r\n" + good + NEXT, 200),
            (head + CHUNKED + b"\r\n" + good.replace(b"\r\n0", b"\n0"), 400),
            (head + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n" + good, 400),
            (head + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + good, 501),
            (
                head
                + b"Content-Length: %d\r\nContent-Encoding: gzip\r\n\r\n" % len(document)
                + document,
                415,
            ),
        ):
            assert [answer.status for answer in await gate.talk(payload, answers=1)] == [status]
        assert await landed(gate, backend) == [("/part", b"")]


async def test_a_body_labelled_as_coded_passes_through_as_it_is() -> None:
    payload = POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    async with RawBackend(echo) as backend, siege(backend) as gate:
        assert (await gate.ask(payload)).status == 200
    assert [(r.body, r.header("content-encoding")) for r in backend.requests] == [(b"abc", b"gzip")]


# --- towards the backend -------------------------------------------------------------------------

FRAMING = [
    ("Content-Length", "0"), ("Content-Length", "999"), ("content-length", "3"),
    ("Content_Length", "0"), ("Transfer-Encoding", "chunked"), ("transfer-encoding", "identity"),
    ("Transfer.Encoding", "chunked"), ("TRANSFER_ENCODING", "chunked"), ("Expect", "100-continue"),
    ("Connection", "close"), ("Connection", "Content-Length, Host"), ("Trailer", "X"),
    ("TE", "trailers"), ("Upgrade", "h2c"), ("Content-Encoding", "gzip"),
    ("Keep-Alive", "timeout=0"),
]  # fmt: skip
BODY = {"x": "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: gw\r\n\r\n"}


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_no_part_frames_itself(form: Format) -> None:
    entries = [
        form.entry(f"/{i}", method, form.own["items"]([field]), BODY if method == "POST" else None)
        for i, field in enumerate(FRAMING)
        for method in ("POST", "GET")
    ]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        assert set(form.statuses(await gate.bulk(form, entries))) == {200}
        assert len(backend.requests) == len(entries)
        for peer in backend.peers:
            assert bytes(peer.received) == b"".join(r.head + r.body for r in peer.requests)
    body = json.dumps(BODY).encode()
    for request in backend.requests:
        assert not request.all("transfer-encoding")
        assert request.body == (body if request.method == "POST" else b"")
        sizes = [b"%d" % len(body)] if request.method == "POST" else []
        assert request.all("content-length") == sizes
        assert not request.all("connection")


MARKS = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\x0b",
    "\x1f",
    "\x7f",
    "\x85",
    "\u2028",
    "\u0100",
    "\u560d\u560a",
]
"""Ends of lines and strings, to somebody. The last two are CR and LF to who cuts bytes off."""


@pytest.mark.parametrize("mark", MARKS, ids=ascii)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_nothing_leaves_its_place_in_a_head(form: Format, mark: str) -> None:
    fields = [
        ("X-A", f"a{mark}X-Injected: 1"),
        (f"X-A{mark}X-Injected", "1"),
        (f"X-A: 1{mark}X-Injected", "1"),
        ("X-A", f"{mark}{mark}GET /admin HTTP/1.1"),
    ]
    entries: list[Any] = [form.entry("/x", own=form.own["items"]([field])) for field in fields]
    entries += [form.entry(f"/x{mark}y"), form.entry("/x", f"GET{mark}")]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for entry in entries:
            answer = await gate.bulk(form, [entry])
            if answer.status == 200:
                statuses = form.statuses(answer)
                # A letter that is no control character is data in a path, and is encoded there.
                assert statuses == [404] or (statuses == [200] and not mark.isascii())
        for request in backend.requests:
            assert b"njected" not in request.head
            assert request.head.count(b"\n") == request.head.count(b"\r\n")
            assert request.line.isascii()


@pytest.mark.parametrize("spelt", ["lines", "lines as text"])
async def test_lines_are_fields_and_not_more_fields_than_lines(spelt: str) -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for value in ("a\rX-Injected: 1", "a\0", "a\x0bX-Injected: 1", "a\x85X-Injected: 1"):
            entry = AGENDIZE.entry("/x", own=AGENDIZE.own[spelt]([("X-A", value)]))
            assert (await gate.bulk(AGENDIZE, [entry])).status == 400
        assert not backend.requests


# --- from the backend ----------------------------------------------------------------------------

POISON = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n["POISON"]'
GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n["good"]'


def answer_with(*fields: str, body: bytes = b'["good"]') -> bytes:
    return (
        "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *fields, "")).encode("latin-1") + body
    )


BAD = {
    "two lengths": answer_with("Content-Length: 8", "Content-Length: 9"),
    "one length twice": answer_with("Content-Length: 8", "Content-Length: 8"),
    "a list of lengths": answer_with("Content-Length: 8, 8"),
    "a length with a sign": answer_with("Content-Length: +8"),
    "a length below zero": answer_with("Content-Length: -1"),
    "a length past 64 bits": answer_with("Content-Length: 18446744073709551624"),
    "a length and chunks": answer_with(
        "Content-Length: 8", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + POISON
    ),
    "chunks and a length": answer_with(
        "Transfer-Encoding: chunked", "Content-Length: 8", body=b"0\r\n\r\n" + POISON
    ),
    "chunked twice": answer_with(
        "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "gzip, chunked": answer_with("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "identity": answer_with("Transfer-Encoding: identity"),
    "chunks on HTTP/1.0": answer_with("Transfer-Encoding: chunked", body=b"0\r\n\r\n").replace(
        b"/1.1", b"/1.0"
    ),
    "a size that is none": answer_with("Transfer-Encoding: chunked", body=b"zz\r\n"),
    "a size past 64 bits": answer_with(
        "Transfer-Encoding: chunked", body=b"10000000000000001\r\na\r\n0\r\n\r\n"
    ),
    "a chunk longer than it says": answer_with(
        "Transfer-Encoding: chunked", body=b"1\r\nabc\r\n0\r\n\r\n"
    ),
    "an extension with LF": answer_with("Transfer-Encoding: chunked", body=b"1;a\na\r\n0\r\n\r\n"),
    "a fold": answer_with("X: a", " b", "Content-Length: 8"),
    "a space before a colon": answer_with("Content-Length : 8"),
    "a nul": answer_with("X: a\0b", "Content-Length: 8"),
    "a name of nothing": answer_with(": a", "Content-Length: 8"),
    "bare CR": answer_with("X: a\rSet-Cookie: b", "Content-Length: 8"),
    "status 000": GOOD.replace(b"200 OK", b"000 OK"),
    "status 099": GOOD.replace(b"200 OK", b"099 OK"),
    "status 600": GOOD.replace(b"200 OK", b"600 OK"),
    "status of letters": GOOD.replace(b"200 OK", b"2xx OK"),
    "HTTP/0.9": b'["good"]',
    "HTTP/2.0": GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "HTTP/1.7": GOOD.replace(b"HTTP/1.1", b"HTTP/1.7"),
    "another protocol": b"SSH-2.0-OpenSSH\r\n",
    "101 that nobody asked for": b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    + POISON,
    "seventeen interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + GOOD,
    "a head of 40 KiB": answer_with("X: " + "a" * 40_000, "Content-Length: 8"),
    "two hundred fields": answer_with(*(["X: a"] * 200), "Content-Length: 8"),
}

EXTRA = {
    "a second answer": GOOD + POISON,
    "a second answer that was not asked for in HTTP/1.0": GOOD.replace(b"/1.1", b"/1.0") + POISON,
    "bytes behind a length": GOOD + b"POISON",
    "a body of 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 10\r\n\r\n" + POISON,
    "a body of 304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n" + POISON,
    "bytes behind the last chunk": answer_with(
        "Transfer-Encoding: chunked", body=b'8\r\n["good"]\r\n0\r\n\r\n' + POISON
    ),
    "a field among the trailers": answer_with(
        "Transfer-Encoding: chunked", body=b'8\r\n["good"]\r\n0\r\nSet-Cookie: POISON\r\n\r\n'
    ),
    "interim answers": b"HTTP/1.1 100 Continue\r\nSet-Cookie: POISON\r\n\r\n" + GOOD,
}
"""Answers that are good up to a point: what stands behind it is nobody's."""


def hostile(answer: bytes) -> Script:
    """Says this to `/first`, and to all else what `echo` says."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(answer if request.target == "/first" else echoed(request))

    return script


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_answer_is_a_502_and_harms_nobody_else(name: str) -> None:
    async with RawBackend(hostile(BAD[name])) as backend:
        async with siege(backend) as gate:
            answer = await gate.bulk(GUIDEWIRE, [GUIDEWIRE.entry("/first")])
            (result,) = answer.json["responses"]
            assert result["status"] == 502
            assert "sent=?1" in str(result["headers"])
            answer = await gate.ask(got("/first"))
            assert answer.status == 502
            assert answer.json["sent"] is True
            await fine(gate)


@pytest.mark.parametrize("name", EXTRA)
async def test_what_follows_an_answer_is_nobodys_answer(name: str) -> None:
    async with RawBackend(hostile(EXTRA[name])) as backend:
        async with siege(backend) as gate:
            for payload in (got("/first"), None):
                if payload is None:
                    answer = await gate.bulk(GUIDEWIRE, [GUIDEWIRE.entry("/first")])
                    status = answer.json["responses"][0]["status"]
                else:
                    answer = await gate.ask(payload)
                    status = answer.status
                assert status in (200, 204, 304)
                assert b"POISON" not in answer.body
                assert "POISON" not in str(answer.headers)
            await fine(gate)


async def fine(gate: Siege) -> None:
    """The next calls get their own answers."""
    answer = await gate.bulk(SUGARCRM, [SUGARCRM.entry(f"/fine/{i}") for i in range(3)])
    assert [r["contents"]["target"] for r in answer.json] == [f"/fine/{i}" for i in range(3)]
    assert (await gate.ask(got("/fine"))).json["target"] == "/fine"


async def test_what_a_backend_says_unasked_is_no_answer_to_the_next_call() -> None:
    """A 408 on an idle connection, say, as proxies send them; here it claims to be somebody's."""

    async def speaks(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b'["good"]'))
        await peer.send(POISON)
        await peer.gone()

    async with RawBackend(*[speaks] * 4, echo) as backend, siege(backend) as gate:
        for _ in range(2):
            assert (await gate.ask(got("/first"))).body in (b'["good"]',)
            await backend.until(lambda: backend.open == 0)
            (result,) = (await gate.bulk(SUGARCRM, [SUGARCRM.entry("/first")])).json
            assert result["contents"] == ["good"]
            await backend.until(lambda: backend.open == 0)
        await fine(gate)


async def test_an_answer_to_head_has_no_contents_whatever_follows() -> None:
    async with RawBackend(hostile(GOOD)) as backend, siege(backend) as gate:
        (result,) = (await gate.bulk(SUGARCRM, [SUGARCRM.entry("/first", "HEAD")])).json
        assert (result["status"], result["contents"]) == (200, "")
        answers = await gate.talk(got("/first", [("Connection", "close")], "HEAD"))
        assert [answer.status for answer in answers] == [200]
        assert answers[0].body == b""
        await fine(gate)

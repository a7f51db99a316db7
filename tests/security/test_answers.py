"""A backend's answer is one entry's, as it came, and acts on nothing around it."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from gateway.config.settings import Limits, Timeouts, Upstream
from tests.front import raw
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    SUGARCRM,
    TRUTO,
    Answer,
    Format,
    Siege,
    echo,
    got,
    posted,
    siege,
    truto,
)
from tests.support.raw_backend import Peer, RawBackend, Script, ok


def results(form: Format, answer: Answer) -> list[dict[str, Any]]:
    document = answer.json
    listed: list[dict[str, Any]] = document if form is SUGARCRM else document["responses"]
    return listed


CONTENTS = {"sugarcrm": "contents", "guidewire": "body", "agendize": "response"}

ESCAPES = [
    b"]}", b'"}]', b"}", b'"', b"\\", b'{"a":1}]},{"status":200,"contents":{"forged":1',
    b'{"a":1},{"b":2}', b'{"a":1}\n{"b":2}', b"[1,2", b"[1]]", b'"\\"', b"nul", b"null]", b"1 2",
    b"{}{}", b",", b"//", b"NaN", b"\xff\xfe", b"\x00", b'"\xed\xa0\x80"', b'"\\ud800"',
    b"\xef\xbb\xbf[1]]", b"[" * 5000, b"</script>", b"\xe2\x80\xa8", b'{"a":"\n"}', b"[1]\x00",
    b"'", b"-", b"0123", b"1e", b'{"a":}',
]  # fmt: skip
"""Contents that are no JSON, and would end an entry, an answer or a parser's patience."""


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("declared", ["application/json", "text/html", "application/x-ndjson"])
async def test_contents_stay_inside_their_entry(form: Format, declared: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            place = int((await peer.request()).target[1:])
            body = b'"fine"' if place % 2 else ESCAPES[place // 2]
            answer = ok(body).replace(b"application/json", declared.encode())
            await peer.send(answer)

    entries = [form.entry(f"/{place}") for place in range(2 * len(ESCAPES))]
    async with RawBackend(script) as backend, siege(backend) as gate:
        answer = await gate.bulk(form, entries)
        found = results(form, answer)
    assert [entry["status"] for entry in found] == [200] * len(entries)
    contents = [entry[CONTENTS[form.name]] for entry in found]
    fine = "fine" if declared == "application/json" else '"fine"'
    assert contents[1::2] == [fine] * len(ESCAPES)
    assert all(isinstance(text, str) for text in contents[::2])
    assert b"forged" not in answer.body.replace(b'\\"forged', b"")


ODD_FIELDS = [
    "X-Quote: \"}],\"a\":\"", "X-Backslash: \\", "X-Latin: \xe9\xff", "X-Tab: a\tb", "X-Empty:",
    "X-Odd: [1]", "X-Long: " + "a" * 4000, "Set-Cookie: a=1", "Set-Cookie: b=2", "SET-COOKIE: c=3",
    "ETag: \"x\"", "!#$%&'*+-.^_`|~: token",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_header_fields_and_phrases_cannot_leave_their_strings(form: Format) -> None:
    body = b'{"a":1}'
    head = "".join(f"{field}\r\n" for field in ODD_FIELDS).encode("latin-1")

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(
                b'HTTP/1.1 200 "},{"\\\xe9\r\n' + head + b"Content-Length: 7\r\n\r\n" + body
            )

    async with RawBackend(script) as backend, siege(backend) as gate:
        answer = await gate.bulk(form, [form.entry("/x")] * 3)
        found = results(form, answer)
    assert [entry[CONTENTS[form.name]] for entry in found] == [{"a": 1}] * 3
    if form is SUGARCRM:
        assert found[0]["headers"]["X-Quote"] == '"}],"a":"'
        assert found[0]["status_text"] == '"},{"\\\xe9'
        assert "Set-Cookie" not in found[0]["headers"]
    if form is GUIDEWIRE:
        values = [header["value"] for header in found[0]["headers"]]
        assert '"}],"a":"' in values
        assert "a=1" in values


ACTING = [
    "Set-Cookie: session=x; Path=/", "Location: http://evil/", "Refresh: 0; url=http://evil/",
    "Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true",
    "Content-Security-Policy: default-src *", "Strict-Transport-Security: max-age=0",
    "Clear-Site-Data: *", "Content-Disposition: attachment", "Server: backend/1.0",
    "X-Powered-By: PHP", "Alt-Svc: h3=evil", "WWW-Authenticate: Basic",
    "Proxy-Authenticate: Basic", "Retry-After: 1", "Link: <http://evil/>", "Connection: close",
    "Keep-Alive: timeout=1", "Trailer: X", "Age: 1", "Warning: 1", "Via: 1.1 x",
    "Cache-Control: public, max-age=999", "X-Accel-Redirect: /internal", "X-Sendfile: /etc/passwd",
    "X-Request-Id: theirs", "Content-Encoding: identity", "Content-Type: text/html", "Date: x",
]  # fmt: skip


@pytest.mark.parametrize("control", [b"\x00", b"\x07", b"\x1b[31m", b"\x7f"])
async def test_a_phrase_with_control_bytes_is_left_out(control: bytes) -> None:
    head = b"HTTP/1.1 200 OK" + control + b"\r\nContent-Type: application/json\r\n"
    answer = head + b'Content-Length: 6\r\n\r\n["ok"]'
    async with RawBackend(always(answer)) as backend, siege(backend) as gate:
        listed = await gate.bulk(SUGARCRM, [SUGARCRM.entry("/a")])
        async with raw(gate.address) as client:
            client.send(got("/a"))
            passed = await client.reader.readuntil(b"\r\n")
    assert listed.json[0]["status_text"] == "OK"  # what 200 is called
    assert passed == b"HTTP/1.1 200 \r\n"


@pytest.mark.parametrize("path", [*(form.path for form in FORMATS), TRUTO])
async def test_no_field_of_a_backend_acts_on_the_answer_as_a_whole(path: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            status = {"/302": "302 Found", "/401": "401 No", "/503": "503 No"}.get(
                request.target, "200 OK"
            )
            await peer.send(ok(b"{}", *ACTING, status=status))
            return

    documents = {
        form.path: form.document([form.entry(target) for target in ("/x", "/302", "/401", "/503")])
        for form in FORMATS
    }
    documents[TRUTO] = truto({"resource": "x", "method": "list", "persist": True})
    async with RawBackend(script) as backend, siege(backend) as gate:
        answer = await gate.ask(posted(path, documents[path]))
    assert answer.status == 200
    names = {name.lower() for name, _ in answer.headers}
    ours = {"content-type", "x-request-id", "date", "server-timing", "x-accel-buffering"}
    assert names - ours <= {"content-length", "transfer-encoding"}
    assert answer.all("content-type") == ["application/json"]
    assert answer.all("x-request-id") != ["theirs"]
    assert "max-age" not in str(answer.headers)


# --- codings -------------------------------------------------------------------------------------


def coded(body: bytes, coding: str) -> bytes:
    """An answer whose type is not repeated."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def always(answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.target == "/alive":
                await peer.send(ok())
            else:
                await peer.send(answer)

    return script


BOMB = b"[" + b" " * 40_000_000 + b"]"
ZIPPED = gzip.compress(BOMB, 6)
DEFLATED = zlib.compress(BOMB, 6)
RAW = zlib.compressobj(6, zlib.DEFLATED, -15)
BARE = RAW.compress(BOMB) + RAW.flush()
GOOD = gzip.compress(b'{"a":1}')

CODINGS = {
    "a bomb": (coded(ZIPPED, "gzip"), "http_response_body_size"),
    "a bomb of deflate": (coded(DEFLATED, "deflate"), "http_response_body_size"),
    "a bomb without a wrapper": (coded(BARE, "deflate"), "http_response_body_size"),
    "a bomb of members": (coded(GOOD * 2000, "gzip"), "http_response_content_coding"),
    "a bomb in a bomb": (
        coded(gzip.compress(ZIPPED), "gzip, gzip"),
        "http_response_content_coding",
    ),
    "a bomb that says it is small": (
        coded(ZIPPED[:-4] + b"\x01\0\0\0", "gzip"),
        "http_response_body_size",
    ),
    "half of it": (coded(GOOD[:-9], "gzip"), "http_response_content_coding"),
    "without its end": (coded(GOOD[:-1], "gzip"), "http_response_content_coding"),
    "a wrong sum": (coded(GOOD[:-8] + b"\0" * 8, "gzip"), "http_response_content_coding"),
    "bytes behind": (coded(GOOD + b"x", "gzip"), "http_response_content_coding"),
    "no gzip at all": (coded(b'{"a":1}', "gzip"), "http_response_content_coding"),
    "brotli": (coded(b"\x0b\x02\x80{}\x03", "br"), "http_response_content_coding"),
    "zstd": (coded(b"\x28\xb5\x2f\xfd", "zstd"), "http_response_content_coding"),
    "something": (coded(b"{}", "x-rot13"), "http_response_content_coding"),
    "two codings": (coded(GOOD, "gzip, br"), "http_response_content_coding"),
}


@pytest.mark.parametrize("name", CODINGS)
async def test_a_coding_that_lies_or_explodes_is_a_502_of_that_entry(name: str) -> None:
    answer_, error = CODINGS[name]
    limits = Limits(response_bytes=2**20)
    async with RawBackend(always(answer_)) as backend, siege(backend, limits=limits) as gate:
        for form in FORMATS:
            answer = await gate.bulk(form, [form.entry("/x"), form.entry("/alive")])
            assert form.statuses(answer) == [502, 200]
        assert f'gateway_subrequest_errors_total{{error="{error}"}} 3.0' in await gate.metrics()
        assert "gateway_buffered_bytes 0.0" in await gate.metrics()


async def test_what_is_coded_well_is_undone_within_the_limit() -> None:
    limits = Limits(response_bytes=2**20)
    async with (
        RawBackend(always(coded(GOOD, "gzip"))) as backend,
        siege(backend, limits=limits) as gate,
    ):
        (result,) = results(SUGARCRM, await gate.bulk(SUGARCRM, [SUGARCRM.entry("/x")]))
        assert result["contents"] == {"a": 1}
        assert "Content-Encoding" not in result["headers"]
        passed = await gate.ask(got("/x"))
        assert (passed.body, passed.all("content-encoding")) == (GOOD, ["gzip"])
    assert backend.requests[0].header("accept-encoding") == b"identity"


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x", "GZIP", "identity, gzip"]
)
async def test_a_compressed_bulk_call_is_refused_and_never_decoded(coding: str) -> None:
    bombs = {"deflate": DEFLATED, "gzip": ZIPPED}
    body = bombs.get(coding.lower(), ZIPPED)
    fields = [("Content-Encoding", coding)]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for path in (*(form.path for form in FORMATS), TRUTO):
            assert (await gate.post(path, body, fields)).status == 415
        assert not backend.peers
        assert (await gate.post("/passed", body, fields)).status == 200
    assert backend.requests[0].body == body


# --- without an end ------------------------------------------------------------------------------


def endless(head: bytes, more: bytes) -> Script:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        if request.target == "/alive":
            await peer.send(ok())
            return
        await peer.send(head)
        while True:
            await peer.send(more)

    return script


ENDLESS = {
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, "http_response_body_size"),
    "a body with a length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        b"x" * 65536,
        "http_response_body_size",
    ),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"8\r\nxxxxxxxx\r\n" * 5000,
        "http_response_body_size",
    ),
    "a chunk's extension": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"x" * 8192,
        "http_protocol_error",
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: y\r\n" * 1000,
        "http_protocol_error",
    ),
    "a head": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000, "http_response_header_section_size"),
    "a field": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 8192, "http_response_header_section_size"),
    "a phrase": (b"HTTP/1.1 200 ", b"O" * 8192, "http_response_header_section_size"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10, "http_protocol_error"),
    "blank lines": (b"\r\n", b"\r\n" * 4000, "http_protocol_error"),
    "a gzip body": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10],
        zlib.compressobj(0, zlib.DEFLATED, -15).compress(b"x" * 70_000)[:70_000],
        "http_response_",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_answer_without_an_end_is_a_502_and_its_connection_is_closed(name: str) -> None:
    head, more, error = ENDLESS[name]
    limits = Limits(response_bytes=2**20)
    async with RawBackend(endless(head, more)) as backend, siege(backend, limits=limits) as gate:
        answer = await gate.bulk(GUIDEWIRE, [GUIDEWIRE.entry("/x")])
        (result,) = answer.json["responses"]
        assert result["status"] == 502
        assert error in str(result["headers"])
        await backend.until(lambda: backend.open == 0)
        await gate.alive()


async def test_an_answer_that_drips_ends_at_its_deadline() -> None:
    """However it drips: every byte in time, and the whole too late."""

    async def drips(peer: Peer) -> None:
        request = await peer.request()
        if request.target == "/alive":
            await peer.send(ok())
            return
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 16000000\r\n\r\n")
        while True:
            await peer.send(b"x")

    timeouts = Timeouts(response=0.4)
    async with RawBackend(drips) as backend:
        upstream = Upstream(url=backend.url, timeouts=timeouts)
        async with siege(backend, upstream=upstream) as gate:
            for form in (SUGARCRM, AGENDIZE):
                answer = await gate.bulk(form, [form.entry("/x")])
                assert form.statuses(answer) == [504]
            await backend.until(lambda: backend.open == 0)
            await gate.alive()


async def test_a_cut_body_is_no_shorter_one() -> None:
    """Whatever the answer's framing: as an entry a 502, passed through cut."""

    def cut(head: bytes, end: str) -> Script:
        async def script(peer: Peer) -> None:
            request = await peer.request()
            if request.target == "/alive":
                await peer.send(ok())
                return
            await peer.send(head + b'{"a":')
            peer.reset() if end == "reset" else peer.close()

        return script

    heads = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    ]  # fmt: skip
    for head in heads:
        for end in ("reset", "close"):
            async with RawBackend(cut(head, end)) as backend, siege(backend) as gate:
                await refused_and_cut(gate)
    async with (
        RawBackend(cut(b"HTTP/1.1 200 OK\r\n\r\n", "reset")) as backend,
        siege(backend) as gate,
    ):
        await refused_and_cut(gate)


async def refused_and_cut(gate: Siege) -> None:
    answer = await gate.bulk(SUGARCRM, [SUGARCRM.entry("/x")])
    assert SUGARCRM.statuses(answer) == [502]
    try:
        answers = await gate.talk(got("/x"))
    except ConnectionResetError:
        pass
    else:
        assert [answer.status for answer in answers if answer.complete] in ([], [502])
    await gate.alive()

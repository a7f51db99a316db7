"""The answer on the client's connection: its head as bytes, its contents, and how it is cut.

aiohttp's StreamResponse adds a Content-Type, a Date and a Server that nobody sent, loses header
bytes that are not UTF-8 and the Content-Length of a 304. So the head is written here, and what
aiohttp's RequestHandler gets to see of an answer is no more than the three things it asks of one:
`prepare`, `write_eof` and `keep_alive` (tests/test_answer.py watches that private seam).

The rule it keeps: an answer that has begun either ends whole or is cut so that everybody on the
way can see it. An end-delimited answer to an HTTP/1.0 client ends with its connection, and nginx
at its defaults is such a client: a plain close would make a whole answer of half a one. Only a
reset does not, so cutting is `SO_LINGER` zero and an abort. A Unix socket knows no reset; behind
one, have the front end speak HTTP/1.1, where a missing last chunk tells.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Protocol

import orjson
from aiohttp import web
from aiohttp.streams import StreamReader

from gateway.batch import Failure, Headers, RawHeaders
from gateway.statuses import PHRASES

LARGE = 128 * 2**10
"""From this many bytes on contents go out in a write of their own: a copy would cost more, and for
as long as the client takes them there would be two of them in memory."""


class Wire(Protocol):
    """What an answer needs of the connection it is written to; `server.client.Client` is it."""

    answer: ClientAnswer | None
    """The answer to the request in hand, once there is one."""
    leaving: bool
    """The connection ends with the answer in hand."""
    uninvited: bool
    """The client holds its body back until it is asked for it."""
    dropped: bool
    """We have ended it by a reset: it was not the client who left."""
    on_room: Callable[[], None] | None
    """Called when a writer that was told to wait may go on."""
    on_gone: Callable[[], None] | None
    """Called when the client leaves while a request is in hand that no task handles."""

    @property
    def writing_paused(self) -> bool: ...

    def invite(self) -> None: ...

    def write(self, data: bytes) -> None:
        """Never blocks, never raises: what is written to a client that has left is dropped."""

    async def room(self) -> None:
        """Returns when the client has taken enough of what was written."""

    async def linger(self) -> None:
        """Stops writing and reads on for a while, so that no reset overtakes the answer."""

    def cut(self) -> None:
        """Ends the connection by a reset."""

    def brittle(self, yes: bool) -> None:
        """While it is, its end is a reset whatever brings it about: if this process is killed, the
        kernel closes what was open, and a mere close is the end of an answer without a length. An
        answer is brittle until its last bytes are written here; what the kernel has not taken of
        them by then is not guarded so."""

    def endless(self) -> None:
        """The request in hand has no end of its own: a drain does not wait for it."""

    def tunnel(self) -> StreamReader:
        """After a 101: from now on the client's bytes are no HTTP, and are read from this."""


def wire(request: web.BaseRequest) -> Wire:
    """The connection that a request came on."""
    return request.protocol  # type: ignore[return-value]  # aiohttp types its own class


class BodyStalled(Exception):
    """The client stopped sending its body; raised where that is read."""


def invite(request: web.BaseRequest) -> None:
    """Asks for the body that a client with `Expect: 100-continue` is holding back: to be called
    before a body is first read, and not by who refuses the request without reading it. Where a
    backend is to read it, the backend is who asks."""
    wire(request).invite()


class ClientAnswer:
    """One answer, whole or streamed. Contents go out as they come; the head goes with the first.

    The caller gives the fields as they are to appear, without hop-by-hop ones; framing and
    `Connection` are written here.
    """

    __slots__ = (
        "_bare",
        "_brittle",
        "_chunked",
        "_content",
        "_declared",
        "_headers",
        "_legacy",
        "_reason",
        "_wire",
        "began",
        "ended",
        "keep_alive",
        "lingers",
        "status",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        status: int,
        headers: RawHeaders = (),
        *,
        reason: bytes | None = None,
        declared: bool = False,
    ) -> None:
        """`reason` None: the usual phrase; `declared`: there is a Content-Length in the fields."""
        self._wire = wire(request)
        self._content = request.content
        self._headers = headers
        self._reason = reason
        self._declared = declared
        self._legacy = request.version < (1, 1)
        self._bare = status in _BARE or request.method == "HEAD"
        self._brittle = self._chunked = False
        self.status = status
        self.keep_alive = request.keep_alive
        self.began = False
        self.ended = False
        self.lingers = False
        self._wire.answer = self

    def send(self, data: bytes = b"") -> None:
        """Writes some of the contents; without any, the head alone goes out now."""
        head = b"" if self.began else self._head(None)
        if head or data:
            self._put(head, data)

    async def room(self) -> None:
        """Waits while the client is behind."""
        if self._wire.writing_paused:
            await self._wire.room()

    def finish(self, data: bytes = b"", *, streamed: bool = False) -> ClientAnswer:
        """Writes the rest. An answer that had not begun goes out whole, in one write; `streamed`:
        framed as a stream, where it is chance that all of it was there at once."""
        head = b""
        if not self.began:
            head = self._head(None if streamed and not self._legacy else len(data))
        self._put(head, data, b"0\r\n\r\n" if self._chunked else b"")
        if self._brittle:
            self._wire.brittle(False)
        self.ended = True
        return self

    def cut(self) -> None:
        """Ends the answer so that nobody can take it for a whole one."""
        self.ended = True
        self.keep_alive = False
        self._wire.cut()

    def close(self) -> None:
        """The connection is to end with this answer; to be said before it begins."""
        self.keep_alive = False

    def _put(self, head: bytes, data: bytes, last: bytes = b"") -> None:
        """Head, some contents in their framing, and the end, in one write if they are not large."""
        if self._bare:
            data = b""
        if data and self._chunked:
            head += b"%x\r\n" % len(data)
            last = b"\r\n" + last
        pieces = (head, data, last) if len(data) >= LARGE else (head + data + last,)
        for piece in pieces:
            if piece:
                self._wire.write(piece)

    def _head(self, length: int | None) -> bytes:
        """The head; `length` is that of the contents where all of them are at hand."""
        lines = [self._status_line(), *map(b": ".join, self._headers)]
        if framing := self._framing(length):
            lines.append(framing)
        if connection := self._connection():
            lines.append(connection)
        head = joined(lines)
        self.began = True
        return head

    def _framing(self, length: int | None) -> bytes | None:
        """How the contents' end is told.

        1. Contents that cannot be, or whose length is among the fields: nothing to say. Of an empty
           answer to HEAD neither: what GET would bring is not known here.
        2. All contents at hand: their length.
        3. A stream on HTTP/1.1: chunked.
        4. A stream on HTTP/1.0: it ends with the connection.
        """
        if self._declared or self.status in _BARE or (self._bare and not length):
            return None
        if length is not None:
            return b"Content-Length: %d" % length
        if not self._legacy:
            self._chunked = True
            return b"Transfer-Encoding: chunked"
        self.keep_alive = False
        self._brittle = True
        self._wire.brittle(True)
        return None

    def _connection(self) -> bytes | None:
        if self.status == 101:
            self.keep_alive = False  # it is another protocol's now, and the fields say so
            return None
        if self._wire.leaving or self._content.exception() is not None:
            self.keep_alive = False
        if not self.keep_alive:
            return b"Connection: close"
        return b"Connection: keep-alive" if self._legacy else None

    def _status_line(self) -> bytes:
        if self._reason is not None:
            return b"HTTP/1.1 %d %b" % (self.status, self._reason)
        return STATUS_LINES.get(self.status) or b"HTTP/1.1 %d " % self.status

    # What aiohttp's RequestHandler.finish_response asks for.

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing: the head waits for the first contents."""

    async def write_eof(self) -> None:
        """The handler is done: an answer it left open is a mistake of ours, and is cut. The next
        request waits until the client has taken most of this answer."""
        if not self.ended:
            self.cut()
        elif self.lingers or not (self.keep_alive or self._content.is_eof()):
            await self._wire.linger()
        elif self.keep_alive:
            await self.room()


_BARE = frozenset({204, 304})
"""Statuses without contents (RFC 9112 6.3), beside whatever answers HEAD. What follows a 101 is no
contents, but bytes that go as they are."""

STATUS_LINES = {
    status: b"HTTP/1.1 %d %b" % (status, phrase.encode()) for status, phrase in PHRASES.items()
}


def joined(lines: list[bytes]) -> bytes:
    """A head of these lines. Raises ValueError for a line that would break it."""
    text = b"".join(lines)
    if _CR in text or _LF in text or 0 in text:
        raise ValueError("control byte in the head of an answer")
    return b"\r\n".join((*lines, b"", b""))


_CR, _LF = b"\r\n"


Done = Callable[[ClientAnswer], None]
"""Told a request's answer, once, when it has been given in full."""


def settle(end: asyncio.Future[ClientAnswer], answer: ClientAnswer) -> None:
    """Tells a task its answer, unless it was cancelled a moment ago."""
    if not end.done():
        end.set_result(answer)


def encoded(headers: Headers) -> RawHeaders:
    """Fields of our own making as bytes; bytes that came in as latin-1 go out as they came."""
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)


# --- answers of the gateway's own ----------------------------------------------------------------

BAD_BODY = Failure(
    "http_request_error", "bad_body", status=400, message="the body is not framed as announced"
)
BODY_TIMEOUT = Failure(
    "http_request_error", "body_timeout", status=408, message="the body stopped arriving"
)
BUG = Failure("proxy_internal_error", "internal")

ALLOW = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")


def problem(
    request: web.BaseRequest, failure: Failure, headers: RawHeaders = (), *, close: bool = False
) -> ClientAnswer:
    """An error outside any dialect, as RFC 9457 has it; finished."""
    answer = ClientAnswer(request, failure.code, (*_problem_fields(failure), *headers))
    if close:
        answer.close()
    return answer.finish(problem_body(failure))


def canned(failure: Failure) -> bytes:
    """A whole problem answer for a connection that has no request, or none worth reading."""
    body = problem_body(failure)
    lines = [STATUS_LINES[failure.code], *map(b": ".join, _problem_fields(failure))]
    lines += (b"Content-Length: %d" % len(body), b"Connection: close")
    return joined(lines) + body


def problem_body(failure: Failure) -> bytes:
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": PHRASES[failure.code],
            "status": failure.code,
            "detail": failure.words,
            "error": failure.error,
            "reason": failure.details,
            "sent": failure.sent,
        }
    )


def proxy_status(failure: Failure) -> bytes:
    """The value of `Proxy-Status` (RFC 9209)."""
    text = (
        f'bulk-gateway; error={failure.error}; details="{failure.details}"; sent=?{failure.sent:d}'
    )
    return text.encode("ascii")


def date() -> tuple[bytes, bytes]:
    """The Date field, which RFC 9110 6.6.1 asks of whoever makes an answer."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True).encode("ascii"))
    return (b"Date", _date[1])


_date = (0, b"")


def _problem_fields(failure: Failure) -> Iterable[tuple[bytes, bytes]]:
    yield b"Content-Type", b"application/problem+json"
    yield date()
    yield b"Proxy-Status", proxy_status(failure)
    if failure.retry_after:
        yield b"Retry-After", b"%d" % failure.retry_after

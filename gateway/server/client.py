"""The client's connection: aiohttp's RequestHandler with deadlines, bounds and a strict door.

One sweeper looks at all connections four times a second, so that none needs a timer of its own.
A connection is in one of these states, each with its deadline (`client` of the settings):

1. Nothing of a request has come: `idle` since the last answer, for a new connection `header`. It is
   closed without a word: a 408 on an idle connection may be taken for the answer to whatever its
   client sends next.
2. A head has begun: `header` since its first byte, then 408.
3. A body is being read: `body_stall` since its last byte, unless we are the ones who do not read.
   Whoever reads it gets `BodyStalled`.
4. Bytes wait to be taken by the client: `write_stall` since it took some, then the connection is
   cut. This holds beside any other state.
5. An answer was sent to a client that may still be talking: what comes is thrown away, briefly.

Refusals of this door are problem+json and name no byte of what was received; aiohttp's own would
quote the header they stumbled over.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

import aiohttp.http
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from gateway.answer import BodyStalled, ClientAnswer, canned, problem
from gateway.batch import Failure
from gateway.config import settings
from gateway.server.process import where

TICK = 0.25
"""Seconds between two looks at the connections: how late a deadline may be."""
LINE = 16 * 2**10
"""Most bytes of a request's target."""
FIELD = LINE - 1
"""Most bytes of one header field; unlike `LINE`, since that is how LineTooLong tells them apart."""
FIELDS = 128
HEAD = 64 * 2**10
"""Most bytes of a head that comes in more than one piece."""
LINGER = 2.0
"""Seconds of silence to wait after an answer to a request that was not read to its end..."""
LINGER_AT_MOST = 30.0
"""... and of throwing away what is not silence."""
TURNED_AWAY = 128
"""Most connections beyond the bound that are told so; those after them are just closed."""

log = structlog.get_logger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[ClientAnswer]]


def _refused(status: int, slug: str, message: str = "") -> Failure:
    return Failure("http_request_error", slug, status=status, message=message)


BAD_REQUEST = _refused(400, "bad_request", "not a well-formed HTTP request")
TARGET_TOO_LONG = _refused(414, "target_too_long")
HEAD_TOO_LARGE = _refused(
    431, "head_too_large", "a header field is too long, or there are too many"
)
BAD_BODY = _refused(400, "bad_body", "the body is not framed as announced")
HEAD_TIMEOUT = _refused(408, "head_timeout", "the head did not arrive in time")
BODY_TIMEOUT = _refused(408, "body_timeout", "the body stopped arriving")
BAD_VERSION = _refused(505, "bad_version", "expected HTTP/1.1 or HTTP/1.0")
BAD_METHOD = _refused(405, "bad_method", "CONNECT and TRACE are not served")
BAD_CODING = _refused(501, "bad_transfer_coding", "the only transfer coding served is chunked")
LEGACY_CODING = _refused(400, "bad_transfer_coding", "HTTP/1.0 has no transfer codings")
BAD_TARGET = _refused(400, "bad_target", "a fragment is no part of a request's target")
UNKNOWN_METHOD = _refused(501, "unknown_method", "no such method")
BAD_HOST = _refused(400, "bad_host", "expected one Host field with a valid name")
BAD_EXPECTATION = _refused(417, "bad_expectation", "expected 100-continue")
FULL = Failure("connection_limit_reached", "gateway_overloaded", retry_after=1)
BUG = Failure("proxy_internal_error", "internal")

ALLOW = ((b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Clients(web.Server):
    """All connections of clients: makes them, sweeps them, hands their requests on."""

    def __init__(self, handler: Handler, deadlines: settings.Client, limit: int) -> None:
        # aiohttp takes for an answer whatever has the three things of `ClientAnswer`.
        super().__init__(
            cast(Any, self._serve),
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=_NEVER,
            tcp_keepalive=True,
            max_line_size=LINE,
            max_field_size=FIELD,
            max_headers=FIELDS,
            read_bufsize=64 * 2**10,
        )
        self._handler = handler
        self.deadlines = deadlines
        self.limit = limit
        self.open: set[Client] = set()
        """Every connection whose socket is not closed yet."""
        self.empty = asyncio.Event()
        """Set while there is none."""
        self.empty.set()
        self.leaving = False
        """Every answer from now on is its connection's last."""
        self.busy = 0
        """Requests in hand, without those that have no end of their own."""
        self.quiet = asyncio.Event()
        """Set while `busy` is 0."""
        self.quiet.set()
        self.refusals: Counter[str] = Counter()
        """How often the door refused, by slug."""
        self._sweeper: asyncio.TimerHandle | None = None

    def __call__(self) -> Client:
        return Client(self, loop=self._loop, **self._kwargs)

    def start(self) -> None:
        self._sweeper = self._loop.call_later(TICK, self._sweep)

    def entered(self, client: Client) -> None:
        self.open.add(client)
        self.empty.clear()

    def left(self, client: Client) -> None:
        self.open.discard(client)
        if not self.open:
            self.empty.set()

    def endless(self, client: Client) -> None:
        """The request in hand has no end of its own: a drain does not wait for it."""
        if not client.endless:
            client.endless = True
            self._done()

    async def part(self, seconds: float) -> None:
        """Closes every connection, by a cut where a request is in hand, else when flushed."""
        clients = list(self.open)
        for client in clients:
            client.part()
        handlers = [client._task_handler for client in clients if client._task_handler is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.empty.wait()
                await asyncio.gather(*handlers, return_exceptions=True)
        for client in list(self.open):
            client.cut()
        self._stop()

    async def _serve(self, request: web.BaseRequest) -> ClientAnswer:
        client = cast(Client, request.protocol)
        client.answer = None
        client.endless = False
        self.busy += 1
        self.quiet.clear()
        try:
            refusal = objection(request)
            if refusal is not None:
                return client.refuse(request, refusal)
            client.expect(request)
            return await self._handler(request)
        finally:
            if not client.endless:
                self._done()
            client.served(request)

    def _done(self) -> None:
        self.busy -= 1
        if not self.busy:
            self.quiet.set()

    def _stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        now = self._loop.time()
        for client in list(self.open):
            client.sweep(now, self.deadlines)
        self.start()


_NEVER = 1e7
"""aiohttp's own idle timer, put far away: it knows nothing of heads that have begun."""

_RESET = struct.pack("ii", 1, 0)


class Client(RequestHandler):
    """One client's connection."""

    __slots__ = (
        "_began",
        "_clients",
        "_flushed",
        "_flushed_at",
        "_head_bytes",
        "_heard",
        "_linger_end",
        "_lingering",
        "_socket",
        "_uninvited",
        "_written",
        "answer",
        "endless",
        "on_room",
    )

    def __init__(self, clients: Clients, **options: Any) -> None:
        super().__init__(clients, **options)
        self._clients = clients
        self._socket: asyncio.Transport | None = None
        """The transport until it is lost; aiohttp forgets its own as soon as it closes it."""
        self._heard = 0.0
        """When the last byte came, or the last answer ended."""
        self._began = 0.0
        """When the head began that is not yet complete; 0 when there is none."""
        self._head_bytes = 0
        self._lingering = 0.0
        """Until when to throw away what comes, if nothing more does; 0: it is read."""
        self._linger_end = 0.0
        self._written = 0
        self._flushed = 0
        self._flushed_at = 0.0
        self._uninvited = False
        """The client holds its body back until it is asked for it."""
        self.answer: ClientAnswer | None = None
        self.endless = False
        self.on_room: Callable[[], None] | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        clients = self._clients
        self._socket = cast(asyncio.Transport, transport)
        self._heard = self._flushed_at = self._loop.time()
        full = len(clients.open) - clients.limit
        clients.entered(self)
        if full < 0:
            super().connection_made(transport)
        else:
            self._turn_away(full)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._clients.left(self)
        self.on_room = None
        self.answer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self._lingering:
            self._lingering = min(self._heard + LINGER, self._linger_end)
            return
        super().data_received(data)
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._began = 0.0
            self._head_bytes = 0
        elif data:
            self._head_grows(len(data))

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()

    # What an answer asks for (`answer.Wire`).

    @property
    def leaving(self) -> bool:
        return self._clients.leaving or self._uninvited

    def invite(self) -> None:
        if self._uninvited:
            self._uninvited = False
            self._heard = self._loop.time()
            self.write(CONTINUE)

    def write(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._written += len(data)
            transport.write(data)

    async def room(self) -> None:
        await self._drain_helper()

    async def linger(self) -> None:
        self._discard()
        # Ended by the client's own close, or by the sweeper's: both cancel this handler.
        await self._loop.create_future()

    def cut(self) -> None:
        transport = self._socket
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    # One request, as `Clients` sees it.

    def part(self) -> None:
        if self._current_request is not None:
            self.cut()
        else:
            self.force_close()

    def expect(self, request: web.BaseRequest) -> None:
        if request.headers.get("Expect") is not None and not request.content.is_eof():
            self._uninvited = request.version >= (1, 1)

    def served(self, request: web.BaseRequest) -> None:
        """The handler has ended, however it did."""
        answer = self.answer
        if answer is not None and answer.began and not answer.ended:
            answer.cut()
        if self._uninvited:
            # It was never asked for its body and is not going to send it; the answer said `close`.
            self._uninvited = False
            request.content.feed_eof()
        self.on_room = None
        self._heard = self._loop.time()

    def refuse(self, request: web.BaseRequest, failure: Failure) -> ClientAnswer:
        """Answers what the door does not let in, and ends the connection."""
        self._clients.refusals[failure.details] += 1
        answer = problem(request, failure, ALLOW if failure is BAD_METHOD else (), close=True)
        answer.lingers = True
        return answer

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Any:
        """A request that aiohttp could not parse, or a handler that raised."""
        if isinstance(exc, HttpProcessingError):
            return self.refuse(request, misread(exc))
        if self.answer is not None and self.answer.began:
            raise ConnectionResetError  # `served` has cut it where it was open
        if isinstance(exc, BodyStalled):
            return self.refuse(request, BODY_TIMEOUT)
        if isinstance(exc, RequestPayloadError):
            return self.refuse(request, BAD_BODY)
        log.error("request_failed", error=type(exc).__name__, where=where(exc))
        return problem(request, BUG, close=True)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """aiohttp's own words quote what the client sent; `handle_error` says what there is."""

    # Deadlines.

    def sweep(self, now: float, deadlines: settings.Client) -> None:
        if self._lingering:
            if now >= self._lingering:
                self._abort()
            return
        if self._stuck(now) >= deadlines.write_stall:
            self.cut()
        elif self._current_request is not None:
            self._sweep_body(now - self._heard, self._current_request, deadlines.body_stall)
        elif self._waiter is not None:
            self._sweep_head(now, deadlines)

    def _stuck(self, now: float) -> float:
        """Seconds since the client last took a byte that was there for it."""
        transport = self._socket
        waiting = transport.get_write_buffer_size() if transport is not None else 0
        flushed = self._written - waiting
        if not waiting or flushed != self._flushed:
            self._flushed = flushed
            self._flushed_at = now
        return now - self._flushed_at

    def _sweep_body(self, silent: float, request: web.BaseRequest, bound: float) -> None:
        content = request.content
        if silent < bound or content.is_eof() or self._reading_paused or self._uninvited:
            return
        if content.exception() is None:
            content.set_exception(BodyStalled())

    def _sweep_head(self, now: float, deadlines: settings.Client) -> None:
        if self._began:
            if now - self._began >= deadlines.header:
                self._end_with(HEAD_TIMEOUT)
        elif now - self._heard >= (deadlines.idle if self._request_count else deadlines.header):
            self.force_close()

    def _head_grows(self, size: int) -> None:
        self._began = self._began or self._heard
        self._head_bytes += size
        if self._head_bytes > HEAD:
            self._end_with(HEAD_TOO_LARGE)

    def _end_with(self, failure: Failure) -> None:
        """An answer where there is no request, and the end of the connection."""
        self._clients.refusals[failure.details] += 1
        self.write(canned(failure))
        self._discard()

    def _turn_away(self, beyond: int) -> None:
        """`start()` never runs: the connection is not aiohttp's to serve."""
        self._manager = None
        self._clients.refusals[FULL.details] += 1
        self.transport = self._socket
        self.write(canned(FULL))
        self._discard()
        if beyond >= TURNED_AWAY:
            self._abort()

    def _discard(self) -> None:
        now = self._loop.time()
        self._lingering = now + LINGER
        self._linger_end = now + LINGER_AT_MOST
        transport = self.transport
        if transport is not None and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()
        self._resume_transport_reading()

    def _abort(self) -> None:
        if self._socket is not None:
            self._socket.abort()


# --- the door ------------------------------------------------------------------------------------


def objection(request: web.BaseRequest) -> Failure | None:
    """What is wrong with a request that aiohttp's parser let through (RELIABILITY 5.1)."""
    headers = request.headers
    if request.version not in _VERSIONS:
        return BAD_VERSION
    if request.method in _UNSERVED:
        return BAD_METHOD
    if "#" in request.raw_path:
        return BAD_TARGET
    host = headers.get("Host")
    if not valid_host(host) if host is not None else request.version != (1, 0):
        return BAD_HOST
    coding = headers.get("Transfer-Encoding")
    if coding is not None:
        if request.version == (1, 0):
            return LEGACY_CODING
        if coding.lower() != "chunked":
            return BAD_CODING
    expectation = headers.get("Expect")
    if expectation is not None and expectation.lower() != "100-continue":
        return BAD_EXPECTATION
    return None


_VERSIONS = frozenset({(1, 0), (1, 1)})
_UNSERVED = frozenset({"CONNECT", "TRACE"})
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@lru_cache(maxsize=512)
def valid_host(text: str) -> bool:
    """A name or an address, perhaps a port. RFC 3986 allows a name more characters; no name needs
    them, and `gw,evil` is two names to some readers (RFC 9112 3.2 asks for 400)."""
    return len(text) <= 255 + 6 and _HOST.fullmatch(text) is not None


def misread(exc: HttpProcessingError) -> Failure:
    """What to answer when aiohttp's parser gave up. Its text is looked at, never passed on."""
    if isinstance(exc, LineTooLong):
        return TARGET_TOO_LONG if exc.args[1] == LINE else HEAD_TOO_LARGE
    for words, failure in _MISREAD:
        if words.search(exc.message):
            return failure
    return BAD_REQUEST


_MISREAD = (
    (re.compile(r"^Too many headers received$"), HEAD_TOO_LARGE),
    (re.compile(r"^(?:Missing|Duplicate) 'Host'"), BAD_HOST),
    (re.compile(r"^Bad status line:\s+Invalid HTTP version"), BAD_VERSION),
    (re.compile(r"^Pause on PRI/Upgrade"), BAD_VERSION),
    (re.compile(r"^Invalid method encountered:\s+b'[A-Z-]{1,32} \S+ HTTP/1\.[01]"), UNKNOWN_METHOD),
)
"""aiohttp's words for what llhttp found; all else is 400. tests/test_server.py has each of them."""


def require_c_parser() -> None:
    """Six of aiohttp's nine smuggling advisories are of its pure-Python parser."""
    if "_http_parser" not in aiohttp.http.HttpRequestParser.__module__:
        raise RuntimeError("aiohttp runs without its C parser: install a binary wheel of it")

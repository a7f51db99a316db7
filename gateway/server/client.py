"""The client's connection: aiohttp's RequestHandler with deadlines and bounds.

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

Refusals are problem+json and name no byte of what was received.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from gateway.answer import BodyStalled, ClientAnswer, canned, problem
from gateway.batch import Failure
from gateway.config import settings
from gateway.server import door
from gateway.server.process import where

TICK = 0.25
"""Seconds between two looks at the connections: how late a deadline may be."""
HEAD = 64 * 2**10
"""Most bytes of a head that comes in more than one piece."""
TUNNEL = 64 * 2**10
"""Bytes of a tunnel to have in hand before its client has to wait; twice as many at most."""
LINGER = 2.0
"""Seconds of silence to wait after an answer to a request that was not read to its end..."""
LINGER_AT_MOST = 30.0
"""... and of throwing away what is not silence."""
TURNED_AWAY = 128
"""Most connections beyond the bound that are told so; those after them are just closed."""

log = structlog.get_logger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[ClientAnswer]]
Told = Callable[[int, str, str], None]
"""Is told of a request that no handler sees: the status it got, why, and the client's address."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Clients(web.Server):
    """All connections of clients: makes them, sweeps them, hands their requests on."""

    def __init__(
        self, handler: Handler, deadlines: settings.Client, limit: int, malformed: Told
    ) -> None:
        # aiohttp takes for an answer whatever has the three things of `ClientAnswer`.
        super().__init__(
            cast(Any, self._serve),
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=_NEVER,
            tcp_keepalive=True,
            max_line_size=door.LINE,
            max_field_size=door.FIELD,
            max_headers=door.FIELDS,
            read_bufsize=64 * 2**10,
        )
        self._handler = handler
        self._malformed = malformed
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
        """How often a request was refused before the app saw it, by slug."""
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

    def refused(self, failure: Failure, client: Client) -> None:
        self.refusals[failure.details] += 1
        self._malformed(failure.code, failure.details, client.peer)

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
        client.counted = True
        self.busy += 1
        self.quiet.clear()
        try:
            refusal = door.objection(request)
            if refusal is not None:
                return client.refuse(request, refusal)
            client.expect(request)
            return await self._handler(request)
        finally:
            self.done(client)
            client.served(request)

    def done(self, client: Client) -> None:
        """A drain need not wait for this client's request any more."""
        if client.counted:
            client.counted = False
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
        "counted",
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
        self.counted = False
        """Its request is among the `busy` ones."""
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
        if waiter is not None and not waiter.done():
            if data:
                self._head_grows(len(data))
            return
        self._began = 0.0
        self._head_bytes = 0
        if self._messages and self._current_request is not None:
            self._look_for_a_bad_body(self._current_request.content)

    def _look_for_a_bad_body(self, content: StreamReader) -> None:
        """Something follows a body that has not ended: aiohttp's parser has given up in the middle
        of it, and does not tell whoever waits for the rest."""
        if not content.is_eof() and content.exception() is None:
            content.set_exception(RequestPayloadError())

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

    def endless(self) -> None:
        self._clients.done(self)

    def tunnel(self) -> StreamReader:
        said = StreamReader(self, TUNNEL, loop=self._loop)
        self._upgraded = (
            True  # or pausing would be the parser's business, which has nothing to pause
        )
        self.set_parser(cast(Any, _Tunnel(said)))
        return said

    # One request, as `Clients` sees it.

    @property
    def peer(self) -> str:
        """The client's address."""
        name = self._socket.get_extra_info("peername") if self._socket is not None else None
        return str(name[0]) if name else "unix"

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
        self._clients.refused(failure, self)
        answer = problem(
            request, failure, door.ALLOW if failure is door.BAD_METHOD else (), close=True
        )
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
            return self.refuse(request, door.misread(exc))
        if self.answer is not None and self.answer.began:
            raise ConnectionResetError  # `served` has cut it where it was open
        if isinstance(exc, BodyStalled):
            return self.refuse(request, door.BODY_TIMEOUT)
        if isinstance(exc, RequestPayloadError):
            return self.refuse(request, door.BAD_BODY)
        log.error("request_failed", error=type(exc).__name__, where=where(exc))
        return problem(request, door.BUG, close=True)

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
                self._end_with(door.HEAD_TIMEOUT)
        elif now - self._heard >= (deadlines.idle if self._request_count else deadlines.header):
            self.force_close()

    def _head_grows(self, size: int) -> None:
        self._began = self._began or self._heard
        self._head_bytes += size
        if self._head_bytes > HEAD:
            self._end_with(door.HEAD_TOO_LARGE)

    def _end_with(self, failure: Failure) -> None:
        """An answer where there is no request, and the end of the connection."""
        self._clients.refused(failure, self)
        self.write(canned(failure))
        self._discard()

    def _turn_away(self, beyond: int) -> None:
        """`start()` never runs: the connection is not aiohttp's to serve."""
        self._manager = None
        self._clients.refused(door.FULL, self)
        self.transport = self._socket
        self.write(canned(door.FULL))
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


class _Tunnel:
    """What aiohttp takes for a WebSocket's parser."""

    def __init__(self, said: StreamReader) -> None:
        self._said = said

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._said.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self._said.feed_eof()

"""The client's connection: aiohttp's RequestHandler with deadlines and bounds.

A request that is complete and that the house can answer without a task is in hand here until it is
answered (`_in_hand`); aiohttp knows nothing of it. What its client says meanwhile is kept, and read
afterwards. Every other request is aiohttp's, with a task.

The sweeper of `clients` finds a connection in one of these states, each with its deadline (`client`
of the settings):

1. Nothing of a request has come: `idle` since the last answer, for a new connection `header`. It is
   closed without a word: a 408 on an idle connection may be taken for the answer to whatever its
   client sends next.
2. A head has begun: `header` since its first byte, then 408.
3. A body is being read: `body_stall` since its last byte, unless we are the ones who do not read.
   Whoever reads it gets `BodyStalled`.
4. Bytes wait to be taken by the client: `write_stall` since it took some, then the connection is
   cut. This holds beside any other state.
5. An answer was sent to a client that may still be talking: what comes is thrown away, briefly.

When every place is taken, those that were longest in one of the first two go before their time.

Refusals are problem+json and name no byte of what was received.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from gateway.answer import (
    ALLOW,
    BAD_BODY,
    BODY_TIMEOUT,
    BUG,
    BodyStalled,
    ClientAnswer,
    canned,
    problem,
)
from gateway.batch import Failure
from gateway.config import settings
from gateway.server import door
from gateway.server.reading import HEAD, Reading
from gateway.server.request import Request
from gateway.telemetry.lines import places

if TYPE_CHECKING:
    from gateway.server.clients import Clients

TUNNEL = 64 * 2**10
"""Bytes of a tunnel to have in hand before its client has to wait; twice as many at most."""
AHEAD = 64 * 2**10
"""Bytes to take of what a client says before it has heard the answer."""
LINGER = 2.0
"""Seconds of silence to wait after an answer to a request that was not read to its end..."""
LINGER_AT_MOST = 30.0
"""... and of throwing away what is not silence."""
TURNED_AWAY = 128
"""Most connections beyond the bound that are told so; those after them are just closed."""

log = structlog.get_logger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET, _USUAL = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)


class Client(Reading):
    """One client's connection."""

    __slots__ = (
        "_began",
        "_clients",
        "_flushed",
        "_flushed_at",
        "_heard",
        "_in_hand",
        "_kept",
        "_linger_end",
        "_lingering",
        "_socket",
        "_written",
        "answer",
        "counted",
        "dropped",
        "on_gone",
        "on_room",
        "remote",
        "secure",
        "uninvited",
    )

    def __init__(self, clients: Clients, **options: Any) -> None:
        super().__init__(clients, **options)
        self._clients = clients
        self._socket: asyncio.Transport | None = None
        """The transport, also when it is closed: aiohttp forgets its own then."""
        self._heard = 0.0
        """When the last byte came, or the last answer ended."""
        self._began = 0.0
        """When the head began that is not yet complete; 0 when there is none."""
        self._lingering = 0.0
        """Until when to throw away what comes, if nothing more does; 0: it is read."""
        self._linger_end = 0.0
        self._written = 0
        self._flushed = 0
        self._flushed_at = 0.0
        self._in_hand: Request | None = None
        """The request in hand, if no task handles it: then aiohttp knows of none."""
        self._kept = b""
        """What has come behind that one, or behind answers that the client does not take."""
        self.remote = ""
        """The client's address; none on a unix socket."""
        self.secure = False
        self.answer: ClientAnswer | None = None
        self.uninvited = False
        self.dropped = False
        self.counted = False
        """Its request is among the `busy` ones."""
        self.on_room: Callable[[], None] | None = None
        self.on_gone: Callable[[], None] | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        clients = self._clients
        self._socket = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        self.remote = str(name[0]) if name else ""
        self.secure = transport.get_extra_info("sslcontext") is not None
        self._heard = self._flushed_at = self._loop.time()
        full = len(clients.open) - clients.limit
        clients.entered(self)
        if name is None:  # it has left already, and nobody can tell any more who it was
            self._decline()
            self._lingering = self._linger_end = self._heard + LINGER
            self._abort()
        elif full < 0:
            super().connection_made(transport)
        else:
            self._turn_away(full)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._clients.left(self)
        self.on_room = None
        if self._in_hand is not None:
            self._leave()
        self.answer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self._lingering:
            self._lingering = min(self._heard + LINGER, self._linger_end)
            return
        if self._deaf:
            return
        if self._in_hand is not None or self._kept or (self.writing_paused and not self._busy):
            self._keep(data)
            return
        self.uninvited = False  # if it was, it has lost its patience, as RFC 9110 10.1.1 has it
        plain = self._read(data)
        if plain is None and self._idle and not self._messages:
            self._head_grows(len(data))
            return
        self._began = 0.0
        if plain is None or not self._begin(*plain):
            self._wake()

    @property
    def _busy(self) -> bool:
        """It has a request in hand, by a task or without one."""
        return self._current_request is not None or self._in_hand is not None

    # A request that no task handles.

    def _begin(self, message: RawRequestMessage, content: StreamReader) -> bool:
        """Whether the request that has come is in hand now: nothing is wrong with it, and who is to
        answer it needs no task for that. aiohttp would make two, and a writer."""
        request = Request(message, content, self)
        if door.objection(request) is not None:
            return False
        self._clients.serves(self)
        self._in_hand = request
        try:
            begun = self._clients.house.begin(request, self._end)
        except Exception as mistake:
            begun = True
            self._end(self.handle_error(request, exc=mistake))
        if not begun:
            self._in_hand = None
            self._clients.done(self)
            return False
        self._messages.clear()
        if self._parser is not None:
            self._parser.message_consumed()
        return True

    def _end(self, answer: ClientAnswer) -> None:
        """It has been answered."""
        request, self._in_hand = self._in_hand, None
        assert request is not None
        self.on_gone = None
        self._clients.done(self)
        self.served(request)
        if not answer.keep_alive:
            self.force_close()
        elif self._kept:
            # Not from within the backend's callback, which still has its connection in hand.
            self._loop.call_soon(self._go_on)

    def _leave(self) -> None:
        """Its client has left."""
        gone, self.on_gone = self.on_gone, None
        self._in_hand = None
        self._clients.done(self)
        if gone is not None:
            gone()

    def _keep(self, data: bytes) -> None:
        """Until what is in hand is answered, and the client has taken most of that: of one who asks
        and does not read, all answers would be held here."""
        self._kept += data
        if len(self._kept) >= AHEAD and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _go_on(self) -> None:
        if self.writing_paused or self._in_hand is not None or not self._kept:
            return
        data, self._kept = self._kept, b""
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        self.data_received(data)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()
        if self._kept and self._in_hand is None:
            self._loop.call_soon(self._go_on)

    # What an answer asks for (`answer.Wire`).

    @property
    def leaving(self) -> bool:
        return self._clients.leaving or self.uninvited or (self._unsure and not self._messages)

    def invite(self) -> None:
        if self.uninvited:
            self.uninvited = False
            self._heard = self._loop.time()
            self.write(CONTINUE)

    def write(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._written += len(data)
            transport.write(data)

    def room(self) -> Coroutine[Any, Any, None]:
        return self._drain_helper()

    async def linger(self) -> None:
        self._discard()
        # Ended by the client's own close, or by the sweeper's: both cancel this handler.
        await self._loop.create_future()

    def cut(self) -> None:
        self.brittle(True)
        self.dropped = True
        self._abort()

    def brittle(self, yes: bool) -> None:
        if self._socket is None or self.dropped:  # it stays so until the event loop has closed it
            return
        raw = self._socket.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError, ValueError):  # uvloop's is -1 once it is closed
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if yes else _USUAL)

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
        return self.remote or "unix"

    @property
    def behind(self) -> bool:
        """It has been answered, and has not taken all of that."""
        return bool(self._unsent) and not (self._busy or self._lingering)

    def never_served(self) -> None:
        """Its parser, which holds it, is not needed."""
        self._parser = None

    def part(self) -> None:
        if self._busy:
            self.cut()
        else:
            self.force_close()

    def expect(self, request: web.BaseRequest) -> None:
        content = request.content
        if "Expect" in request.headers and not content.is_eof() and not content.total_bytes:
            self.uninvited = request.version >= (1, 1)

    def served(self, request: web.BaseRequest) -> None:
        """The handler has ended, however it did."""
        if (error := request.content.exception()) is not None:
            error.__traceback__ = None  # its frames hold it, and what was read last
        answer = self.answer
        if answer is not None and answer.began and not answer.ended:
            answer.cut()
        if answer is not None and self._last_words is not None and not self._messages:
            answer.close()
        if behind := self._declined():
            self._kept = behind + self._kept
            self._loop.call_soon(self._go_on)
        if self.uninvited:
            # It was never asked for its body and is not going to send it; the answer said `close`.
            self.uninvited = False
            request.content.feed_eof()
        self.on_room = None
        self._heard = self._loop.time()

    def refuse(self, request: web.BaseRequest, failure: Failure) -> ClientAnswer:
        """Answers what the door does not let in, and ends the connection."""
        self._clients.refused(failure, self.peer)
        answer = problem(
            request, failure, (ALLOW,) if failure is door.BAD_METHOD else (), close=True
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
            return self.refuse(request, BODY_TIMEOUT)
        if isinstance(exc, RequestPayloadError):
            return self.refuse(request, BAD_BODY)
        log.error("request_failed", error=type(exc).__name__, where=places(exc))
        return problem(request, BUG, close=True)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """aiohttp's own words quote what the client sent; `handle_error` says what there is."""

    # Deadlines.

    @property
    def quiet_since(self) -> float:
        """When the last answer ended, or the head began that is not complete; never, while there is
        something to be done for this client or to be said to it."""
        waits = self._waiter is not None and not self._messages and not self._lingering
        if not waits or self._busy or self._kept:
            return inf
        return self._began or self._heard

    def give_way(self) -> None:
        """Somebody else needs the place."""
        if self._began:
            self._clients.refused(door.HEAD_TIMEOUT, self.peer)
            self.write(canned(door.HEAD_TIMEOUT))
        self.force_close()

    def sweep(self, now: float, deadlines: settings.Client) -> None:
        if self._lingering:
            if now >= self._lingering:
                self._abort()
            return
        if self._stuck(now) >= deadlines.write_stall:
            self.cut()
        elif self._current_request is not None:
            self._sweep_body(now - self._heard, self._current_request, deadlines.body_stall)
        elif self._waiter is not None and not self._busy and not self._kept:
            self._sweep_head(now, deadlines)

    @property
    def _unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken."""
        return 0 if self._socket is None else self._socket.get_write_buffer_size()

    def _stuck(self, now: float) -> float:
        """Seconds since the client last took a byte that was there for it."""
        waiting = self._unsent
        flushed = self._written - waiting
        if not waiting or flushed != self._flushed:
            self._flushed = flushed
            self._flushed_at = now
        return now - self._flushed_at

    def _sweep_body(self, silent: float, request: web.BaseRequest, bound: float) -> None:
        content = request.content
        if silent < bound or content.is_eof() or self._reading_paused or self.uninvited:
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
        if not size:
            return
        self._began = self._began or self._heard
        self._head_bytes += size
        if self._head_bytes > HEAD:
            self._end_with(door.HEAD_TOO_LARGE)

    def _end_with(self, failure: Failure) -> None:
        """An answer where there is no request, and the end of the connection."""
        self._clients.refused(failure, self.peer)
        self.write(canned(failure))
        self._discard()

    def _decline(self) -> None:
        """`start()` never runs: the connection is not aiohttp's to serve."""
        self._manager = None
        self.never_served()
        self.transport = self._socket

    def _turn_away(self, beyond: int) -> None:
        self._decline()
        self._clients.refused(door.FULL, self.peer)
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

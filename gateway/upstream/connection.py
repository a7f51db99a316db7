"""One socket to the backend, one exchange at a time on it.

The parser is llhttp's; this file is its owner. It counts a head before the parser sees it, decides
what the parser leaves open (DESIGN part 9), and turns an answer into exactly one of two ends: the
pool is told `reply` (of a streamed one its exchange is told `ended`) and then `released`, or it is
told `failed`. Nothing that the backend sends raises out of here.

An answer is taken whole or streamed. Whole, its pieces are kept until the last one, under the
limits of `memory`. Streamed (the lane has an `exchange`), each read is handed on as one piece. In
both, what a read brought is acted upon when the parser has returned, so that the next call can
begin on this very connection. The one exception asks a client for its body (`_interim`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import select
import ssl
import termios
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import httptools

from gateway.batch import Call, Failure, RawHeaders, Reply
from gateway.bodies import CodingError, Decoder
from gateway.upstream.parsing import Names, Unacceptable

if TYPE_CHECKING:
    from gateway.upstream.exchange import Exchange
    from gateway.upstream.lane import Lane
    from gateway.upstream.pool import Pool

HEAD_BYTES: Final = 32 * 1024
"""The whole head, interim answers included. Also the most that may pass between two pieces of a
body: chunk extensions and trailers, which the parser would collect without a bound."""
HEAD_FIELDS: Final = 128
INTERIMS: Final = 16
MOST_PIECES: Final = 4096
"""Chunks of one read, behind which others are heard: there may be a million of a byte each."""
ONE_WRITE: Final = 64 * 1024
"""Up to this size head and body are joined; beyond it the copy costs more than the second write."""

_HTTP1 = b"HTTP/1."

_CLOSED: Final = ("connection_terminated", "closed")
_RESET: Final = ("connection_terminated", "reset")
_SPOKE_FIRST: Final = ("http_protocol_error", "spoke_first")
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


_NAMES = Names()
_kept_name = _NAMES.__getitem__  # a subscript of what is more than a dict costs several times that


class Connection(asyncio.Protocol):
    __slots__ = (
        "_barren",
        "_body",
        "_codings",
        "_count",
        "_decoded",
        "_decoder",
        "_fields",
        "_flaw",
        "_headers",
        "_interims",
        "_keep",
        "_marks",
        "_memory",
        "_odd",
        "_parser",
        "_paused_at",
        "_pieces",
        "_poll",
        "_pool",
        "_reason",
        "_received",
        "_size",
        "_spent",
        "_status",
        "_told",
        "_tunnel",
        "_version_seen",
        "alive",
        "call",
        "complete",
        "deadline",
        "expires",
        "idle_since",
        "lane",
        "on_body",
        "on_message_begin",
        "on_status",
        "reused",
        "spared",
        "started",
        "touched",
        "transport",
    )

    transport: asyncio.Transport
    deadline: float
    _decoder: Decoder | None
    _headers: RawHeaders
    _keep: bool
    _reason: bytes

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._memory = pool.memory
        # What the parser tells most often goes straight into lists, without a frame of ours.
        self._marks: list[Any] = []
        """None for each message that has begun, then its reason; empty behind a head."""
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        """Of the body, as this read brought them."""
        self.on_message_begin = partial(self._marks.append, None)
        self.on_status: Callable[[bytes], None] = self._marks.append
        self.on_body: Callable[[bytes], None] = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self.alive = False
        self.reused = False
        """It has carried a call to its end."""
        self.spared = False
        """It does not count against the pool's limit: its client keeps it waiting."""
        self.started = self.idle_since = monotonic()
        self.expires = self.started + pool.timeouts.age
        """From then on it takes no call."""
        self.lane: Lane | None = None
        """Whose call it carries; None while it is idle."""
        self.call: Call | None = None
        self.deadline = inf
        self.touched = False
        """Bytes went either way since the sweeper looked; kept for streamed exchanges only."""
        self._flaw: tuple[str, str] | None = None
        self._paused_at = 0.0
        self._tunnel = False
        self._body: list[bytes] = []
        """The pieces of earlier reads, decoded."""
        self._clear()

    def _clear(self) -> None:
        """Ready for the next answer."""
        self._received = self._status = self._count = 0
        self._size = self._decoded = self._barren = self._interims = 0
        self.complete = self._odd = self._codings = self._version_seen = False
        self._told = self._spent = False
        self._decoder = None
        self._marks.clear()
        self._fields.clear()
        self._pieces.clear()
        self._body.clear()

    # --- the pool's side -------------------------------------------------------------------------

    def start(self, lane: Lane, call: Call, head: bytes) -> None:
        """Sends a call. Its end will be told to the pool."""
        self.lane = lane
        self.call = call
        self.started = now = monotonic()
        if not call.began:
            call.began = now
        call.sent = True
        exchange, body = lane.exchange, call.body
        if exchange is not None and not exchange.uploaded:
            # Whoever sends the body may be next to run, and nothing of it may go before the head.
            self.transport.write(head)
        elif body and len(body) > ONE_WRITE:
            self.transport.writelines((head, body))
        else:
            posted = self._pool.posted
            posted.append((self, head + body if body else head))
            if len(posted) == 1:
                self._pool.write_later()
        if exchange is None:
            # A retry does not start the clock again.
            self.deadline = call.began + self._pool.timeouts.response
        else:
            exchange.began(self)

    def awaits_head(self) -> None:
        """A streamed request is complete; from now on the backend has to answer."""
        self.touched = False
        timeouts = self._pool.timeouts
        self.deadline = monotonic() + (timeouts.stall if self._told else timeouts.response)

    def readable(self) -> bool:
        """Whether bytes or an end arrived that the event loop has not told us of yet."""
        return bool(self._poll.poll(0))

    def unusable(self) -> Failure | None:
        """Why nothing can be sent on it, though it is new."""
        if not self.alive:
            return Failure(*(self._flaw or _CLOSED))
        # Under TLS session tickets come unasked.
        if self.transport.get_extra_info("ssl_object") is not None or not self.readable():
            return None
        try:
            flaw = _SPOKE_FIRST if os.read(self._fileno(), 1) else _CLOSED
        except OSError:
            flaw = _RESET
        return Failure(*flaw)

    def close(self) -> None:
        """Ends an idle connection in good manners."""
        self.alive = False
        self.transport.close()

    def abort(self) -> None:
        """Ends it at once, whatever it carries; tells nobody."""
        lane, held = self.lane, self._received + self._decoded
        self.alive = False
        self.lane = self.call = None
        self._clear()
        self.transport.abort()
        if lane is not None and lane.exchange is None:
            self._memory.release(lane, held)
            if lane.over_budget and self._memory.over:
                self._memory.apply()  # somebody else may be favoured now

    def fail(self, error: str, details: str) -> None:
        """Ends the exchange, and the connection with it."""
        lane, call = cast("Lane", self.lane), cast(Call, self.call)
        answered = self._received > 0
        self.abort()
        self._pool.failed(self, lane, call, Failure(error, details, sent=True), answered)

    @property
    def paused(self) -> bool:
        return self._paused_at != 0.0

    def pause(self) -> None:
        """Stops reading; the deadline stands still meanwhile."""
        if not self._paused_at and self.alive:
            self._paused_at = monotonic()
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused_at:
            self.deadline += monotonic() - self._paused_at
            self._paused_at = 0.0
            if self.alive:
                self.transport.resume_reading()

    def kept_waiting(self, now: float) -> float:
        """Seconds for which its client has kept it: does not read, or has not said all."""
        if self._paused_at:
            return now - self._paused_at
        return now - self.started if self.awaits_client else 0.0

    @property
    def awaits_client(self) -> bool:
        """There is more of the request to come. The wait for that has a bound of its own."""
        exchange = None if self.lane is None else self.lane.exchange
        return exchange is not None and exchange.awaits_more

    # --- the transport's side --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.alive = True
        self._poll = select.poll()
        self._poll.register(self._fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        lane = self.lane
        if lane is None:
            # An answer nobody asked for, a 408 say. Never the next call's (RELIABILITY trap 3).
            self.abort()
            self._flaw = _SPOKE_FIRST
            return
        arrived, before = len(data), self._received
        self._received = before + arrived
        if lane.exchange is None:
            memory = self._memory  # `hold`, without the call
            lane.held += arrived
            memory.held += arrived
            if lane.held > memory.lane_budget or memory.held > memory.mark:
                memory.weigh(lane)
        elif self._tunnel:
            self._tunnelled(data)
            return
        try:
            if self._status:
                self._parser.feed_data(data)
            elif (
                not before
                and data.startswith(_HTTP1)
                and (arrived <= HEAD_BYTES or _holds_head(data))
            ):
                self._version_seen = True
                self._parser.feed_data(data)
            else:
                self._feed_head(data, first=not before)
        except httptools.HttpParserUpgrade as upgrade:
            self._switched(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if not self.complete:
                self.fail(*(self._flaw or ("http_protocol_error", "garbled")))
                return
            self._keep = False
        if self.complete:
            self._finish()
        else:
            self._go_on(arrived)

    def _go_on(self, arrived: int) -> None:
        """More is to come."""
        self._odd = True
        if not self._status:
            self._codings = self._codings or _NAMES.noticed
            _NAMES.noticed = False  # the next head may be another connection's
            return
        count = len(self._pieces)
        self._barren = 0 if count else self._barren + arrived
        if self._barren > HEAD_BYTES:
            self.fail("http_protocol_error", "endless_framing")
        elif self._collect():
            if cast("Lane", self.lane).exchange is not None:
                self._forward(last=False)
            if count > MOST_PIECES:
                self._rest()

    def _rest(self) -> None:
        """Others are heard before more is read."""
        if self.alive and not self._paused_at:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if self.alive and not self._paused_at:
            self.transport.resume_reading()

    def _feed_head(self, data: bytes, first: bool) -> None:
        """The slow way into a head: it came in pieces, or may be too large."""
        if first and not (data.startswith(_HTTP1) or _HTTP1.startswith(data)):
            raise httptools.HttpParserError("not HTTP/1")
        room = max(0, HEAD_BYTES - self._received + len(data))
        view = memoryview(data)
        self._parser.feed_data(view[:room])
        if len(data) <= room:
            return
        if not self._status:
            self._refuse("http_response_header_section_size", "head_bytes")
        self._parser.feed_data(view[room:])

    def eof_received(self) -> None:
        """The backend has ended its side: for an answer without a length, a clean end."""
        self.alive = False  # the transport closes itself now
        if self.lane is not None:
            self._ended(clean=self._said_goodbye(), error=None)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.lane is not None and self._is_long():
            self._read_last()
        if self.lane is not None:
            self._ended(clean=False, error=exc)
        self.alive = False
        self._parser = cast(Any, None)  # it holds methods of ours
        self._pool.gone(self)

    def pause_writing(self) -> None:
        if self.lane is not None and self.lane.exchange is not None:
            self.lane.exchange.writable(False)

    def resume_writing(self) -> None:
        if self.lane is not None and self.lane.exchange is not None:
            self.lane.exchange.writable(True)

    # --- the parser's side -----------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((_kept_name(name), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return  # of a second answer to one call; `_marks` tells
        call, marks = self.call, self._marks
        assert call is not None
        reason = marks[1] if len(marks) == 2 else _joined(marks)
        # It has no meaning (RFC 9112 4), so the answer is good without.
        self._reason = b"" if reason != b"OK" and _CONTROL.search(reason) else reason
        marks.clear()
        # What comes later, as trailers do, is no part of it.
        self._headers = headers = tuple(self._fields)
        if len(headers) > HEAD_FIELDS:
            self._refuse("http_response_header_section_size", "head_fields")
        if not self._version_seen and self._parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse("http_protocol_error", "version")
        status = self._parser.get_status_code()
        if not 200 <= status <= 599:
            self._interim(status)
            return
        if self._codings or _NAMES.noticed:
            self._read_codings(status)
        self._status = status
        if call.method == "HEAD":
            # The parser cannot be told, so it waits for a body now and is of no more use.
            self.complete = self._spent = self._odd = True
            self._keep = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        if self._status and not self.complete and not self._tunnel:
            self.complete = True
            self._count = len(self._pieces)
            self._keep = self._parser.should_keep_alive()
            if self._status == 204 and self._announces_body():
                self._keep = False  # it may yet come, and would be the next answer

    # --- what the parser leaves open -------------------------------------------------------------

    def _refuse(self, error: str, details: str) -> NoReturn:
        self._flaw = (error, details)
        raise Unacceptable(details)

    def _interim(self, status: int) -> None:
        if not 100 <= status <= 199:
            self._refuse("http_protocol_error", "status")
        self._version_seen = False  # the next head may say something else
        self._odd = True
        self._fields.clear()
        self._interims += 1
        if self._interims > INTERIMS:
            self._refuse("http_protocol_error", "interims")
        exchange = cast("Lane", self.lane).exchange
        if status == 100 and exchange is not None:
            exchange.invited()  # from inside the parser, but it only writes to the client
        if status == 101:
            if exchange is None or not exchange.upgrade:
                self._refuse("http_protocol_error", "unasked_upgrade")
            self._status = status
            self._tunnel = True

    def _read_codings(self, status: int) -> None:
        """How the body is framed and coded, where it is not simply a length of plain bytes."""
        self._codings = _NAMES.noticed = False
        fields = [(name.lower(), value) for name, value in self._headers]
        transfer = [value for name, value in fields if name == b"transfer-encoding"]
        if transfer and (
            [value.lower() for value in transfer] != [b"chunked"]
            or self._parser.get_http_version() != "1.1"
        ):
            # llhttp takes `gzip, chunked`, any last coding as running to the end, and chunks from
            # HTTP/1.0 (RFC 9112 6.1).
            self._refuse("http_protocol_error", "transfer_encoding")
        content = [value for name, value in fields if name == b"content-encoding"]
        coding = b", ".join(content).lower()
        bodiless = status in (204, 304) or cast(Call, self.call).method == "HEAD"
        if coding in (b"", b"identity") or bodiless or cast("Lane", self.lane).exchange is not None:
            return
        self._odd = True
        try:
            self._decoder = Decoder(coding, self._pool.response_bytes)
        except CodingError as error:
            self._refuse(f"http_response_{error.kind}", "decoding")

    def _collect(self) -> bool:
        """Takes what a read brought of the body. False: it is too much or miscoded, and all is
        over."""
        brought = self._pieces[: self._count] if self.complete else self._pieces
        lane, decoder = cast("Lane", self.lane), self._decoder
        piece = b"".join(brought)  # a list of chunks of a byte each takes eighty times their size
        self._pieces.clear()
        self._size += len(piece)
        if decoder is None:
            self._body.append(piece)
        elif not self._decode(decoder, piece):
            return False
        if lane.exchange is None and self._size > self._pool.response_bytes:
            self.fail("http_response_body_size", "response_bytes")
            return False
        return True

    def _decode(self, decoder: Decoder, piece: bytes) -> bool:
        try:
            decoded = decoder.feed(piece)
        except CodingError as error:
            self.fail(f"http_response_{error.kind}", "decoding")
            return False
        self._decoded += len(decoded)
        self._memory.hold(cast("Lane", self.lane), len(decoded))
        self._body.append(decoded)
        return True

    def _said_goodbye(self) -> bool:
        """With TLS anybody on the way can end the connection, but only the backend can say so.
        asyncio does not tell the two apart; a read of nothing from the TLS object does."""
        tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return not tls.read(1)
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:
            return False

    def _read_last(self) -> None:
        """What had arrived when a write failed. The transport ends then without a look at it, and
        it may say why the backend closed: an early 413."""
        self.alive = False
        if self.transport.get_extra_info("ssl_object") is not None:
            return
        try:
            while self.lane is not None and (data := os.read(self._fileno(), ONE_WRITE)):
                self.data_received(data)
        except OSError:
            pass  # that was all

    def _fileno(self) -> int:
        descriptor: int = self.transport.get_extra_info("socket").fileno()
        return descriptor

    def _runs_to_the_end(self) -> bool:
        """Neither length nor chunks: the end of the connection is the end of the body."""
        framed = (b"content-length", b"transfer-encoding")
        return bool(self._status) and not any(n.lower() in framed for n, _ in self._headers)

    def _announces_body(self) -> bool:
        """Of an answer that can have none (RFC 9112 6.3)."""
        fields = [(name.lower(), value) for name, value in self._headers]
        length = any(n == b"content-length" and v.strip(b"0") for n, v in fields)
        return length or any(n == b"transfer-encoding" for n, _ in fields)

    # --- the ends of an exchange -----------------------------------------------------------------

    def _ended(self, *, clean: bool, error: Exception | None) -> None:
        """The connection is over in the middle of an exchange."""
        if clean and self._tunnel:
            self._forward(last=True)
        elif clean and self._runs_to_the_end():
            self.complete, self._keep = True, False
            self._finish()
        elif isinstance(error, ssl.SSLError) and not self.reused and not self._received:
            # With TLS 1.3 the backend looks at our certificate after we think that all is well.
            self.fail("tls_protocol_error", "tls_alert")
        elif self._status or (self._received and not self._interims):
            self.fail("http_response_incomplete", "closed" if clean else "reset")
        else:
            self.fail("connection_terminated", "closed" if clean else "reset")

    def _finish(self) -> None:
        """The answer is complete."""
        lane, call, pieces = self.lane, self.call, self._pieces
        assert lane is not None
        assert call is not None
        # What follows the answer belongs to nothing that we asked.
        keep = self._keep and not self._marks and len(pieces) == self._count
        headers, held = self._headers, self._received
        if self._odd:
            if not self._collect():
                return
            if lane.exchange is not None:
                self._forward(last=True, keep=keep)
                return
            if self._decoder is not None:
                try:
                    self._decoder.end()
                except CodingError as error:
                    self.fail(f"http_response_{error.kind}", "decoding")
                    return
                headers = _decoded(headers)
            body = b"".join(self._body)
            held += self._decoded
        else:
            body = pieces[0] if self._count == 1 else b"".join(pieces[: self._count])
            if lane.exchange is not None:
                head = Reply(self._status, self._reason, headers)
                self._stream_ends(lane.exchange, head, body, keep)
                return
            if len(body) > self._pool.response_bytes:
                self.fail("http_response_body_size", "response_bytes")
                return
        seconds = monotonic() - self.started
        reply = Reply(self._status, self._reason, headers, body, None, seconds, call, held)
        if call.body and not self._written():
            keep = False
        self._reset()
        pool = self._pool
        pool.reply(lane, call, reply)
        pool.released(self, keep)
        if lane.over_budget and self._memory.over:
            self._memory.apply()  # somebody else may be favoured now

    def _written(self) -> bool:
        """An answer may overtake the body it answers; what is left of that is then in the way."""
        if self.transport.get_write_buffer_size():
            return False
        # What refuses a long body has seldom read it, and may close a moment later.
        return not self._is_long() or (self._status < 400 and not self._unacknowledged())

    def _is_long(self) -> bool:
        """Its request is more than one write would be, or nobody knows."""
        lane, call = cast("Lane", self.lane), cast(Call, self.call)
        if lane.exchange is not None:
            upload = lane.exchange.upload
            return upload is not None and not 0 <= upload <= ONE_WRITE
        return call.body is not None and len(call.body) > ONE_WRITE

    def _unacknowledged(self) -> bool:
        """The kernel has bytes that the backend's has not."""
        return any(fcntl.ioctl(self._fileno(), termios.TIOCOUTQ, bytes(4)))

    def _reset(self) -> None:
        """Idle again."""
        self.reused = True
        self.lane = self.call = None
        self.deadline = inf
        if self._paused_at:
            self.resume()
        if self._odd:
            if self._spent:
                self._parser = httptools.HttpResponseParser(self)
            self._clear()
            return
        self._received = self._status = self._count = 0
        self.complete = self._version_seen = False
        self._pieces.clear()
        self._fields.clear()

    # --- streamed --------------------------------------------------------------------------------

    def _forward(self, *, last: bool, keep: bool = False) -> None:
        """Hands on what this read brought."""
        lane = self.lane
        assert lane is not None
        exchange = lane.exchange
        assert exchange is not None
        data = b"".join(self._body)
        self._body.clear()
        head = None
        if not self._told:
            self._told = True
            head = Reply(self._status, self._reason, self._headers)
        elif not data and not last:
            return
        if last:
            self._stream_ends(exchange, head, data, keep)
        else:
            self.touched = True
            exchange.received(head, data)

    def _stream_ends(self, exchange: Exchange, head: Reply | None, data: bytes, keep: bool) -> None:
        """Hands on the last of an answer, which may be all of it."""
        done = exchange.uploaded and exchange.invite is None
        keep = keep and done and self._written()
        self._reset()
        exchange.ended(head, data)
        self._pool.released(self, keep)

    def _switched(self, rest: bytes) -> None:
        """101, asked for: from here on bytes go both ways as they are."""
        self._body.append(rest)
        self._forward(last=False)

    def _tunnelled(self, data: bytes) -> None:
        self._body.append(data)
        self._forward(last=False)


def _holds_head(data: bytes) -> bool:
    """Whether a large first read holds the whole head, and that is not too large. Behind an interim
    answer another head may follow."""
    return data[9:10] != b"1" and data.find(b"\r\n\r\n", 0, HEAD_BYTES) >= 0


def _joined(marks: list[Any]) -> bytes:
    """A reason that came in pieces, or none at all."""
    return b"".join(mark for mark in marks if mark)


def _decoded(headers: RawHeaders) -> RawHeaders:
    """The fields without those that are no longer true of the decoded body."""
    stale = (b"content-encoding", b"content-length")
    return tuple(field for field in headers if field[0].lower() not in stale)

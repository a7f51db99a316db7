"""One socket to the backend, one exchange at a time on it.

The parser is llhttp's; this file is its owner. It counts a head before the parser sees it, decides
what the parser leaves open (DESIGN part 9), and turns an answer into exactly one of two ends: the
pool is told `finished` or `failed`. Nothing that the backend sends raises out of here.

An answer is taken whole or streamed. Whole, its pieces are kept until the last one, under the
limits of `memory`. Streamed (the lane has an `exchange`), each read is handed on as one piece. In
both, nobody is called from inside the parser: what a read brought is acted upon when the parser has
returned, so that the next call can begin on this very connection.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn, cast

import httptools

from gateway.batch import Call, Failure, RawHeaders, Reply
from gateway.bodies import CodingError, Decoder

if TYPE_CHECKING:
    from gateway.upstream.exchange import Exchange
    from gateway.upstream.lane import Lane
    from gateway.upstream.pool import Pool

HEAD_BYTES: Final = 32 * 1024
"""The whole head, interim answers included. Also the most that may pass between two pieces of a
body: chunk extensions and trailers, which the parser would collect without a bound."""
HEAD_FIELDS: Final = 128
INTERIMS: Final = 16
ONE_WRITE: Final = 64 * 1024
"""Up to this size head and body are joined; beyond it the copy costs more than the second write."""

_HTTP1 = b"HTTP/1."


class _Names(dict[bytes, bytes]):
    """Field names seen, each kept once: a batch that waits holds them a thousand times. Bounded by
    forgetting everything, since the common ones are back with the next answer."""

    def __init__(self) -> None:
        super().__init__()
        self.telling: set[bytes] = set()
        """Spellings of the fields that change how a body is read."""

    def __missing__(self, name: bytes) -> bytes:
        if len(self) >= 1024:
            self.clear()
            self.telling.clear()
        self[name] = name
        if name.lower() in (b"transfer-encoding", b"content-encoding"):
            self.telling.add(name)
        return name


_NAMES = _Names()
_TELLING = _NAMES.telling


class _Unacceptable(httptools.HttpParserError):
    """Stops the parser, as its own errors do; the connection's `_flaw` says why."""


class Connection(asyncio.Protocol):
    __slots__ = (
        "_barren",
        "_codings",
        "_decoder",
        "_fields",
        "_flaw",
        "_interims",
        "_keep",
        "_limit",
        "_memory",
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
        "born",
        "call",
        "complete",
        "deadline",
        "exchanges",
        "held",
        "idle_since",
        "lane",
        "started",
        "touched",
        "transport",
    )

    transport: asyncio.Transport
    deadline: float
    _limit: float
    _decoder: Decoder | None
    _keep: bool
    _reason: bytes

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._memory = pool.memory
        self._parser = httptools.HttpResponseParser(self)
        self.alive = False
        self.exchanges = 0
        """How many calls it was given."""
        self.born = self.started = self.idle_since = monotonic()
        self.lane: Lane | None = None
        """Whose call it carries; None while it is idle."""
        self.call: Call | None = None
        self.deadline = inf
        self.touched = False
        """Bytes went either way since the sweeper looked; kept for streamed exchanges only."""
        self._flaw: tuple[str, str] | None = None
        self._paused_at = 0.0
        self._tunnel = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._clear()

    def _clear(self) -> None:
        """Ready for the next answer."""
        self._received = self._size = self._status = self._barren = self._interims = self.held = 0
        self.complete = self._codings = self._version_seen = self._told = self._spent = False
        self._decoder = None

    # --- the pool's side -------------------------------------------------------------------------

    def start(self, lane: Lane, call: Call, head: bytes) -> None:
        """Sends a call. Its end will be told to the pool."""
        self.exchanges += 1
        self.lane = lane
        self.call = call
        self.started = now = monotonic()
        if not call.began:
            call.began = now
        call.attempts += 1
        call.sent = True
        body = call.body
        if lane.exchange is not None and not lane.exchange.uploaded:
            # Whoever sends the body may be next to run, and nothing of it may go before the head.
            self.transport.write(head)
        elif not body:
            self._pool.post(self, head)
        elif len(body) <= ONE_WRITE:
            self._pool.post(self, head + body)
        else:
            self.transport.writelines((head, body))
        if lane.exchange is None:
            self._limit = self._pool.response_bytes
            # A retry does not start the clock again.
            self.deadline = call.began + self._pool.timeouts.response
        else:
            self._limit = inf
            lane.exchange.began(self)

    def awaits_head(self) -> None:
        """A streamed request is complete; from now on the backend has to answer."""
        self.touched = False
        timeouts = self._pool.timeouts
        self.deadline = monotonic() + (timeouts.stall if self._told else timeouts.response)

    def readable(self) -> bool:
        """Whether bytes or an end arrived that the event loop has not told us of yet."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Ends an idle connection in good manners."""
        self.alive = False
        self.transport.close()

    def abort(self) -> None:
        """Ends it at once, whatever it carries; tells nobody."""
        lane, held = self.lane, self.held
        self.alive = False
        self.lane = self.call = None
        self._pieces.clear()
        self._clear()
        self.transport.abort()
        if lane is not None and held:
            self._memory.release(lane, held)

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

    # --- the transport's side --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.alive = True
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        lane = self.lane
        if lane is None:
            # An answer nobody asked for, a 408 say. Never the next call's (RELIABILITY trap 3).
            self.abort()
            return
        if self._tunnel:
            self._tunnelled(data)
            return
        arrived = len(data)
        first = not self._received
        self._received += arrived
        if lane.exchange is None:
            self.held += arrived
            self._memory.hold(lane, arrived)
        size = self._size
        try:
            if self._status:
                self._parser.feed_data(data)
            elif first and self._received <= HEAD_BYTES and data.startswith(_HTTP1):
                self._version_seen = True
                self._parser.feed_data(data)
            else:
                self._feed_head(data, first)
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
        elif self._status:
            self._barren = self._barren + arrived if self._size == size else 0
            if self._barren > HEAD_BYTES:
                self.fail("http_protocol_error", "endless_framing")
            elif lane.exchange is not None:
                self._forward(last=False)

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
        if self.lane is not None:
            self._ended(clean=False, error=exc)
        self.alive = False
        self._pool.gone(self)

    def pause_writing(self) -> None:
        if self.lane is not None and self.lane.exchange is not None:
            self.lane.exchange.writable(False)

    def resume_writing(self) -> None:
        if self.lane is not None and self.lane.exchange is not None:
            self.lane.exchange.writable(True)

    # --- the parser's side -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            self._keep = False  # a second answer to one call
            return
        self._fields = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        if not self.complete:
            self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:
            return  # a trailer, or a field of something after the answer
        name = _NAMES[name]
        if name in _TELLING:
            self._codings = True
        self._fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        call = self.call
        assert call is not None
        if len(self._fields) > HEAD_FIELDS:
            self._refuse("http_response_header_section_size", "head_fields")
        if not self._version_seen and self._parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse("http_protocol_error", "version")
        status = self._parser.get_status_code()
        if not 200 <= status <= 599:
            self._interim(status)
            return
        if self._codings:
            self._read_codings(status)
        self._status = status
        if call.method == "HEAD":
            # The parser cannot be told, so it waits for a body now and is of no more use.
            self.complete = self._spent = True
            self._keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self._keep = False
            return
        self._size += len(data)
        if self._decoder is not None:
            data = self._decode(data)
        if self._size > self._limit:
            self._refuse("http_response_body_size", "response_bytes")
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._status and not self.complete and not self._tunnel:
            self.complete = True
            self._keep = self._parser.should_keep_alive()

    # --- what the parser leaves open -------------------------------------------------------------

    def _refuse(self, error: str, details: str) -> NoReturn:
        self._flaw = (error, details)
        raise _Unacceptable(details)

    def _interim(self, status: int) -> None:
        if not 100 <= status <= 199:
            self._refuse("http_protocol_error", "status")
        self._version_seen = False  # the next head may say something else
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
        transfer = [value for name, value in self._fields if name.lower() == b"transfer-encoding"]
        if transfer and (
            [value.lower() for value in transfer] != [b"chunked"]
            or self._parser.get_http_version() != "1.1"
        ):
            # llhttp takes `gzip, chunked`, any last coding as running to the end, and chunks from
            # HTTP/1.0 (RFC 9112 6.1).
            self._refuse("http_protocol_error", "transfer_encoding")
        content = [value for name, value in self._fields if name.lower() == b"content-encoding"]
        coding = b", ".join(content).lower()
        bodiless = status in (204, 304) or cast(Call, self.call).method == "HEAD"
        if coding in (b"", b"identity") or bodiless or cast("Lane", self.lane).exchange is not None:
            return
        try:
            self._decoder = Decoder(coding, self._pool.response_bytes)
        except CodingError as error:
            self._miscoded(error)

    def _decode(self, data: bytes) -> bytes:
        try:
            decoded = cast(Decoder, self._decoder).feed(data)
        except CodingError as error:
            self._miscoded(error)
        self.held += len(decoded)
        self._memory.hold(cast("Lane", self.lane), len(decoded))
        return decoded

    def _miscoded(self, error: CodingError) -> NoReturn:
        self._refuse(f"http_response_{error.kind}", "decoding")

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

    def _runs_to_the_end(self) -> bool:
        """Neither length nor chunks: the end of the connection is the end of the body."""
        framed = (b"content-length", b"transfer-encoding")
        return bool(self._status) and not any(n.lower() in framed for n, _ in self._fields)

    # --- the ends of an exchange -----------------------------------------------------------------

    def _ended(self, *, clean: bool, error: Exception | None) -> None:
        """The connection is over in the middle of an exchange."""
        if clean and self._tunnel:
            self._keep = False
            self._forward(last=True)
        elif clean and self._runs_to_the_end():
            self._keep = False
            self._finish()
        elif isinstance(error, ssl.SSLError) and self.exchanges == 1 and not self._received:
            # With TLS 1.3 the backend looks at our certificate after we think that all is well.
            self.fail("tls_protocol_error", "tls_alert")
        elif self._status or (self._received and not self._interims):
            self.fail("http_response_incomplete", "closed" if clean else "reset")
        else:
            self.fail("connection_terminated", "closed" if clean else "reset")

    def _finish(self) -> None:
        """The answer is complete."""
        lane, call = self.lane, self.call
        assert lane is not None
        assert call is not None
        if lane.exchange is not None:
            self._forward(last=True)
            return
        headers = tuple(self._fields)
        if self._decoder is not None:
            try:
                self._decoder.end()
            except CodingError as error:
                self.fail(f"http_response_{error.kind}", "decoding")
                return
            headers = _decoded(headers)
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        reply = Reply(
            self._status,
            self._reason,
            headers,
            body,
            seconds=monotonic() - self.started,
            call=call,
            held=self.held,
        )
        keep = self._keep and (not call.body or self._written())
        self._reset()
        self._pool.finished(self, lane, call, reply, keep)

    def _written(self) -> bool:
        """An answer may overtake the body it answers; what is left of that is then in the way."""
        return self.transport.get_write_buffer_size() == 0

    def _reset(self) -> None:
        self.lane = self.call = None
        self.deadline = inf
        if self._paused_at:
            self.resume()
        if self._spent:
            self._parser = httptools.HttpResponseParser(self)
        self._clear()

    # --- streamed --------------------------------------------------------------------------------

    def _forward(self, *, last: bool) -> None:
        """Hands on what this read brought."""
        exchange = cast("Exchange", cast("Lane", self.lane).exchange)
        data = b"".join(self._pieces)
        self._pieces.clear()
        head = None
        if not self._told:
            self._told = True
            head = Reply(
                self._status,
                self._reason,
                tuple(self._fields),
                seconds=monotonic() - self.started,
                call=self.call,
            )
        elif not data and not last:
            return
        self.touched = True
        if not last:
            exchange.received(head, data)
            return
        done = exchange.uploaded and exchange.invite is None
        keep = self._keep and done and self._written()
        self._reset()
        exchange.ended(head, data)
        self._pool.released(self, keep)

    def _switched(self, rest: bytes) -> None:
        """101, asked for: from here on bytes go both ways as they are."""
        self._pieces.append(rest)
        self._forward(last=False)

    def _tunnelled(self, data: bytes) -> None:
        self._pieces.append(data)
        self._forward(last=False)


def _decoded(headers: RawHeaders) -> RawHeaders:
    """The fields without those that are no longer true of the decoded body."""
    stale = (b"content-encoding", b"content-length")
    return tuple(field for field in headers if field[0].lower() not in stale)

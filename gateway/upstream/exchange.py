"""A passed-through request: one call whose body and answer are streamed.

It is a lane of its own, and takes its turn as one. Both directions are held up by whoever is
slower: `drain` waits for the backend, `pause` makes the backend wait for the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from gateway.batch import Call, Failure, Reply
from gateway.upstream import wire
from gateway.upstream.lane import Lane

if TYPE_CHECKING:
    from gateway.upstream.connection import Connection
    from gateway.upstream.pool import Pool


class Sink(Protocol):
    """Where an answer is streamed to."""

    def received(self, head: Reply | None, data: bytes, last: bool) -> None:
        """What one read brought: the head the first time, then pieces of the body as they are on
        the wire but for their framing. An answer that came in one read is one such call. After a
        head of 101 `data` is whatever the backend says, up to its end."""

    def failed(self, failure: Failure) -> None:
        """It ends here, before the head or in the middle of the body. Nothing comes after."""


class Exchange(Lane):
    __slots__ = (
        "_connection",
        "_left",
        "_over",
        "_sink",
        "_tunnel",
        "_waiter",
        "_writable",
        "call",
        "invite",
        "opened",
        "upgrade",
        "upload",
        "uploaded",
    )

    def __init__(
        self,
        pool: Pool,
        call: Call,
        sink: Sink,
        fields: str | None,
        upload: int | None,
        upgrade: bool,
        invite: Callable[[], None] | None,
    ) -> None:
        Lane.__init__(self, pool, self, self)
        if fields is not None:
            self.fields, self.text = call.headers, fields
        self.call = call
        if invite is not None:
            call.extra += _EXPECT
        self.invite = invite
        """Called when the backend asks for the body. While it has not, though told to, it may take
        for another request what comes after its answer."""
        self.upload = upload
        self.upgrade = upgrade
        self.uploaded = not upload
        """The request has been written to its end."""
        self.opened = monotonic()
        self._sink = sink
        self._left = upload or 0
        self._connection: Connection | None = None
        self._writable = False
        self._tunnel = False
        self._over = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def length(self) -> int | None:
        """Of the request's body, as `wire.head` takes it."""
        if self.upload is not None:
            return self.upload
        body = self.call.body
        return wire.UNSAID if body is None else len(body)

    @property
    def awaits_more(self) -> bool:
        """The request is not complete, and it is not the backend who holds it up."""
        return not self.uploaded and self._writable and self.invite is None

    # --- the owner's side ------------------------------------------------------------------------

    async def drain(self) -> bool:
        """Waits until the backend takes more. False: the answer is over, more is of no use."""
        while not (self._writable or self._over):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return not self._over

    def write(self, data: bytes) -> None:
        """A piece of the request's body, after `drain` said yes; in a tunnel, of anything."""
        connection = self._connection
        if connection is None or self._over or not data:
            return
        connection.touched = True
        if self._tunnel:
            connection.transport.write(data)
        elif self.upload == wire.CHUNKED:
            connection.transport.writelines(wire.chunk(data))
        elif len(data) > self._left:
            # One byte more would be read as the next request.
            connection.fail("http_request_error", "longer_than_its_length")
        else:
            self._left -= len(data)
            connection.transport.write(data)

    def write_eof(self) -> None:
        """The request's body is complete; in a tunnel, the client has said its last word."""
        connection = self._connection
        if connection is None or self._over:
            return
        if self._tunnel:
            if connection.transport.can_write_eof():
                connection.transport.write_eof()
            else:
                connection.transport.close()
            return
        if self.uploaded:
            return
        if self.upload == wire.CHUNKED:
            connection.transport.write(wire.LAST_CHUNK)
        elif self._left:
            connection.fail("http_request_error", "shorter_than_its_length")
            return
        self.uploaded = True
        connection.awaits_head()

    def pause(self) -> None:
        """The client is slow: stop reading."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    def abort(self) -> None:
        """The client is gone: the backend's connection is closed at once, and nobody is told."""
        self._end()
        self.close()

    # --- the connection's side -------------------------------------------------------------------

    def began(self, connection: Connection) -> None:
        self._connection = connection
        timeouts = self.pool.timeouts
        patience = timeouts.response if self.uploaded else timeouts.stall
        connection.deadline = connection.started + patience
        connection.touched = False
        self.writable(True)

    def writable(self, yes: bool) -> None:
        self._writable = yes
        if yes and self._waiter is not None:
            _wake(self._waiter)

    def received(self, head: Reply | None, data: bytes) -> None:
        connection = self._connection
        if head is not None and connection is not None:
            self._tunnel = head.status == 101
            if self._tunnel or is_event_stream(head):
                connection.deadline = inf
                self.pool.detach(connection)
            else:
                connection.deadline = monotonic() + self.pool.timeouts.stall
        self._hand_on(self._sink, head, data, last=False)

    def invited(self) -> None:
        if self.invite is not None:
            self.invite()
            self.invite = None

    def ended(self, head: Reply | None, data: bytes) -> None:
        sink = self._sink
        self._end()
        self._hand_on(sink, head, data, last=True)

    def replied(self, call: Call, reply: Reply) -> None:
        """`Taker`: streamed, only failures come this way."""
        sink = self._sink
        self._end()
        if reply.failure is not None:
            sink.failed(reply.failure)

    def urgent(self, call: Call) -> bool:
        return True

    def _hand_on(self, sink: Sink, head: Reply | None, data: bytes, last: bool) -> None:
        try:
            sink.received(head, data, last)
        except Exception as error:
            self.pool.report("the sink of an answer", error)
            self.abort()
            sink.failed(_BUG)

    def _end(self) -> None:
        """Nothing refers to it any more, nor it to anybody, so that it needs no collector."""
        self._over = True
        self._connection = None
        self._sink = _NOBODY
        self.leave()
        if self._waiter is not None:
            _wake(self._waiter)


class _Nobody:
    def received(self, head: Reply | None, data: bytes, last: bool) -> None:
        """There is nobody to hear it."""

    def failed(self, failure: Failure) -> None:
        """Nor this."""


_NOBODY = _Nobody()
_EXPECT = (("Expect", "100-continue"),)
_BUG = Failure("proxy_internal_error", "internal", sent=True)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def is_event_stream(head: Reply) -> bool:
    """Server-sent events have no end, and their silence is no sign of trouble."""
    return (head.header(b"content-type") or b"").lower().startswith(b"text/event-stream")

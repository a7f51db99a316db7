"""How a client's bytes become requests: aiohttp's parser, and what cannot be left to it.

llhttp's rules are strict, and nothing here parses. What is mended is what stands around it:

1. Behind a chunked body the parser is renewed: the last field of a trailer would become one of the
   next request's, which behind a shared connection is somebody else's. A request that was read
   before that was possible is not answered; with those before it the connection ends.
2. Requests that came in one read with garbage behind them would be lost with it. They are read
   again, so that the good ones are answered before the 400.
3. Bytes behind a request that offers a protocol unknown to aiohttp would be lost. They are kept for
   whoever they are meant for: the protocol, or, where it is declined, this parser.
4. A head is bounded as a whole, not only its fields.

Where that cannot be done for certain, nothing more is listened to, and the connection ends with the
requests that are certain.
"""

from __future__ import annotations

from typing import Any

from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo
from aiohttp.web_server import Server

from gateway.server import door

HEAD = 64 * 2**10
"""Most bytes of a request's head, but for those that came in one read with the request before."""

_END = b"\r\n\r\n"


class Reading(RequestHandler):
    """A client's connection, as far as requests are read from it."""

    __slots__ = ("_chunked", "_head_bytes", "_last_words", "_tail")

    def __init__(self, manager: Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._tail = _END
        """The last bytes that were read. After a head, or a body that ends like one, the next read
        begins with a request, if that one is over."""
        self._head_bytes = 0
        """What has come of a head that is not complete yet."""
        self._chunked: StreamReader | None = None
        """The chunked body that the parser read last, or still reads."""
        self._last_words: StreamReader | None = None
        """What the client says after this body is not listened to."""

    @property
    def _deaf(self) -> bool:
        return self._last_words is not None and self._last_words.is_eof()

    @property
    def _unsure(self) -> bool:
        """It may be that what comes next is not listened to: chunks are still coming, and nothing
        that comes with the last of them is read."""
        chunked = self._chunked
        return self._last_words is not None or (chunked is not None and not chunked.is_eof())

    @property
    def _idle(self) -> bool:
        """aiohttp's task waits for a request, or has not begun to: a client may be that quick."""
        waiter = self._waiter
        return not (self._request_count if waiter is None else waiter.done())

    def _wake(self) -> None:
        """There is something for aiohttp's task."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read(self, data: bytes) -> tuple[RawRequestMessage, StreamReader] | None:
        """Puts the requests that have come at the end of the queue, and wakes nobody. What it
        returns stands there alone: one request, whole and plain, while aiohttp's task waits."""
        chunked, messages = self._chunked, self._messages
        if chunked is not None and chunked.is_eof() and not self._upgraded:
            self._renew_parser()
        known = len(messages)
        ahead, idle = self._listens_ahead, self._idle
        waiter, self._waiter = self._waiter, None
        super().data_received(data)
        self._waiter = waiter
        between = self._tail == _END
        self._tail = (data if len(data) >= len(_END) else self._tail + data)[-len(_END) :]
        small = self._head_bytes + len(data) <= HEAD
        if idle and small and len(messages) == 1 and self._chunked is None:
            message, content = messages[0]
            if isinstance(message, RawRequestMessage) and not (message.chunked or message.upgrade):
                self._head_bytes = 0
                return (message, content) if content.is_eof() else None
        self._look_at(known, data, idle and between, small)
        if ahead and len(messages) <= known:
            self._count_ahead(len(data))
        return None

    @property
    def _listens_ahead(self) -> bool:
        """A request is in hand and has been read to its end: what comes is a head."""
        request = self._current_request
        if request is None or self._upgraded:
            return False
        return bool((self._messages[-1][1] if self._messages else request.content).is_eof())

    def _look_at(self, known: int, data: bytes, certain: bool, small: bool) -> None:
        """What is not simply one request. `certain`: the read began with one."""
        messages, request = self._messages, self._current_request
        if messages and isinstance(messages[-1][0], _ErrInfo):
            messages[-1][0].exc.__traceback__ = None  # its frames hold it, and what was read
        if certain and messages and isinstance(messages[0][0], _ErrInfo):
            self._read_again(data)
        if not small:
            self._bound_heads(known)
        self._distrust(known, data, certain)
        self._distrust_what_began()
        if len(messages) > known:
            self._head_bytes = 0
        if messages and request is not None:
            _look_for_a_bad_body(request.content)

    def _count_ahead(self, size: int) -> None:
        """Counts a head that comes while a request is in hand."""
        self._head_bytes += size
        if self._head_bytes > HEAD:
            self._refuse_from(len(self._messages))

    def _renew_parser(self) -> None:
        self._chunked = None
        self._parser = HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def _read_again(self, data: bytes) -> None:
        """Head by head, as far as it is good."""
        refused = self._messages.pop()
        self._renew_parser()
        assert self._parser is not None
        for piece in data.split(_END):
            try:
                found, _, _ = self._parser.feed_data(piece + _END)
            except HttpProcessingError:
                break
            self._messages += found
        if self._messages and not self._messages[-1][1].is_eof():
            self._messages.pop()  # it is its body that is garbage
        self._request_count += len(self._messages)
        self._messages.append(refused)

    def _bound_heads(self, known: int) -> None:
        for place in range(known, len(self._messages)):
            message = self._messages[place][0]
            if isinstance(message, RawRequestMessage) and _size(message) > HEAD:
                self._refuse_from(place)
                return

    def _refuse_from(self, place: int) -> None:
        """What stands there in the queue is a head that is too large; nothing behind it counts."""
        self._drop_from(place)
        self._messages.append((_ErrInfo(400, LineTooLong(b"", door.FIELD), ""), EMPTY_PAYLOAD))

    def _drop_from(self, place: int) -> None:
        while len(self._messages) > place:
            self._messages.pop()
        self._last_words = EMPTY_PAYLOAD

    def _distrust(self, known: int, data: bytes, certain: bool) -> None:
        """Finds requests behind which the parser cannot be relied upon.

        1. One read right behind a chunked body, before the parser could be renewed.
        2. A chunked one with which the queue is full: there are bytes left in the parser.
        3. One that offers a protocol unknown to aiohttp.
        """
        messages = self._messages
        for place in range(known, len(messages)):
            message, content = messages[place]
            if not isinstance(message, RawRequestMessage):
                continue
            if self._chunked is not None:
                self._drop_from(place)
                if not messages and self._current_request is None:
                    self.close()
                return
            if message.chunked:
                self._chunked = content
                if place + 1 >= self._max_msg_queue_size:
                    self._last_words = content
            elif message.upgrade and not self._upgraded:
                self._hold_back(content, data, certain and not place)

    def _distrust_what_began(self) -> None:
        """With the last of a chunked body came some of a head: the next parser would begin in its
        middle. Once another protocol is spoken there is no next one."""
        chunked, spoken = self._chunked, self._payload_parser is not None
        if chunked is not None and chunked.is_eof() and self._tail != _END and not spoken:
            self._last_words = chunked

    def _hold_back(self, content: StreamReader, data: bytes, certain: bool) -> None:
        """What stands behind a request that offers another protocol, until that is decided."""
        rest = data.lstrip(b"\r\n") if certain else data
        _, end, behind = rest.partition(_END)
        whole = certain or not (behind or data.startswith((b"\r", b"\n")))
        if content is EMPTY_PAYLOAD and end and whole:
            self._upgraded = True
            self._message_tail = behind
        else:
            self._last_words = content

    def _declined(self) -> bytes:
        """What was held back, for a protocol that is not spoken after all."""
        behind = b""
        if self._upgraded and self._payload_parser is None:
            behind, self._message_tail = self._message_tail, b""
        return behind

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp says so at every read of a body, and then feeds its parser with nothing, in case
        that had to stop before."""
        if self._reading_paused:
            super().resume_reading(resume_parser)


def _look_for_a_bad_body(content: StreamReader) -> None:
    """Something follows a body that has not ended: aiohttp's parser has given up in the middle of
    it, and does not tell whoever waits for the rest."""
    if not content.is_eof() and content.exception() is None:
        content.set_exception(RequestPayloadError())


def _size(message: RawRequestMessage) -> int:
    """Of a head, without what stands between its parts."""
    return len(message.path) + sum(len(name) + len(value) for name, value in message.raw_headers)

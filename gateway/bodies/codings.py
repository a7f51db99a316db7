"""Content codings: gzip and deflate undone as the bytes arrive, within a bound."""

from __future__ import annotations

import zlib
from typing import Any, Final, Literal

STEP: Final = 256 * 1024
"""Bytes made at a time."""
MEMBERS: Final = 1024
"""Streams in one gzip body. Each costs microseconds however little it holds."""


class CodingError(Exception):
    """Contents that cannot be decoded, or are too large decoded."""

    def __init__(self, kind: Literal["content_coding", "body_size"]) -> None:
        super().__init__(kind)
        self.kind = kind
        """The end of an RFC 9209 error type: `http_response_...`."""


class Decoder:
    """Undoes one gzip or deflate coding, and never makes more than one byte above `limit`."""

    def __init__(self, coding: bytes, limit: int) -> None:
        """Raises CodingError for any other coding, several in a row among them."""
        name = coding.strip().lower()
        if name not in (b"gzip", b"x-gzip", b"deflate"):
            raise CodingError("content_coding")
        self._deflate = name == b"deflate"
        self._left = limit
        self._members = 0
        self._held = b""
        self._stream: Any = None

    def feed(self, data: bytes) -> bytes:
        """The contents that `data` completes. Raises CodingError."""
        data, self._held = self._held + data, b""
        made: list[bytes] = []
        while data:
            if self._stream is None or self._stream.eof:
                if self._deflate and len(data) < 2:
                    self._held = data
                    break
                self._stream = self._begin(data)
            data = self._inflate(data, made)
        return b"".join(made)

    def end(self) -> None:
        """No more data comes. Raises CodingError unless the stream is complete.

        No data at all is complete: backends label empty bodies too.
        """
        if self._held or (self._stream is not None and not self._stream.eof):
            raise CodingError("content_coding")

    def _begin(self, data: bytes) -> Any:
        """A stream for what `data` begins: the first, or the next member of a gzip body."""
        self._members += 1
        if self._members > (1 if self._deflate else MEMBERS):
            raise CodingError("content_coding")
        if not self._deflate:
            return zlib.decompressobj(zlib.MAX_WBITS + 16)
        # `deflate` is zlib's format, but some servers send the bare stream (RFC 9110 8.4.1.2).
        wrapped = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)

    def _inflate(self, data: bytes, made: list[bytes]) -> bytes:
        """All that `data` gives within this stream; returns what stands behind its end."""
        stream = self._stream
        while True:
            step = min(STEP, self._left + 1)
            try:
                piece = stream.decompress(data, step)
            except zlib.error:
                raise CodingError("content_coding") from None
            made.append(piece)
            self._left -= len(piece)
            if self._left < 0:
                raise CodingError("body_size")
            if stream.eof:
                return bytes(stream.unused_data)
            data = stream.unconsumed_tail
            # After a full piece zlib may hold more back, even when no input is left.
            if not data and len(piece) < step:
                return b""

"""Where an answer ends, found without keeping or copying its body: the load must be cheap.

It trusts what it reads: it measures servers whose answers were checked before.
"""

from __future__ import annotations

import re

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CHUNK_HEAD_MOST = 256


class Framing:
    """Reads one answer after another; `keep` also collects the bodies, for checks."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self.begin()

    def begin(self) -> None:
        self.status = 0
        self.head = b""
        self.body = bytearray()
        self._skip = 0
        self._chunked = False
        self._last = False
        self._carry = b""

    def feed(self, data: bytearray, end: int) -> bool:
        """Takes `data[:end]`; True when the answer is complete."""
        start = 0
        if not self.status:
            start = self._read_head(bytes(data[:end]))
            if not self.status:
                return False
        elif self._carry:
            data = bytearray(self._carry) + data[:end]
            end = len(data)
            self._carry = b""
        return (
            self._read_chunks(data, start, end) if self._chunked else self._pass(data, start, end)
        )

    def _read_head(self, data: bytes) -> int:
        before = len(self.head)
        self.head += data
        stop = self.head.find(b"\r\n\r\n")
        if stop < 0:
            return 0
        self.head = self.head[: stop + 2]
        self.status = int(self.head[9:12])
        self._chunked = _CHUNKED.search(self.head) is not None
        length = _LENGTH.search(self.head)
        self._skip = int(length[1]) if length and not self._chunked else 0
        return stop + 4 - before

    def _pass(self, data: bytearray, start: int, end: int) -> bool:
        taken = min(self._skip, end - start)
        if self._keep:
            self.body += data[start : start + taken]
        self._skip -= taken
        return not self._skip

    def _read_chunks(self, data: bytearray, start: int, end: int) -> bool:
        while start < end:
            if self._skip:
                taken = min(self._skip, end - start)
                self._collect(data, start, taken)
                self._skip -= taken
                start += taken
                if self._last and not self._skip:
                    return True
                continue
            line = data.find(b"\r\n", start, min(end, start + _CHUNK_HEAD_MOST))
            if line < 0:
                self._carry = bytes(data[start:end])
                return False
            size = int(data[start:line].partition(b";")[0], 16)
            self._last = not size
            self._skip = size + 2  # and the line end behind the chunk
            start = line + 2
        return False

    def _collect(self, data: bytearray, start: int, taken: int) -> None:
        """The two bytes behind each chunk are not body: `_skip` counts them last."""
        if self._keep and self._skip > 2:
            self.body += data[start : start + min(taken, self._skip - 2)]

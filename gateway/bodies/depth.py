"""How deeply a JSON text is nested, found without recursion and without a Python step per byte.

What is kept of the text are its brackets, one bit each. Eight of them are a byte, and two tables
say of every byte how many levels it leads up in all, and how many at its highest.
"""

from __future__ import annotations

from itertools import accumulate
from operator import add

_BRACES = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_BITS = bytes.maketrans(b"[]", b"10")


def _climbs() -> tuple[bytes, bytes]:
    ends, peaks = bytearray(), bytearray()
    for byte in range(256):
        heights = [0, *accumulate(1 if byte >> bit & 1 else -1 for bit in reversed(range(8)))]
        ends.append(heights[-1] % 256)
        peaks.append(max(heights))
    return bytes(ends), bytes(peaks)


_ENDS, _PEAKS = _climbs()
"""Where eight brackets lead, as a signed byte, and the highest they get."""


def depth(text: bytes) -> int:
    """The levels of a valid JSON text; a number or a string alone has none."""
    brackets = _outside_strings(text)
    if not brackets:
        return 0
    count = -(-len(brackets) // 8)
    eights = int(brackets.ljust(8 * count, b"]").translate(_BITS), 2).to_bytes(count, "big")
    starts = accumulate(memoryview(eights.translate(_ENDS)).cast("b"), initial=0)
    highest: int = max(map(add, starts, eights.translate(_PEAKS)))
    return highest


def _outside_strings(text: bytes) -> bytes:
    """The brackets of a text, braces too as square ones."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = text.translate(_BRACES, _OTHERS)
    brackets = marks.replace(b'""', b"")
    # The first bracket inside a string parts its opening quote from those before, which are an
    # even number, so some quote is left over; then the strings are taken out one by one.
    return _without_strings(marks) if b'"' in brackets else brackets


_SLICE = 1 << 16


def _without_strings(marks: bytes) -> bytes:
    """In slices, because a text can be all quotes and each becomes an object."""
    outside = []
    inside = 0
    for start in range(0, len(marks), _SLICE):
        pieces = marks[start : start + _SLICE].split(b'"')
        outside.append(b"".join(pieces[inside::2]))
        inside ^= (len(pieces) - 1) & 1
    return b"".join(outside)

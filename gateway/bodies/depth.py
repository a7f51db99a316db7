"""How deeply a JSON text is nested, found without recursion and without a Python step per byte.

What is kept of the text are its brackets. Innermost pairs are taken away level by level, which is
cheap for all texts but towers; for those the heights are summed up.
"""

from __future__ import annotations

from itertools import accumulate

_BRACES = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")


def depth(text: bytes) -> int:
    """The levels of a valid JSON text; a number or a string alone has none."""
    levels = 0
    brackets = _outside_strings(text)
    while brackets:
        outer = brackets.replace(b"[]", b"")
        if len(outer) * 4 > len(brackets) * 3:
            steps = memoryview(brackets.translate(_STEPS)).cast("b")  # signed: up 1, down 1
            return levels + max(accumulate(steps))
        brackets = outer
        levels += 1
    return levels


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

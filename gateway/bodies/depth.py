"""How deeply a JSON text is nested, found without recursion and without a Python step per byte.

What is kept of the text are its brackets. Innermost pairs are taken away level by level, which is
cheap for all texts but towers; for those the heights are summed up.
"""

from __future__ import annotations

from itertools import accumulate

_BRACES = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")


def deeper(text: bytes, than: int) -> bool:
    """Whether valid JSON is nested in more levels."""
    marks = text.translate(_BRACES, _OTHERS)
    if marks.count(b"[") <= than:
        return False
    return _height(_outside_strings(text, marks)) > than


def _outside_strings(text: bytes, marks: bytes) -> bytes:
    """The brackets of a text; `marks` are its brackets and quotes, in strings and out of them."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        marks = text.translate(_BRACES, _OTHERS)
    brackets = marks.replace(b'""', b"")
    # A first bracket inside a string parts its quote from those before, an even number, so some
    # quote is left over; then the strings are taken out one by one.
    return b"".join(marks.split(b'"')[::2]) if b'"' in brackets else brackets


def _height(brackets: bytes) -> int:
    levels = 0
    while brackets:
        outer = brackets.replace(b"[]", b"")
        if len(outer) * 4 > len(brackets) * 3:
            steps = memoryview(brackets.translate(_STEPS)).cast("b")
            return levels + max(accumulate(steps))
        brackets = outer
        levels += 1
    return levels

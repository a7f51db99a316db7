"""Keys that stand twice in one object of the envelope: readers would differ on which one holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from msgspec import Raw

from gateway.batch import Where
from gateway.bodies.documents import decode
from gateway.errors import Refused


def refuse_duplicates(
    body: bytes,
    seen: Mapping[str, int],
    *,
    lists: Collection[str] = ("requests",),
    maps: Collection[str] = ("headers",),
) -> None:
    """Raises Refused when an object of the envelope of a checked document holds a key twice.
    Bodies inside it are the client's own affair.

    The decoder does not tell of duplicates, and looking at every document again would cost more
    than decoding it. So `seen` says how often the decoder found each field, and only where a name
    stands in the text more often, or may be hidden in escapes, the envelope is looked at. `lists`
    are the fields that hold entries, in a list or a map; `maps` those that hold plain members.
    """
    more = [key for key, times in seen.items() if body.count(_quoted(key)) > times]
    if more or _hides_a_name(body):
        _check(body, lists, maps)


@lru_cache(maxsize=256)  # some keys are the client's
def _quoted(key: str) -> bytes:
    return b'"%b"' % key.encode()


_ESCAPED_KEY = re.compile(rb'\\u00[2-7][0-9A-Fa-f][^"\\]*+"\s*+:')
"""The end of a key from its last escape on, where that stands for an ASCII character."""


def _hides_a_name(body: bytes) -> bool:
    return body.find(b"\\u") >= 0 and _ESCAPED_KEY.search(body) is not None


def _check(body: bytes, lists: Collection[str], maps: Collection[str]) -> None:
    waiting: list[tuple[bytes, Where]] = [(body, "")]
    while waiting:
        text, where = waiting.pop()
        for key, value in _members(text, where).items():
            place = f"{where}.{key}" if where else key
            if key in lists:
                waiting += _entries(value, place)
            elif key in maps:
                _members(value, place)


def _entries(text: bytes, where: Where) -> Iterator[tuple[bytes, Where]]:
    entries = decode(text, list[Raw]) if text.startswith(b"[") else _members(text, where).values()
    for index, entry in enumerate(entries):
        yield bytes(entry), f"{where}[{index}]"


_BEGIN = re.compile(rb"\s*+\{")
_KEY = re.compile(rb'[\s,]*+"(?:[^"\\]++|\\.)*+"\s*+:\s*+')
_END = re.compile(rb"\s*+\}")


def _members(text: bytes, where: Where) -> dict[str, bytes]:
    """The members of an object; none of something else."""
    begin = _BEGIN.match(text)
    if begin is None:
        return {}
    members = {key: bytes(value) for key, value in decode(text, dict[str, Raw]).items()}
    if not _accounts_for(text, begin.end(), members.values()):
        raise Refused(
            "bad_shape", f"{where}: a key stands twice" if where else "a key stands twice"
        )
    return members


def _accounts_for(text: bytes, at: int, values: Iterable[bytes]) -> bool:
    """Whether these values are all that the object holds, in this order.

    Of a key that stands twice the decoder keeps the first place and the last value, so the walk
    meets another value than it should, or is done before the text is.
    """
    for value in values:
        key = _KEY.match(text, at)
        if key is None or not text.startswith(value, key.end()):
            return False
        at = key.end() + len(value)
    return _END.match(text, at) is not None

"""Keys that stand twice in one object of the envelope: readers would differ on which one holds."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gateway.batch import Where
from gateway.errors import Refused


class _Pairs(list[tuple[str, Any]]):
    """An object with its members as they stand in the text."""


def refuse_duplicates(
    body: bytes,
    seen: Mapping[str, int],
    *,
    lists: Collection[str] = ("requests",),
    maps: Collection[str] = ("headers",),
) -> None:
    """Raises Refused when an object of the envelope holds a key twice. Bodies inside it are the
    client's own affair.

    The decoder does not tell of duplicates, and reading every document again would cost more than
    decoding it. So `seen` says how often the decoder found each field, and only when a name stands
    in the text more often than that, or could be hidden in `\\u` escapes, the text is read again.
    `lists` are the fields that hold entries, in a list or a map; `maps` those that hold plain ones.
    """
    if b"\\u" in body or any(body.count(b'"%b"' % key.encode()) > n for key, n in seen.items()):
        tree = json.loads(
            body, object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=str
        )
        _check(tree, lists, maps)


def _check(tree: Any, lists: Collection[str], maps: Collection[str]) -> None:
    waiting: list[tuple[Any, Where]] = [(tree, "")]
    while waiting:
        entry, where = waiting.pop()
        if not isinstance(entry, _Pairs):
            continue
        _check_keys(entry, where)
        for key, value in entry:
            place = f"{where}.{key}" if where else key
            if key in lists:
                waiting += _entries(value, place)
            elif key in maps and isinstance(value, _Pairs):
                _check_keys(value, place)


def _entries(value: Any, where: Where) -> Iterator[tuple[Any, Where]]:
    if isinstance(value, _Pairs):
        _check_keys(value, where)
        value = [entry for _, entry in value]
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield entry, f"{where}[{index}]"


def _check_keys(pairs: _Pairs, where: Where) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        raise Refused(
            "bad_shape", f"{where}: a key stands twice" if where else "a key stands twice"
        )

"""Pieces that parsers share: methods, optional members, and how a place is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Raw, UnsetType

from gateway import bodies, target
from gateway.batch import Where
from gateway.errors import BadTarget, Refused

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
USUAL: dict[str | None, str] = {
    spelling: name for name in _METHODS for spelling in (name, name.lower())
}
"""Methods as nearly everybody spells them, and in upper case."""
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def method(text: str, where: Where) -> str:
    """A method in upper case. Which ones may run is for the operator's rules to say."""
    known = USUAL.get(text)
    if known is not None:
        return known
    if _TOKEN.fullmatch(text) is None:
        raise Refused("bad_shape", f"{where}.method: not a method")
    return text.upper()


def too_many(most: int, where: Where = "requests") -> Refused:
    """There are more than may be, in the list there or in all lists together."""
    return Refused("too_many_subrequests", f"{where}: more than {most} subrequests")


def given(raw: Raw | UnsetType) -> bytes | None:
    """The bytes of an optional member; null means absent."""
    if isinstance(raw, UnsetType):
        return None
    data = bytes(raw)
    return None if data == b"null" else data


def member(where: Where, key: str, index: int) -> Where:
    """The place of a map's member: its key if that is fit for a message, else its number."""
    return f"{where}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{where}[{index}]"


def seen(body: bytes, entries: Sequence[msgspec.Struct]) -> dict[str, int]:
    """How often the decoder found each member that stands in the text: `requests`, the entries'.

    For `bodies.refuse_duplicates`: what stands there more often may stand twice in one object.
    """
    found = {"requests": 1}
    for name, quoted, get, absent in _members(type(entries[0])) if entries else ():
        if body.find(quoted) >= 0:  # `in` makes an exception, and costs three times that
            values = list(map(get, entries))
            found[name] = found.get(name, 0) + len(values) - values.count(absent)
    return found


Member = tuple[str, bytes, Callable[[Any], Any], Any]


@cache
def _members(entry: type[msgspec.Struct]) -> tuple[Member, ...]:
    """Of each member its name, that name in quotes, how to get it, and what stands for none."""
    names, attributes = entry.__struct_encode_fields__, entry.__struct_fields__
    required = len(names) - len(entry.__struct_defaults__)
    defaults = (*(msgspec.NODEFAULT,) * required, *entry.__struct_defaults__)
    return tuple(
        (name, b'"%b"' % name.encode(), attrgetter(attribute), default)
        for name, attribute, default in zip(names, attributes, defaults, strict=True)
    )


def refuse_duplicates(body: bytes, found: Mapping[str, int], where: Where = "") -> None:
    """`bodies.refuse_duplicates` for a document that stands inside the client's."""
    try:
        bodies.refuse_duplicates(body, found)
    except Refused as refused:
        place = f"{where}: " if where else ""
        raise Refused(refused.reason, place + refused.message) from None


def check_prefix(prefix: str | None) -> None:
    """An operator's prefix must be what it will be when it is sent. Raises ValueError."""
    if prefix and not _normal(prefix):
        raise ValueError("prefix: expected a path in normal form, without a slash at its end")


def _normal(prefix: str) -> bool:
    try:
        return target.normalise(prefix) == prefix and not prefix.endswith("/") and "?" not in prefix
    except BadTarget:
        return False

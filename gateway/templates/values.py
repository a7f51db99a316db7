"""JSON values as the bytes they were written in, looked into one level at a time.

A parse and a dump would change numbers, so nothing here makes a tree of a document: each step into
it decodes one level and leaves the rest as spans. A value is bytes or a span of some, valid JSON
in either case; `document` is where bytes from outside become a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Raw

Value = bytes | Raw

Kind = Literal["object", "array", "string", "number", "true", "false", "null"]

_KINDS: dict[int, Kind] = {
    ord("{"): "object",
    ord("["): "array",
    ord('"'): "string",
    ord("t"): "true",
    ord("f"): "false",
    ord("n"): "null",
}

_one = msgspec.json.Decoder(Raw).decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_items = msgspec.json.Decoder(list[Raw]).decode
_text = msgspec.json.Decoder(str).decode
quoted = msgspec.json.Encoder().encode
"""A text as a JSON string."""


def document(body: bytes) -> bytes | None:
    """A body as a value, or None when it is no JSON that can be looked into."""
    try:
        value = bytes(_one(body))
        return value if value.isascii() or value.decode() else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def kind(value: Value) -> Kind:
    return _KINDS.get(memoryview(value)[0], "number")


def members(value: Value) -> Mapping[str, Raw]:
    """The members of an object; of two with one name the last."""
    return _members(value)


def items(value: Value) -> Sequence[Raw]:
    """The elements of an array."""
    return _items(value)


def text(value: Value) -> str:
    """What a string says; other values as they are written."""
    return _text(value) if kind(value) == "string" else bytes(value).decode()


def at(value: Value, path: Sequence[str]) -> Value | None:
    """The member of a member, by name; None when there is none."""
    found: Value | None = value
    for name in path:
        if found is None or kind(found) != "object":
            return None
        found = members(found).get(name)
    return found

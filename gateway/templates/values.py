"""JSON values as the bytes they were written in, looked into one level at a time.

A parse and a dump would change numbers, so nothing here makes a tree of a document: each step into
it decodes one level and leaves the rest as spans. A value is bytes or a span of some, valid JSON
in either case; `document` is where bytes from outside become a value. What is looked into more
than once is a `Node`, which decodes each level once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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


MOST_VALUES = 500_000
"""In a document that is looked into: taken apart, each costs a hundred bytes and more."""


def document(body: bytes) -> bytes | None:
    """A body as a value, or None when it is no JSON that can be looked into."""
    if len(body) >= MOST_VALUES and body.count(b",") >= MOST_VALUES:
        return None
    try:
        _one(body)
        if not body.isascii():
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body.strip()


def kind(value: Value) -> Kind:
    first = value[0] if type(value) is bytes else memoryview(value)[0]
    return _KINDS.get(first, "number")


def members(value: Value) -> dict[str, Raw]:
    """The members of an object; of two with one name the last."""
    return _members(value)


def items(value: Value) -> list[Raw]:
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


def within(members: Mapping[str, Value], path: Sequence[str]) -> Value | None:
    """`at`, of an object whose members are at hand."""
    found = members.get(path[0])
    return found if found is None or len(path) == 1 else at(found, path[1:])


_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'[\[{](?:[^\[\]{}"]++|%b)*+[\]}]' % _STRING
"""An array or object without further ones."""
_UP_TO_COMMA = re.compile(rb'(?:[^\[\]{}",]++|%b|%b)*+' % (_STRING, _FLAT), re.DOTALL)
_UP_TO_BRACKET = re.compile(rb'(?:[^\[\]{}"]++|%b|%b)*+' % (_STRING, _FLAT), re.DOTALL)


def more_than(array: Value, most: int) -> bool:
    """Whether an array has more elements than that, found out without making any."""
    text = bytes(array)
    if text.count(b",") < most:
        return False
    depth, commas, at = 1, 0, 1
    while depth:
        run = (_UP_TO_COMMA if depth == 1 else _UP_TO_BRACKET).match(text, at)
        assert run is not None
        at = run.end() + 1
        mark = text[at - 1 : at]
        if mark == b",":
            commas += 1
            if commas == most:
                return True
        else:
            depth += 1 if mark in b"[{" else -1
    return False


def spelt(text: str) -> bytes:
    """A pattern for a text inside a string: JSON may write any of its characters as an escape."""
    characters = ((re.escape(char).encode(), ord(char)) for char in text)
    return b"".join(rb"(?:%b|\\u(?i:%04x))" % pair for pair in characters)


class Node:
    """A value whose levels are decoded when they are first looked at, and then remembered."""

    __slots__ = ("_elements", "_members", "_nodes", "kind", "value")

    def __init__(self, value: Value) -> None:
        self.value = value
        self.kind = kind(value)
        self._members: dict[str, Raw] | None = None
        self._elements: list[Raw] | None = None
        self._nodes: dict[str | int, Node] = {}

    @property
    def read(self) -> bool:
        """Whether looking into it costs nothing any more."""
        return self._members is not None or self._elements is not None

    @property
    def unread(self) -> int:
        """How many values are gone through when it is looked into: at most, as commas tell."""
        if self.read or self.kind not in ("object", "array"):
            return 0
        return bytes(self.value).count(b",")

    def apart(self) -> bytes:
        """The value as bytes of its own, made once."""
        self.value = value = bytes(self.value)
        return value

    @property
    def count(self) -> int:
        """How many children it has."""
        if self.kind == "object":
            return len(self._names())
        return len(self._list()) if self.kind == "array" else 0

    def member(self, name: str) -> Node | None:
        """The member of an object."""
        if self.kind != "object":
            return None
        value = self._names().get(name)
        return None if value is None else self._node(name, value)

    def element(self, index: int) -> Node:
        """The element of an array, which must have it."""
        return self._node(index, self._list()[index])

    def children(self) -> Iterator[Node]:
        """Members or elements, in the order in which they are written."""
        if self.kind == "object":
            yield from (self._node(name, value) for name, value in self._names().items())
        elif self.kind == "array":
            yield from (self._node(index, value) for index, value in enumerate(self._list()))

    def _names(self) -> dict[str, Raw]:
        if self._members is None:
            self._members = members(self.value)
        return self._members

    def _list(self) -> list[Raw]:
        if self._elements is None:
            self._elements = items(self.value)
        return self._elements

    def _node(self, key: str | int, value: Value) -> Node:
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(value)
        return node

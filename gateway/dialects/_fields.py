"""A subrequest's own header fields, in the forms clients write them.

    {"Accept": "application/json", "X-Limit": 5}                 a map
    [{"name": "Accept", "value": "application/json"}]            a list of items
    ["Accept: application/json"]                                 a list of lines

Numbers become text as they are written, null means absent, everything else is refused. One
spelling is read once per batch: clients tend to repeat the same fields in every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from gateway import bodies, headers
from gateway.batch import BulkCall, Header, Headers, Where
from gateway.dialects import _requests
from gateway.errors import BadHeader, Refused
from gateway.headers import HeaderPolicy

Form = Callable[[bytes, Where], Iterable[Header]]
"""JSON -> pairs. Raises `Refused` for what is of no form it knows."""


_NO_LISTS = HeaderPolicy()

LONGEST = 2**20
"""Bytes of all fields of one subrequest, as they are written."""


class OwnFields:
    """The own fields of a batch's subrequests, checked and cleaned."""

    def __init__(self, form: Form, bulk: BulkCall) -> None:
        self._form = form
        self._policy: HeaderPolicy = bulk.header_policy or _NO_LISTS
        self._known: dict[bytes, Headers] = {}

    def __call__(self, raw: Raw, where: Where) -> Headers:
        spelling = bytes(raw)
        fields = self._known.get(spelling)
        if fields is None:
            fields = self._known[spelling] = self._read(spelling, f"{where}.headers")
        return fields

    def _read(self, spelling: bytes, where: Where) -> Headers:
        if spelling == b"null":
            return ()
        if len(spelling) > LONGEST:
            raise Refused("bad_shape", f"{where}: longer than {LONGEST} bytes")
        try:
            return headers.own(self._form(spelling, where), self._policy)
        except BadHeader as bad:
            raise Refused("bad_shape", f"{where}: {bad.message}") from None


# --- forms ---------------------------------------------------------------------------------------


class Item(msgspec.Struct):
    """One field of a list."""

    name: str
    value: Raw


_MAP = {"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}}
_ITEM = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "value": {"type": ["string", "number", "null"]}},
    "required": ["name", "value"],
}
_LINE = {"type": "string", "pattern": ":"}
_NULL = {"type": "null"}

# Raw in the declarations, so that a spelling is what is looked up.
Items = Annotated[
    Raw, Meta(extra_json_schema={"anyOf": [{"type": "array", "items": _ITEM}, _NULL]})
]
AnyForm = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "anyOf": [_MAP, {"type": "array", "items": {"anyOf": [_ITEM, _LINE]}}, _NULL]
        }
    ),
]


_ANY_FIELDS: Any = dict[str, Raw] | list[Raw]
_ANY_ELEMENT: Any = Item | str


# Nearly everybody writes text alone, which is read at once; whatever else there is, piece by piece.


class _TextItem(msgspec.Struct):
    name: str
    value: str


_TEXTS = msgspec.json.Decoder(dict[str, str])
_TEXT_ITEMS = msgspec.json.Decoder(list[_TextItem])


def items(spelling: bytes, where: Where) -> Iterable[Header]:
    """A list of {name, value}."""
    quotes = spelling.count(b'"')
    try:
        texts = _TEXT_ITEMS.decode(spelling) if quotes <= 8 * headers.MOST_OWN else []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        texts = []
    # Two quotes about each name and each value, so no item says one of them twice.
    if texts and quotes == 8 * len(texts):
        return [(item.name, item.value) for item in texts]
    return _any_items(spelling, where)


def _any_items(spelling: bytes, where: Where) -> Iterator[Header]:
    _refuse_many(spelling, where)
    found = bodies.decode(spelling, list[Item], where)
    if spelling.count(b":") > 2 * len(found):
        for index, raw in enumerate(bodies.decode(spelling, list[Raw], where)):
            _once(bytes(raw), f"{where}[{index}]")
    for index, item in enumerate(found):
        yield from _pair(item.name, item.value, f"{where}[{index}].value")


def any_form(spelling: bytes, where: Where) -> Iterable[Header]:
    """A map, a list of items or of lines, or both mixed."""
    quotes = spelling.count(b'"')
    try:
        texts = _TEXTS.decode(spelling) if quotes <= 4 * headers.MOST_OWN else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        texts = {}
    # Two quotes about each name and each value, so no name stands there twice.
    if texts and quotes == 4 * len(texts):
        return texts.items()
    return _any_form(spelling, where)


def _any_form(spelling: bytes, where: Where) -> Iterator[Header]:
    _refuse_many(spelling, where)
    fields: dict[str, Raw] | list[Raw] = bodies.decode(spelling, _ANY_FIELDS, where)
    if isinstance(fields, dict):
        if len(fields) > headers.MOST_OWN:  # or each of them would be counted in the text
            raise _too_many(where)
        _requests.refuse_duplicates(spelling, dict.fromkeys(fields, 1), where)
        for index, (name, value) in enumerate(fields.items()):
            yield from _pair(name, value, where, index)
        return
    for index, element in enumerate(fields):
        yield from _element(bytes(element), f"{where}[{index}]")


def _refuse_many(spelling: bytes, where: Where) -> None:
    """Before they are made: two bytes each would cost eighty in memory."""
    if bodies.more(b'{"headers":%b}' % spelling, "headers", headers.MOST_OWN):
        raise _too_many(where)


def _too_many(where: Where) -> Refused:
    return Refused("bad_shape", f"{where}: more than {headers.MOST_OWN} header fields")


def _element(element: bytes, where: Where) -> Iterator[Header]:
    item: Item | str = bodies.decode(element, _ANY_ELEMENT, where)
    if isinstance(item, Item):
        _once(element, where)
        yield from _pair(item.name, item.value, f"{where}.value")
        return
    name, colon, value = item.partition(":")
    if not colon:
        raise Refused("bad_shape", f"{where}: expected a name, a colon and a value")
    yield name, value.strip(" \t")


def _once(item: bytes, where: Where) -> None:
    """Refuses an item that says twice what it is. One with two colons cannot."""
    if item.count(b":") > 2:
        _requests.refuse_duplicates(item, {"": -1}, where)


def _pair(name: str, value: Raw, where: Where, index: int | None = None) -> Iterator[Header]:
    """`where` the value stands, or the map of which it is a member."""
    text = bytes(value)
    if text.startswith(b'"'):
        yield name, bodies.decode(text, str, where)
    elif text[:1] in b"-0123456789":
        yield name, text.decode()
    elif text != b"null":
        place = where if index is None else _requests.member(where, name, index)
        raise Refused("bad_shape", f"{place}: expected string or number")

"""The client's document: grammar, shape and encoding, each mistake with its place.

msgspec validates and decodes in one pass. Around it stands what it leaves open: invalid UTF-8 in
raw spans, depth, and messages that quote the client.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.batch import Where
from gateway.bodies.depth import depth
from gateway.errors import Refused

T = TypeVar("T")


def document(body: bytes, shape: type[T], *, max_depth: int) -> T:
    """The body of a bulk call, checked and decoded. Raises Refused."""
    _check_encoding(body)
    decoded = decode(body, shape)
    # There is no level without a bracket, and most documents have fewer than the levels allowed.
    if body.count(b"{") + body.count(b"[") > max_depth and depth(body) > max_depth:
        raise Refused("too_deep", f"nested deeper than {max_depth} levels")
    return decoded


def check_document(body: bytes, *, max_depth: int) -> None:
    """The body is JSON, in valid UTF-8, and not too deep. Raises Refused."""
    document(body, msgspec.Raw, max_depth=max_depth)


def decode(body: bytes | msgspec.Raw, shape: type[T], where: Where = "") -> T:
    """A part of a document that stands at `where`, decoded. Raises Refused."""
    try:
        decoded: T = _decoder(shape).decode(body)
    except msgspec.ValidationError as mistake:
        raise Refused("bad_shape", _misshapen(str(mistake), where)) from None
    except msgspec.DecodeError as mistake:
        raise Refused("bad_json", _malformed(bytes(body), str(mistake), where)) from None
    except UnicodeDecodeError:
        raise Refused("bad_json", _placed("invalid UTF-8", where)) from None
    except RecursionError:
        raise Refused("too_deep", _placed("nested too deeply", where)) from None
    return decoded


def more(body: bytes, member: str, than: int) -> bool:
    """Whether a list or a map of the document has more entries than that, found without making
    them: an entry of three bytes costs a hundred in memory, and there is room for a million."""
    if len(body) <= _SMALL:
        return False
    keys = _Keys(than)
    try:
        msgspec.json.decode(body, type=_few(member, than), dec_hook=keys)
    except msgspec.ValidationError as mistake:
        return keys.left < 0 or str(mistake).startswith("Expected `array` of at most length")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # whoever decodes it says so
    return False


_SMALL = 64 * 1024


@lru_cache(maxsize=64)
def _few(member: str, most: int) -> Any:
    """A document in which a list is read like a tuple of `most` places, so that reading ends at the
    first element too many, and every key of a map is shown to `_Keys`."""
    places = [(f"at{place}", Raw | UnsetType, UNSET) for place in range(most)]
    few = msgspec.defstruct("Few", places, array_like=True, forbid_unknown_fields=True)
    return msgspec.defstruct("Document", [(member, few | dict[_Key, Raw] | UnsetType, UNSET)])


class _Key:
    """A key of a map, whatever it says."""


class _Keys:
    """Counts them, and ends the reading at one too many."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self, kind: type, key: object) -> _Key:
        self.left -= 1
        if self.left < 0:
            raise ValueError("too many")
        return _Key()


_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}
"""One per shape, of which the program declares a fixed number."""


def _decoder(shape: Any) -> msgspec.json.Decoder[Any]:
    known = _DECODERS.get(shape)
    if known is None:
        known = _DECODERS[shape] = msgspec.json.Decoder(shape)
    return known


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _check_encoding(body: bytes) -> None:
    if body.isascii():
        return
    if body.startswith(_BYTE_ORDER_MARK):
        raise Refused("bad_json", "line 1, column 1: a byte order mark is not allowed")
    try:
        body.decode()
    except UnicodeDecodeError as mistake:
        raise Refused("bad_json", f"{position(body, mistake.start)}: invalid UTF-8") from None


# --- messages ------------------------------------------------------------------------------------


def position(body: bytes, offset: int) -> str:
    """An offset as a person finds it, in characters from 1: `line 6, column 7`."""
    line = body.count(b"\n", 0, offset) + 1
    before = body[body.rfind(b"\n", 0, offset) + 1 : offset].decode("utf-8", "replace")
    return f"line {line}, column {len(before) + 1}"


_MALFORMED = re.compile(r"JSON is malformed: (.*) \(byte (\d+)\)")


def _malformed(body: bytes, message: str, where: Where) -> str:
    """msgspec's word on the grammar, with line and column for its offset."""
    found = _MALFORMED.fullmatch(message)
    what, offset = (found[1], int(found[2])) if found else ("unexpected end", len(body))
    if what == "trailing characters":
        offset -= 1  # the one offset that points behind the mistake
    return _placed(f"{position(body, offset)}: {what}", where)


_AT = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_QUOTING = {
    "Invalid enum value": "not one of the known values",
    "Invalid value": "not one of the known values",
    "Object contains unknown field": "an unknown field",
}
"""How messages of msgspec begin that quote the client, and what is said instead."""


def _misshapen(message: str, where: Where) -> str:
    """msgspec's word on the shape, with its path in our spelling.

    Entries of a map are `[...]` in that path. Who needs to name the entry decodes one by one.
    """
    found = _AT.fullmatch(message)
    what, path = (found[1], found[2]) if found else (message, "")
    place = (where + path.replace("[...]", "")).lstrip(".")
    if missing := _MISSING.fullmatch(what):
        return _placed("missing", f"{place}.{missing[1]}".lstrip("."))
    for start, said in _QUOTING.items():
        if what.startswith(start):
            return _placed(said, place)
    return _placed(_TYPES.sub(_in_json, what[:1].lower() + what[1:]), place)


_TYPES = re.compile("`([^`]*)`")
_JSON = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def _in_json(types: re.Match[str]) -> str:
    """Python's names of types, as those call them who write JSON."""
    return " or ".join([_JSON.get(name, name) for name in types[1].split(" | ")])


_LONGEST_PLACE = 400
"""Characters. Shapes that hold themselves are read before their depth is known."""


def _placed(what: str, where: Where) -> str:
    if len(where) > _LONGEST_PLACE:
        where = f"{where[: _LONGEST_PLACE // 2]}...{where[-_LONGEST_PLACE // 2 :]}"
    return f"{where}: {what}" if where else what

"""Bodies: client documents checked and decoded, backend contents spliced into the answer.

Bodies travel as the bytes they came as. A parse and a dump would change them (integers beyond 64
bits, long decimals, key order), so JSON is validated and then copied, up and down.
"""

from __future__ import annotations

import binascii
import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import orjson

from gateway.errors import Refused

T = TypeVar("T")

# --- the client's document -----------------------------------------------------------------------


def document(body: bytes, type: type[T], *, max_depth: int) -> T:
    """The bulk call's body, checked and decoded in one pass. Raises Refused."""
    _check_text(body)
    decoded = decode(body, type)
    _check_depth(body, max_depth)
    return decoded


def check_document(body: bytes, *, max_depth: int) -> None:
    """The body is valid JSON in valid UTF-8 and not too deep. Raises Refused."""
    document(body, msgspec.Raw, max_depth=max_depth)


def decode(body: bytes | msgspec.Raw, type: type[T], where: str = "") -> T:
    """Typed decode; a mistake becomes Refused with its place, which starts with `where`."""
    try:
        decoded: T = _decoder(type).decode(body)
        return decoded
    except msgspec.ValidationError as mistake:
        raise Refused("bad_shape", _shape(str(mistake), where)) from None
    except msgspec.DecodeError as mistake:
        raise Refused("bad_json", _grammar(bytes(body), str(mistake), where)) from None
    except UnicodeDecodeError:
        raise Refused("bad_json", _placed("invalid UTF-8", where)) from None
    except RecursionError:
        raise Refused("too_deep", _placed("nested too deeply", where)) from None


_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}
"""One per declared type, of which the program has a fixed number."""


def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    known = _DECODERS.get(type)
    if known is None:
        known = _DECODERS[type] = msgspec.json.Decoder(type)
    return known


_BOM = b"\xef\xbb\xbf"


def _check_text(body: bytes) -> None:
    if body.isascii():
        return
    if body.startswith(_BOM):
        raise Refused("bad_json", "line 1, column 1: a byte order mark is not allowed")
    try:
        body.decode()  # msgspec would let invalid bytes in raw spans pass
    except UnicodeDecodeError as mistake:
        raise Refused("bad_json", f"{position(body, mistake.start)}: invalid UTF-8") from None


def position(body: bytes, offset: int) -> str:
    """An offset as a person finds it: `line 6, column 7`, counted in characters."""
    before = body[:offset]
    start = before.rfind(b"\n") + 1
    column = len(before[start:].decode("utf-8", "replace")) + 1
    return f"line {before.count(10) + 1}, column {column}"


# --- mistakes in msgspec's words -----------------------------------------------------------------

_MALFORMED = re.compile(r"(?:JSON is malformed: )?(.*?)(?: \(byte (\d+)\))?")


def _grammar(body: bytes, message: str, where: str) -> str:
    found = _MALFORMED.fullmatch(message)
    what, offset = (found[1], found[2]) if found else (message, None)
    if message == "Input data was truncated":
        what = "unexpected end, or half of a surrogate pair"
    place = position(body, int(offset) if offset else len(body))
    return _placed(f"{place}: {what}", where)


_PLACED = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_QUOTING = {
    "Invalid enum value": "not one of the known values",
    "Invalid value": "not one of the known values",
    "Object contains unknown field": "an unknown field",
}
"""Messages of msgspec that quote the client, and what is said instead."""


def _shape(message: str, where: str) -> str:
    found = _PLACED.fullmatch(message)
    what, path = (found[1], found[2]) if found else (message, "")
    place = (where + path.replace("[...]", "")).lstrip(".")
    if missing := _MISSING.fullmatch(what):
        return _placed("missing", f"{place}.{missing[1]}".lstrip("."))
    for start, said in _QUOTING.items():
        if what.startswith(start):
            return _placed(said, place)
    return _placed(what[:1].lower() + what[1:].replace("`", ""), place)


def _placed(what: str, where: str) -> str:
    return f"{where}: {what}" if where else what


# --- depth ---------------------------------------------------------------------------------------

_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*+"')


def _check_depth(body: bytes, most: int) -> None:
    """Valid JSON is not nested deeper than `most`.

    Nothing here recurses or loops over bytes: what is left of the text are its brackets, and each
    pass takes the innermost pairs away.
    """
    if body.count(b"[") + body.count(b"{") <= most:
        return
    brackets = _brackets(body)
    for _ in range(most):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return
    raise Refused("too_deep", f"nested deeper than {most} levels")


def _brackets(body: bytes) -> bytes:
    """The brackets outside strings, in order, braces as brackets."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    rest = body.translate(_TO_BRACKETS, _NO_BRACKETS)
    bare = rest.replace(b'""', b"")
    # A bracket inside a string keeps its quotes apart, so quotes are left; then the slower way.
    return _STRING.sub(b"", rest) if b'"' in bare else bare


# --- duplicate keys ------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """An object with its keys as they stand in the text."""


def refuse_duplicates(
    body: bytes,
    seen: Mapping[str, int],
    *,
    lists: Collection[str] = ("requests",),
    maps: Collection[str] = ("headers",),
) -> None:
    """No object of the envelope names a key twice: readers would differ about which one holds.

    `seen` says how often the decoder found each field, which is how often its name may stand in
    the text; only when it stands there more often, or a name may be hidden in `\\u` escapes, is
    the document read again. `lists` are the fields that hold entries (in a list or in a map),
    `maps` those that hold plain objects; bodies are the client's own affair.
    """
    if b"\\u" in body or any(
        body.count(b'"%b"' % name.encode()) > times for name, times in seen.items()
    ):
        tree = json.loads(
            body, object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=str
        )
        _check_keys(tree, "", lists, maps)


def _check_keys(top: Any, where: str, lists: Collection[str], maps: Collection[str]) -> None:
    waiting = [(top, where)]
    while waiting:
        item, place = waiting.pop()
        if not isinstance(item, _Pairs):
            continue
        _check_names(item, place)
        for name, value in item:
            at = f"{place}.{name}".lstrip(".")
            if name in maps and isinstance(value, _Pairs):
                _check_names(value, at)
            elif name in lists:
                waiting += _entries(value, at)


def _check_names(pairs: _Pairs, where: str) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise Refused("bad_shape", _placed("a key stands twice", where))


def _entries(value: Any, where: str) -> Iterator[tuple[Any, str]]:
    if isinstance(value, _Pairs):
        _check_names(value, where)
        value = [entry for _, entry in value]
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield entry, f"{where}[{index}]"


# --- contents into the answer --------------------------------------------------------------------

_valid = msgspec.json.Decoder(msgspec.Raw).decode


def splice(body: bytes, content_type: bytes | None) -> tuple[bytes, bool]:
    """Contents as they go into the answer, and whether they had to become base64.

    What is declared JSON, or not declared at all, and is JSON, goes in as it is. All else becomes
    a JSON string: text by its charset (UTF-8 when none is named), other bytes as base64. Text
    that merely looks like JSON stays text, so that a route's type does not hang on its contents.
    """
    json_declared, charset = _declared(content_type)
    if json_declared:
        contents = body.removeprefix(_BOM)
        if _is_json(contents):
            return contents, False
    try:
        return orjson.dumps(body.decode(charset)), False
    except (UnicodeDecodeError, orjson.JSONEncodeError):
        return b'"%b"' % binascii.b2a_base64(body, newline=False), True


def _is_json(body: bytes) -> bool:
    try:
        _valid(body)
        return body.isascii() or bool(body.decode())
    except UnicodeDecodeError:
        return False
    except RecursionError:
        return False
    except msgspec.DecodeError:
        pass
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([a-z0-9_.:-]{1,40})")
_CHARSETS = frozenset(
    {
        "utf-8", "utf8", "us-ascii", "ascii", "utf-16", "utf-16le", "utf-16be",
        "iso-8859-1", "iso-8859-2", "iso-8859-15", "latin1",
        "windows-1250", "windows-1251", "windows-1252", "koi8-r",
        "shift_jis", "euc-jp", "iso-2022-jp", "gbk", "gb2312", "gb18030", "big5", "euc-kr",
    }
)  # fmt: skip
"""Charsets that are decoded by name. A closed list: Python knows others that are slow (idna) or no
charsets at all."""


@lru_cache(maxsize=256)
def _declared(content_type: bytes | None) -> tuple[bool, str]:
    """Whether JSON may be expected, and the charset of a text."""
    if not content_type or not content_type.strip():
        return True, "utf-8"
    text = content_type.decode("latin-1").lower()
    media = text.partition(";")[0].strip()
    found = _CHARSET.search(text)
    charset = found[1] if found and found[1] in _CHARSETS else "utf-8"
    return media in ("application/json", "text/json") or media.endswith("+json"), charset


# --- content codings -----------------------------------------------------------------------------


class CodingError(Exception):
    """Contents that cannot be decoded: `content_coding` or `body_size`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


_WBITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_STEP = 256 * 1024
_MOST_MEMBERS = 1024


def decoder(coding: bytes | None, limit: int) -> Decoder | None:
    """What decodes contents of this Content-Encoding; None when there is nothing to decode."""
    name = (coding or b"").strip().lower()
    return None if name in (b"", b"identity") else Decoder(name, limit)


class Decoder:
    """Undoes one gzip or deflate coding, step by step; it never makes more than `limit` bytes and
    one more."""

    def __init__(self, coding: bytes, limit: int) -> None:
        name = coding.strip().lower()
        if name not in _WBITS:
            raise CodingError("content_coding")
        self._wbits = _WBITS[name]
        self._left = limit
        self._members = 0
        self._held = b""
        self._stream: Any = None

    def feed(self, data: bytes) -> bytes:
        """The contents that `data` completes. Raises CodingError."""
        data, self._held = self._held + data, b""
        made: list[bytes] = []
        while data:
            if self._stream is None or self._stream.eof:
                if self._wbits == zlib.MAX_WBITS and len(data) < 2:
                    self._held = data
                    break
                self._begin(data)
            data = self._inflate(data, made)
        return b"".join(made)

    def end(self) -> None:
        """No more data comes. Raises CodingError unless the stream is complete."""
        if self._held or (self._stream is not None and not self._stream.eof):
            raise CodingError("content_coding")

    def _begin(self, data: bytes) -> None:
        """Begin the stream, or the next member of a gzip one (RFC 1952 2.2)."""
        self._members += 1
        if self._members > (_MOST_MEMBERS if self._wbits > zlib.MAX_WBITS else 1):
            raise CodingError("content_coding")
        wbits = self._wbits
        # `deflate` means zlib's format, but some servers send the bare stream (RFC 9110 8.4.1.2).
        if wbits == zlib.MAX_WBITS and (data[0] & 15 != 8 or int.from_bytes(data[:2], "big") % 31):
            wbits = -zlib.MAX_WBITS
        self._stream = zlib.decompressobj(wbits)

    def _inflate(self, data: bytes, made: list[bytes]) -> bytes:
        """All that `data` gives within this stream; returns what stands behind its end."""
        stream = self._stream
        while True:
            step = min(_STEP, self._left + 1)
            try:
                piece = stream.decompress(data, step)
            except zlib.error:
                raise CodingError("content_coding") from None
            self._left -= len(piece)
            if self._left < 0:
                raise CodingError("body_size")
            made.append(piece)
            if stream.eof:
                return bytes(stream.unused_data)
            data = stream.unconsumed_tail
            # A full piece may leave more inside zlib even when no input is left.
            if not data and len(piece) < step:
                return b""

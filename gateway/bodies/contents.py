"""A backend's contents as they stand in the answer: JSON as it is, all else as a JSON string."""

from __future__ import annotations

import re
from binascii import b2a_base64
from functools import lru_cache

import msgspec
import orjson

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def splice(body: bytes, content_type: bytes | None) -> tuple[bytes, bool]:
    """Contents as they go into the answer, and whether they had to become base64.

    What is declared JSON, or not declared at all, goes in as it is if it is JSON. Anything else is
    a JSON string: text by its charset (UTF-8 unless one is named), other bytes in base64, and what
    is long and mostly escapes. Text that merely looks like JSON stays text, so that a route's type
    does not hang on its contents.
    """
    expected_json, charset = _declared(content_type)
    if expected_json:
        contents = body.removeprefix(_BYTE_ORDER_MARK)  # it may not stand inside a document
        if _is_json(contents):
            return contents, False
    if charset in _WITH_CONTROLS or not _full_of_escapes(body):
        try:
            return orjson.dumps(body.decode(charset)), False
        except (UnicodeDecodeError, orjson.JSONEncodeError):  # bytes, or UTF-16 with half a pair
            pass
    return b'"%b"' % b2a_base64(body, newline=False), True


_LONG = 256 * 1024
_WITH_CONTROLS = frozenset({"utf-16", "utf-16le", "utf-16be", "iso-2022-jp"})
"""Charsets whose texts hold such bytes."""
_ESCAPED = bytes({*range(32), *b'"\\'})
_SIXFOLD = bytes({*_ESCAPED} - {*b'\t\n\r\f\b"\\'})
"""Each becomes six characters of a JSON string, the others two."""


def _full_of_escapes(body: bytes) -> bool:
    """It is long, and so much of it would be escaped in a JSON string that it is no text anybody
    wrote: that would be up to six times as long, and take as long to make."""
    if len(body) <= _LONG:
        return False
    sixfold = len(body) - len(body.translate(None, _SIXFOLD))
    escaped = len(body) - len(body.translate(None, _ESCAPED))
    return sixfold > len(body) // 8 or escaped > len(body) // 2


_validate = msgspec.json.Decoder(msgspec.Raw).decode


def _is_json(body: bytes) -> bool:
    try:
        _validate(body)
        return body.isascii() or bool(body.decode())
    except (UnicodeDecodeError, RecursionError):
        return False
    except msgspec.DecodeError:
        return _is_json_to_orjson(body)


_WORTH_A_TREE = 2**20


def _is_json_to_orjson(body: bytes) -> bool:
    """The second opinion: each of the two refuses some texts within the grammar. This one makes a
    tree of it, up to twenty times its size, so a long text has to do with the first."""
    if len(body) > _WORTH_A_TREE:
        return False
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([a-z0-9_-]{1,40})")
_CHARSETS = frozenset(
    {
        "utf-8", "utf8", "us-ascii", "utf-16", "utf-16le", "utf-16be",
        "iso-8859-1", "iso-8859-2", "iso-8859-15", "latin1",
        "windows-1250", "windows-1251", "windows-1252", "koi8-r",
        "shift_jis", "euc-jp", "iso-2022-jp", "gbk", "gb2312", "gb18030", "big5", "euc-kr",
    }
)  # fmt: skip
"""Those that are decoded when named. A closed list: some of what Python knows under such names is
no charset, or slow on hostile input."""


@lru_cache(maxsize=256)
def _declared(content_type: bytes | None) -> tuple[bool, str]:
    """Whether JSON is to be expected, and the charset of a text."""
    text = (content_type or b"").decode("latin-1").lower()
    media = text.partition(";")[0].strip()
    named = _CHARSET.search(text)
    charset = named[1] if named and named[1] in _CHARSETS else "utf-8"
    return media in ("", "application/json", "text/json") or media.endswith("+json"), charset

"""The normal form of an address, and the addresses that have none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal
from unicodedata import normalize
from urllib.parse import quote, unquote_to_bytes

from gateway.errors import BadTarget

LONGEST = 8190
"""Bytes of a target: what backends commonly take in a request line."""

MISTAKES = {
    "another_host": "another host is not allowed",
    "backslash": "a backslash is not allowed",
    "bad_character": "a character is not allowed",
    "bad_percent": "a percent sign is not followed by two hexadecimal digits",
    "control": "a control character is not allowed",
    "dot_segment": "a dot segment is not allowed",
    "empty_path": "the path is empty",
    "empty_segment": "an empty path segment is not allowed",
    "encoded_slash": "an encoded slash is not allowed",
    "fragment": "a fragment is not allowed",
    "look_alike": "a character that may be read as a dot or a slash is not allowed",
    "not_rooted": "the path does not start with a slash",
    "space": "a space is not allowed",
    "too_long": f"the address is longer than {LONGEST} bytes",
}
"""Slug of a BadTarget -> its message."""


def _bad(slug: str) -> BadTarget:
    return BadTarget(slug, MISTAKES[slug])


# --- the normal form -----------------------------------------------------------------------------

_PLAIN = re.compile(
    r"(?=/)(?:/[A-Za-z0-9_~:@!$&'()*+,;=-][A-Za-z0-9._~:@!$&'()*+,;=-]*+)*+/?+(?:\?[!\"$-~]*+)?+"
)
"""Targets that are their own normal form beyond doubt: no percent sign in the path, and no segment
that begins with a dot. Nearly all are such, and the careful way costs ten times as much."""


def normalise(text: str, *, encoded_slash: Literal["keep", "refuse"] = "keep") -> str:
    """A target in normal form: `/a/%7Eb?x=1` is `/a/~b?x=1`. Raises BadTarget.

    The query stays as it was sent, but for what cannot stand in a request line.
    """
    if len(text) > LONGEST:
        raise _bad("too_long")
    if _PLAIN.fullmatch(text) is not None:
        return text
    return _careful(text, encoded_slash)


def _careful(text: str, encoded_slash: str) -> str:
    path, question, query = text.partition("?")
    _check_text(text, path)
    _check_path(path, encoded_slash)
    target = _normal_path(path) + question + _encode(query, _ANY_PRINTABLE)
    if len(target) > LONGEST:
        raise _bad("too_long")
    return target


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
"""What makes an address absolute: a scheme, or an authority without one."""


def _check_text(text: str, path: str) -> None:
    """What is wrong before anything is decoded, in the query too."""
    if _CONTROL.search(text):
        raise _bad("control")
    if " " in text:
        raise _bad("space")
    if "#" in text:
        raise _bad("fragment")
    if not path:
        raise _bad("empty_path")
    if _ELSEWHERE.match(path):
        raise _bad("another_host")
    if "\\" in path:
        raise _bad("backslash")
    if path[0] != "/":
        raise _bad("not_rooted")
    if "//" in path:
        raise _bad("empty_segment")


_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _check_path(path: str, encoded_slash: str) -> None:
    """It must mean the same to a backend that decodes it never, once or twice."""
    if _BAD_PERCENT.search(path):
        raise _bad("bad_percent")
    as_sent = _bytes(path)
    once = unquote_to_bytes(as_sent)
    twice = unquote_to_bytes(once)
    if encoded_slash == "refuse" and twice.count(b"/") > as_sent.count(b"/"):
        raise _bad("encoded_slash")
    for form in dict.fromkeys((as_sent, once, twice)):
        _check_form(form)


_CONTROL_BYTE = re.compile(rb"[\x00-\x1f\x7f]")
_DOTS = re.compile(rb"/\.\.?(?:[;/]|\Z)")
"""With what follows a `;` too: servers that cut path parameters off take `..;x` for `..`."""
_OVERLONG = re.compile(
    rb"\xc0[\xae\xaf]|\xc1\x9c|\xe0(?:\x80[\xae\xaf]|\x81\x9c)|\xf0\x80(?:\x80[\xae\xaf]|\x81\x9c)"
)
"""`.`, `/` and `\\` in more bytes than UTF-8 allows; old decoders take them."""
_SEPARATORS = frozenset("./\\")


def _check_form(path: bytes) -> None:
    if _CONTROL_BYTE.search(path):
        raise _bad("control")
    if b"\\" in path:
        raise _bad("backslash")
    if _DOTS.search(path):
        raise _bad("dot_segment")
    if not path.isascii():
        _check_look_alikes(path)


def _check_look_alikes(path: bytes) -> None:
    if _OVERLONG.search(path):
        raise _bad("look_alike")
    # One by one: a whole text is folded in quadratic time where combining marks follow each other.
    for char in set(path.decode("utf-8", "replace")):
        if not char.isascii() and not _SEPARATORS.isdisjoint(normalize("NFKC", char)):
            raise _bad("look_alike")


_UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_PATH_CHARACTERS = "/:@!$&'()*+,;=%"
_ANY_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_HEX = "0123456789ABCDEFabcdef"
_TRIPLETS = {
    high + low: char
    if (char := chr(int(high + low, 16))) in _UNRESERVED
    else f"%{high}{low}".upper()
    for high in _HEX
    for low in _HEX
}
"""The two digits of a percent triplet -> its normal form."""


def _normal_path(path: str) -> str:
    first, *rest = _encode(path, _PATH_CHARACTERS).split("%")
    return first + "".join([_TRIPLETS[piece[:2]] + piece[2:] for piece in rest])


def _encode(text: str, safe: str) -> str:
    return quote(_bytes(text), safe=safe)


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise _bad("bad_character") from None


def spelt_out(path: str, times: int = 1) -> str:
    """A path (normal form) decoded, and encoded again where it must be: the form in which `/%40me`
    is `/@me`, as it is to every backend. An encoded slash becomes one."""
    data = path.encode()
    for _ in range(times):
        data = unquote_to_bytes(data)
    return quote(data, safe=_PATH_CHARACTERS.rstrip("%"))


_SLASHES = re.compile("//+")


def decoded(path: str) -> Iterator[str]:
    """A path (normal form) as backends decode it, once or twice; and where that leaves slashes in a
    row, with one for them, as nginx has it (`/a/%2Fb` is `/a/b`)."""
    for reading in (path,) if "%" not in path else (spelt_out(path), spelt_out(path, 2)):
        yield reading
        if "//" in reading:
            yield _SLASHES.sub("/", reading)


_PARAMETERS = re.compile(r"(?:(?<!/)/*+;[^/]*+)+")


def readings(path: str) -> Iterator[str]:
    """A path (normal form) as backends read it: decoded, and without path parameters, which Java's
    cut off (`/a;x/b` and `/a/;x/b` are `/a/b` to them)."""
    for reading in decoded(path):
        yield reading
        if ";" in reading:
            yield _PARAMETERS.sub("", reading) or "/"


def segment(text: str) -> str:
    """A value as one path segment: all but RFC 3986's unreserved characters is encoded. Of one that
    is too long for any address, as much as shows that."""
    return _encode(text[: LONGEST + 1], "")


# --- absolute addresses --------------------------------------------------------------------------

ABSOLUTE = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?=[/?]|\Z)",
    re.IGNORECASE | re.ASCII,
)
_PORTS = {"http": "80", "https": "443"}


def origin(scheme: str, authority: str) -> str:
    """`https`, `CRM.example` -> `https://crm.example:443`; empty for what is no authority."""
    found = ABSOLUTE.fullmatch(f"{scheme}://{authority}")
    return _origin(found) if found else ""


@lru_cache(maxsize=256)  # names come from clients, so the cache is bounded
def origins(authority: str) -> frozenset[str]:
    """The origins of either scheme that an authority may stand for; none for what is none."""
    found = {origin(scheme, authority) for scheme in _PORTS}
    return frozenset(found - {""})


def _origin(found: re.Match[str]) -> str:
    scheme = found["scheme"].lower()
    return f"{scheme}://{found['host'].lower()}:{found['port'] or _PORTS[scheme]}"


def rebase(url: str, origins: frozenset[str]) -> str:
    """An absolute URL on one of the gateway's own origins -> its path and query.

    Another host, port or scheme, or userinfo, raises BadTarget; a relative address stays.
    """
    if not _ELSEWHERE.match(url):
        return url
    found = ABSOLUTE.match(url)
    if found is None or _origin(found) not in origins:
        raise _bad("another_host")
    rest = url[found.end() :]
    return rest if rest.startswith("/") else "/" + rest

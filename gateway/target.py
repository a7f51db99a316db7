"""A subrequest's address: brought to one form, and that form is both checked and sent.

An address is read by several parties (these rules, a proxy behind us, the backend's router), and
every attack on such a chain is an address they read differently. So whatever two readers could
take for two things is refused, and the rest is rewritten to the normal form of RFC 3986 6.2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar
from unicodedata import normalize
from urllib.parse import quote, unquote, unquote_to_bytes

from gateway.batch import Failure
from gateway.errors import BadTarget

LONGEST = 8190
"""Bytes of a target: what the backends' own parsers commonly take in a request line."""

MISTAKES = {
    "another_host": "another host is not allowed",
    "bad_character": "a character is not allowed there",
    "bad_percent": "a percent sign is not followed by two hexadecimal digits",
    "backslash": "a backslash is not allowed",
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
    r"(?:/[A-Za-z0-9_~:@!$&'()*+,;=-][A-Za-z0-9._~:@!$&'()*+,;=-]*+)++/?+(?:\?[!\"$-~]*+)?+"
)
"""Targets that are their own normal form beyond doubt: no percent sign and no segment that begins
with a dot. Nearly all are such, and one match costs a tenth of the careful way."""


def normalise(text: str, *, encoded_slash: Literal["keep", "refuse"] = "keep") -> str:
    """The target in normal form: `/a/%7Eb?x=1` is `/a/~b?x=1`. Raises BadTarget.

    The query is kept as it was sent, but for what cannot stand in a request line.
    """
    if len(text) <= LONGEST and _PLAIN.fullmatch(text) is not None:
        return text
    return _careful(text, encoded_slash)


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")


def _careful(text: str, encoded_slash: str) -> str:
    if len(text) > LONGEST:
        raise _bad("too_long")
    path, question, query = text.partition("?")
    _check_text(text, path)
    _check_path(path, encoded_slash)
    target = _normal_path(path) + question + _encode(query, _QUERY)
    if len(target) > LONGEST:
        raise _bad("too_long")
    return target


def _check_text(text: str, path: str) -> None:
    if _CONTROL.search(text):
        raise _bad("control")
    if " " in text:
        raise _bad("space")
    if "#" in text:
        raise _bad("fragment")
    if not path:
        raise _bad("empty_path")
    if _SCHEME.match(path):
        raise _bad("another_host")
    if path[0] != "/":
        raise _bad("backslash" if path[0] == "\\" else "not_rooted")


_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _check_path(path: str, encoded_slash: str) -> None:
    """The path must mean the same to a backend that decodes it never, once or twice."""
    if "//" in path:
        raise _bad("empty_segment")
    if _BAD_PERCENT.search(path):
        raise _bad("bad_percent")
    as_sent = _bytes(path)
    once = unquote_to_bytes(as_sent)
    twice = unquote_to_bytes(once)
    if encoded_slash == "refuse" and twice.count(b"/") > as_sent.count(b"/"):
        raise _bad("encoded_slash")
    for form in dict.fromkeys((as_sent, once, twice)):
        _check_form(form)


_RAW_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_DOTS = re.compile(rb"/\.\.?(?:[;/]|\Z)")
_OVERLONG = re.compile(
    rb"\xc0[\xae\xaf]|\xc1\x9c|\xe0\x80[\xae\xaf]|\xe0\x81\x9c|\xf0\x80\x80[\xae\xaf]|\xf0\x80\x81\x9c"
)
"""`.`, `/` and `\\` written in more bytes than UTF-8 allows; old decoders take them."""


def _check_form(path: bytes) -> None:
    if _RAW_CONTROL.search(path):
        raise _bad("control")
    if b"\\" in path:
        raise _bad("backslash")
    # `..;x` is `..` to servers that cut path parameters off.
    if _DOTS.search(path):
        raise _bad("dot_segment")
    if not path.isascii():
        _check_look_alikes(path)


def _check_look_alikes(path: bytes) -> None:
    if _OVERLONG.search(path):
        raise _bad("look_alike")
    text = path.decode("utf-8", "replace")
    folded = normalize("NFKC", text)
    if any(folded.count(mark) > text.count(mark) for mark in "./\\"):
        raise _bad("look_alike")


_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH = "/:@!$&'()*+,;=%"
_QUERY = "".join(map(chr, range(0x21, 0x7F)))
_TRIPLET = re.compile(r"%[0-9A-Fa-f]{2}")


def _normal_path(path: str) -> str:
    return _TRIPLET.sub(_normal_triplet, _encode(path, _PATH))


def _normal_triplet(match: re.Match[str]) -> str:
    char = chr(int(match[0][1:], 16))
    return char if char in _UNRESERVED else match[0].upper()


def _encode(text: str, safe: str) -> str:
    return quote(_bytes(text), safe=safe)


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise _bad("bad_character") from None


# --- absolute addresses and single segments -------------------------------------------------------

_ABSOLUTE = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?=[/?]|\Z)",
    re.IGNORECASE,
)
_PORTS = {"http": "80", "https": "443"}


def origin(scheme: str, authority: str) -> str:
    """`https`, `CRM.example` -> `https://crm.example:443`; empty when that is no authority."""
    match = _ABSOLUTE.fullmatch(f"{scheme}://{authority}")
    return _origin(match) if match else ""


def _origin(match: re.Match[str]) -> str:
    scheme = match["scheme"].lower()
    return f"{scheme}://{match['host'].lower()}:{match['port'] or _PORTS[scheme]}"


def rebase(url: str, origins: frozenset[str]) -> str:
    """An absolute URL on one of the gateway's own origins -> its path and query.

    Another host, scheme or port, or userinfo, raises BadTarget; a relative address is left alone.
    """
    if not _SCHEME.match(url):
        return url
    match = _ABSOLUTE.match(url)
    if match is None or _origin(match) not in origins:
        raise _bad("another_host")
    rest = url[match.end() :]
    return rest if rest.startswith("/") else "/" + rest


def segment(text: str) -> str:
    """A value as one path segment: everything but RFC 3986's unreserved characters is encoded."""
    return quote(_bytes(text), safe="~")


# --- path templates ------------------------------------------------------------------------------

_NAMED = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
_SHAPES = {"version": r"v[0-9]{1,2}(?:_[0-9]{1,2})?"}
_ONE = r"[^/]++"
_ANY = r"(?:/[^/]++)*"
_REST = r"(?:/.*)?"


class Pattern:
    """A template of paths: `{prefix}/{version}/bulk`, `/rest/{module}/{id}`, `/admin/**`.

    `{prefix}`, at the start, is zero or more segments; `{version}` is `v10` or `v11_3`; any other
    name and `*` are one segment; `*` or `**` at the end is the rest, if any. Only the prefix can
    be matched in several ways, so a match takes time linear in the path.
    """

    __slots__ = ("_regex", "expression", "last", "names", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is no template."""
        self.text = text
        prefix, *parts = text.split("/")
        if prefix not in ("", "{prefix}") or "" in parts[:-1] or not parts:
            raise ValueError("a path pattern starts with `/` or `{prefix}/` and has no `//`")
        pieces = [_piece(part) for part in parts]
        if parts[-1] in ("*", "**"):
            pieces[-1] = ("", "", _REST)
        if prefix:
            pieces.insert(0, ("prefix", "", _ANY))
        self.names = tuple(name for name, _, _ in pieces if name)
        if len(set(self.names)) < len(self.names):
            raise ValueError("a name stands twice in a path pattern")
        self.expression = "".join(lead + body for _, lead, body in pieces)
        self.last = None if "{" in parts[-1] or "*" in parts[-1] else _literal(parts[-1])
        """The last segment where it is fixed: a router looks it up before it matches anything."""
        captured = [lead + (f"({body})" if name else body) for name, lead, body in pieces]
        self._regex = re.compile("".join(captured), re.DOTALL)

    def match(self, path: str) -> dict[str, str] | None:
        """What the names stand for in a path (normal form, no query), or None."""
        found = self._regex.fullmatch(path)
        return None if found is None else dict(zip(self.names, found.groups(), strict=True))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _piece(part: str) -> tuple[str, str, str]:
    """A segment's name, what leads it, and its expression."""
    if part in ("*", "**"):
        return "", "/", _ONE
    if found := _NAMED.fullmatch(part):
        return found[1], "/", _SHAPES.get(found[1], _ONE)
    if any(char in part for char in "{}*"):
        raise ValueError("a segment of a path pattern is a name in braces, `*`, or plain text")
    return "", "/", re.escape(_literal(part))


def _literal(part: str) -> str:
    try:
        return normalise("/" + part)[1:]
    except BadTarget as mistake:
        raise ValueError(f"in a path pattern, {mistake.message}") from None


def _alternatives(patterns: Sequence[Pattern]) -> re.Pattern[str]:
    """One expression for all: the number of the group that matched is the pattern's place."""
    groups = "|".join(f"({pattern.expression})" for pattern in patterns)
    return re.compile(f"(?:{groups or '(?!)'})(?:\\?|\\Z)", re.DOTALL)


class Routes:
    """Templates that name targets in metrics: the first that matches, else `_other`."""

    OTHER = "_other"

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        patterns = tuple(patterns)
        self._labels = tuple(pattern.text for pattern in patterns)
        self._match = _alternatives(patterns).match

    def label(self, target: str) -> str:
        """The label of a target in normal form, with or without its query."""
        found = self._match(target)
        return self._labels[found.lastindex - 1] if found and found.lastindex else self.OTHER


# --- the operator's rules ------------------------------------------------------------------------

_METHOD_DENIED = Failure(
    "http_request_denied", "method_denied", message="the method is not allowed here"
)
_PATH_DENIED = Failure("http_request_denied", "path_denied", message="the path is not allowed here")


@dataclass(frozen=True)
class PathRules:
    """What the operator allows of methods and paths; deny wins, an empty `allow` is all."""

    allow: tuple[Pattern, ...] = ()
    deny: tuple[Pattern, ...] = ()
    methods: frozenset[str] = frozenset(
        {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    )
    encoded_slash: Literal["auto", "keep", "refuse"] = "auto"

    @property
    def slash(self) -> Literal["keep", "refuse"]:
        """What `normalise` is to do: an encoded slash is data while no rule reads the path."""
        if self.encoded_slash == "auto":
            return "refuse" if self.allow or self.deny else "keep"
        return self.encoded_slash

    def refusal(self, method: str, target: str) -> Failure | None:
        """Why a subrequest (target in normal form) may not be sent, or None."""
        if method not in self.methods:
            return _METHOD_DENIED
        if self.allow or self.deny:
            return None if self._permitted(target.partition("?")[0]) else _PATH_DENIED
        return None

    def _permitted(self, path: str) -> bool:
        """Every reading of the path must be allowed and none denied."""
        for reading in _readings(path):
            if any(pattern.match(reading) is not None for pattern in self.deny):
                return False
            if self.allow and all(pattern.match(reading) is None for pattern in self.allow):
                return False
        return True


_PARAMETERS = re.compile(r"(?:;|%3B)[^/]*", re.IGNORECASE)


def _readings(path: str) -> Iterator[str]:
    """The path as it stands, and as backends read it that cut off path parameters (`/a;x/b` is
    `/a/b` to Java's) or take an encoded slash for a slash."""
    yield path
    if "%2F" in path:
        path = path.replace("%2F", "/")
        yield path
    if ";" in path or "%3B" in path:
        yield _PARAMETERS.sub("", path)


# --- bulk endpoints ------------------------------------------------------------------------------

Entry = TypeVar("Entry")


class Endpoints(Generic[Entry]):
    """The bulk endpoints: routes real requests, and finds those that a batch sends to itself."""

    def __init__(self, entries: Iterable[tuple[Pattern, Entry]]) -> None:
        self._entries = tuple(entries)
        self._open = tuple(item for item in self._entries if item[0].last is None)
        lasts = {pattern.last for pattern, _ in self._entries}
        self._by_last = {
            last: tuple(item for item in self._entries if item[0].last in (last, None))
            for last in lasts
        }

    def match(self, path: str) -> tuple[Entry, Mapping[str, str]] | None:
        """The first entry whose pattern matches a path in normal form, and what its names are."""
        for pattern, entry in self._by_last.get(path.rpartition("/")[2], self._open):
            if (params := pattern.match(path)) is not None:
                return entry, params
        return None

    def route(self, raw_path: str) -> tuple[Entry, Mapping[str, str]] | None:
        """The entry of a request-target as it was received, which need not be in normal form.

        What has no normal form is no bulk call: it passes through as it came.
        """
        try:
            return self.match(normalise(rooted(raw_path)))
        except BadTarget:
            return None

    def recursion(self, target: str) -> bool:
        """Whether a subrequest (normal form) would be a bulk call, also once or twice decoded."""
        path = target.partition("?")[0]
        if self.match(path) is not None:
            return True
        return "%" in path and any(self.match(form) is not None for form in _decoded(path))


def rooted(raw_path: str) -> str:
    """The path of a request-target: origin form, or the absolute form that clients send proxies."""
    path = raw_path.partition("?")[0]
    absolute = None if path.startswith("/") else _ABSOLUTE.match(path)
    return path if absolute is None else path[absolute.end() :] or "/"


def _decoded(path: str) -> tuple[str, str]:
    once = unquote(path)
    return once, unquote(once)

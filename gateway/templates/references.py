"""References to what earlier requests returned, inside a path or the strings of a body.

    ${result=add-company:$.id}     a JSONPath on the named request's result
    {id}   {company.id}            a property of an earlier result (the older form)

A scanner finds them, the dialect says whose results they mean, and at the end the matches are put
in: a string that is one whole reference becomes the match itself, byte for byte; elsewhere the
match becomes text. Only the strings that hold a reference are touched; the rest of a body stays as
it was written. What is put in is never scanned again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from gateway.batch import Reply, Scope, Where
from gateway.errors import TooMany, Unresolved
from gateway.target import segment
from gateway.templates import values
from gateway.templates.allowance import ADDRESS, BYTES, Allowance
from gateway.templates.jsonpath import Path, Walker


class Hole(msgspec.Struct, frozen=True):
    """A reference as it was found: nobody knows yet whether it means anything."""

    name: str
    path: str


class Reference(msgspec.Struct, frozen=True):
    """A reference that means the result of an earlier request."""

    name: str
    """The request's, exactly."""
    path: Path


Scan = Callable[[str], list[str | Hole]]
"""Text -> its parts. Raises Unresolved for a reference that has no end."""

Parts = tuple[str | Reference, ...]

# --- finding them --------------------------------------------------------------------------------

_OPEN = "${result="
MOST = 1000
"""References in one text."""
LONGEST = 20_000
"""Characters of a reference: it is read to its end before anybody knows what it means."""


def results(text: str) -> list[str | Hole]:
    """`${result=NAME:JSONPATH}`. One pass: what an unclosed one would hide is never looked at."""
    parts: list[str | Hole] = []
    end = 0
    while (start := text.find(_OPEN, end)) >= 0:
        most = start + LONGEST
        name = _NAME.match(text, start + len(_OPEN), most)
        path = _PATH.match(text, name.end(), most) if name else None
        if name is None or path is None:
            raise Unresolved("a reference has no end")
        parts += (text[end:start], Hole(name[1] or name[2] or "", path[1]))
        end = path.end()
        _bound(parts)
    return [*parts, text[end:]]


def _bound(parts: list[str | Hole]) -> None:
    if len(parts) > 2 * MOST:
        raise Unresolved(f"more than {MOST} references in one text")


_NAME = re.compile(r"([^}]*?):(?=\$)|([^:}]*+):")
"""Up to the colon before the JSONPath's `$`, since a name may hold one; else up to the first."""
_PATH = re.compile(
    r"""([^}"']*+(?:"(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.)*+'|[^}"']++)*+)\}""", re.DOTALL
)
"""Up to the brace that closes; braces in the quotes of a JSONPath do not."""

_PROPERTY = re.compile(r"\{([A-Za-z_][\w-]*+)(?:\.([A-Za-z_][\w-]*+))?\}", re.ASCII)


def properties(text: str) -> list[str | Hole]:
    """`{prop}` and `{type.prop}`; the hole's name is the type, or empty."""
    parts: list[str | Hole] = []
    end = 0
    for found in _PROPERTY.finditer(text):
        first, second = found.groups()
        hole = Hole(first, second) if second else Hole("", first)
        parts += (text[end : found.start()], hole)
        end = found.end()
        _bound(parts)
    return [*parts, text[end:]]


_STRING = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")(\s*+:)?', re.DOTALL)
"""A string of a JSON text; the second group tells a key."""


_ASCII = rb"\\u00(?!7[Dd])[2-7][0-9A-Fa-f]"
"""Any character of a property's name as an escape, and not the brace that ends it."""
_WRITTEN: dict[Scan, re.Pattern[bytes]] = {
    results: re.compile(re.escape(_OPEN).encode()),
    properties: re.compile(rb"\{[A-Za-z_][\w.-]*+\}"),
}
_SPELT: dict[Scan, re.Pattern[bytes]] = {
    results: re.compile(values.spelt(_OPEN)),
    properties: re.compile(
        rb"(?:\{|\\u007[Bb])(?:[A-Za-z_]|%b)(?:[\w.-]|%b)*+(?:\}|\\u007[Dd])" % (_ASCII, _ASCII)
    ),
}
"""What may be a reference in a JSON text, which is in a string then: as it is, and with any of its
characters as an escape, which takes longer to look for."""

MOST_BEGINNINGS = 2_000_000
MOST_STRINGS = 10_000
"""In one body: characters that may begin a reference or an escape, and strings that are looked at
because something in them may be one. Who means it has a handful."""


def strings(body: bytes, scan: Scan) -> Iterator[bytes | list[str | Hole]]:
    """A JSON text as bytes to be copied, and strings with references in them."""
    marks = (_SPELT if b"\\u00" in body else _WRITTEN)[scan]
    if sum(map(body.count, (b"$", b"{", b"\\"))) > MOST_BEGINNINGS:
        raise Unresolved(f"more than {MOST_BEGINNINGS} characters that may begin a reference")
    end = at = looked = 0
    while mark := marks.search(body, at):
        looked += 1
        if looked > MOST_STRINGS:
            raise Unresolved(f"more than {MOST_STRINGS} strings that may hold references")
        found = _STRING.match(body, _opening(body, at, mark.start()))
        assert found is not None
        at = found.end()
        token, is_key = found.groups()
        if is_key:
            continue
        parts = scan(values.text(token))
        if len(parts) > 1:
            yield body[end : found.start()]
            yield parts
            end = found.end()
    yield body[end:]


def _opening(body: bytes, at: int, inside: int) -> int:
    """Where the string begins in which `inside` is, and before which `at` is: at the last quote
    behind no backslash. Every quote in a string is behind one, and one that opens it never is."""
    return at + body[at:inside].replace(b'\\"', b"  ").rfind(b'"')


# --- putting values in ---------------------------------------------------------------------------


class PathTemplate(msgspec.Struct, frozen=True):
    """A target with references in it."""

    text: str
    where: Where
    parts: Parts
    tail: str = ""
    """What is added to every target of the batch: a credential in the query."""
    allowance: Allowance = msgspec.field(default_factory=Allowance)
    """Its batch's."""

    def fill(self, scope: Scope) -> str:
        found = _Found(scope, self.allowance.of_text(ADDRESS))
        with _placed(self.where):
            return "".join(self._filled(found)) + self.tail

    def _filled(self, found: _Found) -> Iterator[str]:
        for part in self.parts:
            if isinstance(part, str):
                yield part
            else:
                yield ",".join(map(self._segment, found.texts(part)))

    def _segment(self, match: values.Value) -> str:
        """A value that would leave a hole in the path, or fill it with JSON, is no value here."""
        said = "" if values.kind(match) in ("object", "array", "null") else values.text(match)
        if not said:
            raise Unresolved("what a reference finds does not fit into a path")
        return segment(said)


class BodyTemplate(msgspec.Struct, frozen=True):
    """A JSON text with references in its strings."""

    text: str
    where: Where
    pieces: tuple[bytes | Parts, ...]
    allowance: Allowance = msgspec.field(default_factory=Allowance)
    """Its batch's."""

    def fill(self, scope: Scope) -> str:
        found = _Found(scope, self.allowance.of_text(BYTES))
        pieces = (
            piece if isinstance(piece, bytes) else self._string(piece, found)
            for piece in self.pieces
        )
        with _placed(self.where):
            return b"".join(pieces).decode()

    def _string(self, parts: Parts, found: _Found) -> bytes:
        whole = [part for part in parts if part != ""]
        if len(whole) == 1 and isinstance(whole[0], Reference):
            matches = found.matches(whole[0])
            return bytes(matches[0]) if len(matches) == 1 else b"[" + b",".join(matches) + b"]"
        return values.quoted("".join(self._said(part, found) for part in parts))

    def _said(self, part: str | Reference, found: _Found) -> str:
        return part if isinstance(part, str) else ",".join(map(values.text, found.texts(part)))


@contextmanager
def _placed(where: Where) -> Iterator[None]:
    try:
        yield
    except Unresolved as why:
        raise type(why)(f"{where}: {why.message}") from None


class _Found:
    """What the references of one template mean, as far as its allowance goes."""

    def __init__(self, scope: Scope, allowance: Allowance) -> None:
        self._scope = scope
        self._allowance = allowance
        self._kept: dict[str, Mapping[str, values.Value]] = {}
        """Result -> JSONPath -> its matches."""

    def matches(self, reference: Reference) -> Sequence[values.Value]:
        found = self._result(reference.name).get(reference.path.text)
        if found is None:
            raise Unresolved("a reference finds nothing")
        self._allowance.make(len(memoryview(found)))
        return values.items(found)

    def texts(self, reference: Reference) -> Sequence[values.Value]:
        """The same, to be made into text one by one."""
        matches = self.matches(reference)
        self._allowance.look(len(matches))
        return matches

    def _result(self, name: str) -> Mapping[str, values.Value]:
        if name not in self._kept:
            kept = self._scope.get(name)
            if not kept:
                raise Unresolved("the result that a reference means is no JSON")
            self._kept[name] = values.members(kept[0])
        return self._kept[name]


class Matches(msgspec.Struct, frozen=True):
    """Keeps what references to one result find in it: an object, JSONPath -> list of matches."""

    paths: tuple[Path, ...]

    def pick(self, reply: Reply) -> Sequence[bytes]:
        document = values.document(reply.body)
        if document is None:
            return ()
        return (b"{" + b",".join(self._found(Walker(document))) + b"}",)

    def _found(self, walker: Walker) -> Iterator[bytes]:
        for path in self.paths:
            try:
                matches = walker.matches(path)
            except TooMany:
                raise
            except Unresolved:  # it costs too much, so it finds nothing
                continue
            if matches:
                yield values.quoted(path.text) + b":[" + b",".join(matches) + b"]"

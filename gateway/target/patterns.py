"""Templates of paths: what settings call endpoints, routes and rules by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.errors import BadTarget
from gateway.target.form import normalise, spelt_out


class _Piece(NamedTuple):
    """A stretch of a pattern as a regular expression; its name, if it has one, is its group."""

    body: str
    name: str = ""
    lead: str = "/"

    def expression(self, *, capture: bool) -> str:
        return self.lead + (f"({self.body})" if capture and self.name else f"(?:{self.body})")


_NAMED = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
_SHAPES = {"version": r"v[0-9]{1,2}(?:_[0-9]{1,2})?"}
_ONE = r"[^/?]++"
_PREFIX = _Piece(rf"(?:/{_ONE})*", "prefix", lead="")
_REST = _Piece(r"(?:/.*)?", lead="")


class Pattern:
    """A template such as `{prefix}/{version}/bulk`, `/rest/{module}/{id}` or `/admin/**`.

    `{prefix}`, at the start, is zero or more segments; `{version}` is `v10` or `v11_3`; any other
    name and `*` are one segment; `*` or `**` at the end is the rest, if any. A segment can match
    in one way only, so a match takes time linear in the path.
    """

    __slots__ = ("_match", "expression", "last", "names", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is no template."""
        self.text = text
        start, *parts = text.split("/")
        if start not in ("", "{prefix}") or not parts or "" in parts[:-1] or "?" in text:
            raise ValueError("a path pattern starts with `/` or `{prefix}/`, without `//` and `?`")
        pieces = [_piece(part) for part in parts]
        if parts[-1] in ("*", "**"):
            pieces[-1] = _REST
        if start:
            pieces.insert(0, _PREFIX)
        self.names = tuple(piece.name for piece in pieces if piece.name)
        if len(set(self.names)) < len(self.names):
            raise ValueError("a name stands twice in a path pattern")
        self.expression = "".join(piece.expression(capture=False) for piece in pieces)
        """A regular expression without groups, for those who join several."""
        captured = "".join(piece.expression(capture=True) for piece in pieces)
        self._match = re.compile(captured, re.DOTALL).fullmatch
        self.last = None if any(char in parts[-1] for char in "{*%") else _literal(parts[-1])
        """The last segment where it is fixed: a router can look it up before it matches."""

    def match(self, path: str) -> dict[str, str] | None:
        """What the names stand for in a path (normal form, no query), or None."""
        found = self._match(path)
        return None if found is None else dict(zip(self.names, found.groups(), strict=True))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _piece(part: str) -> _Piece:
    if part in ("*", "**"):
        return _Piece(_ONE)
    if found := _NAMED.fullmatch(part):
        return _Piece(_SHAPES.get(found[1], _ONE), found[1])
    if any(char in part for char in "{}*"):
        raise ValueError("a segment of a path pattern is a name in braces, `*`, or plain text")
    return _Piece("|".join(map(re.escape, _spellings(_literal(part)))))


def _literal(part: str) -> str:
    """Plain text in the form in which paths are matched."""
    try:
        return normalise("/" + part)[1:]
    except BadTarget as mistake:
        raise ValueError(f"in a path pattern, {mistake.message}") from None


def _spellings(literal: str) -> Iterable[str]:
    """As it is written, and as paths are read that were decoded."""
    return dict.fromkeys((literal, spelt_out(literal)))


def joined(patterns: Sequence[Pattern], end: str) -> re.Pattern[str]:
    """One expression for all: the number of the group that matched is the pattern's place."""
    groups = "|".join(f"({pattern.expression})" for pattern in patterns)
    return re.compile(f"(?:{groups or '(?!)'}){end}", re.DOTALL)


class Routes:
    """Templates that name targets in metrics: the first that matches, else `_other`."""

    OTHER = "_other"

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        patterns = tuple(patterns)
        self._labels = tuple(pattern.text for pattern in patterns)
        self._match = joined(patterns, r"(?:\?|\Z)").match

    def label(self, target: str) -> str:
        """The label of a target in normal form, with or without its query."""
        found = self._match(target)
        return self._labels[found.lastindex - 1] if found and found.lastindex else self.OTHER

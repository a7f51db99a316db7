"""The bulk endpoints: the one router for real requests and for those a batch sends to itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from gateway.errors import BadTarget
from gateway.target.form import ABSOLUTE, normalise, readings
from gateway.target.patterns import Pattern

Entry = TypeVar("Entry")


KNOWN = 64
"""Most request-targets to remember."""


class Endpoints(Generic[Entry]):
    """Patterns and what stands behind each; the first that matches wins."""

    def __init__(self, entries: Iterable[tuple[Pattern, Entry]]) -> None:
        every = tuple(entries)
        self._open = tuple(item for item in every if item[0].last is None)
        # Nearly every path is no bulk call, and its last segment alone says so.
        self._endings = tuple({pattern.last or "" for pattern, _ in every})
        self._by_last = {
            pattern.last: tuple(item for item in every if item[0].last in (pattern.last, None))
            for pattern, _ in every
        }
        self._known: dict[str, tuple[Entry, Mapping[str, str], str]] = {}
        """Request-targets of bulk calls, which have few: all forgotten when they are too many."""

    def match(self, path: str) -> tuple[Entry, dict[str, str]] | None:
        """The entry of a path in normal form, and what the names in its pattern stand for."""
        for pattern, entry in self._by_last.get(path.rpartition("/")[2], self._open):
            if (params := pattern.match(path)) is not None:
                return entry, params
        return None

    def route(self, received: str) -> tuple[Entry, Mapping[str, str], str] | None:
        """The entry of a request-target as it was received, matched in its normal form, which is
        told too.

        What has no normal form is no bulk call: it passes through as it came.
        """
        if (known := self._known.get(received)) is not None:
            return known
        try:
            path = normalise(rooted(received))
        except BadTarget:
            return None
        if (found := self.match(path)) is None:
            return None
        if len(self._known) >= KNOWN:
            self._known.clear()
        routed = self._known[received] = (*found, path)
        return routed

    def recursion(self, target: str) -> bool:
        """Whether a subrequest (normal form) is a bulk call, whatever a backend makes of its path:
        decoded once or twice, without path parameters, or without a slash at its end."""
        path = target.partition("?")[0]
        odd = "%" in path or ";" in path or path.endswith("/")
        if not odd:
            return path.endswith(self._endings) and self.match(path) is not None
        return any(
            self.match(reading) or self.match(reading.rstrip("/")) for reading in readings(path)
        )


def rooted(received: str) -> str:
    """The path of a request-target: of the absolute form too, which clients send to proxies."""
    path = received.partition("?")[0]
    absolute = None if path.startswith("/") else ABSOLUTE.match(path)
    return path if absolute is None else path[absolute.end() :] or "/"

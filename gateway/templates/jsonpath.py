"""JSONPath (RFC 9535) within bounds: a library parses, a walker here evaluates.

Names, indexes, slices, wildcards and at most one `..`. General engines ran for seconds on 24
levels, and filters hold regular expressions, so those are refused where they are read; what is
left visits at most 10,000 nodes, then gives up. All paths into one document together take at most
100,000 steps and read at most 64 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import msgspec

from gateway.errors import TooMany, Unresolved
from gateway.templates.values import Node

LONGEST = 1000
"""Characters of a path."""
MOST_NODES = 10_000
"""Visited for one path."""
MOST_STEPS = 100_000
"""Selectors applied and nodes visited, for all paths into one document."""
MOST_BYTES = 64 << 20
"""Read for all paths into one document: every level that is looked into is read once more."""
MOST_FOUND = 8 << 20
"""Bytes found by all of them together."""

Selector = str | int | slice | None
"""A name, an index, a slice; None selects every child."""


class Segment(msgspec.Struct, frozen=True):
    selectors: tuple[Selector, ...]
    descends: bool
    """`..`: it is applied to a node and all below it."""


class BadPath(ValueError):
    """Text that is no JSONPath."""


class Unbounded(ValueError):
    """A JSONPath that may cost more than anyone has asked for. `what` says why."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Path(msgspec.Struct, frozen=True):
    """A JSONPath, parsed."""

    text: str
    segments: tuple[Segment, ...]


def member(name: str) -> Path:
    """The path to one member of the document."""
    return Path(f"$.{name}", (Segment((name,), False),))


@lru_cache(maxsize=1024)
def parse(text: str) -> Path:
    """Raises BadPath and Unbounded."""
    from jsonpath import JSONPathError

    if len(text) > LONGEST:
        raise Unbounded(f"longer than {LONGEST} characters")
    try:
        compiled = environment().compile(text)
    except (JSONPathError, RecursionError, ArithmeticError, ValueError):
        # The last two are Python's, of numbers that the library takes as they are: `$[1e5]`.
        raise BadPath from None
    segments = tuple(_segment(segment) for segment in compiled.segments)
    if sum(segment.descends for segment in segments) > 1:
        raise Unbounded("more than one `..`")
    return Path(text, segments)


@cache
def environment() -> Any:
    """The library, imported when it is first asked for. That takes 50 to 100 ms, so whoever is
    going to parse in an event loop asks beforehand."""
    from jsonpath import JSONPathEnvironment

    return JSONPathEnvironment(strict=True)


def _segment(segment: Any) -> Segment:
    from jsonpath.segments import JSONPathRecursiveDescentSegment

    return Segment(
        tuple(map(_selector, segment.selectors)),
        isinstance(segment, JSONPathRecursiveDescentSegment),
    )


def _selector(selector: Any) -> Selector:
    from jsonpath import selectors

    match selector:
        case selectors.NameSelector():
            return str(selector.name)
        case selectors.IndexSelector():
            return int(selector.index)
        case selectors.SliceSelector():
            chosen: slice = selector.slice
            return chosen
        case selectors.WildcardSelector():
            return None
    raise Unbounded("filters and functions are not supported")


# --- walking -------------------------------------------------------------------------------------


class Walker:
    """Evaluates paths on one document, and knows what that has cost so far."""

    __slots__ = ("_bytes", "_found", "_nodes", "_root", "_steps")

    def __init__(self, document: bytes) -> None:
        self._root = Node(document)
        self._bytes = 0
        self._found = 0
        self._nodes = 0
        self._steps = 0

    def matches(self, path: Path) -> list[bytes]:
        """The nodes it selects, as they are written. Raises Unresolved when it costs too much,
        TooMany when it finds too much."""
        self._nodes = 0
        nodes = [self._root]
        for segment in path.segments:
            nodes = [found for node in nodes for found in self._apply(segment, node)]
        self._found += sum(len(memoryview(node.value)) for node in nodes)
        if self._found > MOST_FOUND:
            raise TooMany("finds too much with the paths before it")
        return [bytes(node.value) for node in nodes]

    def _apply(self, segment: Segment, node: Node) -> Iterator[Node]:
        for below in self._descend(node) if segment.descends else (node,):
            self._pay(below)
            for selector in segment.selectors:
                self._step()
                for found in _select(below, selector):
                    self._visit()
                    yield found

    def _descend(self, node: Node) -> Iterator[Node]:
        """The node and all below it that have children, in document order."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            yield node
            self._pay(node)
            children = []
            for child in node.children():
                self._visit()
                if child.kind in ("object", "array"):
                    children.append(child)
            waiting.extend(reversed(children))

    def _pay(self, node: Node) -> None:
        """A node is about to be looked into."""
        if not node.read:
            self._bytes += len(memoryview(node.value))
            if self._bytes > MOST_BYTES:
                raise Unresolved("reads too much of the document")

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise Unresolved(f"takes more than {MOST_STEPS} steps with the paths before it")

    def _visit(self) -> None:
        self._step()
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise Unresolved(f"visits more than {MOST_NODES} nodes")


def _select(node: Node, selector: Selector) -> Iterator[Node]:
    """A name selects in objects; an index or a slice in arrays; None in both."""
    if selector is None:
        yield from node.children()
    elif isinstance(selector, str):
        found = node.member(selector)
        if found is not None:
            yield found
    elif node.kind != "array":
        return
    elif isinstance(selector, int):
        if -node.count <= selector < node.count:
            yield node.element(selector % node.count)
    elif selector.step != 0:
        yield from (node.element(index) for index in range(node.count)[selector])

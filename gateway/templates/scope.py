"""Where placeholders look: documents under names, and the ways down into them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gateway.templates.allowance import Allowance
from gateway.templates.values import Node


class BadPlaceholder(ValueError):
    """A placeholder that can mean nothing. `what` says why, without quoting it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.way: list[tuple[str, int]] = []
        """From the innermost level outwards: the member's key, empty in a list, and its place."""


class Layer:
    """A place in the scope: a value, and names in it that mean something else for now.

    `args` is a document; in a run of a loop over `args.ids`, `ids` in it is the element.
    """

    __slots__ = ("_bound", "allowance", "node")

    def __init__(self, node: Node | None = None, allowance: Allowance | None = None) -> None:
        self.node = node
        self.allowance = Allowance() if allowance is None else allowance
        self._bound: dict[str, Layer] = {}

    def bind(self, path: Iterable[str], node: Node) -> None:
        layer = self
        for name in path:
            inner = layer.member(name)
            if not isinstance(inner, Layer):
                inner = Layer(inner, self.allowance)
            layer = layer._bound.setdefault(name, inner)
        layer.node = node

    def member(self, name: str) -> Layer | Node | None:
        if name in self._bound:
            return self._bound[name]
        return None if self.node is None else self.node.member(name)


# --- paths ---------------------------------------------------------------------------------------

Step = str | int | slice
"""A member's name, an element's index, a range of elements."""
Way = tuple[Step, ...]

_INDEX = re.compile(r"-?[0-9]+")
_SLICE = re.compile(r"(-?[0-9]+)?:(-?[0-9]+)?")
_FAR = 10**15
"""Past the end of any array: longer numbers are not read."""
_NOWHERE = slice(0, 0)


class Path(msgspec.Struct, frozen=True):
    """Ways down into the scope; the first that leads anywhere holds."""

    ways: tuple[Way, ...]

    def find(self, scope: Layer) -> Node | None:
        if len(self.ways) > 1:
            return _first(scope, self.ways, scope.allowance)
        return _down(scope, self.ways[0], scope.allowance)


def path(text: str) -> Path:
    """`a.b.0`: dots between steps, blanks between alternatives. Raises BadPlaceholder."""
    ways = tuple(tuple(_steps(word)) for word in text.split(" ") if word)
    if not ways:
        raise BadPlaceholder("a path is empty")
    return Path(ways)


def _steps(word: str) -> Iterator[Step]:
    """A dot in front leads nowhere; one at the end, or two together, name the empty member."""
    names = word.split(".")
    if not names[0]:
        names = names[1:]
        if not any(names):  # nothing but dots
            names = names[1:]
    for name in names:
        if name.startswith("/") and name.rfind("/") > 1:
            raise BadPlaceholder("a regular expression is not supported as a path")
        if _INDEX.fullmatch(name):
            yield _NOWHERE if _negative_zero(name) else _number(name)
        elif found := _SLICE.fullmatch(name):
            start, stop = found.groups("")
            last = None if not stop or _negative_zero(stop) else _number(stop)
            yield _NOWHERE if _negative_zero(start) else slice(_number(start), last)
        else:
            yield name


def _number(digits: str) -> int:
    if len(digits) > 15:
        return -_FAR if digits[0] == "-" else _FAR
    return int(digits or "0")


def _negative_zero(digits: str) -> bool:
    """JavaScript's -0, counted from an array's end, is past it."""
    return digits.startswith("-") and not _number(digits)


def _down(place: Layer | Node, way: Way, allowance: Allowance) -> Node | None:
    """Where the only way leads: straight down, as far as its steps are names."""
    for depth, step in enumerate(way):
        if not isinstance(step, str):
            return _first(place, (way[depth:],), allowance)
        _enter(place, allowance)
        child = place.member(step)
        if child is None:
            return _first(place, (way[depth:],), allowance)
        place = child
    return place.node if isinstance(place, Layer) else place


def _first(place: Layer | Node, ways: Sequence[Way], allowance: Allowance) -> Node | None:
    """What the ways lead to from here. Those that begin alike go on together, as in npm's."""
    if not all(ways):
        return place.node if isinstance(place, Layer) else place
    groups: dict[str | int, tuple[Layer | Node, list[Way]]] = {}
    for way in ways:
        for key, child in _children(place, way[0], allowance):
            groups.setdefault(key, (child, []))[1].append(way[1:])
    for key in sorted(groups, key=lambda key: key if isinstance(key, int) else _FAR):
        found = _first(*groups[key], allowance)
        if found is not None:
            return found
    return None


def _children(
    place: Layer | Node, step: Step, allowance: Allowance
) -> Iterator[tuple[str | int, Layer | Node]]:
    _enter(place, allowance)
    if isinstance(step, str):
        child = place.member(step)
        if child is not None:
            yield step, child
        elif step == "length" and (array := _array(place)) is not None:
            yield step, Node(b"%d" % array.count)
    elif (array := _array(place)) is not None:
        indexes = _indexes(array.count, step)
        allowance.look(len(indexes))
        for index in indexes:
            yield index, array.element(index)


_READ = 64
"""Values that are decoded in the time of a few steps."""


def _enter(place: Layer | Node, allowance: Allowance) -> None:
    """It is about to be looked into."""
    node = place.node if isinstance(place, Layer) else place
    allowance.look(1 if node is None else 1 + node.unread // _READ)


def _array(place: Layer | Node) -> Node | None:
    node = place.node if isinstance(place, Layer) else place
    return node if node is not None and node.kind == "array" else None


def _indexes(length: int, step: int | slice) -> Sequence[int]:
    if isinstance(step, slice):
        return range(length)[step]
    index = step if step >= 0 else max(length + step, 0)
    return (index,) if index < length else ()

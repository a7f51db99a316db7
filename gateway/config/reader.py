"""Reads a tree of nodes by a declaration: a dataclass whose annotations say what may stand where.

It knows no setting. It never stops at a mistake: it notes it, leaves the default in its place and
goes on, so that one run names everything that is wrong.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gateway.config.notations import Notation, expected
from gateway.config.source import Mistake, Node

BAD: Any = object()
"""What a value is that was wrong; whoever gets it leaves the default."""

PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Reader:
    """One reading: what it found wrong, and where each setting was given."""

    def __init__(
        self, shapes: Mapping[type, Callable[[Reader, dict[str, Node], Node, str], Any]]
    ) -> None:
        self.mistakes: list[Mistake] = []
        self.places: dict[str, str] = {}
        self.shapes = shapes
        """Dataclasses that are read in a way of their own."""

    def wrong(self, node: Node, path: str, message: str) -> Any:
        self.mistakes.append(Mistake(node.place, path, message))
        return BAD

    def section(self, kind: Any, node: Node, path: str = "") -> Any:
        """An instance of the dataclass, or BAD."""
        entries = self._entries(kind, node, path)
        if entries is None:
            return BAD
        if shape := self.shapes.get(kind):
            return shape(self, entries, node, path)
        values = self.fields(kind, entries, node, path)
        self.strangers(entries, fields_of(kind), path)
        return BAD if values is BAD else kind(**values)

    def _entries(self, kind: Any, node: Node, path: str) -> dict[str, Node] | None:
        if isinstance(node.value, dict):
            return node.value
        if short := getattr(kind, "SHORT", None):
            return {short: node}
        if node.value is None:
            return {}  # a section with all its lines commented out
        names = f" with {', '.join(fields_of(kind))}" if path else ""
        self.wrong(node, path, f"expected a mapping{names}")
        return None

    def fields(self, kind: Any, entries: dict[str, Node], node: Node, path: str) -> Any:
        """The values given for a dataclass's fields, or BAD when it cannot be made of them."""
        hints = get_type_hints(kind, include_extras=True)
        values = {}
        complete = True
        for name, field in fields_of(kind).items():
            here = f"{path}.{name}" if path else name
            if name in entries:
                value = self.value(hints[name], entries[name], here)
                if value is not BAD:
                    values[name] = value
            elif is_required(field):
                self.wrong(node, here, "missing")
            complete &= name in values or not is_required(field)
        return values if complete else BAD

    def strangers(self, entries: dict[str, Node], known: Collection[str], path: str) -> None:
        for name, node in entries.items():
            if name not in known:
                here = f"{path}.{name}" if path else name
                self.wrong(node, here, "unknown setting" + did_you_mean(name, known))

    def value(self, kind: Any, node: Node, path: str) -> Any:
        self.places[path] = node.place
        try:
            return self._value(kind, node, path)
        except ValueError as error:
            return self.wrong(node, path, str(error))

    def _value(self, kind: Any, node: Node, path: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self._notation(arguments[1], node)
        if origin in (Union, types.UnionType):
            return self._union(arguments, node, path)
        if origin is Literal:
            return self._choice(arguments, node)
        if origin in (tuple, frozenset):
            return self._several(origin, arguments[0], node, path)
        if origin is not None and issubclass(origin, Mapping):
            return self._mapping(arguments[1], node, path)
        if dataclasses.is_dataclass(kind):
            return self.section(kind, node, path)
        return self._plain(kind, node)

    def _notation(self, notation: Notation, node: Node) -> Any:
        try:
            return notation.read(node.value)
        except ValueError:
            if node.text is None or node.text == node.value:
                raise
            return notation.read(node.text)

    def _union(self, arms: tuple[Any, ...], node: Node, path: str) -> Any:
        if node.value is None and type(None) in arms:
            return None
        (arm,) = (arm for arm in arms if arm is not type(None))
        return self._value(arm, node, path)

    def _choice(self, choices: tuple[Any, ...], node: Node) -> Any:
        for value in (node.value, node.text):
            if value in choices and not isinstance(value, bool):
                return value
        near = did_you_mean(str(node.value), [str(choice) for choice in choices])
        listed = ", ".join(str(choice) for choice in choices)
        raise ValueError(str(expected(f"one of {listed}", node.value)) + near)

    def _several(self, make: Any, kind: Any, node: Node, path: str) -> Any:
        nodes = node.value
        if not isinstance(nodes, list):
            if not hasattr(kind, "SHORT") and node.text is None:
                raise expected("a list", node.value)
            nodes = [node]  # a lone `listen`, or one text in the environment
        read = [self.value(kind, item, f"{path}[{n}]") for n, item in enumerate(nodes)]
        return make(item for item in read if item is not BAD)

    def _mapping(self, kind: Any, node: Node, path: str) -> Any:
        if not isinstance(node.value, dict):
            raise expected("a mapping", node.value)
        read = {name: self.value(kind, item, f"{path}.{name}") for name, item in node.value.items()}
        return {name: item for name, item in read.items() if item is not BAD}

    def _plain(self, kind: type, node: Node) -> Any:
        value = node.value
        if kind is Any or type(value) is kind or (kind is float and type(value) is int):
            return value
        if kind is str and node.text is not None:
            return node.text
        hint = "; put it in quotes" if kind is str and type(value) in PLAIN else ""
        raise ValueError(str(expected(PLAIN[kind], value)) + hint)


def fields_of(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    """What may be given in a file."""
    return {
        field.name: field
        for field in dataclasses.fields(kind)
        if field.init and not field.metadata.get("derived")
    }


def is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def did_you_mean(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)

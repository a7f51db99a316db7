"""Where settings come from: a YAML file, the environment, flags. Each becomes a tree of nodes that
remember their place, and the trees are laid over each other before anything is checked.

The YAML is that of YAML 1.2: `off` and `no` are words, `0.0.0.0:80` and `1:30` no numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

PREFIX = "GATEWAY_"
CONFIG_VARIABLE = "GATEWAY_CONFIG"
"""The settings file's own path: for the command line, no setting."""

SERVICE_LINK = re.compile(r".*_(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)")
"""What Kubernetes puts into every container for a Service whose name begins with `gateway`."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """`gateway.yaml:3: upstream.url: what is wrong`."""

    place: str
    setting: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.setting, self.message) if part)


class ConfigErrors(Exception):
    """Everything that is wrong with the settings, in the order of their places."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = [str(mistake) for mistake in mistakes]
        super().__init__("\n".join(self.mistakes))


@dataclass(slots=True)
class Node:
    """A value and the place where it was given."""

    value: Any
    """A scalar, a dict of nodes or a list of nodes."""
    place: str
    text: str | None = None
    """The scalar as it was typed, where quotes are not usual: environment and flags."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?\d+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )


class YamlTree:
    """One YAML text as nodes; `mistakes` has what the text itself has wrong."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.mistakes: list[Mistake] = []
        self._open: list[yaml.Node] = []
        self.root = self._parse(text)

    def _parse(self, text: str) -> Node | None:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            return None if root is None else self._node(loader, root, self._place(root), "")
        except yaml.MarkedYAMLError as error:
            self._wrong(self._at(error.problem_mark), "", f"not valid YAML: {_told(error)}")
        except yaml.YAMLError as error:
            self._wrong(self.name, "", f"not valid YAML: {str(error).splitlines()[0]}")
        finally:
            loader.dispose()
        return None

    def _node(self, loader: _Loader, node: yaml.Node, place: str, path: str) -> Node:
        if node in self._open:
            self._wrong(place, path, "contains itself")
            return Node(None, place)
        self._open.append(node)
        try:
            return Node(self._value(loader, node, place, path), place)
        finally:
            self._open.pop()

    def _value(self, loader: _Loader, node: yaml.Node, place: str, path: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._node(loader, item, self._place(item), f"{path}[{n}]")
                for n, item in enumerate(node.value)
            ]
        return loader.construct_object(node)

    def _mapping(self, loader: _Loader, node: yaml.MappingNode, path: str) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            here = f"{path}.{name}" if path else name
            if name in entries:
                first = entries[name].place.rpartition(":")[2]
                self._wrong(self._place(key), here, f"given twice, first on line {first}")
                continue
            entries[name] = self._node(loader, value, self._place(key), here)
        return entries

    def _place(self, node: yaml.Node) -> str:
        return self._at(node.start_mark)

    def _at(self, mark: Any) -> str:
        return f"{self.name}:{mark.line + 1}" if mark else self.name

    def _wrong(self, place: str, setting: str, message: str) -> None:
        self.mistakes.append(Mistake(place, setting, message))


def _told(error: yaml.MarkedYAMLError) -> str:
    begun, found = error.context_mark, error.problem_mark
    context = error.context or ""
    if begun and found and begun.line != found.line:
        context += f" on line {begun.line + 1}"
    return ", ".join(part for part in (context, error.problem) if part)


def from_environment(environ: Mapping[str, str]) -> Iterator[Node]:
    """One tree per variable, outer sections first; `GATEWAY_UPSTREAM__URL` is `upstream.url`."""
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        rest = name.removeprefix(PREFIX)
        if rest == name or name == CONFIG_VARIABLE or SERVICE_LINK.fullmatch(name):
            continue
        yield nested(rest.lower().split("__"), _typed(environ[name], name))


def from_flags(flags: Mapping[str, Any]) -> Iterator[Node]:
    """One tree per flag that was given, by the setting's dotted name."""
    for name, value in flags.items():
        if value is None or value == ():
            continue
        place = "command line"
        typed = (
            Node([_typed(str(item), place) for item in value], place)
            if isinstance(value, list | tuple)
            else _typed(str(value), place)
        )
        yield nested(name.split("."), typed)


def nested(names: list[str], node: Node) -> Node:
    for name in reversed(names):
        node = Node({name: node}, node.place)
    return node


def _typed(text: str, place: str) -> Node:
    """Lists and maps are YAML, which JSON is too. What is not, `[::1]:8080` say, is plain text."""
    tree = YamlTree(text, place)
    if tree.mistakes or tree.root is None:
        return Node(text, place, text)
    if isinstance(tree.root.value, dict | list):
        return _placed(tree.root, place)
    return Node(tree.root.value, place, text)


def _placed(node: Node, place: str) -> Node:
    """The same tree, all of it at one place: lines within a variable tell nobody anything."""
    value = node.value
    if isinstance(value, dict):
        value = {name: _placed(child, place) for name, child in value.items()}
    elif isinstance(value, list):
        value = [_placed(child, place) for child in value]
    return Node(value, place)


def laid_over(base: Node | None, top: Node) -> Node:
    """Maps are merged name by name; everything else, lists too, is replaced."""
    if base is None or not isinstance(base.value, dict) or not isinstance(top.value, dict):
        return top
    merged = dict(base.value)
    for name, node in top.value.items():
        merged[name] = laid_over(merged.get(name), node)
    return Node(merged, base.place)

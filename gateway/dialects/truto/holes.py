"""The open places of Truto's nodes: targets, bodies, loops, and what is kept of their results.

A run's scope is of two sorts of names. A node's own name stands for all that was kept of its
records. A name that begins with a dot is bound in this run alone: `.resources.crm.contacts` is the
parent's record of the moment, `.args.ids` the element of the moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from gateway.batch import Reply, Scope, Where
from gateway.errors import TooMany, Unresolved
from gateway.target import segment
from gateway.templates import trees, values
from gateway.templates.allowance import ADDRESS, BYTES, CONTEXT, Allowance
from gateway.templates.placeholders import Text
from gateway.templates.scope import Layer, Path
from gateway.templates.trees import Filled
from gateway.templates.values import Node, Value

Names = tuple[str, ...]
"""A way down into the scope: `resources`, `crm`, `contacts`."""

QUERY = "=query"
BODY = "=body"
VALUE = "=value"
"""Names of what a node's JSONata gives."""


class Arguments:
    """`args`, decoded once for all nodes and runs of a batch."""

    __slots__ = ("_allowance", "contexts", "node")

    def __init__(self, value: bytes) -> None:
        self.node = Node(value)
        self._allowance = Allowance()
        self.contexts = Allowance(CONTEXT)

    def layer(self, scope: Scope, most: int = BYTES) -> Layer:
        """Where the placeholders of one text look; `most` bytes may be put into it."""
        layer = Layer(allowance=self._allowance.of_text(most))
        layer.bind(("args",), self.node)
        for name, bound in scope.items():
            if name.startswith("."):
                layer.bind(name[1:].split("."), Node(bound[0]))
        return layer


def bound(path: Names) -> str:
    return "." + ".".join(path)


# --- what is sent --------------------------------------------------------------------------------


class Target(msgspec.Struct, frozen=True):
    """Path and query of a node's calls."""

    text: str
    where: Where
    args: Arguments
    path: str
    """Up to where the id stands."""
    id: Text | str | None
    rest: str
    """After the id."""
    query: trees.Template | None
    """An object; None where JSONata makes it."""
    account: str
    """The last parameter of every query; empty: none."""

    def fill(self, scope: Scope) -> str:
        layer = self.args.layer(scope, ADDRESS)
        made = scope[QUERY][0] if self.query is None else trees.fill(self.query, layer)
        pairs = [pair for pair in trees.query(made) if not self._is_account(pair)]
        if self.account:
            pairs.append(self.account)
        address = f"{self.path}{self._id(layer)}{self.rest}"
        return f"{address}?{'&'.join(pairs)}" if pairs else address

    def _is_account(self, pair: str) -> bool:
        """Which account is asked is the batch's to say, not a query's."""
        return bool(self.account) and pair.partition("=")[0] == self.account.partition("=")[0]

    def _id(self, layer: Layer) -> str:
        if self.id is None:
            return ""
        try:
            said = self.id if isinstance(self.id, str) else self.id.sure(layer)
        except Unresolved as why:
            raise type(why)(f"{self.where}.id: {why.message}") from None
        return f"/{identified(said, self.where)}"


_SIMPLE_ID = re.compile(r"[A-Za-z0-9_~-]++[A-Za-z0-9._~-]*+")


def identified(id: str, where: Where) -> str:
    """An id as one segment of a path. Raises Unresolved."""
    if _SIMPLE_ID.fullmatch(id):
        return id
    if not id:
        raise Unresolved(f"{where}.id: is empty")
    return segment(id)


class Body(msgspec.Struct, frozen=True):
    """The body of a node's calls; `template` is None where JSONata makes it."""

    text: str
    args: Arguments
    template: trees.Template | None

    def fill(self, scope: Scope) -> str:
        if self.template is None:
            return bytes(scope[BODY][0]).decode()
        layer = self.args.layer(scope)
        layer.allowance.make(len(self.text))
        return trees.encode(trees.fill(self.template, layer)).decode()


class Context(msgspec.Struct, frozen=True):
    """What JSONata sees: `{args, resources}`, of each parent all records or the one of this run."""

    args: Arguments
    parents: tuple[tuple[Names, tuple[str, ...]], ...]
    """Where records are seen, and the nodes whose they are."""
    text: str = "{args, resources}"

    def fill(self, scope: Scope) -> str:
        context: dict[str, Filled] = {"args": bytes(self.args.node.value), "resources": {}}
        for path, names in self.parents:
            if bound(path) not in scope:
                records = [record for name in names for record in scope.get(name, ())]
                _put(context, path, b"[" + b",".join(records) + b"]")
        for name, value in scope.items():
            if name.startswith("."):
                _put(context, name[1:].split("."), bytes(value[0]))
        made = trees.encode(context)
        self.args.contexts.make(len(made))
        return made.decode()


def _put(tree: dict[str, Filled], path: Sequence[str], value: bytes) -> None:
    *above, last = path
    for name in above:
        inner = tree.get(name)
        if isinstance(inner, bytes) and values.kind(inner) == "object":
            inner = {key: bytes(member) for key, member in values.members(inner).items()}
        below = inner if isinstance(inner, dict) else {}
        tree[name] = below
        tree = below
    tree[last] = value


class Condition(msgspec.Struct, frozen=True):
    """`recurse.if`."""

    text: str
    args: Arguments
    template: Text | str

    def fill(self, scope: Scope) -> str:
        if isinstance(self.template, str):
            return self.template
        held = self.template.fill(self.args.layer(scope)) in (b"true", b'"true"')
        return "true" if held else "false"


class Gathered(msgspec.Struct, frozen=True):
    """What a spool gives: all records of its parents."""

    names: tuple[str, ...]
    text: str = "[...]"

    def fill(self, scope: Scope) -> str:
        records = [record for name in self.names for record in scope.get(name, ())]
        return (b"[" + b",".join(records) + b"]").decode()


# --- loops ---------------------------------------------------------------------------------------


class EachRecord(msgspec.Struct, frozen=True):
    """One run for each record of a parent's (D-T3)."""

    paths: tuple[Names, ...]
    """Where the run finds it."""
    names: tuple[str, ...]
    """The nodes whose records they are: several may ask for one resource."""

    @property
    def text(self) -> str:
        return ".".join(self.paths[0])

    def scopes(self, scope: Scope) -> Iterator[Scope]:
        for name in self.names:
            for record in scope.get(name, ()):
                yield {**scope, **{bound(path): (record,) for path in self.paths}}


class EachElement(msgspec.Struct, frozen=True):
    """`loop_on`: one run for each element, or one when it is no list (D-T4)."""

    text: str
    where: Where
    args: Arguments
    ways: tuple[Path, ...]
    """The first that leads anywhere."""
    most: int

    def scopes(self, scope: Scope) -> Iterator[Scope]:
        layer = self.args.layer(scope)
        for path in self.ways:
            found = path.find(layer)
            if found is not None and found.kind != "null":
                if found.kind == "array" and self._too_long(found):
                    raise TooMany(f"{self.where}.loop_on: more than {self.most} elements")
                yield from self._runs(scope, path, found)
                return
        raise Unresolved(f"{self.where}.loop_on: finds nothing")

    def _too_long(self, found: Node) -> bool:
        if found.read:
            return found.count > self.most
        return values.more_than(found.value, self.most)

    def _runs(self, scope: Scope, path: Path, found: Node) -> Iterator[Scope]:
        names = tuple(map(str, path.ways[0]))
        keys = dict.fromkeys((bound(names), bound(names[-1:])))
        for element in found.children() if found.kind == "array" else (found,):
            yield {**scope, **dict.fromkeys(keys, (element.apart(),))}


# --- records -------------------------------------------------------------------------------------

Kind = Literal["list", "one", "value"]
"""What a node's reply is: a page of a list, one record, what JSONata made."""


def records(body: bytes, kind: Kind, at: Names) -> Value | None:
    """The records of a reply, as they stand in it: an array of them, or the only one (D-T1)."""
    document = values.document(body)
    if document is None or kind == "value":
        return document
    if kind == "list":
        found = values.at(document, at)
        return document if found is None else found
    if _WRAPPED.match(document):
        members = values.members(document)
        if len(members) == 1:
            return members["result"]
    return document


_WRAPPED = re.compile(rb'\{\s*+"%b"' % values.spelt("result"))
"""How an object begins that may have this member alone. Most begin otherwise, and looking for a
second member costs as much as reading the whole of it."""


def apart(found: Value | None, kind: Kind) -> Sequence[Value]:
    """The records one by one."""
    if found is None or (kind == "value" and values.kind(found) == "null"):
        return ()
    return values.items(found) if kind != "one" and values.kind(found) == "array" else (found,)


class Records(msgspec.Struct, frozen=True):
    """Keeps the records, or of each the fields that someone mentions (D-T15)."""

    kind: Kind
    at: Names
    fields: frozenset[str] | None
    """None: all of them."""

    def pick(self, reply: Reply) -> Sequence[bytes]:
        if reply.failed:
            return ()
        found = apart(records(reply.body, self.kind, self.at), self.kind)
        fields = self.fields
        if fields is None:
            return list(map(bytes, found))
        if len(found) > MOST_PRUNED:
            raise TooMany(f"more than {MOST_PRUNED} records in a page")
        return [_pruned(record, fields) for record in found]


MOST_PRUNED = 20_000
"""Records of one page of which only some fields are kept: each takes a microsecond and more, and
its fields are for runs of which there may be far fewer."""


def _pruned(record: Value, fields: frozenset[str]) -> bytes:
    if values.kind(record) != "object":
        return bytes(record)
    members = values.members(record).items()
    kept = (values.quoted(name) + b":" + value for name, value in members if name in fields)
    return b"{" + b",".join(kept) + b"}"

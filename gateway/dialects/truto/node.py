"""One node of a batch: what it asks for, whose records it reads, and how it is carried out.

A node mentions a parent when a placeholder or `loop_on` begins with the parent's place in the
scope: `resources.crm.contacts` for a resource, `resources.name` for what has a name. Then it runs
once per record of the parent's; else it merely comes after (D-T3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import msgspec
from msgspec import Raw, UnsetType

from gateway.batch import (
    Expression,
    Failure,
    Loop,
    Paging,
    Recipe,
    Recurse,
    Subrequest,
    Template,
    Where,
)
from gateway.dialects import _requests
from gateway.dialects.truto.body import RecurseWish, ResourceWish
from gateway.dialects.truto.holes import (
    BODY,
    QUERY,
    Arguments,
    Body,
    Condition,
    Context,
    EachElement,
    EachRecord,
    Gathered,
    Kind,
    Names,
    Records,
    Target,
    bound,
)
from gateway.errors import BadTarget, Refused, Unresolved
from gateway.target import normalise, segment
from gateway.templates import trees, values
from gateway.templates.placeholders import Text, parts
from gateway.templates.scope import BadPlaceholder, Path, Way, path

_VERBS = {"list": "GET", "get": "GET", "create": "POST", "delete": "DELETE"}
_HTTP = frozenset({"GET", "POST", "PATCH", "PUT", "DELETE"})
_NO_QUERY = trees.Object(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the options say of the backend, and of what is too much."""

    proxy: str
    unified: str
    account_parameter: str
    update: str
    records: Names
    cursor: Names
    cursor_parameter: str
    most_pages: int
    most_records: int
    most_runs: int
    most_kept: int


@dataclass(frozen=True, slots=True)
class Ground:
    """What the nodes of one batch share."""

    shape: Shape
    args: Arguments
    account: str
    """The last parameter of every query; empty: none."""


class Note(msgspec.Struct, frozen=True):
    """What the renderer must know of a node."""

    key: str
    """In `errors`; in `result` too when the node is persisted."""
    kind: Kind
    at: Names


class Wanted:
    """What others read of a node's records."""

    __slots__ = ("fields", "read", "whole")

    def __init__(self) -> None:
        self.read = False
        self.whole = False
        self.fields: set[str] = set()

    def want(self, rest: Way = ()) -> None:
        """A whole record, or what stands there in each."""
        self.read = True
        if rest and isinstance(rest[0], str):
            self.fields.add(rest[0])
        else:
            self.whole = True


class Node:
    """One node, being read. All are read before any is made: others decide what each keeps."""

    def __init__(self, ground: Ground, wish: ResourceWish, where: Where) -> None:
        self.wish = wish
        self.where = where
        """Also its name in the plan: every node has one, and no two the same."""
        self.parents: tuple[Node, ...] = ()
        self.wanted = Wanted()
        self._ground = ground
        self._target: Target | None = None
        self._body: Body | Gathered | None = None
        self._loops: tuple[Loop, ...] = ()
        self._expressions: list[Expression] = []
        self._reads: dict[str, None] = {}
        self._recurse: Recurse | None = None

    # --- what it is ------------------------------------------------------------------------------

    @property
    def asks(self) -> bool:
        """Whether it sends anything."""
        return self.wish.type == "request"

    @property
    def key(self) -> str:
        return (self.wish.resource if self.asks else self.wish.name) or ""

    @property
    def persisted(self) -> bool:
        """What a unified resource gives is part of the answer, wanted or not."""
        return bool(self.wish.persist) or (self.asks and "/" in self.key)

    @cached_property
    def paths(self) -> tuple[Names, ...]:
        """Where others find its records. What is made of records is found where they were, too."""
        found: dict[Names, None] = {}
        waiting, seen = [self], {self}
        while waiting:
            node = waiting.pop()
            words = (node.wish.resource if node.asks else None, node.wish.name)
            found.update((("resources", *_names(word)), None) for word in words if word)
            above = set() if node.asks else set(node.parents) - seen
            waiting.extend(above)
            seen.update(above)
        return tuple(found)

    @cached_property
    def _verb(self) -> str:
        """D-T12: an HTTP method in capitals is meant as it stands."""
        if self.wish.method == "GET":
            return "list" if self.wish.id is None else "get"
        return self.wish.method or ""

    @property
    def _kind(self) -> Kind:
        if not self.asks:
            return "value"
        return "list" if self._verb == "list" else "one"

    @property
    def _method(self) -> str:
        if self._verb in _HTTP:
            return self._verb
        if self._verb == "update":
            return self._ground.shape.update
        return _VERBS.get(self._verb, "POST")

    # --- reading ---------------------------------------------------------------------------------

    def read(self) -> None:
        self._check()
        if not self.asks:
            self._make_of_records()
            return
        id = self._text(self.wish.id, "id")
        query = self._query(self.wish.query, "query")
        self._target = self._targeted(id, query)
        self._body = self._contents() if self._method != "GET" else None
        inside = self._body.template if isinstance(self._body, Body) else None
        self._loops = self._looped([*_ways(id), *_ways(query), *_ways(inside)])
        if self.wish.recurse is not None:
            self._recurse = self._recursed(self.wish.recurse, id, query)

    def _check(self) -> None:
        expression = self.wish.config.expression if self.wish.config else None
        needed = {
            "resource": self.wish.resource or not self.asks,
            "method": self.wish.method or not self.asks,
            "id": self.wish.id is not None or self._verb not in ("update", "delete"),
            "name": self.wish.name or self.asks,
            "config.expression": expression or self.wish.type != "transform",
        }
        for member, given in needed.items():
            if not given:
                raise Refused("missing_parameter", f"{self.where}.{member}: missing")

    def _make_of_records(self) -> None:
        """A transform is worked out over its parents' records; a spool is these records."""
        for parent in self.parents:
            parent.wanted.want()
            self._reads[parent.where] = None
        if self.wish.type == "spool":
            self._body = Gathered(tuple(self._reads))
        elif self.wish.config and self.wish.config.expression:
            self._evaluate("=value", self.wish.config.expression, "config.expression")

    def _text(self, given: str | int | None, member: str) -> Text | str | None:
        if not isinstance(given, str):
            return None if given is None else str(given)
        try:
            found = parts(given)
        except BadPlaceholder as bad:
            raise self._bad(member, bad) from None
        return Text(found) if len(found) > 1 else given

    def _template(self, given: bytes, member: str) -> trees.Template:
        try:
            return trees.template(given)
        except BadPlaceholder as bad:
            raise self._bad(member, bad) from None

    def _bad(self, member: str, bad: BadPlaceholder) -> Refused:
        return Refused("bad_reference", f"{self.where}.{member}: in a placeholder, {bad.what}")

    def _query(self, raw: Raw | UnsetType, member: str) -> trees.Template | None:
        """None: JSONata makes it."""
        given = _requests.given(raw)
        if given is None:
            return _NO_QUERY
        if values.kind(given) == "string":
            self._evaluate(QUERY, values.text(given), member)
            return None
        if values.kind(given) != "object":
            raise Refused("bad_shape", f"{self.where}.{member}: expected object or string")
        return self._template(given, member)

    def _contents(self) -> Body | None:
        given = _requests.given(self.wish.body)
        if given is None:
            return None
        text = given.decode()
        if values.kind(given) != "string":
            return Body(text, self._ground.args, self._template(given, "body"))
        self._evaluate(BODY, values.text(given), "body")
        return Body(text, self._ground.args, None)

    def _evaluate(self, name: str, text: str, member: str) -> None:
        """JSONata sees the records of all parents."""
        if find_spec("jsonata") is None:
            message = f"{self.where}.{member}: JSONata needs the extra bulk-gateway[truto]"
            raise Refused("bad_shape", message)
        seen: dict[Names, list[str]] = {}
        for parent in self.parents:
            parent.wanted.want()
            self._reads[parent.where] = None
            for place in parent.paths:
                seen.setdefault(place, []).append(parent.where)
        parents = tuple((place, tuple(names)) for place, names in seen.items())
        context = Context(self._ground.args, parents)
        self._expressions.append(Expression(name=name, text=text, context=context))

    # --- targets ---------------------------------------------------------------------------------

    def _targeted(self, id: Text | str | None, query: trees.Template | None) -> Target:
        shape = self._ground.shape
        model, _, resource = self.key.partition("/")
        path = shape.proxy.replace("{resource}", segment(model))
        if resource:
            path = shape.unified.replace("{model}", segment(model))
            path = path.replace("{resource}", "/".join(map(segment, resource.split("/"))))
        known = self._verb in _VERBS or self._verb in _HTTP or self._verb == "update"
        rest = "" if known else f"/{segment(self._verb)}"
        shown = "" if id is None else f"/{self.wish.id}"
        return Target(
            text=f"{path}{shown}{rest}",
            where=self.where,
            args=self._ground.args,
            path=path,
            id=id,
            rest=rest,
            query=query,
            account=self._ground.account,
        )

    def _recursed(
        self, wish: RecurseWish, id: Text | str | None, query: trees.Template | None
    ) -> Recurse:
        """The next calls are as this one, but for what `config` says."""
        if self._kind != "list":
            raise Refused("bad_shape", f"{self.where}.recurse: only a list is asked for again")
        if wish.config is not None:
            other = self._query(wish.config.query, "recurse.config.query")
            if not isinstance(query, trees.Object | bytes) or other is None:
                message = f"{self.where}.recurse.config.query: JSONata is not supported here"
                raise Refused("bad_shape", message)
            query = trees.joined(query, other)
            id = self._text(wish.config.id, "recurse.config.id") or id
        when = self._text(wish.when, "recurse.if") or ""
        return Recurse(
            name=bound(self.paths[0]),
            records=Records("list", self._ground.shape.records, None),
            when=Condition(wish.when, self._ground.args, when),
            target=self._targeted(id, query),
        )

    # --- loops -----------------------------------------------------------------------------------

    def _looped(self, ways: list[Way]) -> tuple[Loop, ...]:
        loop = self._loop_path()
        if loop is not None:
            ways.append(loop.ways[0])
        loops: list[Loop] = []
        over = self._mentioned(ways)
        if over:
            self._reads.update((node.where, None) for node in over)
            loops.append(EachRecord(over[0].paths, tuple(node.where for node in over)))
        if loop is not None and not any(loop.ways[0] in node.paths for node in over):
            loops.append(self._each_element(loop))
        return tuple(loops)

    def _loop_path(self) -> Path | None:
        """D-T4: the braces and the cast that a placeholder would have mean nothing here."""
        if self.wish.loop_on is None:
            return None
        text = self.wish.loop_on.strip().strip("{}").strip().partition(":")[0]
        try:
            return path(text)
        except BadPlaceholder as bad:
            raise Refused("bad_reference", f"{self.where}.loop_on: {bad.what}") from None

    def _each_element(self, loop: Path) -> EachElement:
        ways = (Path((("args", *loop.ways[0]),)), loop)
        return EachElement(self.wish.loop_on or "", self.where, self._ground.args, ways)

    def _mentioned(self, ways: Sequence[Way]) -> tuple[Node, ...]:
        over = tuple(node for node in self.parents if node.mentioned(ways))
        if len(over) > 1 and len({node.wish.resource for node in over}) > 1:
            message = f"{self.where}: runs over the records of two parents"
            raise Refused("bad_reference", message)
        return over

    def mentioned(self, ways: Sequence[Way]) -> bool:
        """Whether any way leads to its records; takes down what is looked for in them."""
        found = [
            way[len(path) :]
            for way in ways
            for path in self.paths
            if tuple(map(str, way[: len(path)])) == path
        ]
        for rest in found:
            self.wanted.want(rest)
        return bool(found)

    # --- making ----------------------------------------------------------------------------------

    def subrequest(self) -> Subrequest:
        target, body, refusal = self._filled()
        return Subrequest(
            where=self.where,
            method=self._method if self.asks else "GET",
            target=target,
            body=body,
            name=self.where,
            key=self.key if self.persisted else None,
            refusal=refusal,
            needs=tuple(dict.fromkeys(parent.where for parent in self.parents)),
            reads=tuple(self._reads),
            recipe=self._recipe(),
            note=Note(self.key, self._kind, self._ground.shape.records),
        )

    def _filled(self) -> tuple[str | Template, bytes | Template | None, Failure | None]:
        """What differs from run to run is left open; a mistake in the rest is an error entry."""
        if self._target is None:
            return "", self._body, None
        if self._loops or self._expressions:
            return self._target, self._body, None
        try:
            target = normalise(self._target.fill({}))
            return target, self._body.fill({}).encode() if self._body else None, None
        except Unresolved as why:
            slug, message = "unresolved_placeholder", why.message
            return "", None, Failure("proxy_internal_response", slug, message=message)
        except BadTarget as bad:
            message = f"{self.where}: {bad.message}"
            return "", None, Failure("http_request_error", bad.slug, message=message)

    def _recipe(self) -> Recipe | None:
        shape, kind, wanted = self._ground.shape, self._kind, self.wanted
        fields = None if wanted.whole else tuple(sorted(wanted.fields))
        recipe = Recipe(
            loops=self._loops,
            expressions=tuple(self._expressions),
            paging=self._paging() if kind == "list" else None,
            recurse=self._recurse,
            keep=Records(kind, shape.records, fields) if wanted.read else None,
            quiet=not self.persisted,
            most_runs=shape.most_runs,
            most_kept=shape.most_kept,
        )
        plain = Recipe(most_runs=shape.most_runs, most_kept=shape.most_kept)
        return None if self.asks and recipe == plain else recipe

    def _paging(self) -> Paging:
        shape = self._ground.shape
        return Paging(
            cursor=shape.cursor,
            parameter=shape.cursor_parameter,
            records=shape.records,
            most_pages=shape.most_pages,
            most_records=shape.most_records,
        )


def _names(word: str) -> Names:
    """The place of a resource or a name, as a placeholder writes it."""
    return tuple(word.replace("/", ".").split("."))


def _ways(template: trees.Template | Text | str | None) -> Iterator[Way]:
    """Where the placeholders of a template look."""
    if template is None or isinstance(template, str):
        return
    for placeholder in trees.placeholders(template):
        for choice, _ in placeholder.choices:
            yield from choice.ways

"""A node with open places: placeholders, JSONata, loops; or one that is made of others' records.

It mentions a parent when a placeholder or `loop_on` begins with the parent's place in the scope:
`resources.crm.contacts` for a resource, `resources.name` for what has a name. Then it runs once
per record of the parent's; else it merely comes after (D-T3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from urllib.parse import unquote

from msgspec import Raw, UnsetType

from gateway.batch import Expression, Loop, Recipe, Recurse, Subrequest
from gateway.dialects import _requests
from gateway.dialects.truto.body import RecurseWish
from gateway.dialects.truto.holes import (
    BODY,
    QUERY,
    VALUE,
    Body,
    Condition,
    Context,
    EachElement,
    EachRecord,
    Gathered,
    Names,
    Records,
    Target,
    bound,
)
from gateway.dialects.truto.node import Node
from gateway.errors import BadTarget, Refused, Unresolved
from gateway.target import normalise
from gateway.templates import trees, values
from gateway.templates.placeholders import Text, parts
from gateway.templates.scope import BadPlaceholder, Layer, Path, Way, path

_NO_QUERY = trees.Object(())


class Opened:
    """One such node. It is read when it is made here, and others are told what it reads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ground = node.ground
        self._expressions: list[Expression] = []
        self._reads: dict[str, None] = {}
        self._loops: tuple[Loop, ...] = ()
        self._target: Target | None = None
        self._body: Body | Gathered | None = None
        self._recurse: Recurse | None = None
        if node.asks:
            self._read()
        else:
            self._make_of_records()

    def made(self) -> Subrequest:
        node, reads = self._node, tuple(self._reads)
        if self._target is None:
            return node.subrequest(body=self._body, recipe=self._recipe(), reads=reads)
        if self._loops or self._expressions:
            return node.subrequest(
                target=self._target, body=self._body, recipe=self._recipe(), reads=reads
            )
        try:  # nothing differs from run to run, so it can be filled in now
            target = normalise(self._target.fill({}))
            body = self._body.fill({}).encode() if self._body else None
        except (BadTarget, Unresolved) as mistake:
            return node.refused(mistake)
        return node.subrequest(target=target, body=body, recipe=self._recipe())

    def _recipe(self) -> Recipe | None:
        node, shape = self._node, self._ground.shape
        if node.asks and not (self._loops or self._expressions or self._recurse):
            return node.keeping(self._ground.recipe(node.action.kind, node.persisted))
        recipe = Recipe(
            loops=self._loops,
            expressions=tuple(self._expressions),
            paging=self._ground.paging if node.action.kind == "list" else None,
            recurse=self._recurse,
            quiet=not node.persisted,
            most_runs=shape.most_runs,
            most_kept=shape.most_kept,
        )
        return node.keeping(recipe)

    # --- reading ---------------------------------------------------------------------------------

    def _read(self) -> None:
        wish = self._node.wish
        id = self._text(wish.id, "id")
        query = self._query(wish.query, "query")
        self._target = self._targeted(id, query)
        self._body = self._contents() if self._node.action.http != "GET" else None
        inside = self._body.template if isinstance(self._body, Body) else None
        self._loops = self._looped([*_ways(id), *_ways(query), *_ways(inside)])
        if wish.recurse is not None:
            self._recurse = self._recursed(wish.recurse, id, query)

    def _make_of_records(self) -> None:
        """A transform is worked out over its parents' records; a spool is these records."""
        wish = self._node.wish
        if wish.config is not None and wish.config.expression and wish.type == "transform":
            self._evaluate(VALUE, wish.config.expression, "config.expression")
        else:
            self._read_all()
            self._body = Gathered(tuple(self._reads))

    def _text(self, given: str | int | None, member: str) -> Text | str | None:
        if given is None or isinstance(given, int):
            return None if given is None else str(given)
        try:
            found = parts(given, self._ground.meter)
        except BadPlaceholder as bad:
            raise self._bad(member, bad) from None
        return Text(found) if len(found) > 1 else given

    def _template(self, given: bytes, member: str) -> trees.Template:
        try:
            return trees.template(given, self._ground.meter)
        except BadPlaceholder as bad:
            raise self._bad(member, bad) from None

    def _bad(self, member: str, bad: BadPlaceholder) -> Refused:
        where = f"{self._node.where}.{member}"
        for key, place in reversed(bad.way):
            where = _requests.member(where, key, place)
        return Refused("bad_reference", f"{where}: in a placeholder, {bad.what}")

    def _query(self, raw: Raw | UnsetType, member: str) -> trees.Template | None:
        """None: JSONata makes it."""
        given = _requests.given(raw)
        if given is None:
            return _NO_QUERY
        if values.kind(given) == "string":
            self._evaluate(QUERY, values.text(given), member)
            return None
        if values.kind(given) != "object":
            raise Refused("bad_shape", f"{self._node.where}.{member}: expected object or string")
        return self._template(given, member)

    def _contents(self) -> Body | None:
        given = _requests.given(self._node.wish.body)
        if given is None:
            return None
        if values.kind(given) != "string":
            return Body(given.decode(), self._ground.args, self._template(given, "body"))
        text = values.text(given)
        self._evaluate(BODY, text, "body")
        return Body(text, self._ground.args, None)

    def _evaluate(self, name: str, text: str, member: str) -> None:
        """JSONata sees the records of all parents."""
        if find_spec("jsonata") is None:
            message = f"{self._node.where}.{member}: JSONata needs the extra bulk-gateway[truto]"
            raise Refused("bad_shape", message)
        self._read_all()
        seen: dict[Names, list[str]] = {}
        for parent in self._node.parents:
            for place in parent.paths:
                seen.setdefault(place, []).append(parent.where)
        parents = tuple((place, tuple(names)) for place, names in seen.items())
        context = Context(self._ground.args, parents)
        self._expressions.append(Expression(name=name, text=text, context=context))

    def _read_all(self) -> None:
        for parent in self._node.parents:
            parent.want()
            self._reads[parent.where] = None

    # --- targets ---------------------------------------------------------------------------------

    def _targeted(self, id: Text | str | None, query: trees.Template | None) -> Target:
        node = self._node
        base, rest = self._ground.path(node.key), node.action.rest
        shown = "" if id is None else f"/{node.wish.id}"
        asked = "=query" if query is None else unquote("&".join(trees.query(_unfilled(query))))
        return Target(
            text=f"{base}{shown}{rest}?{asked}" if asked else f"{base}{shown}{rest}",
            where=node.where,
            args=self._ground.args,
            path=base,
            id=id,
            rest=rest,
            query=query,
            account=self._ground.account,
        )

    def _recursed(
        self, wish: RecurseWish, id: Text | str | None, query: trees.Template | None
    ) -> Recurse:
        """The next calls are as this one, but for what `config` says."""
        where = f"{self._node.where}.recurse"
        if self._node.action.kind != "list":
            raise Refused("bad_shape", f"{where}: only a list is asked for again")
        if wish.config is not None:
            other = self._query(wish.config.query, "recurse.config.query")
            if query is None or other is None:
                raise Refused("bad_shape", f"{where}.config.query: JSONata is not supported here")
            query = trees.joined(query, other)
            id = self._text(wish.config.id, "recurse.config.id") or id
        when = self._text(wish.when, "recurse.if") or ""
        return Recurse(
            name=bound(self._node.paths[0]),
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
            ways_in = (Path((("args", *loop.ways[0]),)), loop)
            text, most = self._node.wish.loop_on or "", self._ground.shape.most_runs
            loops.append(EachElement(text, self._node.where, self._ground.args, ways_in, most))
        return tuple(loops)

    def _loop_path(self) -> Path | None:
        """D-T4: the braces and the cast that a placeholder would have mean nothing here."""
        loop_on = self._node.wish.loop_on
        if loop_on is None:
            return None
        try:
            return path(loop_on.strip().strip("{}").strip().partition(":")[0])
        except BadPlaceholder as bad:
            raise Refused("bad_reference", f"{self._node.where}.loop_on: {bad.what}") from None

    def _mentioned(self, ways: Sequence[Way]) -> tuple[Node, ...]:
        over = tuple([parent for parent in self._node.parents if parent.mentioned(ways)])
        if len(over) > 1 and len({parent.wish.resource for parent in over}) > 1:
            message = f"{self._node.where}: runs over the records of two parents"
            raise Refused("bad_reference", message)
        return over


def _unfilled(query: trees.Template) -> trees.Filled:
    """Nothing is found in an empty scope, so placeholders stay as they are."""
    return trees.fill(query, Layer())


def _ways(template: trees.Template | Text | str | None) -> Iterator[Way]:
    """Where the placeholders of a template look."""
    if template is None or isinstance(template, str):
        return
    for placeholder in trees.placeholders(template):
        for choice, _ in placeholder.choices:
            yield from choice.ways

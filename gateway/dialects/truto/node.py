"""A node of a batch: what it asks for, who comes before it, and what others want of its records.

Most nodes are fixed: they have no placeholders and no loop, so they are made here, in a few steps.
The others are made in `opened`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.batch import Failure, Paging, Recipe, Subrequest, Template, Where
from gateway.dialects import _requests
from gateway.dialects.truto.body import ResourceWish
from gateway.dialects.truto.holes import Arguments, Kind, Names, Records, identified
from gateway.errors import BadTarget, Refused, Unresolved
from gateway.target import normalise, segment
from gateway.templates import trees, values
from gateway.templates.placeholders import Meter
from gateway.templates.scope import Way

# --- what the nodes of a batch share -------------------------------------------------------------


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


class Action(msgspec.Struct, frozen=True):
    """What a node's method means."""

    http: str
    kind: Kind
    rest: str = ""
    """What follows the id in the path: a custom method."""
    needs_id: bool = False


class Ground:
    """What the nodes of one batch share, each thing made once."""

    def __init__(self, shape: Shape, args: Arguments, account: str) -> None:
        self.shape = shape
        self.args = args
        self.account = account
        """The last parameter of every query; empty: none."""
        self.meter = Meter()
        self.paging = Paging(
            cursor=shape.cursor,
            parameter=shape.cursor_parameter,
            records=shape.records,
            most_pages=shape.most_pages,
            most_records=shape.most_records,
        )
        self._paths: dict[str, str] = {}
        self._actions: dict[tuple[str, bool], Action] = {}
        self._recipes: dict[tuple[Kind, bool], Recipe] = {}

    def path(self, resource: str) -> str:
        """The backend's path for a resource."""
        found = self._paths.get(resource)
        if found is None:
            found = self._paths[resource] = self._path(resource)
        return found

    def _path(self, resource: str) -> str:
        model, _, rest = resource.partition("/")
        if not rest:
            return self.shape.proxy.replace("{resource}", segment(resource))
        path = self.shape.unified.replace("{model}", segment(model))
        return path.replace("{resource}", "/".join(map(segment, rest.split("/"))))

    def action(self, method: str, with_id: bool) -> Action:
        found = self._actions.get((method, with_id))
        if found is None:
            found = self._actions[method, with_id] = self._action(method, with_id)
        return found

    def _action(self, method: str, with_id: bool) -> Action:
        """4.3; an HTTP method in capitals is meant as it stands (D-T12)."""
        match method:
            case "list":
                return Action("GET", "list")
            case "GET":
                return Action("GET", "one" if with_id else "list")
            case "get":
                return Action("GET", "one")
            case "create":
                return Action("POST", "one")
            case "update":
                return Action(self.shape.update, "one", needs_id=True)
            case "delete":
                return Action("DELETE", "one", needs_id=True)
            case "POST" | "PATCH" | "PUT" | "DELETE":
                return Action(method, "one")
        return Action("POST", "one", f"/{segment(method)}")

    def recipe(self, kind: Kind, persisted: bool) -> Recipe | None:
        """Of a node that neither reads others nor is read; None: it is one call."""
        if kind == "one" and persisted:
            return None
        found = self._recipes.get((kind, persisted))
        if found is None:
            paging = self.paging if kind == "list" else None
            found = self._recipes[kind, persisted] = Recipe(
                paging=paging,
                quiet=not persisted,
                most_runs=self.shape.most_runs,
                most_kept=self.shape.most_kept,
            )
        return found


# --- nodes ---------------------------------------------------------------------------------------


class Note(msgspec.Struct, frozen=True):
    """What the renderer must know of a node."""

    key: str
    """In `errors`; in `result` too when the node is persisted."""
    kind: Kind
    at: Names


class Wanted(msgspec.Struct):
    """What others read of a node's records."""

    fields: set[str] = set()
    whole: bool = False

    def take_down(self, rest: Way) -> None:
        """What is looked for in each record; nothing means all of it."""
        if rest and isinstance(rest[0], str):
            self.fields.add(rest[0])
        else:
            self.whole = True


class Node:
    """One node."""

    __slots__ = ("_paths", "action", "asks", "ground", "key", "parents", "persisted", "wanted",
                 "where", "wish")  # fmt: skip

    def __init__(self, ground: Ground, wish: ResourceWish, where: Where) -> None:
        self.ground = ground
        self.wish = wish
        self.where = where
        """Also its name in the plan: every node has one, and no two the same."""
        self.asks = wish.type == "request"
        """Whether it sends anything."""
        self.key = (wish.resource if self.asks else wish.name) or ""
        self.persisted = bool(wish.persist) or (self.asks and "/" in self.key)
        """What a unified resource gives is part of the answer, wanted or not."""
        self.action = _NO_ACTION
        self.parents: tuple[Node, ...] = ()
        self.wanted: Wanted | None = None
        self._paths: tuple[Names, ...] = ()
        self._check()

    def _check(self) -> None:
        wish = self.wish
        if not self.asks:
            self._need("name", wish.name)
            if wish.type == "transform":
                self._need("config.expression", wish.config and wish.config.expression)
            return
        self._need("resource", wish.resource)
        self._need("method", wish.method)
        self.action = self.ground.action(wish.method or "", wish.id is not None)
        if self.action.needs_id and wish.id is None:
            self._need("id", None)

    def _need(self, member: str, given: object) -> None:
        if not given:
            raise Refused("missing_parameter", f"{self.where}.{member}: missing")

    @property
    def paths(self) -> tuple[Names, ...]:
        """Where others find its records. What is made of records is found where they were, too."""
        if not self._paths:
            self._paths = tuple(self._find_paths())
        return self._paths

    def _find_paths(self) -> dict[Names, None]:
        found: dict[Names, None] = {}
        waiting, seen = [self], {self}
        while waiting:
            node = waiting.pop()
            words = (node.wish.resource if node.asks else None, node.wish.name)
            found.update((("resources", *_names(word)), None) for word in words if word)
            above = [] if node.asks else [node for node in node.parents if node not in seen]
            waiting += above
            seen.update(above)
        return found

    def want(self, rest: Way = ()) -> None:
        """Somebody reads its records."""
        if self.wanted is None:
            self.wanted = Wanted()
        self.wanted.take_down(rest)

    def mentioned(self, ways: Sequence[Way]) -> bool:
        """Whether any of these leads to its records."""
        found = [
            way[len(path) :]
            for way in ways
            for path in self.paths
            if tuple(map(str, way[: len(path)])) == path
        ]
        for rest in found:
            self.want(rest)
        return bool(found)

    # --- making one with nothing open ------------------------------------------------------------

    @property
    def fixed(self) -> bool:
        """It asks for one thing, known to the last byte."""
        wish = self.wish
        return (
            self.asks
            and wish.query is UNSET
            and wish.loop_on is None
            and wish.recurse is None
            and (not isinstance(wish.id, str) or "{{" not in wish.id)
            and (wish.body is UNSET or _fixed(wish.body))
        )

    def made(self) -> Subrequest:
        """The subrequest of a fixed node."""
        id = self.wish.id
        address = self.ground.path(self.key)
        try:
            if id is not None:
                address += f"/{identified(str(id), self.where)}"
            address += self.action.rest
            if self.ground.account:
                address += f"?{self.ground.account}"
            target = normalise(address)
        except (BadTarget, Unresolved) as mistake:
            return self.refused(mistake)
        body = _requests.given(self.wish.body) if self.action.http != "GET" else None
        recipe = self.ground.recipe(self.action.kind, self.persisted)
        return self.subrequest(target=target, body=body, recipe=self.keeping(recipe))

    def keeping(self, recipe: Recipe | None) -> Recipe | None:
        """The recipe, with what others read of its records."""
        if self.wanted is None:
            return recipe
        fields = None if self.wanted.whole else frozenset(self.wanted.fields)
        keep = Records(self.action.kind, self.ground.shape.records, fields)
        shape = self.ground.shape
        plain = Recipe(most_runs=shape.most_runs, most_kept=shape.most_kept)
        return msgspec.structs.replace(recipe or plain, keep=keep)

    def refused(self, mistake: BadTarget | Unresolved) -> Subrequest:
        """A mistake in the node is an entry among the errors; the others run."""
        if isinstance(mistake, BadTarget):
            message = f"{self.where}: {mistake.message}"
            return self.subrequest(Failure("http_request_error", mistake.slug, message=message))
        slug, message = "unresolved_placeholder", mistake.message
        if not message.startswith(self.where):
            message = f"{self.where}: {message}"
        return self.subrequest(Failure("proxy_internal_response", slug, message=message))

    def subrequest(
        self,
        refusal: Failure | None = None,
        *,
        target: str | Template = "",
        body: bytes | Template | None = None,
        recipe: Recipe | None = None,
        reads: tuple[str, ...] = (),
    ) -> Subrequest:
        return Subrequest(
            where=self.where,
            method=self.action.http,
            target=target,
            body=body,
            name=self.where,
            key=self.key if self.persisted else None,
            refusal=refusal,
            needs=tuple([parent.where for parent in self.parents]),
            reads=reads,
            recipe=recipe,
            note=Note(self.key, self.action.kind, self.ground.shape.records),
        )


_NO_ACTION = Action("GET", "value")
"""Of a node that sends nothing."""


def _fixed(body: Raw | UnsetType) -> bool:
    given = _requests.given(body)
    return given is None or (values.kind(given) != "string" and not trees.may_be_open(given))


def _names(word: str) -> Names:
    """The place of a resource or a name, as a placeholder writes it."""
    return tuple(word.replace("/", ".").split("."))

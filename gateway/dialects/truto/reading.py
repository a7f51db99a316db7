"""From the body of a batch request to subrequests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET, Raw, UnsetType

from gateway import bodies
from gateway.batch import BulkCall, Subrequest, Where
from gateway.dialects import _requests
from gateway.dialects.truto.body import BatchRequest, ResourceWish
from gateway.dialects.truto.holes import Arguments
from gateway.dialects.truto.node import Ground, Node, Shape
from gateway.dialects.truto.opened import Opened
from gateway.errors import Refused
from gateway.target import segment
from gateway.templates import values

LONGEST_ARGS = 2**20
"""Bytes of `args`: a list in it is taken apart, at thirty times its size."""
LONGEST_QUERY = 64 * 2**10
"""Bytes of a `query`, as written. A target has no room for an eighth of it."""
LONGEST_NAMES = 64 * 2**10
"""Bytes of a `depends_on`: each name in it is made, however often it stands there."""

_NAMES: Any = str | list[str]
_INNER = ("recurse", "config")
"""Members of a node that are objects of the format."""


def read(bulk: BulkCall, shape: Shape) -> tuple[Subrequest, ...]:
    """The nodes of one batch, in client order."""
    many = Refused("too_many_subrequests", f"resources: more than {bulk.max_subrequests} nodes")
    if bodies.more(bulk.body, "resources", bulk.max_subrequests):
        raise many  # before they are made
    body = bodies.document(bulk.body, BatchRequest, max_depth=bulk.max_depth)
    wishes = body.resources
    if len(wishes) > bulk.max_subrequests:
        raise many
    for i, wish in enumerate(wishes):
        _check_length(wish.query, LONGEST_QUERY, f"resources[{i}].query")
        _check_length(wish.depends_on, LONGEST_NAMES, f"resources[{i}].depends_on")
        if wish.recurse is not None and wish.recurse.config is not None:
            _check_length(wish.recurse.config.query, LONGEST_QUERY, f"resources[{i}].recurse")
    bodies.refuse_duplicates(bulk.body, _seen(wishes), lists=("resources",), maps=_INNER)
    account = f"{shape.account_parameter}={segment(body.integrated_account_id)}"
    ground = Ground(shape, _arguments(body.args), account if shape.account_parameter else "")
    nodes = [Node(ground, wish, f"resources[{i}]") for i, wish in enumerate(wishes)]
    by_name, by_resource = _named(nodes), _asked(nodes)
    for node in nodes:
        if node.wish.depends_on is not UNSET:
            node.parents = tuple(dict.fromkeys(_parents(node, by_name, by_resource)))
    # All are read before any is made: what a node keeps is for those that read it to say.
    readable = [node if node.fixed else Opened(node) for node in nodes]
    return tuple([node.made() for node in readable])


def _check_length(raw: Raw | UnsetType, most: int, where: Where) -> None:
    if not isinstance(raw, UnsetType) and len(bytes(raw)) > most:
        raise Refused("bad_shape", f"{where}: longer than {most} bytes")


def _arguments(raw: Raw | UnsetType) -> Arguments:
    _check_length(raw, LONGEST_ARGS, "args")
    given = _requests.given(raw)
    if given is not None and values.kind(given) != "object":
        raise Refused("bad_shape", "args: expected object")
    return Arguments(given or b"{}")


def _named(nodes: Sequence[Node]) -> dict[str, Node]:
    taken: dict[str, Node] = {}
    for node in nodes:
        if node.wish.name and taken.setdefault(node.wish.name, node) is not node:
            first = taken[node.wish.name].where
            raise Refused("bad_reference", f"{node.where}.name: already taken by {first}")
    return taken


def _asked(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """One resource may be asked for more than once."""
    asked: dict[str, list[Node]] = {}
    for node in nodes:
        if node.wish.resource:
            asked.setdefault(node.wish.resource, []).append(node)
    return asked


def _parents(
    node: Node, by_name: dict[str, Node], by_resource: dict[str, list[Node]]
) -> Iterator[Node]:
    """D-T3: names are looked for first, then resources."""
    place = f"{node.where}.depends_on"
    raw = _requests.given(node.wish.depends_on)
    wanted: str | list[str] = [] if raw is None else bodies.decode(raw, _NAMES, place)
    if isinstance(wanted, str):
        wanted = [wanted] if wanted else []
    for name in dict.fromkeys(wanted):
        if name in by_name:
            yield by_name[name]
        elif name in by_resource:
            asked = by_resource[name]
            yield from [other for other in asked if other is not node] or asked
        else:
            raise Refused("bad_reference", f"{place}: a name that nobody has")


def _seen(wishes: Sequence[ResourceWish]) -> dict[str, int]:
    """How often each member's name may stand in the text. Of `type` it is not known where it says
    what is meant anyway."""
    count = len(wishes)
    seen = {"integrated_account_id": 1, "args": 1, "resources": 1}
    seen["type"] = count - [wish.type for wish in wishes].count("request")
    seen["name"] = count - [wish.name for wish in wishes].count(None)
    seen["resource"] = count - [wish.resource for wish in wishes].count(None)
    seen["method"] = count - [wish.method for wish in wishes].count(None)
    seen["id"] = count - [wish.id for wish in wishes].count(None)
    seen["query"] = count - [wish.query for wish in wishes].count(UNSET)
    seen["body"] = count - [wish.body for wish in wishes].count(UNSET)
    seen["depends_on"] = count - [wish.depends_on for wish in wishes].count(UNSET)
    seen["loop_on"] = count - [wish.loop_on for wish in wishes].count(None)
    seen["persist"] = count - [wish.persist for wish in wishes].count(None)
    seen["recurse"] = seen["if"] = count - [wish.recurse for wish in wishes].count(None)
    seen["config"] = seen["expression"] = count - [wish.config for wish in wishes].count(None)
    return seen

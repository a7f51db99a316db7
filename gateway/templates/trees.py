"""JSON with placeholders in it, filled in and written as a body or as a query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gateway.errors import Unresolved
from gateway.target import segment
from gateway.templates import values
from gateway.templates.allowance import Allowance
from gateway.templates.placeholders import Meter, Placeholder, Text, parts
from gateway.templates.scope import BadPlaceholder, Layer

Filled = bytes | dict[str, "Filled"] | list["Filled"] | None
"""JSON, its outer levels apart where something was put in; None is left out."""

MERGE = "$truto_merge"


class Object(msgspec.Struct, frozen=True):
    members: tuple[tuple[str, Template], ...]


class Array(msgspec.Struct, frozen=True):
    elements: tuple[Template, ...]


Template = bytes | Text | Object | Array
"""JSON with placeholders in it; bytes have none."""


_HIDDEN = re.compile(rb"\\u00(?:7[Bb]|24|7[245]|6[57DdFf]|5[Ff])")
"""A character of `{{` or of the merge's name as an escape: nobody writes those so without need."""


def may_be_open(raw: bytes) -> bool:
    """Whether a JSON text may hold placeholders, perhaps written with escapes, or a merge."""
    return b"{{" in raw or MERGE.encode() in raw or _HIDDEN.search(raw) is not None


def template(value: values.Value, meter: Meter) -> Template:
    """Raises BadPlaceholder."""
    raw = bytes(value)
    if not may_be_open(raw):
        return raw
    meter.look(raw)
    match values.kind(raw):
        case "string":
            found = parts(values.text(raw), meter)
            return Text(found) if len(found) > 1 else raw
        case "array":
            items = values.items(raw)
            meter.apart(len(items))
            elements = _inside(items, meter)
            return Array(elements) if _open(elements) else raw
        case "object":
            named = values.members(raw)
            meter.apart(len(named))
            inside = _inside(named.values(), meter, tuple(named))
            opened = MERGE in named or _open(inside)
            return Object(tuple(zip(named, inside, strict=True))) if opened else raw
    return raw


def _inside(
    level: Iterable[values.Value], meter: Meter, keys: Sequence[str] = ()
) -> tuple[Template, ...]:
    """One after another, so that a mistake learns which of them it is in."""
    made: list[Template] = []
    try:
        for value in level:
            made.append(template(value, meter))  # noqa: PERF401  (how far it came is the place)
    except BadPlaceholder as bad:
        bad.way.append((keys[len(made)] if keys else "", len(made)))
        raise
    return tuple(made)


def _open(inside: Iterable[Template]) -> bool:
    return any(not isinstance(inner, bytes) for inner in inside)


def joined(base: Template, over: Template) -> Template:
    """Two objects as one; of two members with one name, the second's."""
    return Object(tuple({**_names(base), **_names(over)}.items()))


def _names(template: Template) -> dict[str, Template]:
    if isinstance(template, bytes):
        return {name: bytes(value) for name, value in values.members(template).items()}
    return dict(template.members) if isinstance(template, Object) else {}


def fill(template: Template, scope: Layer) -> Filled:
    return _merged(_filled(template, scope), scope.allowance)


def _filled(template: Template, scope: Layer) -> Filled:
    match template:
        case Text():
            return template.fill(scope)
        case Object():
            return {name: _filled(inner, scope) for name, inner in template.members}
        case Array():
            return [_filled(inner, scope) for inner in template.elements]
    return template


def placeholders(template: Template) -> Iterator[Placeholder]:
    """All there are."""
    match template:
        case Text():
            yield from (part for part in template.parts if isinstance(part, Placeholder))
        case Object():
            for _, inner in template.members:
                yield from placeholders(inner)
        case Array():
            for inner in template.elements:
                yield from placeholders(inner)


# --- $truto_merge --------------------------------------------------------------------------------


def _merged(filled: Filled, allowance: Allowance) -> Filled:
    """Objects named by `$truto_merge` go into the object that names them, outer ones first.

    Only the template says where: such a name in a value that was put in is left out.
    """
    if isinstance(filled, list):
        return [_merged(inner, allowance) for inner in filled]
    if not isinstance(filled, dict):
        return filled
    if MERGE in filled:
        base = {name: inner for name, inner in filled.items() if name != MERGE}
        for source in _sources(filled[MERGE]):
            base = _deep(base, source, allowance)
        filled = base
    return {name: _merged(inner, allowance) for name, inner in filled.items()}


def _sources(named: Filled) -> Iterator[dict[str, Filled]]:
    several = _opened(named)
    for one in several if isinstance(several, list) else [several]:
        source = _opened(one)
        if isinstance(source, dict):
            yield source


def _opened(filled: Filled) -> Filled:
    """An object or array with its first level apart."""
    if not isinstance(filled, bytes):
        return filled
    if values.kind(filled) == "array":
        return [bytes(item) for item in values.items(filled)]
    if values.kind(filled) == "object":
        named = values.members(filled).items()
        return {name: bytes(value) for name, value in named if name != MERGE}
    return filled


_COPIED = 16
"""Members or elements that are copied in the time that looking at one takes."""


def _deep(
    target: dict[str, Filled], source: dict[str, Filled], allowance: Allowance
) -> dict[str, Filled]:
    allowance.look(len(source) + len(target) // _COPIED)
    merged = dict(target)
    for name, theirs in source.items():
        ours = _opened(merged.get(name))
        opened = _opened(theirs)
        if isinstance(opened, dict) and isinstance(ours, dict):
            merged[name] = _deep(ours, opened, allowance)
        elif isinstance(opened, list) and isinstance(ours, list):
            allowance.look((len(ours) + len(opened)) // _COPIED)
            merged[name] = [*ours, *opened]
        else:
            merged[name] = theirs
    return merged


# --- as JSON, as a query -------------------------------------------------------------------------


def encode(filled: Filled) -> bytes:
    """JSON. What is undefined is left out of an object and null in an array."""
    if isinstance(filled, dict):
        members = (
            values.quoted(name) + b":" + encode(inner)
            for name, inner in filled.items()
            if inner is not None
        )
        return b"{" + b",".join(members) + b"}"
    if isinstance(filled, list):
        return b"[" + b",".join(map(encode, filled)) + b"]"
    return b"null" if filled is None else filled


_DEEPEST = 64


def query(filled: Filled) -> Iterator[str]:
    """`a=1`, `b[c]=2`, `d[]=3` for the members of an object; null is left out (D-T6)."""
    opened = _opened(filled)
    if isinstance(opened, dict):
        for name, inner in opened.items():
            yield from _pairs(segment(name), inner, 0)


def _pairs(name: str, filled: Filled, depth: int) -> Iterator[str]:
    opened = _opened(filled)
    if depth > _DEEPEST:
        raise Unresolved("a value is nested too deeply for a query")
    if isinstance(opened, dict):
        for key, inner in opened.items():
            yield from _pairs(f"{name}[{segment(key)}]", inner, depth + 1)
    elif isinstance(opened, list):
        for inner in opened:
            yield from _pairs(f"{name}[]", inner, depth + 1)
    elif opened is not None and opened != b"null":
        yield f"{name}={segment(values.text(opened))}"

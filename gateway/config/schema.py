"""The declaration as a JSON Schema, for editors and checkers of settings files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from gateway.config.manual import written
from gateway.config.reader import fields_of, is_required, is_union
from gateway.config.settings import Endpoint, Settings
from gateway.dialects import DIALECTS

Schema = dict[str, Any]

PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string"}


def schema() -> Schema:
    """The settings file (JSON Schema 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bulk-gateway settings",
        **_section(Settings),
    }


def _section(kind: Any) -> Schema:
    if kind is Endpoint:
        return {"oneOf": [_endpoint(name, dialect) for name, dialect in DIALECTS.items()]}
    section = _object(dict(_members(kind)), _required(kind))
    if short := getattr(kind, "SHORT", None):
        return {"anyOf": [section["properties"][short], section]}
    return section


def _endpoint(name: str, dialect: Any) -> Schema:
    members = {**dict(_members(dialect)), **dict(_members(Endpoint)), "dialect": {"const": name}}
    return _object(members, [*_required(Endpoint), *_required(dialect)])


def _object(members: Schema, required: list[str]) -> Schema:
    must = {"required": required} if required else {}
    return {"type": "object", "properties": members, "additionalProperties": False, **must}


def _required(kind: Any) -> list[str]:
    return [name for name, field in fields_of(kind).items() if is_required(field)]


def _members(kind: Any) -> Iterator[tuple[str, Schema]]:
    hints = get_type_hints(kind, include_extras=True)
    for name, field in fields_of(kind).items():
        member = _of(hints[name])
        if "help" in field.metadata:
            member = {**member, "description": field.metadata["help"]}
            if not is_required(field):
                member["default"] = written(hints[name], field.default)
        yield name, member


def _of(hint: Any) -> Schema:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return arguments[1].schema()  # type: ignore[no-any-return]  # a Notation
    if is_union(hint):
        arms = [arm for arm in arguments if arm is not type(None)]
        return {"anyOf": [*map(_of, arms), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (tuple, frozenset):
        items = _of(arguments[0])
        several = {"type": "array", "items": items}
        return {"anyOf": [items, several]} if hasattr(arguments[0], "SHORT") else several
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    if dataclasses.is_dataclass(hint):
        return _section(hint)
    return {"type": PLAIN[hint]} if hint in PLAIN else {}

"""The body of a batch request, as declared: these structs are the parser and the schema."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

Args = Annotated[
    Raw,
    Meta(
        description="What placeholders find under `args`.",
        extra_json_schema={"type": ["object", "null"]},
    ),
]
Query = Annotated[
    Raw,
    Meta(
        description="Parameters, with placeholders in their values; a string is JSONata.",
        extra_json_schema={"type": ["object", "string", "null"]},
    ),
]
Contents = Annotated[
    Raw,
    Meta(
        description="JSON, with placeholders in its strings; a string is JSONata.",
        extra_json_schema={},
    ),
]

Dependencies = Annotated[
    Raw,
    Meta(
        description="Names, or else resources, of what comes first.",
        extra_json_schema={
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "null"},
            ]
        },
    ),
]


class RecurseConfig(msgspec.Struct):
    """What is different when a list is asked for again."""

    id: str | None = None
    query: Query | UnsetType = UNSET


class RecurseWish(msgspec.Struct, rename={"when": "if"}):
    """A list is asked for again for each of its records that a placeholder is true of."""

    when: str
    config: RecurseConfig | None = None


class TransformConfig(msgspec.Struct):
    """What a transform does."""

    expression: Annotated[str, Meta(description="JSONata over {args, resources}.")] | None = None


class ResourceWish(msgspec.Struct):
    """One wished resource, or something made of others' records."""

    type: Literal["request", "transform", "spool"] = "request"
    name: str | None = None
    resource: Annotated[str, Meta(description="`model/resource`, or one segment.")] | None = None
    method: (
        Annotated[
            str,
            Meta(description="list, get, create, update, delete, a custom one, or an HTTP method."),
        ]
        | None
    ) = None
    id: str | int | None = None
    query: Query | UnsetType = UNSET
    body: Contents | UnsetType = UNSET
    depends_on: Dependencies | UnsetType = UNSET
    loop_on: Annotated[str, Meta(description="One run for each element there.")] | None = None
    persist: bool | None = None
    recurse: RecurseWish | None = None
    config: TransformConfig | None = None


class BatchRequest(msgspec.Struct):
    """The body of a batch request."""

    integrated_account_id: Annotated[str, Meta(min_length=1)]
    resources: list[ResourceWish]
    args: Args | UnsetType = UNSET

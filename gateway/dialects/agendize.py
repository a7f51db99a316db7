"""Agendize's Batch API, 2.3 and 2.0.

The body is `{"requests": [{path, method, body, name, headers, requests}]}`, nested at will, the
answer `{"responses": [...]}` of the same shape. Requests run depth first. A path or a string of a
body may refer to an earlier result, `${result=NAME:JSONPATH}` in 2.3, `{property}` or
`{type.property}` in 2.0; where that means nothing the request is not sent, and the rest runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from gateway import bodies, target
from gateway.batch import (
    Answer,
    Batch,
    BulkCall,
    Failure,
    Header,
    HeaderRules,
    Outcome,
    Recipe,
    Reply,
    Step,
    Subrequest,
    Template,
    Where,
)
from gateway.dialects import _fields, _requests, _results
from gateway.errors import BadTarget, Refused, Unresolved
from gateway.templates import jsonpath, references
from gateway.templates.references import Hole, Reference

RULES = HeaderRules(credentials=frozenset({"token", "apikey", "authorization"}))  # D-A9


# --- the body ------------------------------------------------------------------------------------

Json = Annotated[Raw, Meta(description="JSON, or a string that holds it.", extra_json_schema={})]
Fields = Annotated[
    Raw,
    Meta(
        description="An object, a list of {name, value}, either as JSON text, or `Name: value` lines.",
        extra_json_schema={"type": ["object", "array", "string", "null"]},
    ),
]


class BatchRequest(msgspec.Struct):
    """One wished call, and those that come right after it."""

    path: Annotated[str, Meta(description="The whole path, version included.")]
    method: str = "GET"
    body: Json | UnsetType = UNSET
    name: str | None = None
    """What references call it."""
    headers: Fields | UnsetType = UNSET
    requests: list[BatchRequest] | None = None


class BatchBody(msgspec.Struct):
    """The body of a batch."""

    requests: list[BatchRequest]


# --- the dialect ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agendize:
    """The format of Agendize's `/batch`; fields are its options."""

    name: ClassVar[str] = "agendize"
    rules: ClassVar[HeaderRules] = RULES

    version: Literal["2.3", "2.0"] = field(
        default="2.3", metadata={"help": "the format's version, 2.3 or 2.0"}
    )
    body_key: Literal["response", "body"] = field(
        default="response", metadata={"help": "the member that holds a result's body"}
    )
    duration: Literal["string", "number"] = field(
        default="string", metadata={"help": "how an entry's milliseconds are written"}
    )

    def parse(self, bulk: BulkCall) -> Batch:
        requests = bodies.document(bulk.body, BatchBody, max_depth=bulk.max_depth).requests
        reader = _Reader(bulk, requests, older=self.version == "2.0")
        return Batch(dialect=self.name, subrequests=reader.read(), rules=RULES, options=reader.key)

    def renderer(self, batch: Batch) -> Responses:
        return Responses(self, batch.options)

    def refusal(self, status: int, reason: str, message: str) -> Answer:
        return Answer(status, b'{"error":%b}' % _error(status, message))

    def gate(self, batch: Batch, reply: Reply) -> Answer | None:
        return None

    def schema(self) -> dict[str, Any]:
        return msgspec.json.schema(BatchBody)


def _error(code: int, message: str) -> bytes:
    return _results.encode({"code": code, "message": message})

"""Truto's `/batch-request`.

The body names resources and methods, the answer is two maps: `{"result": {resource: [records]},
"errors": {resource: [..]}}`. Nodes depend on each other by name; one that mentions its parent runs
once per record of the parent's, one with `loop_on` once per element. Lists are followed to their
end. `body` declares what comes in, `node` makes a subrequest of a node, `holes` are its open
places, `writing` writes the two maps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import msgspec

from gateway.batch import Answer, Batch, BulkCall, HeaderRules, Reply
from gateway.dialects.truto.body import BatchRequest
from gateway.dialects.truto.node import Shape
from gateway.dialects.truto.reading import read
from gateway.dialects.truto.writing import Maps, error
from gateway.templates import values

RULES = HeaderRules(own_allowed=False, runs=True)  # a node has no headers; D-T9

_NAMES = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Truto:
    """The format of Truto's `/batch-request`; fields are its options."""

    name: ClassVar[str] = "truto"
    rules: ClassVar[HeaderRules] = RULES

    proxy: str = field(
        default="/proxy/{resource}",
        metadata={"help": "the backend's path for a resource of one segment; {prefix} may open it"},
    )
    unified: str = field(
        default="/unified/{model}/{resource}",
        metadata={"help": "the backend's path for `model/resource`; {prefix} may open it"},
    )
    account_parameter: str = field(
        default="integrated_account_id",
        metadata={"help": "the query parameter that names the account; empty: none is sent"},
    )
    update: Literal["PATCH", "PUT"] = field(
        default="PATCH", metadata={"help": "the HTTP method of `update`, PATCH or PUT"}
    )
    records: str = field(
        default="result", metadata={"help": "the member of a page that holds its records"}
    )
    cursor: str = field(
        default="next_cursor", metadata={"help": "the member of a page that names the next one"}
    )
    cursor_parameter: str = field(
        default="next_cursor", metadata={"help": "the query parameter that asks for the next page"}
    )
    max_pages: int = field(default=10_000, metadata={"help": "of one list"})
    max_records: int = field(default=1_000_000, metadata={"help": "of one list"})
    max_runs: int = field(
        default=1_000, metadata={"help": "of one node: records and elements multiplied"}
    )
    max_kept_bytes: int = field(
        default=4 << 20, metadata={"help": "of one node's records, for nodes that read them"}
    )
    max_errors: int = field(
        default=100, metadata={"help": "entries told of one resource; the rest are counted"}
    )

    def __post_init__(self) -> None:
        for path, known in (
            (self.proxy, {"prefix", "resource"}),
            (self.unified, {"prefix", "model", "resource"}),
        ):
            if "{resource}" not in path or not set(_NAMES.findall(path)) <= known:
                raise ValueError(
                    "a path template names {resource}, and no name that it cannot know"
                )
            if not path.startswith(("/", "{prefix}/")):
                raise ValueError("a path template starts with `/` or `{prefix}/`")

    def parse(self, bulk: BulkCall) -> Batch:
        return Batch(
            dialect=self.name,
            subrequests=read(bulk, self._shape(bulk)),
            order="graph",
            keyed=True,
            rules=RULES,
            gated=True,
        )

    def _shape(self, bulk: BulkCall) -> Shape:
        prefix = bulk.params.get("prefix", "")
        return Shape(
            proxy=self.proxy.replace("{prefix}", prefix),
            unified=self.unified.replace("{prefix}", prefix),
            account_parameter=self.account_parameter,
            update=self.update,
            records=tuple(self.records.split(".")),
            cursor=tuple(self.cursor.split(".")),
            cursor_parameter=self.cursor_parameter,
            most_pages=self.max_pages,
            most_records=self.max_records,
            most_runs=self.max_runs,
            most_kept=self.max_kept_bytes,
        )

    def renderer(self, batch: Batch) -> Maps:
        return Maps(batch, self.max_errors)

    def refusal(self, status: int, reason: str, message: str) -> Answer:
        return Answer(status, error(status, "", message))

    def gate(self, batch: Batch, reply: Reply) -> Answer | None:
        """A token that is not good for the first call is not good for the batch (D-T13)."""
        if reply.status != 401:
            return None
        body = reply.body if values.document(reply.body) else error(401, "", "")
        challenge = reply.header(b"www-authenticate")
        fields = () if challenge is None else (("WWW-Authenticate", challenge.decode("latin-1")),)
        return Answer(401, body, headers=fields)

    def schema(self) -> dict[str, Any]:
        return msgspec.json.schema(BatchRequest)

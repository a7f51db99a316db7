"""Guidewire Cloud API `/batch`.

The body is `{"requests": [...]}`, the answer `{"responses": [{status, headers, body}]}`. One batch
reaches one API, whose address is the outer path without `/batch`. A mistake anywhere refuses the
whole batch. `onFail: abort` skips what comes after a failure.
"""

from __future__ import annotations

from collections.abc import Callable
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
    HeaderRules,
    Outcome,
    Reply,
    Step,
    Subrequest,
    Where,
)
from gateway.dialects import _fields, _requests, _results
from gateway.errors import BadTarget, Refused

RULES = HeaderRules(
    # The middle one would make every second write a replay, the last one asks for an answer that
    # comes later and not here (D-G6).
    never_inherited=frozenset({"gw-checksum", "gw-dbtransaction-id", "prefer"}),
    credentials=frozenset({"authorization"}),
)
LITERAL_RULES = HeaderRules(
    never_inherited=frozenset({"gw-checksum"}),
    also_inherited=frozenset({"prefer"}),
    credentials=frozenset({"authorization"}),
)
"""As the vendor's page says it, to the letter."""


# --- the body ------------------------------------------------------------------------------------

Path = Annotated[str, Meta(description="Begins right after the API's own path, with a slash.")]
Query = Annotated[str, Meta(description="Without the question mark.")]
Data = Annotated[
    Raw,
    Meta(
        description='Short for a `body` of {"data": ...}.',
        extra_json_schema={"type": ["object", "null"]},
    ),
]
Contents = Annotated[Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
OnFail = Annotated[
    Literal["abort", "continue"], Meta(description="`abort` skips the rest when this one fails.")
]


class BatchEntry(msgspec.Struct, rename={"on_fail": "onFail"}):
    """One wished call."""

    method: str
    path: Path
    query: Query | None = None
    data: Data | UnsetType = UNSET
    body: Contents | UnsetType = UNSET
    headers: _fields.Items | UnsetType = UNSET
    on_fail: OnFail | None = None


class BatchBody(msgspec.Struct):
    """The body of a batch."""

    requests: list[BatchEntry]


# --- the dialect ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Guidewire:
    """The format of Guidewire's `/batch`; fields are its options."""

    name: ClassVar[str] = "guidewire"

    skipped: Literal["entry", "omit"] = field(
        default="entry", metadata={"help": "what stands for a skipped subrequest: entry or omit"}
    )
    inherit_all: bool = field(
        default=False,
        metadata={"help": "subrequests inherit all but GW-Checksum, as the vendor's page says"},
    )
    prefix: str | None = field(
        default=None,
        metadata={"help": "what the backend's paths begin with; null: as the endpoint's own"},
    )

    def __post_init__(self) -> None:
        _requests.check_prefix(self.prefix)

    @property
    def rules(self) -> HeaderRules:
        return LITERAL_RULES if self.inherit_all else RULES

    def parse(self, bulk: BulkCall) -> Batch:
        most = bulk.max_subrequests
        if bodies.more(bulk.body, "requests", most):
            raise _requests.too_many(most)  # before they are made
        requests = bodies.document(bulk.body, BatchBody, max_depth=bulk.max_depth).requests
        if len(requests) > most:
            raise _requests.too_many(most)
        bodies.refuse_duplicates(bulk.body, _requests.seen(bulk.body, requests))
        reader = _Reader(self, bulk)
        return Batch(
            dialect=self.name,
            subrequests=tuple(
                [reader.read(entry, f"requests[{i}]") for i, entry in enumerate(requests)]
            ),
            rules=self.rules,
            options=_wanted(bulk.query),
        )

    def renderer(self, batch: Batch) -> Responses:
        return Responses(batch.options, omit_skipped=self.skipped == "omit")

    def refusal(self, status: int, reason: str, message: str) -> Answer:
        if reason in _BAD_INPUT:
            return Answer(400, _error(400, "gw.api.rest.exceptions.BadInputException", message))
        return Answer(status, _error(status, f"bulk-gateway.{reason}", message))

    def gate(self, batch: Batch, reply: Reply) -> Answer | None:
        return None

    def schema(self) -> dict[str, Any]:
        return msgspec.json.schema(BatchBody)


_BAD_INPUT = frozenset(
    {
        "bad_json",
        "bad_shape",
        "bad_target",
        "bad_reference",
        "missing_parameter",
        "too_deep",
        "too_many_subrequests",
    }
)
"""What Guidewire itself would find wrong with a body (D-G7)."""


def _error(status: int, code: str, message: str) -> bytes:
    return _results.encode({"status": status, "errorCode": code, "userMessage": message})


# --- reading -------------------------------------------------------------------------------------


class _Reader:
    """Reads the entries of one batch."""

    def __init__(self, dialect: Guidewire, bulk: BulkCall) -> None:
        self._prefix = bulk.path.rpartition("/")[0] if dialect.prefix is None else dialect.prefix
        self._own = _fields.OwnFields(_fields.items, bulk)

    def read(self, entry: BatchEntry, where: Where) -> Subrequest:
        return Subrequest(
            where=where,
            method=_requests.method(entry.method, where),
            target=self._target(entry, where),
            headers=() if entry.headers is UNSET else self._own(entry.headers, where),
            body=self._body(entry, where),
            barrier=entry.on_fail == "abort",
        )

    def _target(self, entry: BatchEntry, where: Where) -> str:
        path = entry.path
        if "?" in path:
            raise Refused("bad_target", f"{where}.path: what follows the question mark is `query`")
        try:
            if not path.startswith("/"):
                target.normalise(path)  # raises, and says what it is instead
            path = self._prefix + path
            return target.normalise(f"{path}?{entry.query}" if entry.query else path)
        except BadTarget as bad:
            member = "query" if entry.query and _normal(path) else "path"
            raise Refused("bad_target", f"{where}.{member}: {bad.message}") from None

    def _body(self, entry: BatchEntry, where: Where) -> bytes | None:
        """`data` and `body` are two spellings of one thing (D-G1)."""
        data = _object(entry.data, f"{where}.data")
        body = _object(entry.body, f"{where}.body")
        if data is None:
            return body
        if body is not None:
            raise Refused("bad_shape", f"{where}: has both data and body")
        return b'{"data":' + data + b"}"


def _normal(path: str) -> bool:
    try:
        return bool(target.normalise(path))
    except BadTarget:
        return False


def _object(raw: Raw | UnsetType, where: Where) -> bytes | None:
    given = _requests.given(raw)
    if given is not None and not given.startswith(b"{"):
        raise Refused("bad_shape", f"{where}: expected object")
    return given


def _wanted(query: str) -> frozenset[bytes] | None:
    """The response fields that `includeResponseHeaders` asks for, lower case; None: all."""
    given = [
        value
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name == "includeResponseHeaders"
    ]
    names = [name.strip() for value in given for name in value.split(",")]
    if not given or names == ["all"]:
        return None
    return frozenset() if names == ["none"] else frozenset(n.lower().encode() for n in names)


# --- writing -------------------------------------------------------------------------------------

RawHeader = tuple[bytes, bytes]
Render = Callable[[RawHeader], bytes]


class Responses:
    """Writes the answer. `wanted` are the only fields shown of the backend's; None: all."""

    __slots__ = ("_aborted_by", "_bodiless", "_field", "_omit_skipped", "_separator", "_wanted")

    def __init__(self, wanted: frozenset[bytes] | None, *, omit_skipped: bool) -> None:
        self._wanted = wanted
        self._omit_skipped = omit_skipped
        self._separator = b""
        self._aborted_by = -1
        self._field, self._bodiless = _ALL if wanted is None else _renders(wanted)

    def head(self) -> bytes:
        return b'{"responses":['

    def tail(self) -> bytes:
        return b"]}"

    def open(self, step: Step) -> bytes:
        return b""

    def part(self, step: Step, reply: Reply) -> bytes:
        return self.whole(step, reply)

    def close(self, step: Step, outcome: Outcome) -> bytes:
        return b""

    def whole(self, step: Step, reply: Reply) -> bytes:
        if step.subrequest.barrier and reply.failed and self._aborted_by < 0:
            self._aborted_by = step.index
        if self._omit_skipped and reply.failure is not None and _skipped(reply.failure):
            return b""
        separator, self._separator = self._separator, b","
        if reply.failure is not None:
            return separator + self._ours(reply.failure)
        return self._theirs(separator, reply)

    def _theirs(self, separator: bytes, reply: Reply) -> bytes:
        """One result, joined once: bodies may be large."""
        fields, layout = _results.received(reply)
        render = self._field if reply.body else self._bodiless
        shown = b",".join(filter(None, map(render, fields)))
        status = b'%b{"status":%d,"headers":[' % (separator, reply.status)
        if not reply.body:  # a 204, say (D-G5)
            return b"".join((status, shown, b"]}"))
        contents, base64 = _results.contents(reply.body, fields, layout)
        if base64:
            shown = b",".join(filter(None, (shown, _pair(_results.BASE64))))
        return b"".join((status, shown, b'],"body":', contents, b"}"))

    def _ours(self, failure: Failure) -> bytes:
        """Its marks are shown whatever fields were asked for."""
        code, message, skipped = failure.code, failure.words, b""
        if _skipped(failure):
            # Beside the status: clients that look at nothing else must not see a success (D-G2).
            skipped = b'"skipped":true,'
            if self._aborted_by >= 0:
                message = f"Skipped: subrequest {self._aborted_by} failed with onFail=abort"
        marks = _results.gateway_fields(failure)
        if self._wanted is None or b"content-type" in self._wanted:
            marks = (_JSON, *marks)
        shown = b",".join(map(_pair, marks))
        body = _error(code, f"bulk-gateway.{failure.details}", message)
        return b'{"status":%d,%b"headers":[%b],"body":%b}' % (code, skipped, shown, body)


_JSON = (b"Content-Type", b"application/json")


def _skipped(failure: Failure) -> bool:
    return failure.code == 424


def _pair(field: RawHeader) -> bytes:
    return b'{"name":%b,"value":%b}' % (_results.string(field[0]), _results.string(field[1]))


def _renders(wanted: frozenset[bytes] | None) -> tuple[Render, Render]:
    """How a field is written in an entry with a body, and in one without: there its length is
    news, of a HEAD say, and not about bytes that were changed on the way."""
    dropped = _results.NOT_IN_ENTRIES
    return _render(wanted, dropped), _render(wanted, dropped - {b"content-length"})


def _render(wanted: frozenset[bytes] | None, dropped: frozenset[bytes]) -> Render:
    def render(field: RawHeader) -> bytes:
        name = field[0].lower()
        shown = name not in dropped and (wanted is None or name in wanted)
        return _pair(field) if shown else b""

    return _results.Memo(render).__getitem__


_ALL = _renders(None)

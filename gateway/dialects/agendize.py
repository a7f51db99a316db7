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
    Headers,
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
from gateway.headers import normal
from gateway.templates import jsonpath, references, values
from gateway.templates.allowance import Allowance
from gateway.templates.references import Hole, Reference

RULES = HeaderRules(credentials=frozenset({"token", "apikey", "authorization"}))  # D-A9


# --- the body ------------------------------------------------------------------------------------

Json = Annotated[Raw, Meta(description="JSON, or a string that holds it.", extra_json_schema={})]
Fields = Annotated[
    Raw,
    Meta(
        description="An object or a list, perhaps as JSON text, or `Name: value` lines.",
        extra_json_schema={"type": ["object", "array", "string", "null"]},
    ),
]


class BatchRequest(msgspec.Struct):
    """One wished call, and those that come right after it."""

    path: Annotated[str, Meta(description="The whole path, version included.")]
    method: str | None = None
    """GET where it is not said."""
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

    def __post_init__(self) -> None:
        jsonpath.environment()  # or the first bulk call would hold up all others

    def parse(self, bulk: BulkCall) -> Batch:
        if bodies.more(bulk.body, "requests", bulk.max_subrequests):
            raise _requests.too_many(bulk.max_subrequests)  # before they are made
        requests = bodies.document(bulk.body, BatchBody, max_depth=bulk.max_depth).requests
        reader = _Reader(bulk, requests, older=self.version == "2.0")
        return Batch(dialect=self.name, subrequests=reader.read(), rules=RULES)

    def renderer(self, batch: Batch) -> Responses:
        return Responses(self)

    def refusal(self, status: int, reason: str, message: str) -> Answer:
        return Answer(status, b'{"error":%b}' % _error(status, message))

    def gate(self, batch: Batch, reply: Reply) -> Answer | None:
        return None

    def schema(self) -> dict[str, Any]:
        return msgspec.json.schema(BatchBody)


def _error(code: int, message: str) -> bytes:
    return _results.encode({"code": code, "message": message})


# --- reading -------------------------------------------------------------------------------------

MOST_REFERENCES = 1000
"""In one batch: each is a walk through a result."""
MOST_PATHS = 20_000
"""Characters of all JSONPaths of one batch, however often each is used: they are parsed."""

_OLDER_METHODS = {"UPDATE": "PUT", "update": "PUT"}


class Echo(msgspec.Struct, frozen=True):
    """What an entry of the answer repeats of its request."""

    path: str
    method: str
    name: str | None
    tail: str
    """What was added to the path and is not repeated: it may be a credential."""


class _Draft(msgspec.Struct):
    """A request on its way to become a Subrequest; later ones may still refer to it."""

    entry: BatchRequest
    where: Where
    index: int
    parent: int
    name: str | None
    """What it is called in the plan."""
    headers: Headers = ()
    target: str | Template = ""
    tail: str = ""
    body: bytes | Template | None = None
    refusal: Failure | None = None
    reads: dict[str, None] = {}
    paths: dict[str, jsonpath.Path] = {}
    """What later requests look for in its result."""
    children: list[int] = []


class _Reader:
    """Reads the requests of one batch, depth first: a reference can mean only what came before."""

    def __init__(self, bulk: BulkCall, requests: Sequence[BatchRequest], *, older: bool) -> None:
        self._older = older
        self._scan = references.properties if older else references.results
        self._own = _fields.OwnFields(_own_form, bulk)
        self._key = next((v for name, v in parse_qsl(bulk.query) if name == "apiKey"), "")
        self._references = 0
        self._paths: dict[str, jsonpath.Path] = {}
        self._path_room = MOST_PATHS
        self._allowance = Allowance()
        self._drafts = _drafts(requests, older, bulk.max_subrequests)
        bodies.refuse_duplicates(bulk.body, _seen(self._drafts))
        self._named = {draft.name: draft for draft in self._drafts}

    def read(self) -> tuple[Subrequest, ...]:
        for draft in self._drafts:
            self._finish(draft)
        made: dict[int, Subrequest] = {}
        for draft in reversed(self._drafts):
            made[draft.index] = self._subrequest(draft, [made[index] for index in draft.children])
        return tuple(made[draft.index] for draft in self._drafts if draft.parent < 0)

    def _finish(self, draft: _Draft) -> None:
        entry = draft.entry
        if not self._older and not isinstance(entry.headers, UnsetType):
            draft.headers = self._own(entry.headers, draft.where)
        draft.tail = self._tail(draft)
        try:
            draft.target = self._target(draft)
            draft.body = self._body(draft)
        except Unresolved as why:  # D-A6
            slug = "unresolved_reference"
            draft.refusal = Failure("proxy_internal_response", slug, message=why.message)

    def _subrequest(self, draft: _Draft, children: Sequence[Subrequest]) -> Subrequest:
        entry = draft.entry
        said = "GET" if entry.method is None else entry.method
        method = _OLDER_METHODS.get(said, said) if self._older else said
        keep = references.Matches(tuple(draft.paths.values())) if draft.paths else None
        return Subrequest(
            where=draft.where,
            method=_requests.method(method, draft.where),
            target=draft.target,
            headers=draft.headers,
            body=draft.body,
            name=draft.name,
            children=tuple(children),
            refusal=draft.refusal,
            reads=tuple(draft.reads),
            recipe=Recipe(keep=keep) if keep else None,
            note=Echo(entry.path, said, None if self._older else entry.name, draft.tail),
        )

    # --- targets ---------------------------------------------------------------------------------

    def _tail(self, draft: _Draft) -> str:
        """The outer `apiKey` for a part that says nothing of who it is (D-A9)."""
        _, question, query = draft.entry.path.partition("?")
        if not self._key or any(normal(name) in RULES.credentials for name, _ in draft.headers):
            return ""
        if any(name == "apiKey" for name, _ in parse_qsl(query, keep_blank_values=True)):
            return ""
        return f"{'&' if question else '?'}apiKey={target.segment(self._key)}"

    def _target(self, draft: _Draft) -> str | Template:
        where = f"{draft.where}.path"
        path = draft.entry.path
        if "{" not in path:
            return _checked(path + draft.tail, where)
        try:
            parts = self._resolved(self._scan(path), draft, where)
        except Unresolved as why:
            raise Unresolved(f"{where}: {why.message}") from None
        # What will be put in is one segment, so a stand-in shows whether the rest may be sent.
        shape = "".join(p if isinstance(p, str) else "0" for p in parts)
        checked = _checked(shape + draft.tail, where)
        if len(parts) == 1:
            return checked
        return references.PathTemplate(path, where, parts, draft.tail, self._allowance)

    def _body(self, draft: _Draft) -> bytes | Template | None:
        body = _contents(_requests.given(draft.entry.body))
        if body is None:
            return None
        where = f"{draft.where}.body"
        try:
            pieces = tuple(
                piece if isinstance(piece, bytes) else self._resolved(piece, draft, where)
                for piece in references.strings(body, self._scan)
            )
        except Unresolved as why:
            raise Unresolved(f"{where}: {why.message}") from None
        if len(pieces) == 1:
            return body
        return references.BodyTemplate(body.decode(), where, pieces, self._allowance)

    # --- references ------------------------------------------------------------------------------

    def _resolved(
        self, parts: Sequence[str | Hole], draft: _Draft, where: Where
    ) -> references.Parts:
        return tuple(
            part if isinstance(part, str) else self._reference(part, draft, where) for part in parts
        )

    def _reference(self, hole: Hole, draft: _Draft, where: Where) -> Reference:
        self._references += 1
        if self._references > MOST_REFERENCES:
            raise Refused("bad_reference", f"{where}: more than {MOST_REFERENCES} references")
        if self._older:
            source, path = self._earlier(hole.name, draft), jsonpath.member(hole.path)
        else:
            source, path = self._named.get(hole.name), self._parsed(hole.path, where)
        if source is None or source.name is None or source.index >= draft.index:
            raise Unresolved("refers to no earlier request")
        source.paths[path.text] = path
        draft.reads[source.name] = None
        return Reference(source.name, path)

    def _parsed(self, text: str, where: Where) -> jsonpath.Path:
        path = self._paths.get(text)
        if path is None:
            self._path_room -= len(text)
            if self._path_room < 0:
                message = f"{where}: more than {MOST_PATHS} characters of JSONPath"
                raise Refused("bad_reference", message)
            path = self._paths[text] = _parsed(text, where)
        return path

    def _earlier(self, type: str, draft: _Draft) -> _Draft | None:
        """Whose property a reference of 2.0 means (D-A10)."""
        if not type:
            before = draft.parent if draft.parent >= 0 else draft.index - 1
            return self._drafts[before] if before >= 0 else None
        collections = _collections(type)
        for earlier in reversed(self._drafts[: draft.index]):
            if _collection(earlier.entry.path) in collections:
                return earlier
        return None


def _drafts(requests: Sequence[BatchRequest], older: bool, most: int) -> list[_Draft]:
    """All requests, depth first. Stops at one too many, wherever it stands."""
    drafts: list[_Draft] = []
    waiting = [(entry, f"requests[{i}]", -1) for i, entry in enumerate(requests[: most + 1])][::-1]
    while waiting:
        if len(drafts) + len(waiting) > most:
            raise _requests.too_many(most)
        entry, where, parent = waiting.pop()
        index = len(drafts)
        drafts.append(
            _Draft(entry, where, index, parent, f"#{index}" if older else entry.name or None)
        )
        if parent >= 0:
            drafts[parent].children.append(index)
        if entry.requests is None:
            continue
        nested = entry.requests[: most + 1]
        children = [(child, f"{where}.requests[{i}]", index) for i, child in enumerate(nested)]
        waiting.extend(reversed(children))
    return drafts


def _seen(drafts: Sequence[_Draft]) -> dict[str, int]:
    """How often each member's name may stand in the text."""
    entries = [draft.entry for draft in drafts]
    return {
        "requests": 1 + len(entries) - [entry.requests for entry in entries].count(None),
        "path": len(entries),
        "method": len(entries) - [entry.method for entry in entries].count(None),
        "name": len(entries) - [entry.name for entry in entries].count(None),
        "body": len(entries) - [entry.body for entry in entries].count(UNSET),
        "headers": len(entries) - [entry.headers for entry in entries].count(UNSET),
    }


_PATH_OF_A_BATCH = re.compile(r"/api/[^/?]+/batch/?(?:\?|\Z)")


def _checked(path: str, where: Where) -> str:
    try:
        address = target.normalise(path)
    except BadTarget as bad:
        raise Refused("bad_target", f"{where}: {bad.message}") from None
    if _PATH_OF_A_BATCH.match(address):
        raise Refused("bad_target", f"{where}: a batch in a batch is a request with `requests`")
    return address


def _contents(body: bytes | None) -> bytes | None:
    """What is sent: JSON as it stands, or what a string holds when that is an object or a list.

    The vendor's tables call a body a string, its examples hold objects.
    """
    if body is None or not body.startswith(b'"'):
        return body
    text = msgspec.json.decode(body, type=str)
    held = values.document(text.encode()) if text.lstrip()[:1] in ("{", "[") else None
    return held or (body if text else None)


def _parsed(path: str, where: Where) -> jsonpath.Path:
    try:
        return jsonpath.parse(path)
    except jsonpath.BadPath:
        raise Unresolved("a reference holds no JSONPath") from None
    except jsonpath.Unbounded as unbounded:
        raise Refused("bad_reference", f"{where}: in a JSONPath, {unbounded.what}") from None


_WORD = re.compile(r"[A-Za-z_-]+")


def _collection(path: str) -> str:
    """The last word of a path that is no id: what its result is one of."""
    words = [w for w in path.partition("?")[0].split("/") if _WORD.fullmatch(w)]
    return words[-1].lower() if words else ""


def _collections(type: str) -> frozenset[str]:
    """What a collection of such things may be called."""
    one = type.lower()
    return frozenset({one, one + "s", one + "es", re.sub("y$", "ies", one)})


def _own_form(spelling: bytes, where: Where) -> Iterator[Header]:
    """D-A8: an object, a list, either as JSON text, or lines."""
    if not spelling.startswith(b'"'):
        yield from _fields.any_form(spelling, where)
        return
    text = bodies.decode(spelling, str, where)
    if text.lstrip()[:1] in ("{", "["):
        yield from _fields.any_form(text.strip().encode(), where)
        return
    for line in filter(None, map(str.strip, text.split("\n"))):
        name, colon, value = line.partition(":")
        if not colon:
            raise Refused("bad_shape", f"{where}: expected lines of a name, a colon and a value")
        yield name, value.strip()


# --- writing -------------------------------------------------------------------------------------


class Responses:
    """Writes the answer: entries that hold the entries of their children."""

    __slots__ = ("_body_key", "_duration", "_older", "_separator")

    def __init__(self, dialect: Agendize) -> None:
        self._older = dialect.version == "2.0"
        self._body_key = b',"%b":' % dialect.body_key.encode()
        self._duration = b',"duration":"%d"' if dialect.duration == "string" else b',"duration":%d'
        self._separator = b""

    def head(self) -> bytes:
        return b'{"responses":['

    def tail(self) -> bytes:
        return b"]}"

    def open(self, step: Step) -> bytes:
        return self._separator + b"{"

    def part(self, step: Step, reply: Reply) -> bytes:
        entry = self._entry(step.subrequest.note, reply)
        if not step.subrequest.children:
            return entry
        self._separator = b""
        return entry + b',"responses":['

    def close(self, step: Step, outcome: Outcome) -> bytes:
        self._separator = b","
        return b"]}" if step.subrequest.children else b"}"

    def whole(self, step: Step, reply: Reply) -> bytes:
        return self.open(step) + self.part(step, reply) + self.close(step, Outcome())

    def _entry(self, echo: Echo, reply: Reply) -> bytes:
        path = reply.call.target.removesuffix(echo.tail) if reply.call else echo.path
        members = [b'"path":', _results.encode(path), b',"method":', _results.encode(echo.method)]
        if echo.name is not None:
            members += (b',"name":', _results.encode(echo.name))
        members.append(b',"status":%d' % reply.status)
        if not self._older:
            members.append(self._duration % round(reply.seconds * 1000))
        members += self._body(reply)
        return b"".join(members)

    def _body(self, reply: Reply) -> Sequence[bytes]:
        if reply.failure is not None:
            return (self._body_key, _ours(reply.failure))
        if not reply.body:
            return ()
        contents, base64 = _results.contents(reply.body, *_results.received(reply))
        if base64:
            return (self._body_key, contents, b',"encoding":"base64"')
        return (self._body_key, contents)


def _ours(failure: Failure) -> bytes:
    error = _error(failure.code, failure.words)
    return b'{"error":%b,"gateway":%b}' % (error, _results.gateway_member(failure))

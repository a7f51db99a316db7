"""SugarCRM REST v10 and v11 `/bulk`.

The body is `{"requests": [...]}` or a map of entries, the answer a list or a map of
`{contents, headers, status, status_text}`. A mistake in an entry's address or data is that entry's
result, and the rest runs. A nested bulk call is taken apart here, one level deep: its entries join
the plan in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from gateway import bodies, headers, target
from gateway.batch import (
    Answer,
    Batch,
    BulkCall,
    Failure,
    HeaderRules,
    Headers,
    Outcome,
    RawHeaders,
    Reply,
    Step,
    Subrequest,
    Where,
)
from gateway.dialects import _fields, _requests, _results
from gateway.errors import BadTarget, Refused
from gateway.headers import HeaderPolicy

RULES = HeaderRules(
    never_inherited=frozenset({"x-metadata-hash", "x-userpref-hash"}),  # D-S10
    credentials=frozenset({"oauth-token", "authorization"}),
    precedence="outer",  # D-S1: after a refresh the outer token is new and the entries' are old
)


# --- the body ------------------------------------------------------------------------------------

Url = Annotated[
    str,
    Meta(
        description="Path and query, the version first; the leading slash may be missing.",
        extra_json_schema={"minLength": 1},
    ),
]
Data = Annotated[
    Raw,
    Meta(
        description="The body: JSON text, or JSON itself.",
        extra_json_schema={"type": ["string", "object", "array", "null"]},
    ),
]
Verb = Annotated[
    Raw, Meta(description="The method as ventana writes it; ignored, as SugarCRM does.")
]


class BulkEntry(msgspec.Struct):
    """One wished call. Members not named here are ignored, as SugarCRM does."""

    url: Url | UnsetType = UNSET
    method: str | None = None
    data: Data | UnsetType = UNSET
    headers: _fields.AnyForm | UnsetType = UNSET
    type: Verb | UnsetType = UNSET
    """Heeded by the option `type_is_method` alone (D-S4)."""


Listed = Annotated[BulkEntry, Meta(extra_json_schema={"required": ["url"]})]
Keyed = Annotated[Raw, Meta(extra_json_schema={"$ref": "#/$defs/BulkEntry", "required": ["url"]})]
"""Decoded one by one, so that a mistake is found under its key."""


class Bulk(msgspec.Struct):
    """The body of a bulk call."""

    requests: list[Listed] | dict[str, Keyed] | UnsetType = UNSET


Published = Annotated[Bulk, Meta(extra_json_schema={"required": ["requests"]})]
"""The decoder requires neither: SugarCRM has a label of its own for what is missing."""


# --- the dialect ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SugarCRM:
    """The format of SugarCRM's `/bulk`; fields are its options."""

    name: ClassVar[str] = "sugarcrm"
    rules: ClassVar[HeaderRules] = RULES

    type_is_method: bool = field(
        default=False, metadata={"help": "an entry without `method` has its verb in `type`"}
    )
    prefix: str | None = field(
        default=None,
        metadata={"help": "what the backend's paths begin with; null: as the endpoint's own"},
    )

    def __post_init__(self) -> None:
        _requests.check_prefix(self.prefix)

    def parse(self, bulk: BulkCall) -> Batch:
        reader = _Reader(self, bulk)
        subrequests, keyed = reader.document()
        return Batch(
            dialect=self.name,
            subrequests=subrequests,
            keyed=keyed,
            rules=RULES,
            gated=reader.versioned,
        )

    def renderer(self, batch: Batch) -> Entries:
        return Entries(batch.keyed)

    def refusal(self, status: int, reason: str, message: str) -> Answer:
        status = 422 if status == 400 else status
        return Answer(status, _error(_label(status, reason), message), headers=(NO_STORE,))

    def gate(self, batch: Batch, reply: Reply) -> Answer | None:
        """An expired token must fail the outer call, or clients do not refresh it (D-S2)."""
        if reply.status != 401 or _told(reply.body) not in ("invalid_grant", "need_login"):
            return None
        challenge = reply.header(b"www-authenticate")
        fields = () if challenge is None else (("WWW-Authenticate", challenge.decode("latin-1")),)
        return Answer(401, reply.body, headers=(NO_STORE, *fields))

    def schema(self) -> dict[str, Any]:
        return msgspec.json.schema(Published)


# --- errors --------------------------------------------------------------------------------------

NO_STORE = ("Cache-Control", "no-store")

_LABELS = {
    403: "not_authorized",
    404: "not_found",
    413: "request_too_large",
    422: "invalid_parameter",
    500: "fatal_error",
    502: "bad_gateway",
    503: "service_unavailable",
    508: "fatal_error",
}
"""Of results that are ours; never empty, or the JS client takes them for successes (D-S9)."""


def _label(status: int, reason: str = "") -> str:
    if reason == "missing_parameter":
        return reason
    return _LABELS.get(status, "request_failure")


def _error(label: str, message: str) -> bytes:
    return _results.encode({"error": label, "error_message": message})


class _Told(msgspec.Struct):
    error: str = ""


def _told(body: bytes) -> str:
    """The label of an error of the backend's."""
    try:
        body.decode()  # msgspec looks into no string that it has no use for
        return msgspec.json.decode(body, type=_Told).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


class _Mistake(Exception):
    """An entry is wrong in itself, and this is its result."""

    def __init__(self, status: int, label: str, slug: str, message: str) -> None:
        self.failure = Failure(
            "http_request_error", slug, status=status, label=label, message=message
        )


# --- reading -------------------------------------------------------------------------------------

_VERSION = re.compile(r"/v[0-9]{2}(?:_[0-9]{1,2})?(?=[/?]|\Z)")
_VERSIONED_ACCEPT = re.compile(r"application/vnd\.sugarcrm\.\w+\+json\s*;\s*version=", re.I | re.A)


class _Reader:
    """Reads the entries of one bulk call."""

    def __init__(self, dialect: SugarCRM, bulk: BulkCall) -> None:
        above, _, self._name = bulk.path.rpartition("/")
        root, _, last = above.rpartition("/")
        self.versioned = bool(_VERSION.match(f"/{last}"))
        """The outer path names a version, so each entry must too (D-S3)."""
        self._outer = root if self.versioned else above
        self._prefix = self._outer if dialect.prefix is None else dialect.prefix
        self._type_is_method = dialect.type_is_method
        self._bulk = bulk
        self._left = bulk.max_subrequests
        self._own = _fields.OwnFields(_own_form, bulk)

    def document(self) -> tuple[tuple[Subrequest, ...], bool]:
        """The subrequests, and whether they came as a map."""
        body = self._bulk.body
        self._count(body, "requests")
        parsed = bodies.document(body, Bulk, max_depth=self._bulk.max_depth)
        return self._entries(parsed, body, "", None)

    def _count(self, body: bytes, where: Where) -> None:
        """A long list is refused before its entries are made."""
        if bodies.more(body, "requests", self._left):
            raise _requests.too_many(self._bulk.max_subrequests, where)

    def _entries(
        self, parsed: Bulk, body: bytes, where: Where, base: Headers | None
    ) -> tuple[tuple[Subrequest, ...], bool]:
        """`base` is what the entries of a nested call start from; None in the outer one."""
        requests, place = parsed.requests, f"{where}.requests" if where else "requests"
        if isinstance(requests, UnsetType):
            raise Refused("missing_parameter", f"{place}: missing")
        self._left -= len(requests)
        if self._left < 0:
            raise _requests.too_many(self._bulk.max_subrequests, place)
        if isinstance(requests, dict):
            _requests.refuse_duplicates(body, {"requests": 0}, where)  # its keys can be anything
            return tuple(self._members(requests, place, base)), True
        _requests.refuse_duplicates(body, _requests.seen(body, requests), where)
        listed = [
            self._subrequest(entry, f"{place}[{index}]", base)
            for index, entry in enumerate(requests)
        ]
        return tuple(listed), False

    def _members(
        self, requests: dict[str, Raw], where: Where, base: Headers | None
    ) -> Iterator[Subrequest]:
        for index, (key, raw) in enumerate(requests.items()):
            place = _requests.member(where, key, index)
            yield self._subrequest(bodies.decode(raw, BulkEntry, place), place, base, key)

    def _subrequest(
        self, entry: BulkEntry, where: Where, base: Headers | None, key: str | None = None
    ) -> Subrequest:
        if not entry.url:
            raise Refused("missing_parameter", f"{where}.url: Invalid request - URL is missing")
        method = _requests.USUAL.get(entry.method) or self._method(entry, where)
        own = () if entry.headers is UNSET else self._own(entry.headers, where)
        if base:
            own = headers.merge(base, own, RULES)
        try:
            address = self._target(entry.url, own, where)
            body = None if entry.data is UNSET else self._body(bytes(entry.data), where)
            if method == "POST" and self._nests(address):
                return self._group(body, own, where, base, key)
        except _Mistake as mistake:
            return Subrequest(where=where, method=method, key=key, refusal=mistake.failure)
        return Subrequest(
            where=where, method=method, target=address, headers=own, body=body, key=key
        )

    def _method(self, entry: BulkEntry, where: Where) -> str:
        if entry.method:
            return _requests.method(entry.method, where)
        if self._type_is_method and entry.type is not UNSET:
            return _requests.method(bodies.decode(entry.type, str, f"{where}.type"), where)
        return "GET"

    def _target(self, url: str, own: Headers, where: Where) -> str:
        try:
            if ":" in url or url.startswith("//"):
                path = target.rebase(url, self._bulk.origins)
                url = path if path == url else path.removeprefix(f"{self._outer}/")
            address = target.normalise(f"{self._prefix}/{url.removeprefix('/')}")
        except BadTarget as bad:
            raise _Mistake(404, "no_method", bad.slug, f"{where}.url: {bad.message}") from None
        if self.versioned and not _VERSION.match(address, len(self._prefix)):
            self._check_version(own, where)
        return address

    def _check_version(self, own: Headers, where: Where) -> None:
        """A version may stand in `Accept` instead of the URL; own fields hide inherited ones."""
        for fields in (own, self._bulk.headers):
            accepted = [value for name, value in fields if name.lower() == "accept"]
            if any(_VERSIONED_ACCEPT.search(value) for value in accepted):
                return
            if accepted:
                break
        slug = "incorrect_version"
        raise _Mistake(301, slug, slug, f"{where}.url: expected a version, such as v10, first")

    def _body(self, data: bytes, where: Where) -> bytes | None:
        """`data` as JSON (D-S6): an object as it stands, a string by what it holds."""
        if data.startswith((b"{", b"[")):
            return data
        if data.startswith(b'"'):
            return self._text(data, f"{where}.data")
        if data == b"null":
            return None
        raise _invalid("bad_shape", f"{where}.data: expected JSON text, an object or a list")

    def _text(self, data: bytes, where: Where) -> bytes | None:
        try:
            text = bodies.decode(data, str).encode()
            if text:
                bodies.check_document(text, max_depth=self._bulk.max_depth)
        except Refused as refused:
            raise _invalid(refused.reason, f"{where}: {refused.message}") from None
        return text or None

    # --- nested bulk calls (D-S11) -----------------------------------------------------------

    def _nests(self, address: str) -> bool:
        """Whether this is the address of a bulk call beside the outer one."""
        path, name = address.partition("?")[0], f"/{self._name}"
        if not path.endswith(name):
            return False
        between = path[len(self._prefix) : -len(name)]
        return not between or _VERSION.fullmatch(between) is not None

    def _group(
        self, body: bytes | None, own: Headers, where: Where, base: Headers | None, key: str | None
    ) -> Subrequest:
        if base is not None:
            raise _invalid("too_deep", f"{where}.url: a bulk call inside a nested one")
        inherited = headers.inherit(own, RULES, HeaderPolicy(), trusted=True)
        document = body or b"{}"
        try:
            self._count(document, f"{where}.data.requests")
            parsed = bodies.decode(document, Bulk, f"{where}.data")
            children, keyed = self._entries(parsed, document, f"{where}.data", inherited)
        except Refused as refused:
            if refused.reason == "too_many_subrequests":  # the outer call's limit, not the entry's
                raise
            label = _label(422, refused.reason)
            raise _Mistake(422, label, refused.reason, refused.message) from None
        return Subrequest(where=where, method="POST", key=key, children=children, note=keyed)


def _invalid(slug: str, message: str) -> _Mistake:
    return _Mistake(422, "invalid_parameter", slug, message)


def _own_form(spelling: bytes, where: Where) -> Headers:
    """SugarCRM checks a metadata hash for the outer call alone; the entries' would give 412s."""
    own = _fields.any_form(spelling, where)
    return tuple([pair for pair in own if pair[0].lower() not in RULES.never_inherited])


# --- writing -------------------------------------------------------------------------------------


class Entries:
    """Writes the answer: a list or a map of entries, some of which hold such a list themselves."""

    __slots__ = ("_keyed", "_separator")

    def __init__(self, keyed: bool) -> None:
        self._keyed = keyed
        self._separator = b""

    def head(self) -> bytes:
        return b"{" if self._keyed else b"["

    def tail(self) -> bytes:
        return b"}" if self._keyed else b"]"

    def open(self, step: Step) -> bytes:
        lead = self._lead(step)
        if not _groups(step.subrequest):
            return lead
        self._separator = b""
        return lead + (b'{"contents":{' if step.subrequest.note else b'{"contents":[')

    def part(self, step: Step, reply: Reply) -> bytes:
        """A group has no reply of its own; what stopped it shows in its entries."""
        return b"" if _groups(step.subrequest) else _entry(b"", reply)

    def close(self, step: Step, outcome: Outcome) -> bytes:
        if not _groups(step.subrequest):
            return b""
        self._separator = b","
        bracket = b"}" if step.subrequest.note else b"]"
        return bracket + b',"headers":[]' + _end((200, b"OK"))

    def whole(self, step: Step, reply: Reply) -> bytes:
        key, lead = step.subrequest.key, self._separator
        self._separator = b","
        return _entry(lead if key is None else lead + _results.encode(key) + b":", reply)

    def _lead(self, step: Step) -> bytes:
        separator, self._separator = self._separator, b","
        key = step.subrequest.key
        return separator if key is None else separator + _results.encode(key) + b":"


def _groups(subrequest: Subrequest) -> bool:
    """A nested bulk call: nothing is sent for it, and it holds what its entries give."""
    return not subrequest.target and subrequest.refusal is None


def _entry(lead: bytes, reply: Reply) -> bytes:
    """One result after `lead`, joined once: contents may be large."""
    if reply.failure is not None:
        return lead + _ours(reply.failure)
    fields, layout = _results.received(reply)
    contents, base64 = b'""', False
    if reply.body:
        declared = fields[layout.content_type][1] if layout.content_type >= 0 else None
        contents, base64 = bodies.splice(reply.body, declared)
    if reply.status >= 400 or base64 or layout.repeats:
        shown = _joined(_completed(fields, reply.status, base64))
    else:
        shown = b",".join(filter(None, map(_field, fields)))
    begin, end = (b',"headers":{', b"}") if shown else (b',"headers":[]', b"")
    status = _end((reply.status, reply.reason))
    return b"".join((lead, b'{"contents":', contents, begin, shown, end, status))


def _ours(failure: Failure) -> bytes:
    contents = _error(failure.label or _label(failure.code), failure.words)
    shown = _joined((*_OF_ERRORS, *_results.gateway_fields(failure)))
    return b'{"contents":%b,"headers":{%b}%b' % (contents, shown, _end((failure.code, b"")))


_JSON = (b"Content-Type", b"application/json")
_OF_ERRORS = ((b"Cache-Control", b"no-store"), _JSON)


def _completed(fields: RawHeaders, status: int, base64: bool) -> RawHeaders:
    """With what clients need to make sense of the contents: the JS client reads no error that is
    not typed as JSON, in exactly this spelling."""
    if status >= 400:
        fields = (*(pair for pair in fields if pair[0].lower() != b"content-type"), _JSON)
    return (*fields, _results.BASE64) if base64 else fields


def _joined(fields: RawHeaders) -> bytes:
    """Fields of one name as one, in whatever case they came (RFC 9110 5.3)."""
    values: dict[bytes, bytes] = {}
    for name, value in fields:
        key = _key(name)
        values[key] = values[key] + b", " + value if key in values else value
    return b",".join(key + _results.string(value) for key, value in values.items() if key)


_DROPPED = _results.NOT_IN_ENTRIES | {b"set-cookie"}
_SPECIAL = {b"etag": b"ETag", b"www-authenticate": b"WWW-Authenticate"}


def _render_key(name: bytes) -> bytes:
    """A name as clients look it up, by case (D-S8), and a colon; empty for what is dropped."""
    lower = name.lower()
    if lower in _DROPPED:
        return b""
    words = (word.capitalize() for word in lower.split(b"-"))
    return _results.string(_SPECIAL.get(lower) or b"-".join(words)) + b":"


def _render_field(pair: tuple[bytes, bytes]) -> bytes:
    key = _key(pair[0])
    return key + _results.string(pair[1]) if key else b""


def _render_end(status: tuple[int, bytes]) -> bytes:
    text = _results.encode(_results.phrase(*status))
    return b',"status":%d,"status_text":%b}' % (status[0], text)


_key = _results.Memo(_render_key).__getitem__
_field = _results.Memo(_render_field).__getitem__
_end = _results.Memo(_render_end).__getitem__

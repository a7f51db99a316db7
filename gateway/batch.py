"""The nouns of the gateway: what travels between its rooms, and the protocols between them.

Nothing here acts. A `Batch` is what the client asked, a `Call` what goes to the backend, a `Reply`
what came back, an `Outcome` how a step ended. Everything made once per subrequest or batch is a
`msgspec.Struct`, which takes 0.2 µs to make where a frozen dataclass takes 1.5; it is frozen too,
unless it is written to on its way: a `Call`, a `Reply`, a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

Header = tuple[str, str]
Headers = tuple[Header, ...]
"""Header fields on their way up: text, in order, names may repeat."""

RawHeaders = tuple[tuple[bytes, bytes], ...]
"""Header fields as they were received: bytes, names in the sender's spelling."""

Where = str
"""A place in the client's document, `requests[3].url`; it opens every message about a mistake."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Safe by RFC 9110 9.2.1 and allowed in a subrequest: nobody can tell in which order they ran."""


# --- results made by the gateway -----------------------------------------------------------------

STATUS_OF = {
    "connection_refused": 502,
    "destination_unavailable": 502,
    "dns_error": 502,
    "tls_certificate_error": 502,
    "tls_protocol_error": 502,
    "connection_timeout": 504,
    "connection_terminated": 502,
    "connection_limit_reached": 503,
    "http_response_timeout": 504,
    "http_response_incomplete": 502,
    "http_protocol_error": 502,
    "http_response_content_coding": 502,
    "http_response_body_size": 502,
    "http_response_header_section_size": 502,
    "http_request_error": 400,
    "http_request_denied": 403,
    "proxy_loop_detected": 508,
    "proxy_internal_response": 424,
    "proxy_internal_error": 500,
}
"""RFC 9209 error type -> the status of its result, unless the failure names another."""


_WORDS = {
    "connection_refused": "the backend refuses connections",
    "destination_unavailable": "the backend cannot be reached",
    "dns_error": "the backend's name cannot be resolved",
    "tls_certificate_error": "the backend's certificate is not accepted",
    "tls_protocol_error": "the TLS handshake with the backend failed",
    "connection_timeout": "the backend took no connection in time",
    "connection_terminated": "the backend closed the connection instead of answering",
    "connection_limit_reached": "no connection to the backend was free",
    "http_response_timeout": "the backend did not answer in time",
    "http_response_incomplete": "the backend's answer was cut short",
    "http_protocol_error": "the backend's answer is no valid HTTP",
    "http_response_content_coding": "the coding of the backend's answer cannot be undone",
    "http_response_body_size": "the backend's answer is too large",
    "http_response_header_section_size": "the head of the backend's answer is too large",
    "proxy_loop_detected": "a bulk call inside a bulk call",
    "proxy_internal_error": "a fault of the gateway's own",
}
"""For people, where whoever made the failure wrote nothing; else the slug says enough."""


class Failure(msgspec.Struct, frozen=True):
    """Why the gateway, and not the backend, made this result (DESIGN part 5)."""

    error: str
    """An RFC 9209 error type, one of `STATUS_OF`: the metric's label."""
    details: str
    """A slug that tells the cases of one type apart: `batch_deadline`, `onfail_abort`."""
    sent: bool = False
    """Whether any byte of the call may have reached the backend."""
    status: int = 0
    """The result's status; 0 means the type's own."""
    message: str = ""
    """One line for a person, lower case, never quoting input; empty means the slug says enough."""
    label: str = ""
    """The dialect's own word for the mistake where its form has one: SugarCRM's `no_method`."""
    retry_after: int = 0
    """Seconds, for 429 and 503; 0 means unknown."""

    @property
    def code(self) -> int:
        return self.status or STATUS_OF[self.error]

    @property
    def words(self) -> str:
        """One line for a person."""
        return self.message or _WORDS.get(self.error) or self.details.replace("_", " ")


# --- what the client asked -----------------------------------------------------------------------


class HeaderRules(msgspec.Struct, frozen=True):
    """What one dialect adds to the header rules of DESIGN part 6."""

    never_inherited: frozenset[str] = frozenset()
    """Outer fields that no subrequest gets; lower case."""
    also_inherited: frozenset[str] = frozenset()
    """Outer fields that every subrequest gets although no other dialect's does; lower case."""
    credentials: frozenset[str] = frozenset()
    """Fields that identify the caller and so never mix: either all outer ones or all own ones."""
    precedence: Literal["outer", "own"] = "own"
    """Whose credentials hold when both sides bring some."""
    own_allowed: bool = True
    """Whether a subrequest may bring fields at all."""
    runs: bool = False
    """Whether `Idempotency-Key` names the run too: `<key>-<index>-<run>` (D-T9)."""


class BulkCall(msgspec.Struct, frozen=True):
    """A bulk call as it was received: the outer request with its whole body."""

    path: str
    """The outer path in its normal form (DESIGN part 7), without query."""
    query: str
    """The outer query string, without `?`."""
    headers: Headers
    """The outer fields, bytes read as latin-1."""
    body: bytes
    params: Mapping[str, str] = {}
    """What the endpoint's template matched: `version`, `prefix` (empty or with leading slash)."""
    origins: frozenset[str] = frozenset()
    """Own public origins, `https://crm.example:443`: an absolute URL to one is rebased."""
    max_subrequests: int = 100
    max_depth: int = 64
    header_policy: Any = None
    """The operator's `headers.HeaderPolicy`, for the fields subrequests bring; None: no lists."""


Scope = Mapping[str, Sequence[bytes]]
"""What templates read: a name -> the JSON values that were kept under it, as they were written."""


class Template(Protocol):
    """Text with references still open: a target or a body that needs earlier results."""

    @property
    def text(self) -> str:
        """As the client wrote it: for people."""

    def fill(self, scope: Scope) -> str:
        """The text, with every reference replaced. Raises `errors.Unresolved`."""


class Loop(Protocol):
    """What makes one step many runs: another's records, the elements of a list."""

    @property
    def text(self) -> str: ...

    def scopes(self, scope: Scope) -> Iterator[Scope]:
        """The scope of each run. Raises `errors.Unresolved`."""


class Keep(Protocol):
    """What others read of a step's replies. Nothing else of a reply outlives its delivery."""

    def pick(self, reply: Reply) -> Sequence[bytes]:
        """The JSON values to keep of one answer, none when there is nothing to be read in it."""


class Expression(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be worked out by the helper process before a run can go on."""

    name: str
    """Its value's name in the run's scope."""
    text: str
    context: Template
    """JSON: what the expression sees."""


class Paging(msgspec.Struct, frozen=True, kw_only=True):
    """A list whose reply says how to ask for the rest of it."""

    cursor: tuple[str, ...]
    """Where in the reply the next page's cursor stands; null, empty or missing: the last page."""
    parameter: str
    """The query parameter that takes the cursor."""
    records: tuple[str, ...]
    """Where in the reply the page's records stand."""
    most_pages: int
    most_records: int


class Recurse(msgspec.Struct, frozen=True, kw_only=True):
    """A run that begets others: one for each of its records that a condition holds for."""

    name: str
    """The record's name in the new run's scope."""
    records: Keep
    when: Template
    """JSON; holds when it is `true`."""
    target: Template


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a subrequest is carried out when it is more than one call with nothing left to fill in.

    One run per combination of the loops' elements; in each run the expressions one after another,
    then the call, then its further pages. A subrequest without a target sends nothing: the value
    of its last expression, or else its body, is its result.
    """

    loops: tuple[Loop, ...] = ()
    """Outer ones first."""
    expressions: tuple[Expression, ...] = ()
    paging: Paging | None = None
    recurse: Recurse | None = None
    keep: Keep | None = None
    quiet: bool = False
    """Its good replies are for others to read and not part of the answer."""
    most_runs: int = 1000
    most_kept: int = 4 << 20
    """Bytes."""


class Subrequest(msgspec.Struct, frozen=True, kw_only=True):
    """One wished call, perhaps with references or a loop still open."""

    where: Where
    method: str = "GET"
    """Upper case and allowed."""
    target: str | Template = ""
    """Path and query as they go to the backend, in normal form; empty for a mere group."""
    headers: Headers = ()
    """Own fields, checked; they are merged over the inherited ones."""
    body: bytes | Template | None = None
    name: str | None = None
    """What references call it."""
    key: str | None = None
    """Its key where the document is a map."""
    children: tuple[Subrequest, ...] = ()
    barrier: bool = False
    """`onFail: abort`: nothing after it starts before it has succeeded."""
    refusal: Failure | None = None
    """It is wrong in itself and this is its result: it is never sent, the others run."""
    needs: tuple[str, ...] = ()
    """Names of those that must have ended well before it starts."""
    reads: tuple[str, ...] = ()
    """Names of those whose results its templates, loops and expressions read."""
    recipe: Recipe | None = None
    note: Any = None
    """The dialect's own: what its renderer must know of it."""

    @property
    def plain(self) -> bool:
        """One call with nothing left to fill in: what SugarCRM's and Guidewire's all are."""
        return (
            self.recipe is None
            and type(self.target) is str
            and (self.body is None or type(self.body) is bytes)
        )

    @property
    def safe(self) -> bool:
        return self.method in SAFE_METHODS


class Batch(msgspec.Struct, frozen=True):
    """What the client asked: subrequests and the rules between them."""

    dialect: str
    subrequests: tuple[Subrequest, ...]
    order: Literal["ordered", "graph"] = "ordered"
    """DESIGN part 4: writes in client order with reads between them together, or `needs` alone."""
    keyed: bool = False
    """The document was a map; so is the answer."""
    rules: HeaderRules = HeaderRules()
    gated: bool = False
    """The answer's head waits for the first reply, and `Dialect.gate` is asked about it."""
    options: Any = None
    """The dialect's own: what its renderer must know of the call."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A subrequest's place in the plan."""

    index: int
    """Its place in client order, depth first: the number in logs, request ids and refusals."""
    subrequest: Subrequest
    needs: tuple[int, ...] = ()
    """Steps that must have ended well before it starts: skipped if one of them failed."""
    follows: tuple[int, ...] = ()
    """Steps that must have ended before it starts, however they ended."""
    sources: tuple[tuple[str, int], ...] = ()
    """The names its templates read and the steps they mean; those steps are among `follows` too."""
    parent: int = -1
    size: int = 1
    """Steps in its subtree, itself included: its children are those right after it."""


# --- what goes up and what comes back ------------------------------------------------------------


class Call(msgspec.Struct):
    """One concrete call. Nothing left to fill in; the last fields are its life in the engine."""

    method: str
    target: str
    headers: Headers
    """What it has in common with others: one tuple for all of them, whose bytes are made once."""
    body: bytes | None = None
    request_id: str = ""
    """Sent as `X-Request-Id`; empty: none is written."""
    extra: Headers = ()
    """Fields of this call alone, after the common ones: `Idempotency-Key`, `traceparent`."""
    step: int = 0
    own: Headers = ()
    """Fields that the subrequest brought, before the common ones."""
    place: int = 0
    """Its place among the calls of its step."""
    tag: Any = None
    """The caller's own."""
    sent: bool = False
    """Whether any byte of it may have reached the backend, in any attempt."""
    resent: bool = False
    """It was sent once before, on a connection that closed unanswered. There is no third time."""
    began: float = 0.0
    """Clock time of its first attempt."""

    @property
    def safe(self) -> bool:
        return self.method in SAFE_METHODS


class Evaluate(msgspec.Struct, frozen=True):
    """An expression for the helper process: run by `execution` like a call."""

    expression: str
    context: bytes
    """JSON."""
    step: int = 0
    place: int = 0
    tag: Any = None


class Reply(msgspec.Struct):
    """What came back: an answer of the backend, or a `failure` and nothing else."""

    status: int
    reason: bytes = b""
    headers: RawHeaders = ()
    body: bytes = b""
    """Contents with content codings undone; empty for HEAD, 204 and 304."""
    failure: Failure | None = None
    seconds: float = 0.0
    """From sent to last byte."""
    call: Call | None = None
    held: int = 0
    """Bytes it is charged for in its lane, head included; given back by `Lane.release`."""

    @property
    def failed(self) -> bool:
        return self.status >= 400

    def header(self, name: bytes) -> bytes | None:
        """The first field of this name (lower case), or None."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


def failed(failure: Failure, call: Call | None = None) -> Reply:
    """The reply that stands for a failure."""
    return Reply(failure.code, failure=failure, call=call)


class Outcome(msgspec.Struct, frozen=True):
    """A step's end."""

    failed: bool = False
    value: Any = None
    """What its dependents read of it (`planning.nouns.Kept`); None when nobody does."""
    flawed: bool = False
    """Some of its runs or pages went wrong; others may have gone well."""


# --- the seams -----------------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True):
    """A whole answer to the outer call that is not a stream of results."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Headers = ()


class Renderer(Protocol):
    """Turns results into the answer's bytes. It holds where it stands: one renderer, one answer."""

    def head(self) -> bytes: ...

    def open(self, step: Step) -> bytes:
        """Before anything of the step: its key, the brackets of a group."""

    def part(self, step: Step, reply: Reply) -> bytes:
        """One reply of the step."""

    def close(self, step: Step, outcome: Outcome) -> bytes:
        """After the step's replies and its children."""

    def whole(self, step: Step, reply: Reply) -> bytes:
        """A step with exactly one reply and no children: open, part and close in one call."""

    def tail(self) -> bytes: ...


class Dialect(Protocol):
    """One vendor's bulk format: how to parse the body, how to write the answer, and its rules."""

    @property
    def name(self) -> str: ...

    @property
    def rules(self) -> HeaderRules: ...

    def parse(self, bulk: BulkCall) -> Batch:
        """Raises `errors.Refused` for what makes the whole batch wrong."""

    def renderer(self, batch: Batch) -> Renderer: ...

    def refusal(self, status: int, reason: str, message: str) -> Answer:
        """A whole-batch error in the dialect's own shape. `reason` is of `errors.REASONS`."""

    def gate(self, batch: Batch, reply: Reply) -> Answer | None:
        """Asked once, of the first reply: an answer for the whole batch, or None."""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the body, from the declarations that parse it."""


Part = tuple[int, str, int, str, float]
"""Index, method, status (0: no answer), RFC 9209 error type or empty, seconds."""


class Trace(Protocol):
    """One outer request as a trace: the parent of its calls' spans."""

    id: str
    """32 hex digits: in logs and exemplars."""
    sampled: bool

    def header(self) -> str:
        """A `traceparent` for one call; every call has its own."""


class BatchRecord(msgspec.Struct, kw_only=True):
    """What one batch came to. Made when it is admitted, filled in on the way, told at its end."""

    id: str
    dialect: str
    endpoint: str = ""
    """The endpoint's path template."""
    client: str = ""
    """The peer's address."""
    trace: Trace | None = None
    outcome: str = ""
    """One of `OUTCOMES`; empty: by its counts, `ok`, `partial` or `failed`."""
    status: int = 200
    """The outer answer's."""
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    flawed: bool = False
    """A step that counts as ok has runs or pages that went wrong."""
    seconds: float = 0.0
    """From the whole request to the last byte of the answer."""
    first_byte: float | None = None
    """Until the first byte of the answer was written; None when none was."""
    bytes_in: int = 0
    bytes_out: int = 0

    # Kept by the recorder, as it is told of subrequests and skips.
    writes_sent: list[int] = []
    """Steps whose method is not safe and that may have reached the backend."""
    writes_unsent: list[int] = []
    """Those that did not."""
    parts: list[Part] = []
    """What the log's setting asks for."""


OUTCOMES = ("ok", "partial", "failed", "refused", "client_gone", "deadline", "cut")
"""How a batch ends: the `outcome` label of `gateway_batches_total`."""


class RefusedRecord(msgspec.Struct, kw_only=True):
    """A bulk call that was refused as a whole: nothing was sent."""

    id: str
    dialect: str
    reason: str
    """A slug of `errors.REASONS`."""
    status: int
    endpoint: str = ""
    client: str = ""
    message: str = ""
    """Place and mistake, `requests[3].url: missing`; never input."""
    trace: Trace | None = None


class PassRecord(msgspec.Struct, kw_only=True):
    """One request that went through, or did not, as it was."""

    id: str
    method: str
    target: str
    """As received; logs keep its path and the names in its query."""
    status: int = 0
    """0: no answer."""
    error: str = ""
    """An RFC 9209 error type when the gateway made the answer, or cut it."""
    outcome: str = "ok"
    """`ok`, `failed` (an answer of the gateway's), `client_gone`, `cut`, `tunnel`."""
    sent: bool = False
    """Whether any byte of it may have reached the backend."""
    client: str = ""
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    trace: Trace | None = None


class Recorder(Protocol):
    """Whoever wants a record of what happened: metrics, logs, traces. Told after the fact."""

    def trace(self, method: str, scheme: str, target: str, headers: Headers) -> Trace | None:
        """An outer request has come in. None: not traced, its trace headers go through."""

    def started(self, record: BatchRecord) -> None:
        """A batch was admitted; `batch` tells of its end."""

    def subrequest(self, record: BatchRecord, step: Step, reply: Reply) -> None:
        """A call ended, or was refused before it was sent (`reply.call` may be None then)."""

    def skipped(self, record: BatchRecord, step: Step, failure: Failure) -> None:
        """A step that will never run."""

    def batch(self, record: BatchRecord) -> None: ...

    def refused(self, record: RefusedRecord) -> None: ...

    def passthrough(self, record: PassRecord) -> None: ...

    def bug(self, where: str, record: BatchRecord | None = None) -> None:
        """A fault of ours, told inside its `except`: it is logged with its place, not its text."""

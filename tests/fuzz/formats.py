"""The bulk formats, from any body to the last byte of the answer.

An input is a body, and after each 0x1E the body of a reply. The walk is that of the golden cases:
parse, plan, schedule, calls, rendering, without network, clock or loop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from gateway import headers, target
from gateway.batch import BulkCall, Call, Dialect, Evaluate, Failure, Headers, Reply, failed
from gateway.dialects import create
from gateway.errors import Refused
from gateway.planning.graph import plan
from gateway.planning.nouns import Context, Plan
from gateway.target import PathRules
from gateway.templates import values
from gateway.upstream import wire
from tests.dialects.cases import Exchange, folders, read_request
from tests.fuzz.fields import NEVER_OWN
from tests.fuzz.hunt import Signs, Subject

SEPARATOR = b"\x1e"

WORDS = (
    b"requests", b"url", b"path", b"method", b"data", b"body", b"headers", b"query", b"onFail",
    b"name", b"value", b"resources", b"resource", b"integrated_account_id", b"args", b"depends_on",
    b"loop_on", b"persist", b"id", b"recurse", b"if", b"config", b"type", b"expression", b"GET",
    b"post", b"DELETE", b"abort", b"list", b"get", b"create", b"update", b"transform", b"spool",
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"1e999", b"-0", b"\\u0000",
    b"\\ud800", b"\\r\\n", b"\r\n", b"/v10/Accounts", b"v11_3/x", b"/a", b"/bulk", b"/v10/bulk",
    b"/batch", b"/api/2.3/batch", b"/../", b"%2e%2e", b"%2f", b"//", b"?a=b", b"#", b"\\\\", b"\\",
    b"http://gw/", b"http://evil/", b"${result=a:$.id}", b"${result=a:$..*}", b"${result=", b"{id}",
    b"{company.id}", b"{{args.a}}", b"{{args.ids}}", b"{{resources.a.id}}",
    b"{{resources.crm.a.id:int}}", b"{{", b"}}", b":undefined", b"|", b"?:", b"$truto_merge", b"a",
    b"b", b"crm/a", b"Content-Length", b"Transfer-Encoding", b"Host", b"Authorization", b"token",
    b"X-A", b"X_A", b"X-A: 1", b"X-Real-IP", b'{"a": 1}', b'{"requests":[', b'{"url":"/v10/a"}',
    b'{"path":"/a","method":"get"}', "é\u2028".encode(), SEPARATOR, SEPARATOR + b'{"id":1}',
    SEPARATOR + b"]}", SEPARATOR + b'{"result":[{"id":"x"}],"next_cursor":"c"}',
)  # fmt: skip

OUTER: Headers = (
    ("Host", "gw"),
    ("Authorization", "who-called"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("Idempotency-Key", "key"),
    ("Content-Type", "application/json"),
)
OF_THE_WHOLE = ("expected object, ", "a key stands twice", "number out of range", "nested ")
"""How mistakes begin that have no place in the document."""
KNOWN_METHODS = PathRules().methods
MOST_SUBREQUESTS = 30
MOST_CALLS = 60


def fuzzed(name: str, path: str, **options: Any) -> Subject:
    """A dialect behind an endpoint at this path."""
    dialect = create(name, options)
    return Subject(lambda data: _run(dialect, path, data), WORDS, _seeds(name), json=True)


def _seeds(dialect: str) -> Sequence[bytes]:
    of_dialect = [folder for folder in folders() if folder.parent.name == dialect]
    return [read_request((folder / "request.http").read_bytes()).body for folder in of_dialect]


def _run(dialect: Dialect, path: str, data: bytes) -> Signs:
    body, *replies = data.split(SEPARATOR)
    try:
        tree = plan(dialect.parse(_bulk(path, body)))
    except Refused as refused:
        return _refused(dialect, refused)
    _check_plan(tree)
    backend = _Backend(replies, dialect.rules.credentials)
    context = Context("id", _inherited(dialect), dialect.rules, idempotency_key="key")
    answer = Exchange(dialect, context, tree, backend.answer).run()
    _check_answer(tree, answer)
    refusals = (step.subrequest.refusal for step in tree.steps)
    wrong = {f"{why.label} {why.details}" for why in refusals if why is not None}
    return frozenset(wrong | backend.signs | {f"an answer of {min(len(tree.steps), 4)}"})


def _bulk(path: str, body: bytes) -> BulkCall:
    return BulkCall(
        path,
        "apiKey=who-called",
        OUTER,
        body,
        params={"prefix": "/p"},
        origins=frozenset({"http://gw:80"}),
        max_subrequests=MOST_SUBREQUESTS,
    )


def _inherited(dialect: Dialect) -> Headers:
    return headers.inherit(OUTER, dialect.rules, headers.HeaderPolicy(), trusted=False)


def _refused(dialect: Dialect, refused: Refused) -> Signs:
    """It says where and what, in the format's own shape, and quotes nothing unprintable."""
    place, _, mistake = refused.message.rpartition(": ")
    assert place or mistake.startswith(OF_THE_WHOLE), mistake
    assert refused.message.isprintable()
    assert len(refused.message) < 1000  # a place may be sixty levels deep
    answer = dialect.refusal(refused.status, refused.reason, refused.message)
    assert 400 <= answer.status < 600
    assert isinstance(json.loads(answer.body), dict)
    deep = min(place.count("."), 4)
    return frozenset({re.sub(r"\d+", "0", f"{refused.reason} {deep} deep: {mistake}")})


# --- a plan --------------------------------------------------------------------------------------


def _check_plan(tree: Plan) -> None:
    """What was accepted is fit to be sent."""
    assert len(tree.steps) <= MOST_SUBREQUESTS
    assert sorted(tree.delivery) == list(range(len(tree.steps)))
    for step in tree.steps:
        subrequest = step.subrequest
        assert subrequest.where
        assert subrequest.method == subrequest.method.upper()
        _check_fields(subrequest.headers)
        if isinstance(subrequest.target, str) and subrequest.target:
            assert target.normalise(subrequest.target) == subrequest.target
        if isinstance(subrequest.body, bytes):
            _check_json(subrequest.body)


def _check_fields(own: Headers) -> None:
    wire.encode(own)
    assert not {headers.normal(name) for name, _ in own} & NEVER_OWN


def _check_json(document: bytes) -> Any:
    try:
        return json.loads(document, parse_int=str, parse_float=str)
    except RecursionError:  # contents may be deeper than Python's parser likes
        return None


def _check_answer(tree: Plan, answer: bytes) -> None:
    """One document, with one result for each subrequest of the outermost list."""
    head, _, body = answer.partition(b"\n\n")
    document = _check_json(body)
    if document is None or not head.startswith(b"HTTP/1.1 200 "):
        return
    if tree.batch.dialect == "truto":  # as many as there are records
        assert list(document) == ["result", "errors"]
    else:
        results = document if tree.batch.dialect == "sugarcrm" else document["responses"]
        assert len(results) == len(tree.batch.subrequests)


# --- a backend -----------------------------------------------------------------------------------


class _Backend:
    """Answers with what the input says, and looks at what it is asked."""

    def __init__(self, bodies: Sequence[bytes], credentials: frozenset[str]) -> None:
        self._credentials = credentials
        self.signs: set[str] = set()
        self._bodies = cycle(bodies or [b'{"id":1}'])
        self._statuses = cycle((200, 201, 204, 404, 200, 500, 200, 302, 0))
        self._calls = 0

    def answer(self, work: Call | Evaluate) -> Reply:
        self._calls += 1
        status = next(self._statuses)
        if isinstance(work, Evaluate):
            self.signs.add("evaluates")
            return Reply(200, body=values.document(next(self._bodies)) or b"null")
        self._look_at(work)
        if self._calls > MOST_CALLS or not status:
            return failed(Failure("http_response_timeout", "backend_timeout", True), work)
        fields = ((b"Content-Type", b"application/json"), (b'X-"Odd', b'\\"\xff'))
        body = b"" if status == 204 else next(self._bodies)
        return Reply(status, b'"\\', fields, body, call=work)

    def _look_at(self, call: Call) -> None:
        """It is exactly one request, to a target that everybody reads alike, from one caller."""
        length = None if call.body is None else len(call.body)
        head = wire.head(call, wire.encode(call.headers), length)
        assert head.index(b"\r\n\r\n") == len(head) - 4
        assert b"6.6.6.6" not in head
        assert target.normalise(call.target) == call.target
        if call.body is not None:
            _check_json(call.body)
        fields = (*call.own, *call.headers, *call.extra)
        said = {pair for pair in fields if headers.normal(pair[0]) in self._credentials}
        assert said.isdisjoint(OUTER) or said.issubset(OUTER)
        shared = {headers.normal(name) for name, _ in call.headers}
        assert shared.isdisjoint(headers.normal(name) for name, _ in call.own)
        method = call.method if call.method in KNOWN_METHODS else "another method"
        self.signs.add(f"{method}, body {call.body is not None}")

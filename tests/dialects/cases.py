"""Golden cases: a folder each, `data/<dialect>/<case>/`.

    request.http    the bulk call, as a client sends it; lines of the head end in LF
    options.json    the dialect's options, if any
    upstream.json   what the backend answers, in the order of the calls; `sent` is a body that
                    must have gone up, and `evaluate` an expression with its value
    plan.json       what would be sent: calls with their merged fields, order, refusals
    response.http   the answer, byte for byte

The walk is the gateway's own, without network, clock or loop: parse, plan, schedule, call, render.
What the gateway adds to every call (Host, Via, X-Forwarded-*) and to every answer is left out.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gateway import headers, target
from gateway.batch import (
    Answer,
    BulkCall,
    Call,
    Dialect,
    Evaluate,
    Failure,
    Headers,
    Outcome,
    Reply,
    Step,
    failed,
)
from gateway.dialects import create
from gateway.errors import Refused
from gateway.planning import expand
from gateway.planning.delivery import GROUP, Delivery
from gateway.planning.graph import plan
from gateway.planning.nouns import Context, Plan
from gateway.planning.schedule import Schedule, Skip
from gateway.statuses import PHRASES

DATA = Path(__file__).parent / "data"
WIDTH = 8


def folders() -> list[Path]:
    return sorted(path.parent for path in DATA.glob("*/*/request.http"))


def read_request(text: bytes) -> BulkCall:
    """A request as it stands in a file."""
    head, _, body = text.partition(b"\n\n")
    line, *fields = head.decode("latin-1").split("\n")
    _, address, _ = line.split(" ")
    path, _, query = address.partition("?")
    outer = tuple((name, value.strip()) for name, _, value in (f.partition(":") for f in fields))
    host = headers.first(outer, "host") or "localhost"
    origins = frozenset({target.origin("http", host), target.origin("https", host)})
    return BulkCall(path, query, outer, body, origins=origins)


class Case:
    """One folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dialect = create(folder.parent.name, self._json("options.json") or {})
        self.bulk = read_request((folder / "request.http").read_bytes())

    def _json(self, name: str) -> Any:
        path = self.folder / name
        return json.loads(path.read_bytes()) if path.exists() else None

    @cached_property
    def tree(self) -> Plan | Refused:
        try:
            return plan(self.dialect.parse(self.bulk))
        except Refused as refused:
            return refused

    @cached_property
    def context(self) -> Context:
        rules = self.dialect.rules
        inherited = headers.inherit(self.bulk.headers, rules, headers.HeaderPolicy(), trusted=False)
        key = headers.first(self.bulk.headers, "idempotency-key")
        return Context("id", inherited, rules, idempotency_key=key)

    # --- plan.json ---------------------------------------------------------------------------

    def plan(self) -> bytes:
        if isinstance(self.tree, Refused):
            shown: Any = {"refused": self.tree.reason, "message": self.tree.message}
        else:
            shown = {
                "gated": self.tree.batch.gated,
                "keyed": self.tree.batch.keyed,
                "steps": [self._step(step) for step in self.tree.steps],
            }
        return json.dumps(shown, indent=1, ensure_ascii=False).encode() + b"\n"

    def _step(self, step: Step) -> dict[str, Any]:
        subrequest = step.subrequest
        shown = {
            "where": subrequest.where,
            "key": subrequest.key,
            **self._wish(step),
            "barrier": subrequest.barrier,
            "needs": step.needs,
            "follows": step.follows,
        }
        return {name: value for name, value in shown.items() if value not in (None, False, ())}

    def _wish(self, step: Step) -> dict[str, Any]:
        refusal = step.subrequest.refusal
        if refusal is not None:
            return {"refused": f"{refusal.code} {refusal.label}", "message": refusal.message}
        if not step.subrequest.target:
            return _open(step) or {"holds": step.size - 1}
        call = expand.sketch(step, self.context)
        fields = [f"{name}: {value}" for name, value in (*call.own, *call.headers, *call.extra)]
        shown = {"send": line(call), "headers": fields, "body": _shown(call.body)}
        return {**shown, **_open(step)}

    # --- response.http -----------------------------------------------------------------------

    def response(self) -> bytes:
        if isinstance(self.tree, Refused):
            refused = self.tree
            return _whole(self.dialect.refusal(refused.status, refused.reason, refused.message))
        canned = _CannedReplies(self._json("upstream.json") or [])
        response = Exchange(self.dialect, self.context, self.tree, canned.answer).run()
        assert not canned.left, "replies that nobody asked for"
        return response


class Exchange:
    """One run of a plan; `answer` is the backend, and the helper for expressions."""

    def __init__(
        self,
        dialect: Dialect,
        context: Context,
        tree: Plan,
        answer: Callable[[Call | Evaluate], Reply],
    ) -> None:
        self._dialect = dialect
        self._context = context
        self._plan = tree
        self._answer = answer
        self._schedule = Schedule(tree, WIDTH)
        self._delivery = Delivery(tree, dialect.renderer(tree.batch), _fault)
        self._gated = tree.batch.gated
        self._outcomes: dict[int, Outcome] = {}

    def run(self) -> bytes:
        waiting = deque(self._schedule.begin())
        while waiting:
            step = self._plan.steps[waiting.popleft()]
            if step.subrequest.refusal is None and not step.subrequest.plain:
                answer, outcome = self._expand(step)
                if answer is not None:
                    return _whole(answer)
                waiting.extend(self._finish(step, outcome.failed))
                continue
            reply = self._reply(step)
            answer = self._gate(step, reply)
            if answer is not None:
                return _whole(answer)
            self._delivery.replies[step.index] = reply
            waiting.extend(self._finish(step, reply.failed))
        self._delivery.advance()
        assert self._delivery.done
        return _head(200, (("Content-Type", "application/json"),)) + self._delivery.take().data

    def _finish(self, step: Step, bad: bool) -> list[int]:
        starts, skips = self._schedule.finish(step.index, failed=bad)
        for skip in skips:
            self._skip(skip)
        return starts

    def _expand(self, step: Step) -> tuple[Answer | None, Outcome]:
        """A step of many calls: one after another, in the order in which it asks for them."""
        expansion = expand.start(step, self._context, self._outcomes)
        self._delivery.source(step.index, expansion)
        waiting = deque(expansion.begin(1000))
        while waiting:
            work = waiting.popleft()
            reply = self._answer(work)
            answer = self._gate(step, reply)
            if answer is not None:
                return answer, expansion.outcome()
            waiting.extend(expansion.took(work, reply))
        outcome = self._outcomes[step.index] = expansion.outcome()
        self._delivery.end(step.index, outcome)
        return None, outcome

    def _reply(self, step: Step) -> Reply:
        subrequest = step.subrequest
        if subrequest.refusal is not None:
            return failed(subrequest.refusal)
        if not subrequest.target:
            return GROUP
        return self._answer(expand.call(step, self._context))

    def _gate(self, step: Step, reply: Reply) -> Answer | None:
        if not self._gated or reply is GROUP or reply.call is None:
            return None
        self._gated = False
        return self._dialect.gate(self._plan.batch, reply) if not reply.failure else None

    def _skip(self, skip: Skip) -> None:
        """As `execution` words it."""
        first = self._plan.steps[skip.because].subrequest
        slug = "onfail_abort" if first.barrier else "dependency_failed"
        message = f"{first.where} failed, so this was skipped"
        failure = Failure("proxy_internal_response", slug, message=message)
        self._delivery.replies[skip.step] = failed(failure)


def _fault() -> None:
    """Told of a result that could not be rendered, within the `except`: the case fails with it."""
    raise


class _CannedReplies:
    """What stands in upstream.json."""

    def __init__(self, replies: list[dict[str, Any]]) -> None:
        self.left = deque(replies)

    def answer(self, work: Call | Evaluate) -> Reply:
        canned = self.left.popleft()
        if isinstance(work, Evaluate):
            assert canned.pop("evaluate") == work.expression
            if "context" in canned:
                assert canned.pop("context") == json.loads(work.context)
            return canned_reply(canned, None)
        assert canned.pop("to") == line(work)
        if "sent" in canned:
            assert canned.pop("sent") == _shown(work.body)
        return canned_reply(canned, work)


@dataclass
class _Canned:
    """The members of a reply in upstream.json, beside `to`."""

    status: int = 200
    reason: str = "OK"
    headers: tuple[str, ...] = ("Content-Type: application/json",)
    body: str = ""
    base64: str = ""
    failure: dict[str, Any] | None = None


def canned_reply(members: dict[str, Any], call: Call | None) -> Reply:
    canned = _Canned(**members)
    if canned.failure:
        return failed(Failure(**canned.failure), call)
    pairs = (field.partition(": ") for field in canned.headers)
    return Reply(
        canned.status,
        canned.reason.encode(),
        tuple((name.encode(), value.encode("latin-1")) for name, _, value in pairs),
        canned.body.encode() or base64.b64decode(canned.base64),
        call=call,
    )


def line(call: Call) -> str:
    return f"{call.method} {call.target}"


def _open(step: Step) -> dict[str, Any]:
    """What is still to be decided about a step when the plan is made."""
    recipe = step.subrequest.recipe
    shown: dict[str, Any] = {"reads": dict(step.sources)} if step.sources else {}
    if recipe is None:
        return shown
    paging = recipe.paging
    return shown | {
        "loops": tuple(loop.text for loop in recipe.loops),
        "expressions": tuple(expression.text for expression in recipe.expressions),
        "pages": f"{paging.parameter} from {'.'.join(paging.cursor)}" if paging else None,
        "recurses": recipe.recurse.when.text if recipe.recurse else None,
        "kept": recipe.keep is not None,
        "quiet": recipe.quiet,
    }


def _shown(body: bytes | None) -> str | None:
    return None if body is None else body.decode()


def _whole(answer: Answer) -> bytes:
    fields = (("Content-Type", answer.content_type), *answer.headers)
    return _head(answer.status, fields) + answer.body


def _head(status: int, fields: Headers) -> bytes:
    lines = [f"HTTP/1.1 {status} {PHRASES[status]}", *(f"{n}: {v}" for n, v in fields)]
    return "".join(f"{text}\n" for text in [*lines, ""]).encode("latin-1")

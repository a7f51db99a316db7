"""Whatever the backend's latencies, the same calls go up and the same bytes come down."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from gateway.batch import Call, Evaluate, Failure, Outcome, Reply, Step, failed
from gateway.dialects import DIALECTS
from gateway.planning import expand
from gateway.planning.delivery import GROUP, Delivery
from gateway.planning.nouns import Plan
from gateway.planning.schedule import Schedule
from tests.dialects.cases import DATA, Case, canned_reply, folders, line

SKIPPED = Failure("proxy_internal_response", "dependency")


def _runs_to_its_end(case: Case) -> bool:
    """No answer stands for the whole, and no two calls are alike, so replies cannot be swapped."""
    canned = case._json("upstream.json") or []
    lines = Counter(reply.get("to", reply.get("evaluate")) for reply in canned)
    gated = not case.response().startswith(b"HTTP/1.1 200 ")
    return not gated and max(lines.values(), default=0) <= 1


CASES = [case for folder in folders() if _runs_to_its_end(case := Case(folder))]
EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.folder.relative_to(DATA)))


class Carried:
    """A plan carried out with replies that come in any order."""

    def __init__(self, case: Case, order: random.Random, width: int) -> None:
        assert isinstance(case.tree, Plan)
        self._case = case
        self._order = order
        self._plan = case.tree
        self._canned = {
            reply.get("to", reply.get("evaluate")): reply
            for reply in case._json("upstream.json") or []
        }
        self._schedule = Schedule(self._plan, width)
        self._delivery = Delivery(self._plan, case.dialect.renderer(self._plan.batch), _fault)
        self._expansions: dict[int, expand.Expansion] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._flying: list[Call | Evaluate] = []
        self.body = b""
        self.sent: Counter[str] = Counter()

    def run(self) -> Carried:
        self._launch(self._schedule.begin())
        while self._flying:
            work = self._flying.pop(self._order.randrange(len(self._flying)))
            reply = self._answer(work)
            step = self._plan.steps[work.step]
            if work.step in self._expansions:
                self._launch(self._go_on(step, self._expansions[work.step].took(work, reply)))
            else:
                self._launch(self._end(step, reply))
            self._write()
        self._write()
        assert self._delivery.done
        return self

    def _write(self) -> None:
        self._delivery.advance()
        self.body += self._delivery.take().data

    def _answer(self, work: Call | Evaluate) -> Reply:
        asked = line(work) if isinstance(work, Call) else work.expression
        self.sent[asked] += 1
        members = dict(self._canned[asked])
        for name in ("to", "evaluate", "sent", "context"):
            members.pop(name, None)
        return canned_reply(members, work if isinstance(work, Call) else None)

    def _launch(self, starts: list[int]) -> None:
        for index in starts:
            step = self._plan.steps[index]
            if step.subrequest.refusal is not None:
                starts += self._end(step, failed(step.subrequest.refusal))
            elif not step.subrequest.plain:
                expansion = expand.start(step, self._case.context, self._outcomes)
                self._expansions[index] = expansion
                self._delivery.source(index, expansion)
                starts += self._go_on(step, expansion.begin(1000))
            elif step.subrequest.target:
                self._flying.append(expand.call(step, self._case.context))
            else:
                starts += self._end(step, GROUP)

    def _go_on(self, step: Step, works: Any) -> list[int]:
        self._flying += works
        expansion = self._expansions[step.index]
        if not expansion.done:
            return []
        outcome = self._outcomes[step.index] = expansion.outcome()
        self._delivery.end(step.index, outcome)
        return self._finish(step, outcome.failed)

    def _end(self, step: Step, reply: Reply) -> list[int]:
        self._delivery.replies[step.index] = reply
        return self._finish(step, reply.failed)

    def _finish(self, step: Step, bad: bool) -> list[int]:
        starts, skips = self._schedule.finish(step.index, failed=bad)
        for skip in skips:
            self._delivery.replies[skip.step] = failed(SKIPPED)
        return starts


def _fault() -> None:
    raise AssertionError("a result could not be rendered")


@EACH
@pytest.mark.parametrize("width", [1, 3, 8])
def test_an_answer_does_not_depend_on_when_replies_come(case: Case, width: int) -> None:
    first = Carried(case, random.Random(0), 1).run()
    json.loads(first.body)
    for seed in range(8):
        other = Carried(case, random.Random(seed), width).run()
        assert other.body == first.body
        assert other.sent == first.sent


def test_there_are_such_cases_of_every_dialect() -> None:
    assert {case.dialect.name for case in CASES} == set(DIALECTS)

"""One batch on its way, told as a dialogue with a pool that answers when the test says so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import (
    Answer,
    Batch,
    BatchRecord,
    BulkCall,
    Call,
    Failure,
    HeaderRules,
    Outcome,
    Recipe,
    Reply,
    Scope,
    Step,
    Subrequest,
    failed,
)
from gateway.dialects import create
from gateway.errors import Unresolved
from gateway.execution import LARGE, Execution, Run, Terms
from gateway.headers import HeaderPolicy
from gateway.planning.graph import plan
from gateway.planning.nouns import Context


class Lane:
    """A pool's lane whose calls lie about until the test answers them."""

    def __init__(self, taker: Run) -> None:
        self.taker = taker
        self.calls: list[Call] = []
        self.held = 0
        self.over_budget = False
        self.left = False

    def submit(self, call: Call) -> None:
        assert not self.left
        self.calls.append(call)

    def hold(self, size: int) -> None:
        self.held += size

    def release(self, size: int) -> None:
        self.held -= size

    def reconsider(self) -> None: ...

    def outstanding(self) -> Iterator[Call]:
        return iter(self.calls)

    def stop(self, verdict: Callable[[Call], Failure | None]) -> None:
        for call in list(self.calls):
            failure = verdict(call)
            if failure is not None:
                self.answer(call, failed(failure, call))

    def leave(self) -> None:
        self.left = True

    def answer(self, call: Call, reply: Reply) -> None:
        self.calls.remove(call)
        reply.call = call
        reply.held = len(reply.body)
        self.held += reply.held
        self.taker.replied(call, reply)


class Pool:
    def lane(self, taker: Run) -> Lane:
        self.last = Lane(taker)
        return self.last


class Telling:
    """A recorder that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *what: self.told.append((event, what))

    def steps(self) -> list[int]:
        """The steps it was told of, by result or skip."""
        return sorted(
            what[1].index for event, what in self.told if event in ("subrequest", "skipped")
        )

    @property
    def failures(self) -> list[Failure]:
        """Why steps failed that nobody answered."""
        found = [
            what[2].failure if event == "subrequest" else what[2]
            for event, what in self.told
            if event in ("subrequest", "skipped")
        ]
        return [failure for failure in found if failure is not None]

    @property
    def ended(self) -> list[BatchRecord]:
        return [what[0] for event, what in self.told if event == "batch"]


class Digits:
    """A dialect whose answer is each step's number and status; children in brackets."""

    name = "digits"
    rules = HeaderRules()

    def __init__(self, gate: Answer | None = None, broken: bool = False) -> None:
        self._gate = gate
        self._broken = broken

    def renderer(self, batch: Batch) -> Digits:
        return self

    def gate(self, batch: Batch, reply: Reply) -> Answer | None:
        return self._gate if reply.status == 401 else None

    def head(self) -> bytes:
        return b"<"

    def open(self, step: Step) -> bytes:
        return b"%d(" % step.index

    def part(self, step: Step, reply: Reply) -> bytes:
        return b"%d " % reply.status

    def close(self, step: Step, outcome: Outcome) -> bytes:
        return b")"

    def whole(self, step: Step, reply: Reply) -> bytes:
        if self._broken and reply.failure is None:
            raise ZeroDivisionError
        return b"%d:%d " % (step.index, reply.status)

    def tail(self) -> bytes:
        return b">"


def sub(method: str = "GET", place: int = 0, **more: Any) -> Subrequest:
    more.setdefault("target", f"/{place}")
    return Subrequest(where=f"requests[{place}]", method=method, **more)


def letters(text: str) -> tuple[Subrequest, ...]:
    """`rwRW`: reads and writes; capitals are barriers."""
    return tuple(
        sub("GET" if c in "rR" else "POST", i, barrier=c.isupper()) for i, c in enumerate(text)
    )


class Scene:
    """A run and everybody around it."""

    def __init__(
        self,
        *subrequests: Subrequest,
        width: int = 8,
        dialect: Digits | None = None,
        gated: bool = False,
        seconds: float = 60.0,
        grace: float = 10.0,
        flush: float = 0.0,
        flush_bytes: int = 1 << 20,
        refuse: frozenset[str] = frozenset(),
        drain: float | None = None,
    ) -> None:
        """`drain`: one has begun before the run, and lasts so many seconds more."""
        self.recorder = Telling()
        self.pool = Pool()
        self.execution = Execution(None, self.recorder)  # type: ignore[arg-type]
        self.now = 1000.0
        self.execution.clock = lambda: self.now
        if drain is not None:
            self.execution.drain(self.now + drain)
        batch = Batch(dialect="digits", subrequests=subrequests, gated=gated)
        denied = Failure("http_request_denied", "path_denied")
        self.run = self.execution.run(
            self.pool,
            plan(batch),
            dialect or Digits(),  # type: ignore[arg-type]
            Context(batch_id="b", headers=(), rules=HeaderRules()),
            Terms(width, flush, flush_bytes, seconds, grace),
            lambda method, target: denied if target in refuse else None,
            BatchRecord(id="b", dialect="digits"),
        )
        self.lane = self.pool.last

    @property
    def waiting(self) -> list[int]:
        """Steps whose calls the backend has."""
        return [call.step for call in self.lane.calls]

    def answer(self, step: int, status: int = 200, body: bytes = b"{}") -> None:
        call = next(call for call in self.lane.calls if call.step == step)
        call.sent = True
        self.lane.answer(call, Reply(status, body=body))

    def sent(self, *steps: int) -> None:
        for call in self.lane.calls:
            if call.step in steps:
                call.sent = True

    async def due(self) -> None:
        """Until there is something to write."""
        due = asyncio.Event()
        self.run.when_due(due.set)
        await due.wait()

    def text(self) -> str:
        """Takes what is ready, as the writer does."""
        chunk = self.run.take()
        self.run.written(chunk)
        return chunk.data.decode()


async def test_results_leave_in_client_order_whatever_the_order_of_replies() -> None:
    scene = Scene(*letters("rrr"))
    scene.answer(2, 202)
    scene.answer(0, 200)
    assert scene.text() == "<0:200 "
    scene.answer(1, 201)
    assert scene.text() == "1:201 2:202 >"
    assert scene.run.complete


class Whole(msgspec.Struct, frozen=True):
    """Keeps a reply as it is."""

    def pick(self, reply: Reply) -> list[bytes]:
        return [reply.body]


class Named(msgspec.Struct, frozen=True):
    """A target that stands in a result."""

    text: str

    def fill(self, scope: Scope) -> str:
        return bytes(scope[self.text][0]).decode()


async def test_what_steps_keep_for_others_has_a_bound_together() -> None:
    """Each of the five keeps 84 bytes, and as much as four may keep is kept: 400."""
    kept = Recipe(keep=Whole(), most_kept=100)
    firsts = [sub(place=i, name=f"a{i}", recipe=kept) for i in range(5)]
    readers = [
        sub(place=5 + i, target=Named(f"a{i}"), reads=(f"a{i}",), recipe=Recipe()) for i in range(5)
    ]
    scene = Scene(*firsts, *readers, width=20)
    for i in range(5):
        scene.answer(i, body=b"/" + b"x" * 19)
    assert [call.target for call in scene.lane.calls] == ["/" + "x" * 19] * 4
    assert scene.lane.held == 5 * 20 + 4 * 84
    (why,) = scene.recorder.failures
    assert why.message == "requests[9]: what it reads is more than may be kept"


class Over(msgspec.Struct, frozen=True):
    """A loop over these; `nowhere` is no target."""

    values: tuple[bytes, ...]
    text: str = "x"

    def scopes(self, scope: Scope) -> Iterator[Scope]:
        return ({"x": (value,)} for value in self.values)


def loop(*values: bytes) -> Subrequest:
    return sub(name="loop", target=Named("x"), recipe=Recipe(loops=(Over(values),)))


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_loop_whose_runs_end_at_once_goes_on_turn_by_turn_to_its_end(leaves: bool) -> None:
    scene = Scene(loop(*[b"nowhere"] * 100), sub(place=1, target="/"), width=4)
    assert scene.waiting == [1]
    if leaves:
        scene.run.abandon()
    else:
        scene.answer(1)
    async with asyncio.timeout(10):
        while not (scene.recorder.ended if leaves else scene.run.complete):
            await asyncio.sleep(0)
    assert scene.recorder.steps() == [0] * 100 + [1]
    if not leaves:
        assert scene.text() == "<0(" + "400 " * 100 + ")1:200 >"


async def test_a_loop_that_replies_bring_to_its_end_before_its_turn_comes_ends_once() -> None:
    scene = Scene(loop(b"/a", b"/b", *[b"nowhere"] * 20), sub(place=1, target="/"))
    assert scene.waiting == [0, 0, 1]
    scene.answer(0)
    scene.answer(0)
    await asyncio.sleep(0)
    assert scene.text() == "<0(200 200 " + "400 " * 20 + ")"
    scene.answer(1)
    assert scene.text() == "1:200 >"
    assert (scene.run.record.ok, scene.run.record.failed) == (2, 0)
    assert scene.run.record.flawed, "not everything went well"


HEAVY = b'"' + b"x" * LARGE + b'"'


async def test_large_answers_are_taken_in_one_at_a_time_and_others_in_between() -> None:
    scene = Scene(*letters("rrrr"))
    for step in (0, 1, 2):
        scene.answer(step, body=HEAVY)
    scene.answer(3)
    taken = [scene.recorder.steps()]
    while not scene.run.complete:
        await asyncio.sleep(0)
        taken.append(scene.recorder.steps())
    assert taken == [[3], [0, 3], [0, 1, 3], [0, 1, 2, 3]]
    assert scene.text() == "<0:200 1:200 2:200 3:200 >"


async def test_a_large_answer_counts_until_it_is_taken_in() -> None:
    """Whether its client leaves meanwhile, or the process ends."""
    scene, other = Scene(*letters("w")), Scene(*letters("w"))
    for ending in (scene, other):
        ending.answer(0, body=HEAVY)
        ending.run.abandon()
        assert not ending.recorder.ended
    other.execution.close()
    assert other.recorder.steps() == [0]
    assert other.recorder.ended
    await asyncio.sleep(0)
    assert scene.recorder.steps() == [0]
    assert scene.recorder.ended
    assert scene.lane.held == 0


async def test_a_batch_without_subrequests_is_complete_at_once() -> None:
    scene = Scene()
    await scene.due()
    assert scene.text() == "<>"
    scene.run.finished()
    assert scene.recorder.ended[0].ok == 0


async def test_the_writer_is_woken_by_the_flush_timer_while_results_are_missing() -> None:
    scene = Scene(*letters("rr"))
    scene.answer(0)
    await scene.due()
    assert scene.text() == "<0:200 "
    assert not scene.run.complete


async def test_enough_bytes_wake_the_writer_before_the_timer_does() -> None:
    scene = Scene(*letters("rrr"), flush=3600, flush_bytes=len(b"0:200 1:200 "))
    due = asyncio.ensure_future(scene.due())
    scene.answer(0)
    await asyncio.sleep(0)
    assert not due.done()
    scene.answer(1)
    await asyncio.wait_for(due, 10)
    assert scene.text() == "<0:200 1:200 "


async def test_the_last_result_wakes_the_writer_at_once() -> None:
    scene = Scene(*letters("r"), flush=3600)
    due = asyncio.ensure_future(scene.due())
    await asyncio.sleep(0)
    assert not due.done()
    scene.answer(0)
    await due


async def test_a_failed_barrier_gives_every_later_step_a_424() -> None:
    scene = Scene(*letters("wWrw"))
    scene.answer(0)
    scene.answer(1, 400)
    assert scene.text() == "<0:200 1:400 2:424 3:424 >"
    scene.run.finished()
    (record,) = scene.recorder.ended
    assert (record.ok, record.failed, record.skipped) == (1, 1, 2)


async def test_an_entry_refused_by_the_rules_is_a_403_and_the_rest_runs() -> None:
    scene = Scene(*letters("rrr"), refuse=frozenset({"/1"}))
    assert scene.waiting == [0, 2]
    scene.answer(0)
    scene.answer(2)
    assert scene.text() == "<0:200 1:403 2:200 >"


class Missing:
    """A target with a reference that finds nothing."""

    text = "/${gone}"

    def fill(self, scope: object) -> str:
        raise Unresolved("requests[0]: a reference finds nothing")


async def test_a_write_that_cannot_be_made_is_told_of_like_one_that_was_refused() -> None:
    scene = Scene(sub("POST", 0, target=Missing()), sub(place=1))
    scene.answer(1)
    assert scene.text() == "<0(424 )1:200 >"
    scene.run.finished()
    assert scene.recorder.steps() == [0, 1]
    (failure,) = scene.recorder.failures
    assert (failure.details, failure.sent) == ("unresolved_reference", False)


async def test_ten_thousand_entries_that_are_never_sent_are_no_recursion() -> None:
    refusal = Failure("http_request_error", "no_method", status=404)
    scene = Scene(*(sub(place=i, refusal=refusal) for i in range(10_000)))
    assert scene.run.complete
    assert scene.text().count(":404 ") == 10_000


async def test_a_group_is_opened_before_its_children_and_closed_after_the_last() -> None:
    group = sub(place=0, target="", children=(sub(place=1), sub(place=2)))
    scene = Scene(group, sub(place=3))
    scene.answer(1)
    assert scene.text() == "<0(1:200 "
    scene.answer(3)
    scene.answer(2)
    assert scene.text() == "2:200 )3:200 >"


async def test_a_parent_with_a_call_of_its_own_is_written_before_its_children() -> None:
    scene = Scene(sub("POST", 0, children=(sub("POST", 1),)), sub("POST", 2))
    scene.answer(0, 201)
    scene.answer(1, 404)
    scene.answer(2)
    assert scene.text() == "<0(201 1:404 )2:200 >"


async def test_a_bug_in_one_result_costs_that_result_alone() -> None:
    scene = Scene(*letters("r"), dialect=Digits(broken=True))
    scene.answer(0)
    assert scene.text() == "<0:500 >"


# --- the gate ------------------------------------------------------------------------------------

REFUSED = Answer(401, b"no")


async def test_a_first_401_becomes_the_answer_and_nothing_more_is_sent() -> None:
    scene = Scene(*letters("rrw"), dialect=Digits(REFUSED), gated=True)
    scene.answer(0, 401)
    await scene.due()
    assert scene.run.answer is REFUSED
    assert scene.waiting == []
    scene.run.finished()
    assert scene.recorder.ended


async def test_the_head_waits_for_the_first_reply_even_when_later_ones_are_there() -> None:
    scene = Scene(*letters("rr"), dialect=Digits(REFUSED), gated=True)
    scene.answer(1)
    due = asyncio.ensure_future(scene.due())
    await asyncio.sleep(0.01)
    assert not due.done()
    scene.answer(0)
    await due
    assert scene.text() == "<0:200 1:200 >"


async def test_a_later_401_stays_its_entrys() -> None:
    scene = Scene(*letters("rr"), dialect=Digits(REFUSED), gated=True)
    scene.answer(0)
    scene.answer(1, 401)
    assert scene.run.answer is None
    assert scene.text() == "<0:200 1:401 >"


async def test_no_answer_to_the_first_call_opens_the_gate() -> None:
    scene = Scene(*letters("rr"), dialect=Digits(REFUSED), gated=True)
    call = scene.lane.calls[0]
    scene.lane.answer(call, failed(Failure("connection_refused", "refused"), call))
    scene.answer(1)
    await scene.due()
    assert scene.text() == "<0:502 1:200 >"


async def test_when_nothing_was_ever_sent_the_gate_holds_nothing_back() -> None:
    refusal = Failure("http_request_error", "no_method", status=404)
    scene = Scene(sub(place=0, refusal=refusal), dialect=Digits(REFUSED), gated=True)
    await scene.due()
    assert scene.text() == "<0:404 >"


# --- deadlines, clients that leave, drain --------------------------------------------------------


async def test_at_the_deadline_what_is_finished_is_delivered_and_the_rest_says_if_it_went() -> None:
    scene = Scene(*letters("rrwr"), width=2)
    scene.answer(0)
    scene.sent(1)
    scene.now += 61
    scene.run.tick(scene.now)
    assert scene.text() == "<0:200 1:504 2:504 3:504 >"
    assert [(failure.error, failure.sent) for failure in scene.recorder.failures] == [
        ("proxy_internal_response", False),
        ("proxy_internal_response", False),
        ("http_response_timeout", True),
    ]
    scene.run.finished()
    assert scene.recorder.ended[0].outcome == "deadline"


async def test_a_deadline_that_finds_nothing_unfinished_is_nobodys_end() -> None:
    """The results wait for a client that is slow to take them."""
    scene = Scene(*letters("r"))
    scene.answer(0)
    scene.now += 61
    scene.run.tick(scene.now)
    assert scene.text() == "<0:200 >"
    scene.run.finished()
    assert scene.recorder.ended[0].outcome == ""


async def test_an_answer_that_was_cut_after_its_deadline_was_cut() -> None:
    scene = Scene(*letters("rr"))
    scene.answer(0)
    scene.sent(1)
    scene.now += 61
    scene.run.tick(scene.now)
    scene.run.abandon("cut")
    assert scene.recorder.ended[0].outcome == "cut"


async def test_when_the_client_leaves_reads_end_and_writes_that_were_sent_go_on() -> None:
    scene = Scene(*letters("w"), *letters("r"))
    scene.sent(0)
    scene.run.abandon()
    assert scene.waiting == [0]
    assert not scene.recorder.ended
    scene.answer(0, 201)
    (record,) = scene.recorder.ended
    assert record.outcome == "client_gone"
    assert scene.recorder.steps() == [0, 1]
    assert scene.lane.left


async def test_when_the_client_leaves_reads_that_were_sent_end_at_once() -> None:
    scene = Scene(*letters("rrw"))
    scene.sent(0)
    scene.sent(1)
    scene.run.abandon()
    assert scene.waiting == []
    assert scene.recorder.ended
    assert scene.recorder.steps() == [0, 1, 2]


async def test_a_write_that_outlives_its_client_ends_with_the_grace() -> None:
    scene = Scene(*letters("w"), grace=10)
    scene.sent(0)
    scene.run.abandon()
    scene.now += 11
    scene.run.tick(scene.now)
    assert scene.waiting == []
    assert scene.recorder.ended


async def test_what_was_buffered_for_a_client_that_left_is_let_go_of() -> None:
    scene = Scene(*letters("rrw"))
    scene.answer(1, body=b"x" * 1000)
    assert scene.lane.held == 1000
    scene.run.abandon()
    assert scene.lane.held == 0


@pytest.mark.parametrize("late", [False, True])
async def test_a_drain_bounds_batches_that_run_and_those_that_still_come(late: bool) -> None:
    scene = Scene(*letters("r"), drain=5 if late else None)
    if not late:
        scene.execution.drain(scene.now + 5)
    scene.now += 6
    scene.run.tick(scene.now)
    assert scene.text() == "<0:503 >"
    scene.run.finished()
    await scene.execution.idle.wait()


async def test_a_batchs_own_deadline_is_its_own_during_a_drain_too() -> None:
    scene = Scene(*letters("rw"))
    scene.execution.drain(scene.now + 90)
    scene.now += 61
    scene.run.tick(scene.now)
    assert scene.text() == "<0:504 1:504 >"
    scene.run.finished()
    assert [failure.details for failure in scene.recorder.failures] == ["batch_deadline"] * 2


async def test_when_the_process_ends_what_has_not_was_shut_down() -> None:
    scene = Scene(*letters("rw"))
    scene.execution.close()
    assert scene.text() == "<0:503 1:503 >"
    scene.run.finished()
    assert [failure.details for failure in scene.recorder.failures] == ["shutting_down"] * 2


async def test_memory_is_released_when_the_client_has_the_bytes() -> None:
    scene = Scene(*letters("r"))
    scene.answer(0, body=b"x" * 100)
    chunk = scene.run.take()
    assert scene.lane.held == 100
    scene.run.written(chunk)
    assert scene.lane.held == 0


async def test_only_what_the_answer_waits_for_is_urgent() -> None:
    scene = Scene(*letters("rrr"))
    first, second, _ = scene.lane.calls
    assert scene.run.urgent(first)
    assert not scene.run.urgent(second)
    scene.answer(0)
    assert not scene.run.urgent(second), "a result waits for the client"
    chunk = scene.run.take()
    assert not scene.run.urgent(second), "it is on its way to the client"
    scene.run.written(chunk)
    assert scene.run.urgent(second)


# --- whatever happens ----------------------------------------------------------------------------


@given(
    st.text("rwRW", max_size=12),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
    st.sampled_from(["", "gone", "deadline"]),
)
def test_every_step_has_exactly_one_result_and_nothing_is_left(
    text: str, width: int, chance: random.Random, accident: str
) -> None:
    async def story() -> None:
        scene = Scene(*letters(text), width=width)
        when = chance.randrange(len(text) + 1)
        for number in range(len(text) + 1):
            if accident and number == when:
                for call in scene.lane.calls:
                    call.sent = chance.random() < 0.5
                if accident == "gone":
                    scene.run.abandon()
                else:
                    scene.now += 61
                    scene.run.tick(scene.now)
            assert len(scene.waiting) <= width
            if scene.waiting:
                scene.answer(chance.choice(scene.waiting), chance.choice([200, 500]))
        while scene.waiting:
            scene.answer(scene.waiting[0])
        if accident != "gone":
            assert scene.text().count(":") == len(text)
            scene.run.finished()
        else:
            scene.run.abandon()
        assert scene.recorder.steps() == list(range(len(text)))
        (record,) = scene.recorder.ended
        assert record.ok + record.failed + record.skipped == len(text)
        assert scene.lane.left
        assert not len(scene.execution)

    asyncio.run(story())


@given(st.text("rwR", max_size=10), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_timing_of_replies(
    text: str, width: int, chance: random.Random
) -> None:
    async def answer(shuffled: bool) -> str:
        scene = Scene(*letters(text), width=width)
        while scene.waiting:
            step = chance.choice(scene.waiting) if shuffled else scene.waiting[0]
            scene.answer(step, 200 + step)
        return scene.text()

    assert asyncio.run(answer(True)) == asyncio.run(answer(False))


async def test_a_reply_that_comes_after_the_client_left_starts_nothing() -> None:
    scene = Scene(*letters("ww"))
    scene.sent(0)
    scene.run.abandon()
    scene.answer(0)
    assert scene.waiting == []


@pytest.mark.parametrize("width", [1, 3])
async def test_never_more_than_width_calls_are_with_the_pool(width: int) -> None:
    scene = Scene(*letters("r" * 10), width=width)
    while scene.waiting:
        assert len(scene.waiting) <= width
        scene.answer(scene.waiting[-1])
    assert scene.run.complete


async def test_what_the_answer_waits_for_gets_a_place_when_others_hold_the_whole_width() -> None:
    """Over the budget only urgent calls are read; with none in flight nothing would move."""
    document = {
        "integrated_account_id": "A",
        "args": {"ids": list(range(20))},
        "resources": [
            {"resource": "one", "method": "get", "id": "x", "persist": True},
            {"resource": "after", "method": "list", "depends_on": "one", "persist": True},
            {"resource": "loop", "method": "get", "id": "{{args.ids}}", "loop_on": "args.ids"},
        ],
    }
    dialect = create("truto", {})
    bulk = BulkCall(
        path="/batch-request", query="", headers=(), body=orjson.dumps(document),
        header_policy=HeaderPolicy(),
    )  # fmt: skip
    pool, execution = Pool(), Execution(None, Telling())  # type: ignore[arg-type]
    run = execution.run(
        pool,  # type: ignore[arg-type]
        plan(dialect.parse(bulk)),
        dialect,
        Context(batch_id="b", headers=(), rules=dialect.rules),
        Terms(4, 0.0, 1 << 20, 60.0, 10.0),
        lambda method, target: None,
        BatchRecord(id="b", dialect="truto"),
    )
    lane = pool.last
    first = next(call for call in lane.calls if call.step == 0)
    lane.over_budget = True
    lane.answer(first, Reply(200, body=b"{}"))
    run.written(run.take())
    assert any(run.urgent(call) for call in lane.calls)
    assert {call.step for call in lane.calls} == {1, 2}


# --- bugs of ours --------------------------------------------------------------------------------


async def test_a_bug_behind_the_gate_spoils_the_answer_that_the_gate_had_chosen() -> None:
    scene = Scene(*letters("rww"), dialect=Digits(gate=Answer(401, b"{}")), gated=True)
    scene.lane.stop = broken  # type: ignore[assignment]
    scene.answer(0, 401)
    await scene.due()
    assert scene.run.answer is None
    with pytest.raises(ZeroDivisionError):
        scene.run.take()


async def test_a_bug_when_the_client_has_taken_something_spoils_what_follows() -> None:
    scene = Scene(*letters("rr"))
    scene.answer(0)
    chunk = scene.run.take()
    scene.lane.release = broken  # type: ignore[assignment]
    scene.run.written(chunk)
    await scene.due()
    with pytest.raises(ZeroDivisionError):
        scene.run.take()


async def test_a_bug_at_the_end_of_a_batch_does_not_hold_up_who_waits_for_the_last() -> None:
    scene = Scene()
    scene.text()
    scene.recorder.batch = broken  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        scene.run.finished()
    assert scene.execution.idle.is_set()


async def test_a_client_that_did_not_read_and_has_left_is_waited_for_no_more() -> None:
    scene = Scene(*letters("w"), flush=3600)
    scene.run.take()
    scene.now += 2.0
    assert scene.run.kept_waiting(scene.now) == 2.0
    scene.sent(0)
    scene.run.abandon()
    assert scene.run.kept_waiting(scene.now) < 0


def broken(*_: object) -> None:
    raise ZeroDivisionError

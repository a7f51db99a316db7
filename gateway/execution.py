"""Drives a plan through the pool: order, width, budgets, deadline, cancellation.

A `Run` is one batch on its way. It has no task of its own: the pool tells it of every reply
(`replied`), it asks the schedule what may start, makes the calls, and lets `Delivery` turn what is
next in order into bytes. Whoever answers the outer request is called `when_due`, takes what there
is and writes it to the client. When the client leaves, the run goes on without it (`abandon`),
since a write that was sent cannot be called back.

`Execution` holds the runs of the process, oldest first, and looks at their clocks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from math import inf
from time import monotonic
from typing import Protocol

from gateway.batch import (
    Answer,
    BatchRecord,
    Call,
    Dialect,
    Evaluate,
    Failure,
    Outcome,
    Recorder,
    Reply,
    Step,
    failed,
)
from gateway.planning import expand
from gateway.planning.delivery import GROUP, Chunk, Delivery
from gateway.planning.nouns import Context, Kept, Plan
from gateway.planning.schedule import Schedule
from gateway.standstill import Looks
from gateway.upstream import Taker, Verdict

TICK = 0.1
"""Seconds between two looks at the clocks of runs."""
KEPT_WAITING = 1.0
"""Seconds after which a batch whose client does not read makes room for another."""
MOST_CALLS = 10_000
"""Of one batch, in steps of many calls: each has its own bounds, and there may be many of them."""
LARGE = 256 * 1024
"""Bytes of an answer that takes milliseconds to look into or to write down."""
KEPT_STEPS = 4
"""As much as that many steps may keep for others is kept in one batch."""
MOST_OVERRUNS = 3
"""Expressions of one batch that are ended by force; after them none is begun."""
MOST_SECONDS, MOST_MADE = 10.0, 24 * 2**20
"""That all expressions of one batch may take together, and bytes that they may give."""

Guard = Callable[[str, str], Failure | None]
"""Method and target of a call -> why the operator's rules refuse it, or None."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one batch. Seconds and bytes."""

    width: int
    flush_seconds: float
    flush_bytes: int
    batch_seconds: float
    gone_grace: float
    gate: bool | None = None
    """Whether the answer's head waits for the first reply; None: as the dialect has it."""


class Evaluator(Protocol):
    """The helper process that runs expressions."""

    async def run(self, work: Evaluate) -> Reply: ...


class Place(Protocol):
    """A batch's place at the backend: what it asks of its `upstream.lane.Lane`."""

    @property
    def over_budget(self) -> bool: ...
    def submit(self, call: Call) -> None: ...
    def outstanding(self) -> Iterator[Call]: ...
    def stop(self, verdict: Verdict) -> None: ...
    def leave(self) -> None: ...
    def hold(self, size: int) -> None: ...
    def release(self, size: int) -> None: ...
    def reconsider(self) -> None: ...


class Places(Protocol):
    """Where a batch gets one: the pool."""

    def lane(self, taker: Taker) -> Place: ...


# --- why a call ended that nobody answered -------------------------------------------------------


def _expired(call: Call) -> Failure:
    if call.sent:
        return Failure("http_response_timeout", "batch_deadline", sent=True)
    return Failure("proxy_internal_response", "batch_deadline", status=504)


def _drained(call: Call) -> Failure:
    return Failure("proxy_internal_response", "shutting_down", sent=call.sent, status=503)


def _unattended(call: Call) -> Failure:
    return Failure("proxy_internal_response", "client_gone", sent=call.sent, status=503)


def _unattended_unless_written(call: Call) -> Failure | None:
    """A write that was sent cannot be called back, and its result is worth a log line."""
    return None if call.sent and not call.safe else _unattended(call)


def _may_be_made(reply: Reply) -> bool:
    """A write that was refused as unauthorized is not."""
    return reply.status != 401 if reply.failure is None else reply.failure.sent


def _outdone(call: Call) -> Failure:
    return Failure("proxy_internal_response", "batch_refused", sent=call.sent, status=503)


class Run:
    """One batch on its way."""

    # fmt: off
    __slots__ = ("_began", "_context", "_delivery", "_denial", "_dialect", "_due", "_evaluations",
                 "_execution", "_expanded", "_expansions", "_first", "_gated", "_gone", "_guard",
                 "_in_flight", "_kept", "_known_behind", "_lane", "_made", "_mistake", "_outcomes",
                 "_overruns", "_parked", "_queue", "_queued", "_ranks", "_recorder", "_resting",
                 "_runs", "_schedule", "_settled", "_struck", "_taken", "_terms", "_timer",
                 "_verdict", "_worked", "_writer", "_writing", "_wrote", "answer", "deadline",
                 "plan", "record")
    # fmt: on

    def __init__(
        self,
        execution: Execution,
        pool: Places,
        plan: Plan,
        dialect: Dialect,
        context: Context,
        terms: Terms,
        guard: Guard,
        record: BatchRecord,
    ) -> None:
        self.plan = plan
        self.record = record
        self._began = execution.clock()
        self.deadline = self._began + terms.batch_seconds

        self._execution = execution
        self._dialect = dialect
        self._context = context
        self._terms = terms
        self._guard = guard
        self._recorder = execution.recorder
        self._schedule = Schedule(plan, terms.width)
        self._lane: Place = pool.lane(self)
        self._lane.hold(record.bytes_in)

        # Up. Calls beyond the width wait in the queue, first to be delivered first; further pages
        # are parked while memory is short.
        self._in_flight = 0
        self._queue: list[tuple[int, int, int, Call]] = []
        self._queued = 0
        self._ranks: dict[int, int] = {}
        """Of steps in the order of delivery, once something has to wait."""
        self._parked: list[Call] = []
        self._known_behind: tuple[int, set[int]] = (-1, set())
        self._evaluations: set[asyncio.Task[Reply]] = set()
        self._overruns = self._made = 0
        self._worked = 0.0
        """What its expressions have taken so far: ended by force, bytes given, seconds."""
        self._struck: Failure | None = None
        """Why no expression of this batch is worked out any more."""
        self._expansions: dict[int, expand.Expansion] = {}
        self._resting: set[int] = set()
        """Steps of which more runs are to begin when others have had their turn."""
        self._expanded = self._runs = 0
        """Of all of them, calls that were made and runs that were planned."""
        self._outcomes: dict[int, Outcome] = {}
        self._kept = 0
        """Bytes of results that later steps read."""
        self._verdict: Verdict | None = None
        self._first: Call | None = None
        """The call that was made first. If the batch is gated, its reply opens the gate."""
        self._gated = plan.batch.gated if terms.gate is None else terms.gate
        self._denial: Reply | None = None
        """The first reply, if it is a 401 and the gate is not open yet."""
        self._wrote = False
        """While the gate is not open: a write was made, or may have been."""
        self.answer: Answer | None = None
        """An answer for the whole batch instead of results: the gate's."""

        # Down: what is rendered waits for the writer.
        bug = partial(self._recorder.bug, "render", record)  # no method: nothing leads back here
        self._delivery = Delivery(plan, dialect.renderer(plan.batch), bug)
        self._due = self._writing = self._gone = self._settled = False
        self._taken = inf
        """When the writer took what it writes now."""
        self._mistake: Exception | None = None
        """A bug of ours, of which the writer has yet to hear."""
        self._writer: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- the writer's side -----------------------------------------------------------------------

    def when_due(self, write: Callable[[], None]) -> None:
        """Has `write` called, once and not from within this, when there is something to write: the
        flush rule says so, or all is done."""
        self._writer = write
        self._wake()

    def take(self) -> Chunk:
        """Everything that is ready. Tell `written` when the client has it. Raises what went wrong:
        nothing of the answer is to be believed from there on."""
        if self._mistake is not None:
            raise self._mistake
        self._due = self._delivery.done
        self._cancel_timer()
        self._writing = True
        self._taken = self._execution.clock()
        return self._delivery.take()

    def written(self, chunk: Chunk) -> None:
        self._writing = False
        self._taken = inf
        if self.record.first_byte is None:
            self.record.first_byte = self._execution.clock() - self._began
        self.record.bytes_out += len(chunk.data)
        try:
            self._release(chunk.held)
            if self._lane.over_budget:
                self._go_on()
        except Exception as mistake:
            self._break(mistake)

    @property
    def complete(self) -> bool:
        """The end of the document is among what was or can be taken."""
        return self._delivery.done

    def finished(self) -> None:
        """The writer has done its part."""
        self._gone = True
        self._settle()

    def abandon(self, outcome: str = "client_gone") -> None:
        """The client left (DESIGN part 4): nothing new starts, safe calls end, writes go on."""
        if self._gone:
            return
        self._gone = True
        self._taken = inf  # nobody is waited for any more,
        self._writer = None  # nor told: who would be holds us
        if outcome == "cut" or not self.record.outcome:
            self.record.outcome = outcome
        self.deadline = min(self.deadline, self._execution.clock() + self._terms.gone_grace)
        self._cancel_timer()
        self._release(self._delivery.drop())
        try:
            self._stop(_unattended_unless_written)
        except Exception as mistake:
            self._break(mistake)
        self._settle()

    def bug(self) -> None:
        """Told within its `except`: what is due could not be written."""
        self._recorder.bug("answer", self.record)

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return self._execution.clock() - self._began

    @property
    def queued(self) -> float:
        """Seconds until the first of its calls was sent."""
        began = 0.0 if self._first is None else self._first.began
        return max(0.0, began - self._began)

    # --- the clock's side ------------------------------------------------------------------------

    def kept_waiting(self, now: float) -> float:
        """Seconds for which its client has not read what there is for it."""
        return now - self._taken

    def tick(self, now: float) -> None:
        if now < self.deadline:
            return
        drained = self.deadline >= self._execution.drained_by
        self.deadline = inf
        if not self._delivery.done:  # else only its client is late
            self.record.outcome = self.record.outcome or "deadline"
        try:
            self._stop(_drained if drained else _unattended if self._gone else _expired)
        except Exception as mistake:
            self._break(mistake)
        self._settle()

    # --- the pool's side (upstream.Taker) --------------------------------------------------------

    def start(self) -> None:
        try:
            self._launch(self._schedule.begin())
            # With one call of each step under way there is nothing to deliver yet.
            if self._expansions or not 0 < self._in_flight == len(self.plan.steps):
                self._deliver()
        except Exception as mistake:
            self._break(mistake)

    def replied(self, call: Call, reply: Reply) -> None:
        if self._gated and not call.safe:
            self._wrote = self._wrote or _may_be_made(reply)
        if len(reply.body) > LARGE:
            self._execution.later(partial(self._replied, call, reply))
        else:
            self._replied(call, reply)

    def _replied(self, call: Call, reply: Reply) -> None:
        index, delivery = call.step, self._delivery
        self._in_flight -= 1
        try:
            if self._gated:
                self._look_at_gate(call, reply)
            self._recorder.subrequest(self.record, self.plan.steps[index], reply)
            if self._queue and self._in_flight < self._terms.width:
                self._offer(heappop(self._queue)[-1])
            if self._expansions and index in self._expansions:
                self._take_in(call, reply)
            else:
                if self._gone:
                    self._release(reply.held)
                else:
                    delivery.replies[index] = reply
                if starts := self._finish(index, reply.status >= 400):
                    self._launch(starts)
            if self._expansions or delivery.replies[delivery.awaits] is not None:
                self._deliver()
        except Exception as mistake:
            self._break(mistake)
        if self._gone:
            self._settle()

    def urgent(self, call: Call) -> bool:
        """Whether the answer cannot go on without this call; asked when memory is short.

        While results wait for a client that does not read, nothing is: there would be no bound."""
        if self._gated and (call is self._first or (self._denial is not None and not call.safe)):
            return True
        if self._writing or self._delivery.size:
            return False
        awaited = self._delivery.awaits
        if awaited < 0 or call.step == awaited:
            return True
        return not self.plan.free and call.step in self._behind(awaited)

    def _behind(self, index: int) -> set[int]:
        """A step and all that it waits for. Asked again and again of the one that is awaited."""
        known, behind = self._known_behind
        if index == known:
            return behind
        behind, stack = set[int](), [index]
        while stack:
            step = self.plan.steps[stack.pop()]
            if step.index not in behind:
                behind.add(step.index)
                stack += (*step.needs, *step.follows)
        self._known_behind = (index, behind)
        return behind

    # --- starting --------------------------------------------------------------------------------

    def _launch(self, starts: list[int]) -> None:
        """Starts steps. One that ends at once lets others start: the list grows as it is read."""
        plan, guard, context = self.plan, self._guard, self._context
        for index in starts:
            step = plan.steps[index]
            subrequest = step.subrequest
            if subrequest.refusal is not None:
                starts += self._refuse(step, subrequest.refusal, None)
            elif not (plan.free or subrequest.plain):
                starts += self._expand(step)
            elif not subrequest.target:
                starts += self._end(index, GROUP)
            else:
                call = expand.call(step, context)
                denied = guard(call.method, call.target)
                if denied is None:
                    self._offer(call)
                else:
                    starts += self._refuse(step, denied, call)

    def _refuse(self, step: Step, failure: Failure, call: Call | None) -> list[int]:
        reply = failed(failure, call)
        self._recorder.subrequest(self.record, step, reply)
        return self._end(step.index, reply)

    def _offer(self, call: Call) -> None:
        """Hands a call to the pool, at most `width` at a time."""
        if self._first is None:
            self._first = call
        if self._in_flight < self._terms.width:
            self._in_flight += 1
            self._lane.submit(call)
        else:
            self._queued += 1
            self._ranks = self._ranks or {s: r for r, s in enumerate(self.plan.delivery)}
            heappush(self._queue, (self._ranks[call.step], call.place, self._queued, call))

    # --- steps of many calls ---------------------------------------------------------------------

    def _expand(self, step: Step) -> list[int]:
        expansion = expand.start(step, self._context, self._outcomes)
        self._expansions[step.index] = expansion
        self._delivery.source(step.index, expansion)
        wanted = expansion.begin(max(0, MOST_CALLS - self._runs))
        self._runs += expansion.runs
        return self._work(step, expansion, wanted)

    def _work(
        self, step: Step, expansion: expand.Expansion, wanted: Iterable[Call | Evaluate]
    ) -> list[int]:
        """Has done what a step wants done; what is refused at once is told to it at once."""
        pending = deque(wanted)
        while pending:
            work = pending.popleft()
            refusal = self._refusal(work)
            if refusal is not None:
                reply = failed(refusal, work if isinstance(work, Call) else None)
                if reply.call is not None:
                    self._recorder.subrequest(self.record, step, reply)
                pending.extend(expansion.took(work, reply))
            elif isinstance(work, Evaluate):
                self._evaluate(work)
            elif self._lane.over_budget and not self.urgent(work):
                self._parked.append(work)
            else:
                self._offer(work)
        if expansion.resting and step.index not in self._resting:
            self._resting.add(step.index)
            self._execution.loop.call_soon(self._resume, step, expansion)
        for reply in expansion.refused():
            self._recorder.subrequest(self.record, step, reply)
        self._release(expansion.shed())
        if not expansion.done:
            return []
        outcome = expansion.outcome()
        if isinstance(outcome.value, Kept) and not self._keeps(outcome.value, expansion.most_kept):
            outcome = Outcome(outcome.failed, Kept([], full=True), outcome.flawed)
        self.record.flawed = self.record.flawed or outcome.flawed
        self._outcomes[step.index] = outcome
        self._delivery.end(step.index, outcome)
        return self._finish(step.index, outcome.failed)

    def _resume(self, step: Step, expansion: expand.Expansion) -> None:
        self._resting.remove(step.index)
        try:
            if expansion.resting:  # else a reply that came first has had it go on
                self._launch(self._work(step, expansion, expansion.resume()))
                self._deliver()
        except Exception as mistake:
            self._break(mistake)
        self._settle()

    def _keeps(self, kept: Kept, most: int) -> bool:
        """Whether there is room for this, beside what is kept of other steps."""
        if self._kept + kept.size > KEPT_STEPS * most:
            return False
        self._kept += kept.size
        self._lane.hold(kept.size)
        return True

    def _refusal(self, work: Call | Evaluate) -> Failure | None:
        if self._verdict is not None:
            call = work if isinstance(work, Call) else _NOTHING
            return self._verdict(call) or _unattended(call)
        if isinstance(work, Evaluate):
            return self._struck
        self._expanded += 1
        return _TOO_MANY if self._expanded > MOST_CALLS else self._guard(work.method, work.target)

    def _evaluate(self, work: Evaluate) -> None:
        task = self._execution.loop.create_task(self._execution.evaluator.run(work))
        self._evaluations.add(task)
        task.add_done_callback(partial(self._evaluated, work))

    def _evaluated(self, work: Evaluate, task: asyncio.Task[Reply]) -> None:
        self._evaluations.discard(task)
        try:
            if task.cancelled():
                reply = failed(self._struck or self._unsent)
            else:
                reply = task.result()
                self._watch(reply)
            self._take_in(work, reply)
            self._deliver()
        except Exception as mistake:
            self._break(mistake)
        self._settle()

    def _watch(self, reply: Reply) -> None:
        """All batches stand in line for the helper, so none keeps it for long: with expressions
        that have no end, or with many. And what they give is held until it is read."""
        reply.held = len(reply.body)
        self._lane.hold(reply.held)
        self._worked += reply.seconds
        self._made += reply.held
        failure = reply.failure
        if failure is not None and failure.details in _WITHOUT_END:
            self._overruns += 1
            if self._overruns == MOST_OVERRUNS:
                self._strike(failure)
        elif self._worked > MOST_SECONDS:
            self._strike(_TOO_LONG)
        elif self._made > MOST_MADE:
            self._strike(_TOO_LARGE)

    def _strike(self, failure: Failure) -> None:
        """Neither begins nor goes on with any expression."""
        if self._struck is None:
            self._struck = failure
            for task in self._evaluations:
                task.cancel()

    def _unpark(self) -> None:
        parked, self._parked = self._parked, []
        for call in parked:
            if self._lane.over_budget and not self.urgent(call):
                self._parked.append(call)
            else:
                self._offer(call)

    def _unstick(self) -> None:
        """Memory is short, so only what the answer waits for is read. If other calls hold all of
        the width, that may be nothing: then it gets one place more."""
        awaited = self._delivery.awaits
        if awaited < 0:
            return
        behind = self._behind(awaited)
        if any(call.step in behind for call in self._lane.outstanding()):
            return
        urgent = [item for item in self._queue if item[-1].step in behind]
        if urgent:
            self._queue.remove(min(urgent))
            heapify(self._queue)
            self._in_flight += 1
            self._lane.submit(min(urgent)[-1])
        else:
            self._launch(self._schedule.hurry(behind))

    # --- ending ----------------------------------------------------------------------------------

    def _take_in(self, work: Call | Evaluate, reply: Reply) -> None:
        expansion = self._expansions.get(work.step)
        if expansion is None:
            starts = self._end(work.step, reply)
        else:
            step = self.plan.steps[work.step]
            starts = self._work(step, expansion, expansion.took(work, reply))
        if starts:
            self._launch(starts)

    def _end(self, index: int, reply: Reply) -> list[int]:
        """A step of one reply, which nobody waited for, has ended: what starts now."""
        self._delivery.replies[index] = reply
        return self._finish(index, reply.status >= 400)

    def _finish(self, index: int, bad: bool) -> list[int]:
        """A step has ended: what starts now."""
        if bad:
            self.record.failed += 1
        else:
            self.record.ok += 1
        starts, skips = self._schedule.finish(index, failed=bad)
        for skip in skips:
            first = self.plan.steps[skip.because].subrequest
            slug = "onfail_abort" if first.barrier else "dependency_failed"
            message = f"{first.where} failed, so this was skipped"
            self._skip(skip.step, Failure("proxy_internal_response", slug, message=message))
        return starts

    def _skip(self, index: int, failure: Failure) -> None:
        """It will never run: a result all the same."""
        self.record.skipped += 1
        self._outcomes[index] = Outcome(failed=True)
        self._delivery.replies[index] = failed(failure)
        self._recorder.skipped(self.record, self.plan.steps[index], failure)

    def _stop(self, verdict: Verdict) -> None:
        """Nothing new starts. Every outstanding call is asked about: it ends now, or runs on."""
        self._verdict = verdict
        unsent = self._unsent
        for index in self._schedule.stop():
            self._skip(index, unsent)
        waiting = [item[-1] for item in sorted(self._queue)] + self._parked
        self._queue, self._parked = [], []
        for call in waiting:
            reply = failed(unsent, call)
            self._recorder.subrequest(self.record, self.plan.steps[call.step], reply)
            self._take_in(call, reply)
        for task in self._evaluations:
            task.cancel()
        if self._gated and self._writes():
            self._wrote = True
        self._lane.stop(verdict)
        self._deliver()

    @property
    def _unsent(self) -> Failure:
        """Why what has not begun, or was begun in vain, is over."""
        verdict = self._verdict
        return (verdict and verdict(_NOTHING)) or _unattended(_NOTHING)

    def _look_at_gate(self, call: Call, reply: Reply) -> None:
        """A first 401 waits for the writes that are under way beside it."""
        if call is self._first:
            if reply.status != 401:
                self._open_gate(reply)
                return
            self._denial = reply
        if self._denial is not None and (self._wrote or not self._writes()):
            self._open_gate(self._denial)

    def _writes(self) -> bool:
        return any(call.sent and not call.safe for call in self._lane.outstanding())

    def _open_gate(self, reply: Reply) -> None:
        """The first reply: it may be the answer to the whole batch (D-S2, D-T13). Not if a write
        was made: whoever made it has to be told, or it is made again."""
        self._gated = False
        if reply.failure is None and not self._wrote:
            self.answer = self._dialect.gate(self.plan.batch, reply)
            if self.answer is None and self._terms.gate and reply.status == 401:
                self.answer = _as_it_came(reply)
            if self.answer is not None:
                self.record.status = self.answer.status
                self._stop(_outdone)
                self._due = True
        self._wake()

    def _settle(self) -> None:
        """The batch is over once nobody writes and nothing is outstanding; told once."""
        busy = self._in_flight or self._evaluations or self._resting
        if self._settled or not self._gone or busy:
            return
        self._settled = True
        self.record.seconds = self._execution.clock() - self._began
        self._lane.leave()
        self._execution.ended(self)

    # --- delivering ------------------------------------------------------------------------------

    def _deliver(self) -> None:
        delivery = self._delivery
        if self._gone or delivery.done:
            return
        awaited = delivery.awaits
        delivery.advance()
        if delivery.done or delivery.size >= self._terms.flush_bytes:
            self._flush()
        elif self._timer is None and delivery.size and not self._due:
            self._timer = self._execution.loop.call_later(self._terms.flush_seconds, self._flush)
        if self._lane.over_budget:
            if awaited != delivery.awaits:
                self._go_on()
            elif self._expansions:
                self._unstick()

    def _go_on(self) -> None:
        """Memory is short, and what the answer waits for has changed."""
        self._lane.reconsider()
        self._unpark()
        if self._expansions:
            self._unstick()

    def _flush(self) -> None:
        self._cancel_timer()
        self._due = True
        self._wake()

    def _wake(self) -> None:
        """Has the writer called, unless the gate still holds the answer's head back."""
        if self._due and self._writer is not None and (not self._gated or self._delivery.done):
            self._execution.loop.call_soon(self._writer)
            self._writer = None

    def _break(self, mistake: Exception) -> None:
        """A bug of ours, told within its `except`: what is missing now would be missing from an
        answer that seems whole."""
        if self._gone:
            self.bug()
            return
        self._mistake = mistake
        self.answer = None
        self._gated = False
        self._flush()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self, held: int) -> None:
        if held:
            self._lane.release(held)
            if self._parked:
                self._unpark()


def _as_it_came(reply: Reply) -> Answer:
    """The backend's 401 as the answer to the whole batch, where the dialect has no form for it."""
    fields = [("Cache-Control", "no-store")]
    challenge = reply.header(b"www-authenticate")
    if challenge is not None:
        fields.append(("WWW-Authenticate", challenge.decode("latin-1")))
    kind = reply.header(b"content-type") or b"application/octet-stream"
    return Answer(401, reply.body, kind.decode("latin-1"), tuple(fields))


_TOO_MANY = Failure(
    "http_request_denied",
    "too_many_calls",
    status=413,
    message=f"more than {MOST_CALLS} calls in one batch",
)
_TOO_LONG = Failure(
    "http_request_error",
    "expression_time",
    message=f"all expressions together take more than {MOST_SECONDS:g} s",
)
_TOO_LARGE = Failure(
    "http_request_error",
    "expression_memory",
    message=f"all expressions together give more than {MOST_MADE >> 20} MiB",
)
_WITHOUT_END = frozenset({"expression_time", "expression_memory"})
_NOTHING = Call("", "", ())
"""Stands for a call that was never made when a verdict is asked."""


class Execution:
    """The runs of this process, oldest first."""

    def __init__(self, evaluator: Evaluator, recorder: Recorder) -> None:
        self.evaluator = evaluator
        self.recorder = recorder
        self.loop = asyncio.get_running_loop()
        self.clock = monotonic
        self.drained_by = inf
        """When every batch has to have ended, clock time: no batch has a later deadline."""
        self.idle = asyncio.Event()
        """Set while no batch is left."""
        self.idle.set()
        self.documents = 0
        """Bytes of the bulk calls themselves: every batch keeps its own until it is over."""
        self._runs: dict[Run, None] = {}
        self._unread = 0
        """Batches whose clients kept them waiting when they were last looked at."""
        self._large: deque[Callable[[], None]] = deque()
        """Answers to be taken in, first the one that is."""
        self._ticker: asyncio.TimerHandle | None = None
        self._looks = Looks(0.0)

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def crowd(self) -> int:
        """Batches that take the room of others: a client that does not read keeps memory and its
        own connection, which have bounds of their own, and nobody else's place."""
        return len(self._runs) - self._unread

    def run(
        self,
        pool: Places,
        plan: Plan,
        dialect: Dialect,
        context: Context,
        terms: Terms,
        guard: Guard,
        record: BatchRecord,
    ) -> Run:
        """Starts a batch. It is over when `Run.finished` or `Run.abandon` was called and it is."""
        run = Run(self, pool, plan, dialect, context, terms, guard, record)
        run.deadline = min(run.deadline, self.drained_by)
        self._runs[run] = None
        self.documents += record.bytes_in
        self.idle.clear()
        if self._ticker is None:
            self._looks = Looks(self.clock())
            self._ticker = self.loop.call_later(TICK, self._tick)
        self.recorder.started(record)
        run.start()
        return run

    def ended(self, run: Run) -> None:
        del self._runs[run]
        self.documents -= run.record.bytes_in
        if not self._runs:
            self.idle.set()
        self.recorder.batch(run.record)

    def later(self, work: Callable[[], None]) -> None:
        """Has something done that takes long. Of all batches one such at a time, and everybody
        else in between: dozens of large answers may end in one round of the event loop."""
        self._large.append(work)
        if len(self._large) == 1:
            self.loop.call_soon(self._next_large)

    def _next_large(self) -> None:
        if self._large:
            self._large[0]()
            self._large.popleft()
        if self._large:
            self.loop.call_soon(self._next_large)

    def drain(self, deadline: float) -> None:
        """Every batch must be over by then, clock time: answers end validly."""
        self.drained_by = deadline
        for run in self._runs:
            run.deadline = min(run.deadline, deadline)

    def close(self) -> None:
        """The process ends before its batches have: what was sent of them must still be told."""
        while self._large:
            self._large.popleft()()
        self.drain(-inf)
        for run in list(self._runs):
            run.tick(self.clock())

    def _tick(self) -> None:
        self._ticker = self.loop.call_later(TICK, self._tick) if self._runs else None
        now = self.clock()
        if self._looks.counts(now):
            for run in list(self._runs):
                run.tick(now)
        self._unread = sum(run.kept_waiting(now) > KEPT_WAITING for run in self._runs)

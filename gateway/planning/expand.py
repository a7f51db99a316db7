"""A step becomes calls: one, or as many as its loops, pages and records ask for.

A plain step is one `Call`, made by `call`. Any other is carried out by an `Expansion`, which says
what to send, is told what came back, and hands the replies on in the step's own order: run by run,
page by page, whatever the order in which they came. It is a value that changes under synchronous
calls; who sends, evaluates and waits is `execution`.

It knows nothing of any format. What it fills in, loops over and keeps are the protocols of
`batch.Recipe`; a dialect brings the objects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec

from gateway import headers
from gateway.batch import (
    Call,
    Evaluate,
    Failure,
    Headers,
    Outcome,
    Paging,
    Recipe,
    Recurse,
    Reply,
    Scope,
    Step,
    Template,
    failed,
)
from gateway.errors import BadTarget, Exhausted, TooMany, Unresolved
from gateway.planning import pages
from gateway.planning.nouns import Context, Kept
from gateway.target import normalise
from gateway.templates import values

Work = Call | Evaluate


# --- one call ------------------------------------------------------------------------------------


def call(step: Step, context: Context) -> Call:
    """The call of a plain step: nearly every call there is, so it takes the short way."""
    subrequest, index, trace = step.subrequest, step.index, context.trace
    target: Any = subrequest.target
    body: Any = subrequest.body
    if body is not None or subrequest.headers or context.idempotency_key is not None:
        return _call(step, context, target, body, "0", 0)
    number = f"{context.batch_id}.{index}"
    extra = () if trace is None else (("traceparent", trace.header()),)
    return Call(subrequest.method, target, context.headers, None, number, extra, index)


def sketch(step: Step, context: Context) -> Call:
    """The call of any step as it stands before anything is filled in: for people."""
    target, body = step.subrequest.target, step.subrequest.body
    shown = body.text.encode() if body is not None and not isinstance(body, bytes) else body
    return _call(step, context, target if isinstance(target, str) else target.text, shown, "0", 0)


def _call(
    step: Step, context: Context, target: str, body: bytes | None, run: str, page: int
) -> Call:
    own = step.subrequest.headers
    further = f".{page}" if page else ""
    number = f"{step.index}.{run}{further}" if further or run != "0" else str(step.index)
    extra = _extra(own, context, f"{step.index}-{run}{further}" if context.rules.runs else number)
    fields, own = _fields(own, context, body is not None)
    return Call(
        step.subrequest.method,
        target,
        fields,
        body,
        f"{context.batch_id}.{number}",
        extra,
        step.index,
        own,
    )


def _fields(own: Headers, context: Context, body: bool) -> tuple[Headers, Headers]:
    """What is shared with calls of the same kind, and what of the own fields holds."""
    names = tuple(map(_name, own))
    shared = context.shared.get((names, body))
    if shared is None:
        typed = headers.body_type(own) if body and context.rules.own_allowed else ()
        names_over = (*names, *map(_name, typed))
        kept, void = headers.beneath(context.headers, names_over, context.rules)
        shared = context.shared[names, body] = (typed + kept if typed else kept, void)
    return shared[0], headers.holding(own, shared[1])


_name = itemgetter(0)


def _extra(own: Headers, context: Context, key: str) -> Headers:
    """Fields of this call alone. They stay out of the common ones, whose bytes are made once."""
    extra: Headers = ()
    if context.idempotency_key and headers.first(own, "idempotency-key") is None:
        extra += (("Idempotency-Key", f"{context.idempotency_key}-{key}"),)
    if context.trace is not None:
        extra += (("traceparent", context.trace.header()),)
    return extra


# --- many calls ----------------------------------------------------------------------------------

_PLAIN = Recipe()
_PAGES = 1 << 20
"""More than the pages of any run: `place` sorts calls by run, then page."""
AT_ONCE = 16
"""Runs in a row that end without a call; then others are heard. A loop may have a thousand."""
MOST_ASKED = 2_000
"""Records of one page that are looked at for whether to go on below them."""
_OVERHEAD = 64
"""What a kept value costs beyond its bytes."""


class _Run:
    """One round of a step: what it reads, and how far it has come."""

    __slots__ = ("body", "cursor", "done", "heirs", "kept", "label", "pages", "place", "records",
                 "replies", "scope", "target", "wanted", "worked_out")  # fmt: skip

    def __init__(self, label: str, place: int, scope: Scope, wanted: str | Template) -> None:
        self.label = label
        """`3`, or `3-1` for the second one that run 3 begot."""
        self.place = place
        self.scope = scope
        self.wanted = wanted
        """Its target, perhaps still to be filled in."""
        self.target = ""
        self.body: bytes | None = None
        self.worked_out = 0
        """How many of its expressions have a value."""
        self.pages = 0
        self.records = 0
        self.cursor = ""
        self.replies: deque[Reply] = deque()
        """Not handed on yet."""
        self.kept: list[bytes] = []
        self.heirs: list[Scope] = []
        self.done = False


def start(step: Step, context: Context, outcomes: Mapping[int, Outcome]) -> Expansion:
    """A step that is not plain. What it reads has ended, and how is in `outcomes`."""
    scope: dict[str, Sequence[bytes]] = {}
    full = False
    for name, source in step.sources:
        kept = outcomes[source].value if source in outcomes else None
        scope[name] = kept.values if isinstance(kept, Kept) else ()
        full = full or (isinstance(kept, Kept) and kept.full)
    return Expansion(step, context, scope, full)


class Expansion:
    """One step that is not plain, being carried out."""

    def __init__(self, step: Step, context: Context, scope: Scope, full: bool = False) -> None:
        self._step = step
        self._where = step.subrequest.where
        self._target = step.subrequest.target
        self._recipe = step.subrequest.recipe or _PLAIN
        self._context = context
        self._scope = scope
        self._full = full
        self._runs: list[_Run] = []
        self._begun = 0
        self._ended = 0
        self._turn = 0
        self._good = 0
        self._failed = False
        self._kept_size = 0
        self._heirs = self._heirs_size = 0
        """Of the generation to come, runs and bytes that they read."""
        self._let_go = 0
        self._unsent: list[Reply] = []
        self.resting = False
        """More runs may begin, but others are to have the processor first."""

    # --- what execution asks ---------------------------------------------------------------------

    @property
    def most_kept(self) -> int:
        """Bytes that may be kept of it."""
        return self._recipe.most_kept

    @property
    def runs(self) -> int:
        """How many there are by now."""
        return len(self._runs)

    def begin(self, room: int) -> Sequence[Work]:
        """What is to be done first; `room` runs are left for all of the batch."""
        most = self._recipe.most_runs
        try:
            scopes = self._scopes(min(most, room))
        except TooMany:
            return self._never(self._too_many(f"{most} runs"))
        except Unresolved as why:
            return self._never(self._unresolved(why))
        if len(scopes) > most:
            return self._never(self._too_many(f"{most} runs"))
        if len(scopes) > room:
            return self._never(self._too_many(f"the {room} runs that are left for its batch"))
        self._runs = [
            _Run(str(number), number * _PAGES, scope, self._target)
            for number, scope in enumerate(scopes)
        ]
        return self._begin_more([])

    def took(self, work: Work, reply: Reply) -> Sequence[Work]:
        """This was done; what is to be done next."""
        run: _Run = work.tag
        if isinstance(work, Evaluate):
            return self._begin_more(self._evaluated(run, reply))
        return self._begin_more(self._answered(run, reply))

    def resume(self) -> Sequence[Work]:
        """It was resting; what is to be done next."""
        return self._begin_more([])

    def deliver(self) -> Iterator[Reply]:
        """Replies that are next in the step's order and were not handed on yet."""
        while self._turn < len(self._runs):
            run = self._runs[self._turn]
            while run.replies:
                yield run.replies.popleft()
            if not run.done:
                return
            self._turn += 1

    def shed(self) -> int:
        """Bytes held by replies that came since the last time and will never be delivered."""
        let_go, self._let_go = self._let_go, 0
        return let_go

    def refused(self) -> list[Reply]:
        """Results made here since the last time, of runs or expressions that never were a call."""
        refused, self._unsent = self._unsent, []
        return refused

    @property
    def done(self) -> bool:
        return self._ended == len(self._runs)

    def outcome(self) -> Outcome:
        """It failed if something went wrong and nothing went well. What was kept is handed over."""
        kept = self._kept()
        for run in self._runs:
            run.kept = []
        return Outcome(self._failed and not self._good, kept, flawed=self._failed)

    def _kept(self) -> Kept | None:
        if self._recipe.keep is None:
            return None
        if self._kept_size > self._recipe.most_kept:
            return Kept([], full=True)
        return Kept([value for run in self._runs for value in run.kept], self._kept_size)

    # --- runs ------------------------------------------------------------------------------------

    def _scopes(self, most: int) -> list[Scope]:
        """One scope per run, or one more than there may be. Raises Unresolved."""
        if self._full:
            raise Unresolved(f"{self._where}: what it reads is more than may be kept")
        scopes = [self._scope]
        for loop in self._recipe.loops:
            inner = (scope for outer in scopes for scope in loop.scopes(outer))
            scopes = list(islice(inner, most + 1))
            if len(scopes) > most:
                break
        return scopes

    def _begin_more(self, works: list[Work]) -> list[Work]:
        """Adds what the runs want that can begin now."""
        over, self.resting = self._ended + AT_ONCE, False
        while True:
            while self._begun < len(self._runs) and self._begun - self._ended < self._context.width:
                if self._ended >= over:
                    self.resting = True
                    return works
                self._begun += 1
                works += self._advance(self._runs[self._begun - 1])
            if self._recipe.recurse is None or not self._next_generation(self._recipe.recurse):
                return works

    def _next_generation(self, recurse: Recurse) -> bool:
        """The runs that those of the last generation begot, once all of these are over: so how
        many there may be, and their order, does not hang on which reply came first."""
        if self._ended < len(self._runs):
            return False
        heirs = [
            _Run(f"{run.label}-{number}", run.place, scope, recurse.target)
            for run in self._runs
            for number, scope in enumerate(run.heirs)
        ]
        for run in self._runs:
            run.heirs = []
        if self._too_many_heirs():
            heirs = []
            self._fail(self._runs[-1], failed(self._too_many(f"{self._recipe.most_runs} runs")))
        self._heirs = self._heirs_size = 0
        self._runs += heirs
        return bool(heirs)

    def _too_many_heirs(self) -> bool:
        return len(self._runs) + self._heirs > self._recipe.most_runs

    def _advance(self, run: _Run) -> list[Work]:
        """The next thing a run needs."""
        try:
            if run.worked_out < len(self._recipe.expressions):
                return [self._evaluate(run)]
            self._fill(run)
        except Exhausted as why:
            return self._give_up(run, why)
        except Unresolved as why:
            return self._stop(run, self._unresolved(why))
        except BadTarget as bad:
            return self._stop(run, _misled(self._where, bad))
        if not self._target:
            return self._made(run, Reply(200, body=run.body or b""))
        return [self._call(run, run.target, 0)]

    def _evaluate(self, run: _Run) -> Evaluate:
        expression = self._recipe.expressions[run.worked_out]
        context = expression.context.fill(run.scope).encode()
        return Evaluate(expression.text, context, self._step.index, run.place, run)

    def _fill(self, run: _Run) -> None:
        target, body = run.wanted, self._step.subrequest.body
        run.target = target if isinstance(target, str) else normalise(target.fill(run.scope))
        run.body = (
            body if body is None or isinstance(body, bytes) else body.fill(run.scope).encode()
        )

    def _call(self, run: _Run, target: str, page: int) -> Call:
        made = _call(self._step, self._context, target, run.body, run.label, page)
        made.place = run.place + page
        made.tag = run
        return made

    # --- what comes back -------------------------------------------------------------------------

    def _evaluated(self, run: _Run, reply: Reply) -> list[Work]:
        if reply.failed:
            self._fail(run, self._placed(reply))
            return self._end(run)
        name = self._recipe.expressions[run.worked_out].name
        run.worked_out += 1
        if run.worked_out == len(self._recipe.expressions) and not self._target:
            return self._made(run, reply)
        self._let_go += reply.held
        run.scope = {**run.scope, name: (reply.body,)}
        return self._advance(run)

    def _placed(self, reply: Reply) -> Reply:
        """What the helper says of an expression, with the place where that stands."""
        failure = reply.failure
        if failure is None or failure.message.startswith(self._where):
            return reply
        message = f"{self._where}: {failure.words}"
        return failed(msgspec.structs.replace(failure, message=message), reply.call)

    def _made(self, run: _Run, reply: Reply) -> list[Work]:
        """A run that sends nothing: what was worked out is its result."""
        self._keep(run, reply)
        self._give(run, reply)
        return self._end(run)

    def _answered(self, run: _Run, reply: Reply) -> list[Work]:
        if reply.failure is None:
            self._keep(run, reply)
        if reply.failed:
            self._fail(run, reply)
            return self._end(run)
        if self._recipe.paging is not None:
            return self._paged(run, reply, self._recipe.paging)
        self._give(run, reply)
        return self._end(run)

    def _paged(self, run: _Run, reply: Reply, paging: Paging) -> list[Work]:
        page = values.document(reply.body)
        if page is None:
            self._let_go += reply.held
            return self._halt(run, 502, "not_json", "a page is not JSON")
        self._give(run, reply)
        try:
            self._beget(run, reply)
        except Unresolved as why:
            return self._stop(run, self._unresolved(why))
        run.pages += 1
        records, cursor = pages.read(page, paging)
        run.records += records
        return self._next_page(run, cursor, paging) if cursor else self._end(run)

    def _next_page(self, run: _Run, cursor: str, paging: Paging) -> list[Work]:
        """1 the list goes round in circles, 2 and 3 it is too long, 4 its next page."""
        if cursor == run.cursor:
            return self._halt(run, 502, "cursor_repeats", "a page names itself as the next one")
        if run.pages >= paging.most_pages:
            return self._halt(run, 413, "too_many_pages", f"stopped after {run.pages} pages")
        if run.records >= paging.most_records:
            return self._halt(run, 413, "too_many_records", f"stopped after {run.records} records")
        run.cursor = cursor
        try:
            target = normalise(pages.following(run.target, paging, cursor))
        except BadTarget as bad:
            return self._stop(run, _misled(self._where, bad))
        return [self._call(run, target, run.pages)]

    def _beget(self, run: _Run, reply: Reply) -> None:
        recurse = self._recipe.recurse
        if recurse is None or self._too_many_heirs():
            return
        records = recurse.records.pick(reply)
        if len(records) > MOST_ASKED:
            raise Unresolved(f"{self._where}.recurse: more than {MOST_ASKED} records in a page")
        for record in records:
            scope = {**run.scope, recurse.name: (record,)}
            if recurse.when.fill(scope) != "true":
                continue
            self._heirs += 1
            self._heirs_size += len(record)
            if self._heirs_size > self._recipe.most_kept:
                raise TooMany(f"{self._where}.recurse: reads more than may be kept")
            run.heirs.append(scope)
            if self._too_many_heirs():
                return

    # --- how a run goes on -----------------------------------------------------------------------

    def _give(self, run: _Run, reply: Reply) -> None:
        self._good += 1
        if self._recipe.quiet:
            self._let_go += reply.held
        else:
            run.replies.append(reply)

    def _fail(self, run: _Run, reply: Reply) -> None:
        self._failed = True
        run.replies.append(reply)
        if reply.call is None and reply.failure is not None and not reply.failure.sent:
            self._unsent.append(reply)

    def _stop(self, run: _Run, failure: Failure) -> list[Work]:
        """A run that cannot go on, and a result that says why."""
        self._fail(run, failed(failure))
        return self._end(run)

    def _give_up(self, run: _Run, why: Exhausted) -> list[Work]:
        """There is no room for what is made in this run, so there would be none in the next."""
        left = len(self._runs) - self._begun
        del self._runs[self._begun :]
        also = f"; {left} more runs are not begun" if left else ""
        return self._stop(run, self._unresolved(Exhausted(why.message + also)))

    def _never(self, failure: Failure) -> list[Work]:
        """Not one run can begin."""
        self._runs = [_Run("0", 0, self._scope, self._target)]
        self._begun = 1
        return self._stop(self._runs[0], failure)

    def _halt(self, run: _Run, status: int, slug: str, what: str) -> list[Work]:
        message = f"{self._where}: {what}"
        failure = Failure("proxy_internal_response", slug, True, status, message)
        return self._stop(run, failure)

    def _end(self, run: _Run) -> list[Work]:
        """Nothing more is wanted for a run, and nothing of it is needed but what it gave."""
        run.done = True
        run.body, run.scope = None, {}
        self._ended += 1
        return []

    def _unresolved(self, why: Unresolved) -> Failure:
        placed = why.message.startswith(self._where)
        message = why.message if placed else f"{self._where}: {why.message}"
        return Failure("proxy_internal_response", "unresolved_reference", message=message)

    def _too_many(self, what: str) -> Failure:
        message = f"{self._where}: more than {what}"
        return Failure("proxy_internal_response", "too_many_runs", status=413, message=message)

    def _keep(self, run: _Run, reply: Reply) -> None:
        if self._recipe.keep is None or self._kept_size > self._recipe.most_kept:
            return
        try:
            values = self._recipe.keep.pick(reply)
        except TooMany:
            self._kept_size = self._recipe.most_kept + 1
            return
        self._kept_size += sum(map(len, values)) + len(values) * _OVERHEAD
        if self._kept_size <= self._recipe.most_kept:
            run.kept.extend(values)
        else:
            run.kept.clear()


# --- results made here ---------------------------------------------------------------------------


def _misled(where: str, bad: BadTarget) -> Failure:
    """A value led the target where it must not go."""
    return Failure("http_request_error", bad.slug, message=f"{where}: {bad.message}")

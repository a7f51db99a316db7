"""A bulk call from first byte to last.

The walk (DESIGN part 3): the bounded body is read, the dialect parses it, planning makes a graph
of it, what every subrequest inherits is settled once, and `execution` carries it out. Everything
that makes the whole batch wrong is found before the first byte goes up or down, and is told in
the dialect's own shape. After that the answer ends whole or is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import orjson
from aiohttp import web

from gateway import headers, target
from gateway.admission import OVERLOADED, Admission
from gateway.answer import (
    BUG,
    BodyStalled,
    ClientAnswer,
    Done,
    date,
    encoded,
    invite,
    problem,
    settle,
    wire,
)
from gateway.batch import Answer, BatchRecord, RawHeaders, RefusedRecord, Trace
from gateway.config import Settings
from gateway.config.limits import of_call
from gateway.cors import Cors
from gateway.errors import Refused
from gateway.execution import Execution, Guard, Run, Terms
from gateway.planning.delivery import Chunk
from gateway.planning.nouns import Plan
from gateway.reception import Desk, Manners, Outer
from gateway.upstream import Pool

CROWDED = OVERLOADED.details
"""Why a call is refused that could have been made at another time."""

JSON_TYPES = ("application/json", "text/json")
"""Beside them anything `+json`, and no Content-Type at all."""

RETRY_AFTER = 1
"""Seconds, for a client that came when too many batches ran."""

HELD_BACK = 1.0
"""Seconds after which such a client is told. Whoever comes back at once, or does not come alone,
cannot make refusals take the processor from the work that was taken on."""

SMALL = 64 * 1024
"""Bytes of a body that there is always room for, so that large ones which never end keep out other
large ones alone. A connection may hold as much unread. What is larger is read aside."""

TOLD = (
    "limits.request_bytes",
    "limits.depth",
    "limits.subrequests",
    "limits.response_bytes",
    "limits.batch_time",
    "batch.width",
    "rate_limit.per_second",
    "rate_limit.burst",
)
"""What a client is told, beside its dialect's limits; how much the process can hold it is not."""


class BulkEndpoint:
    """One path that takes bulk calls in one dialect."""

    def __init__(
        self,
        desk: Desk,
        pool: Pool,
        execution: Execution,
        terms: Terms,
        guard: Callable[[Outer], Guard],
        admission: Admission,
        cors: Cors | None,
        about: Callable[[], bytes],
    ) -> None:
        """`guard` is made for each batch, since what a client may do depends on who it is."""
        self._desk = desk
        self._dialect = desk.dialect
        self._pool = pool
        self._execution = execution
        self._terms = terms
        self._guard = guard
        self._admission = admission
        self._cors = cors
        self._about = about

    def begin(
        self, request: web.BaseRequest, path: str, params: Mapping[str, str], done: Done
    ) -> bool:
        """Answers a POST whose document came with its head, without a task of its own: `done` is
        told, perhaps before this returns. `path` is in normal form, `params` what its template
        found in it. False: this one needs `answer`."""
        if not 0 < (request.content_length or 0) <= SMALL:
            return False
        outer, trace = self._received(request)
        try:
            self._admit(outer)
            body = self._in_hand(request) or b""
            began = self._execution.clock()
            plan = self._desk.plan(outer, path, params, body)
            outer.parsed = self._execution.clock() - began
            run = self._start(outer, trace, plan, len(body))
        except Refused as mistake:
            answer = self._refuse(outer, trace, mistake)
            if mistake.reason == CROWDED:
                later = partial(self._tell, outer, answer, done)
                outer.wire.on_gone = self._execution.loop.call_later(HELD_BACK, later).cancel
            else:
                done(answer())
            return True
        outer.wire.on_gone = _Writing(outer, run, done).abandon
        return True

    async def answer(
        self, request: web.BaseRequest, path: str, params: Mapping[str, str]
    ) -> ClientAnswer:
        """The same for any POST. Cancelled, it leaves the batch to itself."""
        outer, trace = self._received(request)
        body: list[bytes] = []  # here alone: compiled, a coroutine that has ended keeps what it had
        try:
            self._admit(outer)
            body.append(await self._read(request))
            self._find_room()  # the heads of a thousand calls may have come before their bodies
            plan = await self._plan(outer, path, params, body)
            run = self._start(outer, trace, plan, len(body[0]))
        except Refused as mistake:
            answer = self._refuse(outer, trace, mistake)
            if mistake.reason == CROWDED:
                body.clear()
                mistake.__traceback__ = None  # it keeps what was read
                await asyncio.sleep(HELD_BACK)
            return answer()
        end: asyncio.Future[ClientAnswer] = asyncio.get_running_loop().create_future()
        writing = _Writing(outer, run, partial(settle, end))
        try:
            return await end
        finally:
            writing.abandon()

    async def options(self, request: web.BaseRequest) -> ClientAnswer:
        """Answers one OPTIONS: a browser's question, or one about what may be asked here."""
        outer = _Outer(request, self._desk.manners, self._cors)
        if self._cors is not None and outer.first("access-control-request-method") is not None:
            return outer.preflight(self._cors)
        return outer.answer(200, ((b"Allow", b"POST, OPTIONS"), _JSON)).finish(self._about())

    # --- before anything is sent -----------------------------------------------------------------

    def _received(self, request: web.BaseRequest) -> tuple[_Outer, Trace | None]:
        outer = _Outer(request, self._desk.manners, self._cors)
        recorder = self._execution.recorder
        trace = recorder.trace(request.method, outer.scheme, request.raw_path, outer.headers)
        return outer, trace

    def _admit(self, outer: _Outer) -> None:
        """What can be said before the body is read."""
        via = outer.all("via")
        if via and headers.looped(via, self._desk.manners.name):
            raise Refused("loop_detected", "this call has been here before")
        turned_away = self._admission.refusal()
        if turned_away is not None:
            reason, message = turned_away.details, turned_away.message
            raise Refused(reason, message, retry_after=turned_away.retry_after)
        self._find_room()
        self._look_at_type(outer)

    def _find_room(self) -> None:
        if self._execution.crowd >= self._desk.limits.batches:
            raise Refused(CROWDED, "too many bulk calls at once", retry_after=RETRY_AFTER)

    def _look_at_type(self, outer: _Outer) -> None:
        media, _, _ = (outer.first("content-type") or "").partition(";")
        media = media.strip().lower()
        if media not in JSON_TYPES and not media.endswith("+json") and (media or outer.strange):
            raise Refused("unsupported_media_type", "content-type: expected application/json")
        if (outer.first("content-encoding") or "identity").strip().lower() != "identity":
            raise Refused("unsupported_media_type", "content-encoding: expected none")

    def _in_hand(self, request: web.BaseRequest) -> bytes | None:
        """A small body that came with its head."""
        announced, most = request.content_length or 0, self._desk.limits.request_bytes
        if announced > most:
            raise _too_large(most)
        here = 0 < announced <= SMALL and request.content.is_eof()
        return request.content.read_nowait() if here else None

    async def _read(self, request: web.BaseRequest) -> bytes:
        body = self._in_hand(request)
        if body is not None:
            return body
        limits, admission, content = self._desk.limits, self._admission, request.content
        most = limits.request_bytes
        invite(request)
        pieces: list[bytes] = []
        size = 0
        try:
            # A byte now and then is no stall, but it keeps a connection as long as it likes.
            async with asyncio.timeout(limits.batch_time):
                while not content.at_eof():
                    piece = await content.readany()
                    size += len(piece)
                    admission.reading += len(piece)
                    if size > most:
                        raise _too_large(most)
                    if size > SMALL and self._documents > limits.buffer_bytes:
                        raise Refused(CROWDED, "no room for the body", retry_after=RETRY_AFTER)
                    pieces.append(piece)
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except (BodyStalled, TimeoutError):
            raise Refused("request_timeout", "the body did not arrive in time") from None
        finally:
            admission.reading -= size
            pieces.clear()

    @property
    def _documents(self) -> int:
        """Bytes of bulk calls that are being read, wait to be understood or are carried out."""
        return self._admission.reading + self._execution.documents

    async def _plan(
        self, outer: _Outer, path: str, params: Mapping[str, str], body: list[bytes]
    ) -> Plan:
        began, size, read = self._execution.clock(), len(body[0]), self._desk.plan
        if size <= SMALL:
            plan = read(outer, path, params, body[0])
        else:
            plan = await self._admission.read_aside(
                size, lambda: read(outer, path, params, body[0])
            )
            self._find_room()
        outer.parsed = self._execution.clock() - began
        return plan

    def _start(self, outer: _Outer, trace: Trace | None, plan: Plan, size: int) -> Run:
        record = BatchRecord(
            id=outer.id,
            dialect=self._dialect.name,
            endpoint=self._desk.path,
            client=outer.client,
            trace=trace,
            bytes_in=size,
        )
        context = self._desk.context(outer, trace)
        guard = self._guard(outer)
        return self._execution.run(
            self._pool, plan, self._dialect, context, self._terms, guard, record
        )

    def _refuse(
        self, outer: _Outer, trace: Trace | None, mistake: Refused
    ) -> Callable[[], ClientAnswer]:
        """Counts and logs it; returns what answers it."""
        answer = self._dialect.refusal(mistake.status, mistake.reason, mistake.message)
        self._execution.recorder.refused(
            RefusedRecord(
                id=outer.id,
                dialect=self._dialect.name,
                reason=mistake.reason,
                status=answer.status,
                endpoint=self._desk.path,
                client=outer.client,
                message=mistake.message,
                trace=trace,
            )
        )
        retry = ((b"Retry-After", b"%d" % mistake.retry_after),) if mistake.retry_after else ()
        return partial(outer.whole, answer, retry)

    def _tell(self, outer: _Outer, answer: Callable[[], ClientAnswer], done: Done) -> None:
        """From a timer, where nobody else would catch a mistake of ours."""
        try:
            told = answer()
        except Exception:
            self._execution.recorder.bug("answer")
            told = problem(outer.request, BUG, close=True)
        done(told)


class _Writing:
    """A batch's answer on its way to the client. Results are written as they become due, and wait
    while the client is behind; a batch that is quick is a single write."""

    def __init__(self, outer: _Outer, run: Run, done: Done) -> None:
        self._outer = outer
        self._run = run
        self._done = done
        self._answer: ClientAnswer | None = None
        self._chunk: Chunk | None = None
        """What was written last, until the client has taken it."""
        self._over = False
        run.when_due(self._write)

    def abandon(self) -> None:
        """The client has left, or we have. `done` is not told."""
        if not self._over:
            self._leave("cut" if self._outer.wire.dropped else "client_gone")

    def _write(self) -> None:
        if self._over or self._outer.wire.dropped:
            return
        try:
            answer = self._answer = self._answer or self._begin()
            if not answer.ended:
                self._chunk = chunk = self._run.take()
                if self._run.complete:
                    answer.finish(chunk.data)
                else:
                    answer.send(chunk.data)
        except Exception:
            self._break_off()
            return
        if self._outer.wire.writing_paused:
            self._outer.wire.on_room = self._written
        else:
            self._written()

    def _begin(self) -> ClientAnswer:
        outer, run = self._outer, self._run
        timing = _timing(outer, run)
        if run.answer is not None:
            return outer.whole(run.answer, (timing,))
        return outer.answer(200, (_JSON, _UNBUFFERED, timing))

    def _written(self) -> None:
        """The client has taken what was written, or so much of it that more may follow."""
        answer = self._answer
        if self._over or answer is None:
            return
        self._outer.wire.on_room = None
        if self._chunk is not None:
            self._run.written(self._chunk)
            self._chunk = None  # nobody counts it any more
        if answer.ended:
            self._over = True
            self._run.finished()
            self._done(answer)
        else:
            self._run.when_due(self._write)

    def _break_off(self) -> None:
        """A bug of ours: told within its `except`, and never a whole answer."""
        self._run.bug()
        self._leave("cut")
        answer = self._answer
        if answer is not None and answer.began:
            answer.cut()
        else:
            answer = problem(self._outer.request, BUG, close=True)
        self._done(answer)

    def _leave(self, outcome: str) -> None:
        self._over = True
        self._chunk = None
        self._run.abandon(outcome)


def _too_large(most: int) -> Refused:
    return Refused("body_too_large", f"the body is longer than {most} bytes")


_JSON = (b"Content-Type", b"application/json")
_UNBUFFERED = (b"X-Accel-Buffering", b"no")


def _timing(outer: _Outer, run: Run) -> tuple[bytes, bytes]:
    """Where the time went until now, when the first results leave (W3C Server Timing)."""
    parse, queue, age = outer.parsed * 1e3, run.queued * 1e3, run.age * 1e3
    times = (parse, queue, parse + age)
    return (b"Server-Timing", b"parse;dur=%.1f, queue;dur=%.1f, first;dur=%.1f" % times)


def about(desk: Desk, settings: Settings) -> bytes:
    """What whoever asks with OPTIONS is told of an endpoint."""
    limits = of_call(settings, desk.batch, desk.dialect)
    told = {
        name: {"value": limit.value, "unit": limit.unit}
        for name, limit in limits.items()
        if name in TOLD or "." not in name
    }
    return orjson.dumps({"path": desk.path, "dialect": desk.dialect.name, "limits": told})


class _Outer(Outer):
    """The outer request, and how it is answered."""

    __slots__ = ("_cors", "_shared", "parsed", "request", "wire")

    def __init__(self, request: web.BaseRequest, manners: Manners, cors: Cors | None) -> None:
        fields = headers.text(request.raw_headers)
        scheme = "https" if request.secure else "http"
        super().__init__(request.raw_path, fields, request.remote, scheme, manners)
        self.request = request
        self.wire = wire(request)
        self.parsed = 0.0
        """Seconds that it took to understand the document."""
        self._cors = cors
        self._shared = () if cors is None else encoded(cors.fields(self.first("origin")))

    @property
    def strange(self) -> bool:
        """It comes from a page whose origin is neither our own nor one that `cors` names.

        Browsers ask before they send a strange page's JSON, but not if it does not say that it is
        JSON. Subrequests do say it, so the backend would take for asked what nobody asked about.
        """
        origin = self.first("origin")
        if origin is None or (self._cors is not None and self._cors.names(origin)):
            return False
        scheme, _, name = origin.partition("://")
        own = target.origin(scheme, name)
        return not own or own not in self.origins()

    def answer(self, status: int, fields: RawHeaders) -> ClientAnswer:
        number = (b"X-Request-Id", self.id.encode("latin-1"))
        return ClientAnswer(self.request, status, (*fields, number, *self._shared, date()))

    def whole(self, answer: Answer, extra: RawHeaders = ()) -> ClientAnswer:
        fields = encoded((("Content-Type", answer.content_type), *answer.headers))
        return self.answer(answer.status, (*fields, *extra)).finish(answer.body)

    def preflight(self, cors: Cors) -> ClientAnswer:
        fields = (("X-Request-Id", self.id), *cors.preflight(self.first("origin")))
        return ClientAnswer(self.request, 204, (*encoded(fields), date())).finish()

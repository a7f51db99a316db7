"""A bulk call from first byte to last.

The walk (DESIGN part 3): the bounded body is read, the dialect parses it, planning makes a graph
of it, what every subrequest inherits is settled once, and `execution` carries it out. Everything
that makes the whole batch wrong is found before the first byte goes up or down, and is told in
the dialect's own shape. After that the answer ends whole or is cut.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from gateway import headers
from gateway.answer import BodyStalled, ClientAnswer, date, encoded, invite, wire
from gateway.batch import Answer, BatchRecord, Headers, RefusedRecord, Trace
from gateway.errors import Refused
from gateway.execution import Execution, Guard, Run, Terms
from gateway.reception import Desk, Manners, Outer

JSON_TYPES = ("application/json", "text/json")
"""Beside them anything `+json`, and no Content-Type at all."""

RETRY_AFTER = 1
"""Seconds, for a client that came when too many batches ran."""


class BulkEndpoint:
    """One path that takes bulk calls in one dialect."""

    def __init__(self, desk: Desk, execution: Execution, terms: Terms, guard: Guard) -> None:
        self._desk = desk
        self._dialect = desk.dialect
        self._terms = terms
        self._execution = execution
        self._guard = guard

    async def answer(self, request: web.BaseRequest, params: Mapping[str, str]) -> ClientAnswer:
        """Answers one POST. `params` is what the path's template found in it."""
        outer = _Outer(request, self._desk.manners)
        trace = self._execution.recorder.trace(request.method, request.raw_path, outer.headers)
        try:
            self._admit(outer)
            body = await self._read(request)
            run = self._start(outer, trace, params, body)
        except Refused as mistake:
            return self._refuse(outer, trace, mistake)
        return await self._deliver(outer, run)

    # --- before anything is sent -----------------------------------------------------------------

    def _admit(self, outer: _Outer) -> None:
        """What can be said before the body is read."""
        if headers.looped(outer.all("via"), self._desk.manners.name):
            raise Refused("loop_detected", "this call has been here before")
        if self._execution.closed:
            raise Refused("shutting_down", "shutting down", retry_after=RETRY_AFTER)
        if len(self._execution) >= self._desk.limits.batches:
            raise Refused("overloaded", "too many bulk calls at once", retry_after=RETRY_AFTER)
        media, _, _ = (outer.first("content-type") or "").partition(";")
        media = media.strip().lower()
        if media and media not in JSON_TYPES and not media.endswith("+json"):
            raise Refused("unsupported_media_type", "content-type: expected application/json")
        if (outer.first("content-encoding") or "identity").strip().lower() != "identity":
            raise Refused("unsupported_media_type", "content-encoding: expected none")

    async def _read(self, request: web.BaseRequest) -> bytes:
        room = self._desk.limits.request_bytes
        too_large = Refused("body_too_large", f"the body is longer than {room} bytes")
        if (request.content_length or 0) > room:
            raise too_large
        invite(request)
        pieces: list[bytes] = []
        try:
            while piece := await request.content.readany():
                room -= len(piece)
                if room < 0:
                    raise too_large
                pieces.append(piece)
        except BodyStalled:
            raise Refused("request_timeout", "the body did not arrive in time") from None
        return b"".join(pieces)

    def _start(
        self,
        outer: _Outer,
        trace: Trace | None,
        params: Mapping[str, str],
        body: bytes,
    ) -> Run:
        plan = self._desk.plan(outer, params, body)
        record = BatchRecord(
            id=outer.id,
            dialect=self._dialect.name,
            endpoint=self._desk.path,
            client=outer.client,
            trace=trace,
            bytes_in=len(body),
        )
        context = self._desk.context(outer, trace)
        return self._execution.run(plan, self._dialect, context, self._terms, self._guard, record)

    def _refuse(self, outer: _Outer, trace: Trace | None, mistake: Refused) -> ClientAnswer:
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
        retry = (("Retry-After", str(mistake.retry_after)),) if mistake.retry_after else ()
        return self._whole(outer, answer, retry)

    # --- after -----------------------------------------------------------------------------------

    async def _deliver(self, outer: _Outer, run: Run) -> ClientAnswer:
        """Writes results as they become due; a batch that is quick is a single write."""
        try:
            await run.due()
            if run.answer is not None:
                return self._whole(outer, run.answer)
            answer = outer.answer(200, "application/json", (("X-Accel-Buffering", "no"),))
            while True:
                chunk = run.take()
                if run.complete:
                    answer.finish(chunk.data)
                    await wire(outer.request).room()
                    run.written(chunk)
                    return answer
                await answer.write(chunk.data)
                run.written(chunk)
                await run.due()
        except BaseException:
            run.abandon()
            raise
        finally:
            run.finished()

    def _whole(self, outer: _Outer, answer: Answer, extra: Headers = ()) -> ClientAnswer:
        fields = answer.headers + extra
        return outer.answer(answer.status, answer.content_type, fields).finish(answer.body)


class _Outer(Outer):
    """The outer request, and how it is answered."""

    __slots__ = ("request",)

    def __init__(self, request: web.BaseRequest, manners: Manners) -> None:
        fields = headers.text(request.raw_headers)
        scheme = "https" if request.secure else "http"
        super().__init__(request.raw_path, fields, request.remote, scheme, manners)
        self.request = request

    def answer(self, status: int, content_type: str, extra: Headers) -> ClientAnswer:
        fields = (("Content-Type", content_type), ("X-Request-Id", self.id), *extra)
        return ClientAnswer(self.request, status, (*encoded(fields), date()))

"""A bulk call from first byte to last.

The walk (DESIGN part 3): the bounded body is read, the dialect parses it, planning makes a graph
of it, what every subrequest inherits is settled once, and `execution` carries it out. Everything
that makes the whole batch wrong is found before the first byte goes up or down, and is told in
the dialect's own shape. After that the answer ends whole or is cut.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from gateway import headers, target
from gateway.answer import BodyStalled, ClientAnswer, date, encoded, invite, wire
from gateway.batch import Answer, BatchRecord, BulkCall, Dialect, Headers, RefusedRecord, Trace
from gateway.errors import Refused
from gateway.execution import Execution, Guard, Run, Terms
from gateway.planning import expand
from gateway.planning.graph import plan

JSON_TYPES = ("application/json", "text/json")
"""Beside them anything `+json`, and no Content-Type at all."""

RETRY_AFTER = 1
"""Seconds, for a client that came when too many batches ran."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a bulk call may be, and how many there may be. Bytes and counts."""

    request_bytes: int
    depth: int
    subrequests: int
    batches: int


@dataclass(frozen=True, slots=True)
class Manners:
    """How outer headers become those of subrequests, alike for every endpoint (DESIGN part 6)."""

    name: str
    """In Via."""
    host: str
    """The setting `upstream.host`."""
    authority: str
    """The backend's own host and port."""
    policy: headers.HeaderPolicy
    proxies: headers.TrustedProxies


class BulkEndpoint:
    """One path that takes bulk calls in one dialect."""

    def __init__(
        self,
        path: str,
        dialect: Dialect,
        execution: Execution,
        terms: Terms,
        bounds: Bounds,
        guard: Guard,
        manners: Manners,
    ) -> None:
        self.path = path
        self.dialect = dialect
        self.terms = terms
        self.bounds = bounds
        self._execution = execution
        self._guard = guard
        self._manners = manners

    async def answer(self, request: web.BaseRequest, params: Mapping[str, str]) -> ClientAnswer:
        """Answers one POST. `params` is what the path's template found in it."""
        outer = _Outer(request, self._manners)
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
        if headers.looped(outer.all("via"), self._manners.name):
            raise Refused("loop_detected", "this call has been here before")
        if self._execution.closed:
            raise Refused("shutting_down", "shutting down", retry_after=RETRY_AFTER)
        if len(self._execution) >= self.bounds.batches:
            raise Refused("overloaded", "too many bulk calls at once", retry_after=RETRY_AFTER)
        media, _, _ = (outer.first("content-type") or "").partition(";")
        media = media.strip().lower()
        if media and media not in JSON_TYPES and not media.endswith("+json"):
            raise Refused("unsupported_media_type", "content-type: expected application/json")
        if (outer.first("content-encoding") or "identity").strip().lower() != "identity":
            raise Refused("unsupported_media_type", "content-encoding: expected none")

    async def _read(self, request: web.BaseRequest) -> bytes:
        too_large = Refused(
            "body_too_large", f"the body is longer than {self.bounds.request_bytes} bytes"
        )
        if (request.content_length or 0) > self.bounds.request_bytes:
            raise too_large
        invite(request)
        pieces: list[bytes] = []
        room = self.bounds.request_bytes
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
        raw = outer.request.raw_path
        bulk = BulkCall(
            path=target.normalise(target.rooted(raw)),
            query=raw.partition("?")[2],
            headers=outer.headers,
            body=body,
            params=params,
            origins=outer.origins(),
            max_subrequests=self.bounds.subrequests,
            max_depth=self.bounds.depth,
            header_policy=self._manners.policy,
        )
        tree = plan(self.dialect.parse(bulk))
        record = BatchRecord(
            id=outer.id,
            dialect=self.dialect.name,
            endpoint=self.path,
            client=outer.client,
            trace=trace,
            bytes_in=len(body),
        )
        context = self._context(outer, trace)
        return self._execution.run(tree, self.dialect, context, self.terms, self._guard, record)

    def _context(self, outer: _Outer, trace: Trace | None) -> expand.Context:
        """What every subrequest of this batch gets."""
        rules, manners = self.dialect.rules, self._manners
        inherited = headers.inherit(outer.headers, rules, manners.policy, trusted=outer.trusted)
        written = headers.managed(
            outer.headers,
            host=manners.host,
            authority=manners.authority,
            peer=outer.peer,
            trusted=outer.trusted,
            scheme=outer.scheme,
            via=manners.name,
        )
        return expand.Context(
            batch_id=outer.id,
            headers=inherited + written,
            rules=rules,
            idempotency_key=headers.idempotency_key(outer.headers),
            trace=trace,
        )

    def _refuse(self, outer: _Outer, trace: Trace | None, mistake: Refused) -> ClientAnswer:
        answer = self.dialect.refusal(mistake.status, mistake.reason, mistake.message)
        self._execution.recorder.refused(
            RefusedRecord(
                id=outer.id,
                dialect=self.dialect.name,
                reason=mistake.reason,
                status=answer.status,
                endpoint=self.path,
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


class _Outer:
    """The outer request, as far as its head tells."""

    __slots__ = ("client", "headers", "id", "peer", "request", "scheme", "trusted")

    def __init__(self, request: web.BaseRequest, manners: Manners) -> None:
        self.request = request
        self.headers = headers.text(request.raw_headers)
        self.peer = request.remote
        self.trusted = manners.proxies.trusted(self.peer)
        self.client = self.peer or "unix"
        self.scheme = "https" if request.secure else "http"
        given = self.first("x-request-id") if self.trusted else None
        self.id = given if given and given.isprintable() else secrets.token_hex(8)

    def first(self, name: str) -> str | None:
        return headers.first(self.headers, name)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if headers.normal(key) == name]

    def origins(self) -> frozenset[str]:
        """The gateway's own public origins as this client knows them (DESIGN part 7).

        Both schemes: TLS may end in front of us, and what is rebased reaches the backend alone.
        """
        names = {self.first("host")}
        if self.trusted:
            names.add(self.first("x-forwarded-host"))
        return frozenset(
            target.origin(scheme, name) for name in names if name for scheme in ("http", "https")
        )

    def answer(self, status: int, content_type: str, extra: Headers) -> ClientAnswer:
        fields = (("Content-Type", content_type), ("X-Request-Id", self.id), *extra)
        return ClientAnswer(self.request, status, (*encoded(fields), date()))

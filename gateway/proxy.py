"""Pass-through: any request that is no bulk call goes to the backend as it came.

It goes over the same pool as subrequests, streamed. What comes in one read goes out in one write,
so a small exchange costs no task; a body that is not complete yet gets one that pumps it up, and
the answer's pieces are written to the client from within the backend's callbacks. Each direction
waits for its slower end.

Dropped, as RFC 9110 allows: trailers, and interim answers other than the 100 that the client gets
when the backend is ready for its body.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from time import monotonic

from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from gateway import headers, target
from gateway.answer import BodyStalled, ClientAnswer, problem, wire
from gateway.batch import Call, Failure, Headers, PassRecord, Recorder, Reply, Trace
from gateway.errors import BadTarget
from gateway.reception import Manners
from gateway.target import PathRules
from gateway.upstream import CHUNKED, Exchange, Pool

PARTING = 5.0
"""Seconds for a tunnel's backend to take the client's last bytes and to close."""

DISABLED = Failure("http_request_denied", "passthrough_disabled", status=404)
LOOPED = Failure("proxy_loop_detected", "loop_detected", message="this request was here before")
SHUTTING_DOWN = Failure("proxy_internal_response", "shutting_down", status=503, retry_after=1)
BODY_TIMEOUT = Failure("http_request_error", "body_timeout", status=408)
BAD_BODY = Failure("http_request_error", "bad_body", status=400)
BAD_HEAD = Failure("http_protocol_error", "bad_head", sent=True)

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class Proxy:
    """All that is passed through."""

    def __init__(
        self,
        pool: Pool,
        manners: Manners,
        recorder: Recorder,
        *,
        enabled: bool = True,
        rules: PathRules | None = None,
    ) -> None:
        """`rules` are the operator's, where they hold for pass-through too."""
        self._pool = pool
        self._recorder = recorder
        self._enabled = enabled
        self._rules = rules
        self._manners = manners
        self._via = f"1.1 {manners.name}".encode("latin-1")
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count()
        self.closed = False
        """New requests get 503."""

    async def answer(self, request: web.BaseRequest) -> ClientAnswer:
        """Passes one request through, or says why not."""
        method, given = request.method, request.raw_path
        record = PassRecord(
            id=f"{self._prefix}{next(self._numbers):08x}",
            method=method,
            target=given,
            client=request.remote or "unix",
            trace=self._recorder.trace(method, given, _trace_fields(request)),
        )
        began = monotonic()
        try:
            to = self._target(request)
            if isinstance(to, Failure):
                return _refuse(request, record, to)
            return await self._pass(request, record, to)
        finally:
            record.seconds = monotonic() - began
            self._recorder.passthrough(record)

    def _target(self, request: web.BaseRequest) -> str | Failure:
        """Where the request goes, or why it goes nowhere."""
        if not self._enabled:
            return DISABLED
        if self.closed:
            return SHUTTING_DOWN
        if "Via" in request.headers and headers.looped(
            request.headers.getall("Via"), self._manners.name
        ):
            return LOOPED
        to = request.raw_path
        if to[0] != "/" and to != "*":
            _, mark, query = to.partition("?")
            to = target.rooted(to) + mark + query
        return to if self._rules is None else _permitted(self._rules, request.method, to)

    async def _pass(self, request: web.BaseRequest, record: PassRecord, to: str) -> ClientAnswer:
        hops = headers.max_forwards(request.raw_headers) if request.method == "OPTIONS" else None
        if hops == 0:
            # RFC 9110 7.6.2: it asks about whom it has reached, and that is us.
            record.status = 200
            return ClientAnswer(request, 200, ((b"Allow", METHODS),)).finish()
        upgrade = (
            request.version >= (1, 1) and headers.upgrade_asked(request.raw_headers) is not None
        )
        call = Call(request.method, to, self._fields(request, upgrade, hops, record.trace))
        if record.trace is not None:
            call.extra = (("traceparent", record.trace.header()),)
        content, upload = request.content, None
        if content.is_eof():
            call.body = content.read_nowait()
            record.bytes_in = len(call.body)
        else:
            upload = CHUNKED if request.content_length is None else request.content_length
        passage = Passage(request, record, self._via)
        passage.exchange = self._pool.open(call, passage, upload=upload, upgrade=upgrade)
        try:
            if upload is None and not upgrade:
                return await passage.end
            return await passage.pumped(content if upload is not None else None)
        except asyncio.CancelledError:
            if record.outcome == "ok":  # not our own cut, and not the end of a tunnel
                record.outcome = "client_gone"
            raise
        finally:
            passage.leave()

    def _fields(
        self, request: web.BaseRequest, upgrade: bool, hops: int | None, trace: Trace | None
    ) -> Headers:
        """The request's fields as they go up."""
        manners = self._manners
        trusted = manners.proxies.trusted(request.remote)
        outer = headers.text(request.raw_headers)
        if trace is not None:
            outer = headers.untraced(outer)
        authority = _authority(request.raw_path) if request.raw_path[0] not in "/*" else None
        if authority is not None:
            hostless = (field for field in outer if field[0].lower() != "host")
            outer = (("Host", authority), *hostless)
        written = headers.managed(
            outer,
            host=manners.host,
            authority=manners.authority,
            peer=request.remote,
            trusted=trusted,
            scheme="https" if request.secure else "http",
            via=manners.name,
            version="1.1" if request.version >= (1, 1) else "1.0",
            bulk=False,
        )
        return headers.forward_request(
            outer,
            written,
            manners.policy,
            trusted=trusted,
            overrides=self._rules is None,
            upgrade=upgrade,
            hops=hops,
        )


class Passage:
    """One request on its way through: the sink of its exchange."""

    __slots__ = (
        "_answer",
        "_over",
        "_record",
        "_request",
        "_tunnel",
        "_via",
        "_wire",
        "end",
        "exchange",
    )

    exchange: Exchange

    def __init__(self, request: web.BaseRequest, record: PassRecord, via: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._record = record
        self._via = via
        self._wire = wire(request)
        self._answer: ClientAnswer | None = None
        self._tunnel: asyncio.Future[StreamReader] = loop.create_future()
        """What the client says after a 101."""
        self._over = False
        self.end: asyncio.Future[ClientAnswer] = loop.create_future()

    # --- the way down: told by the exchange ------------------------------------------------------

    def received(self, head: Reply | None, data: bytes, last: bool) -> None:
        try:
            self._take(head, data, last)
        except ValueError:
            # A head that would break ours. The parser should have seen to it.
            self._break_off(BAD_HEAD)

    def _take(self, head: Reply | None, data: bytes, last: bool) -> None:
        self._record.bytes_out += len(data)
        answer = self._answer
        if answer is None:
            assert head is not None
            answer = self._answer = self._begin(head, last)
        if last:
            self._end(answer.finish(data))
            return
        answer.send(data)
        if self._wire.writing_paused:
            self._wire.on_room = self.exchange.resume
            self.exchange.pause()

    def _begin(self, head: Reply, last: bool) -> ClientAnswer:
        status = self._record.status = head.status
        if status == 101:
            return self._switch(head)
        fields = headers.forward_response(head.headers, via=self._via)
        declared = any(name.lower() == b"content-length" for name, _ in fields)
        answer = ClientAnswer(self._request, status, fields, reason=head.reason, declared=declared)
        if last and not self.exchange.uploaded:
            answer.close()  # nobody reads the rest of the request
        elif not last and _is_event_stream(head):
            self._wire.endless()
        return answer

    def _switch(self, head: Reply) -> ClientAnswer:
        self._record.outcome = "tunnel"
        self._wire.endless()
        fields = headers.forward_response(head.headers, via=self._via, upgrade=True)
        answer = ClientAnswer(self._request, 101, fields, reason=head.reason, declared=True)
        self._tunnel.set_result(self._wire.tunnel())
        return answer

    def failed(self, failure: Failure) -> None:
        self._record.error = failure.error
        answer = self._answer
        if answer is None or not answer.began:
            self._end(_refuse(self._request, self._record, failure))
            return
        if self._record.status != 101:
            self._record.outcome = "cut"
        answer.cut()
        self._end(answer)

    def _break_off(self, failure: Failure) -> None:
        """It ends here, for a reason of ours or the client's."""
        self.exchange.abort()
        self.failed(failure)

    def _end(self, answer: ClientAnswer) -> None:
        self._over = True
        if not self.end.done():
            self.end.set_result(answer)

    # --- the way up ------------------------------------------------------------------------------

    async def pumped(self, content: StreamReader | None) -> ClientAnswer:
        """The answer, with a task beside it for what the client still has to say."""
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(self._pump(content))
            answer = await self.end
            pump.cancel()
        return answer

    async def _pump(self, content: StreamReader | None) -> None:
        try:
            if content is not None and await self.exchange.drain():
                self._wire.invite()
                await self._carry(content)
            await self._carry(await self._tunnel)
        except BodyStalled:
            self._break_off(BODY_TIMEOUT)
        except RequestPayloadError:
            self._break_off(BAD_BODY)
        except OSError:
            pass  # the client is gone; whoever waits for the answer is being cancelled

    async def _carry(self, source: StreamReader) -> None:
        exchange = self.exchange
        while await exchange.drain():
            data = await source.readany()
            if not data:
                exchange.write_eof()
                return
            self._record.bytes_in += len(data)
            exchange.write(data)

    def leave(self) -> None:
        """Nobody waits for the answer any more: it is there, or the client has left."""
        if self._over:
            return
        if self._tunnel.done() and not self._tunnel.cancelled():
            self._part(self._tunnel.result())
        else:
            self.exchange.abort()

    def _part(self, said: StreamReader) -> None:
        """A tunnel's client has closed: its last words are delivered."""
        self.exchange.write(said.read_nowait())
        self.exchange.write_eof()
        asyncio.get_running_loop().call_later(PARTING, self.exchange.abort)


# --- before anything is sent ---------------------------------------------------------------------


def _refuse(request: web.BaseRequest, record: PassRecord, failure: Failure) -> ClientAnswer:
    record.outcome = "failed"
    record.error = failure.error
    record.status = failure.code
    unread = not request.content.is_eof()
    return problem(request, failure, ((b"X-Request-Id", record.id.encode()),), close=unread)


def _permitted(rules: PathRules, method: str, to: str) -> str | Failure:
    """The target in normal form, since what was checked is what must be sent."""
    if to != "*":
        try:
            to = target.normalise(to, encoded_slash=rules.slash)
        except BadTarget as mistake:
            return Failure("http_request_error", mistake.slug, status=400, message=mistake.message)
    return rules.refusal(method, to) or to


def _trace_fields(request: web.BaseRequest) -> Headers:
    """What a tracer reads."""
    given = request.headers
    return tuple((name, given[name]) for name in ("traceparent", "tracestate") if name in given)


def _authority(target: str) -> str | None:
    """RFC 9112 3.2.2: a target in absolute form says it, and `Host` does not."""
    scheme, mark, rest = target.partition("://")
    return rest.partition("/")[0].partition("?")[0] if mark and scheme.isalpha() else None


def _is_event_stream(head: Reply) -> bool:
    return (head.header(b"content-type") or b"").lower().startswith(b"text/event-stream")

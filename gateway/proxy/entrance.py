"""Where requests that are no bulk calls come in: whether they may pass, and where they go."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from functools import partial

from aiohttp import web

from gateway import headers, target
from gateway.admission import Admission
from gateway.answer import ALLOW, ClientAnswer, Done, date, settle
from gateway.batch import Call, Failure, Headers, PassRecord, Recorder
from gateway.errors import BadTarget
from gateway.proxy.fields import Downward, Upward
from gateway.proxy.passage import Passage, refuse
from gateway.reception import Manners, usable_id
from gateway.target import PathRules
from gateway.upstream import CHUNKED, Pool

DISABLED = Failure("http_request_denied", "passthrough_disabled", status=404)
LOOPED = Failure("proxy_loop_detected", "loop_detected", message="this request was here before")


class Proxy:
    """All that is passed through."""

    def __init__(
        self,
        pool: Pool,
        manners: Manners,
        recorder: Recorder,
        admission: Admission,
        *,
        enabled: bool = True,
        rules: PathRules | None = None,
    ) -> None:
        """`rules` are the operator's, where they hold for pass-through too."""
        self._pool = pool
        self._recorder = recorder
        self._admission = admission
        self._enabled = enabled
        self._rules = rules
        self._name = manners.name
        self._proxies = manners.proxies
        self._up = Upward(manners, overrides=rules is None)
        self._down = Downward(manners.name)
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count()

    def begin(self, request: web.BaseRequest, done: Done) -> bool:
        """Passes a complete request through, or says why not, without a task of its own. `done` may
        be told before this returns. False: this one needs `answer`."""
        if "Upgrade" in request.headers or "Transfer-Encoding" in request.headers:
            return False
        passage = self._pass(request, done, plain=True)
        if passage is not None:
            passage.wire.on_gone = passage.abandon
        return True

    async def answer(self, request: web.BaseRequest) -> ClientAnswer:
        """The same for any request. Cancelled, it ends the backend's part too."""
        end: asyncio.Future[ClientAnswer] = asyncio.get_running_loop().create_future()
        passage = self._pass(request, partial(settle, end), plain=False)
        return end.result() if passage is None else await passage.attended(end)

    def _pass(self, request: web.BaseRequest, done: Done, *, plain: bool) -> Passage | None:
        """Lets a request in, or has told `done` why not. `plain`: it is known to offer no other
        protocol and to be in no chunks."""
        method, given = request.method, request.raw_path
        record = PassRecord(
            id=self._id(request),
            method=method,
            target=given,
            client=request.remote or "unix",
            trace=self._recorder.trace(method, request.scheme, given, _trace_fields(request)),
        )
        to = self._target(request)
        if isinstance(to, Failure):
            self._ended(refuse(request, record, to), record, done)
            return None
        # It means something for OPTIONS alone, TRACE being refused.
        hops = headers.max_forwards(request.raw_headers) if method == "OPTIONS" else None
        if hops == 0:
            # RFC 9110 7.6.2: it asks about whom it has reached, and that is us.
            record.status = 200
            answer = ClientAnswer(request, 200, (ALLOW, date())).finish()
            self._ended(answer, record, done)
            return None
        return self._passage(request, record, to, hops, done, plain)

    def _ended(self, answer: ClientAnswer, record: PassRecord, done: Done) -> None:
        self._recorder.passthrough(record)
        done(answer)

    def _id(self, request: web.BaseRequest) -> str:
        """The caller's, where its word is taken, else the next one of ours."""
        given = request.headers.get("X-Request-Id", "")
        if given and self._proxies.trusted(request.remote) and usable_id(given):
            return given
        return f"{self._prefix}{next(self._numbers):08x}"

    def _target(self, request: web.BaseRequest) -> str | Failure:
        """Where the request goes, or why it goes nowhere."""
        if not self._enabled:
            return DISABLED
        refusal = self._admission.refusal()
        if refusal is not None:
            return refusal
        if "Via" in request.headers and headers.looped(request.headers.getall("Via"), self._name):
            return LOOPED
        to = request.raw_path
        if to[0] != "/" and to != "*":
            to = _origin_form(request.method, to)
        return to if self._rules is None else _permitted(self._rules, request.method, to)

    def _passage(
        self,
        request: web.BaseRequest,
        record: PassRecord,
        to: str,
        hops: int | None,
        done: Done,
        plain: bool,
    ) -> Passage:
        upgrade = not plain and "Upgrade" in request.headers and _may_switch(request)
        fields = self._up.fields(request, record.trace, upgrade, hops)
        call = Call(request.method, to, ())
        if record.trace is not None:
            call.extra = (("traceparent", record.trace.header()),)
        content, upload = request.content, None
        if not plain and "Transfer-Encoding" in request.headers:
            upload = CHUNKED  # even if all of it is there by chance
        elif not content.is_eof():
            upload = request.content_length
        elif "Content-Length" in request.headers:
            call.body = content.read_nowait()
            record.bytes_in = len(call.body)
        return Passage(
            self._pool,
            request,
            record,
            self._recorder,
            self._down,
            call,
            fields,
            upload,
            upgrade,
            done,
        )


def _origin_form(method: str, given: str) -> str:
    """Of a target in absolute form what a server gets to see (RFC 9112 3.2.2). An OPTIONS that
    names a server and no more asks about all of it (3.2.4)."""
    path, mark, query = given.partition("?")
    if method == "OPTIONS" and not mark and "/" not in path.partition("://")[2]:
        return "*"
    return target.rooted(path) + mark + query


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
    if "traceparent" not in given:
        return ()
    return tuple((name, given[name]) for name in ("traceparent", "tracestate") if name in given)


def _may_switch(request: web.BaseRequest) -> bool:
    """RFC 9110 7.8: HTTP/1.0 has no upgrades."""
    return request.version >= (1, 1) and headers.upgrade_asked(request.raw_headers) is not None

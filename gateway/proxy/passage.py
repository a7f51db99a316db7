"""One request on its way through, once it has been let in."""

from __future__ import annotations

import asyncio
from time import monotonic

import msgspec
from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from gateway.answer import BAD_BODY, BODY_TIMEOUT, BodyStalled, ClientAnswer, Done, problem, wire
from gateway.batch import Call, Failure, PassRecord, Recorder, Reply
from gateway.proxy.fields import Downward
from gateway.upstream import Pool, is_event_stream

PARTING = 5.0
"""Seconds for a tunnel's backend to take the client's last bytes and to close."""

BAD_HEAD = Failure("http_protocol_error", "bad_head")


def refuse(request: web.BaseRequest, record: PassRecord, failure: Failure) -> ClientAnswer:
    """The gateway's own answer to a request that does not reach the backend, or found none."""
    record.outcome = "failed"
    record.error = failure.error
    record.status = failure.code
    unread = not request.content.is_eof()
    return problem(request, failure, ((b"X-Request-Id", record.id.encode()),), close=unread)


class Passage:
    """One request on its way through: the sink of its exchange.

    A request that is complete needs no more than this: what the backend says is written to the
    client from within the backend's callbacks. Of others a task has to carry the rest: `attended`.
    """

    __slots__ = (
        "_answer",
        "_began",
        "_done",
        "_down",
        "_exchange",
        "_over",
        "_record",
        "_recorder",
        "_request",
        "_tunnel",
        "_upload",
        "wire",
    )

    def __init__(
        self,
        pool: Pool,
        request: web.BaseRequest,
        record: PassRecord,
        recorder: Recorder,
        down: Downward,
        call: Call,
        fields: str,
        upload: int | None,
        upgrade: bool,
        done: Done,
    ) -> None:
        """Sends the call. `upload` is the length of a body that is still coming, or `CHUNKED`."""
        self._began = monotonic()
        self._request = request
        self._record = record
        self._recorder = recorder
        self._down = down
        self._done = done
        self.wire = wire(request)
        self._answer: ClientAnswer | None = None
        self._upload = upload is not None
        self._tunnel: asyncio.Future[StreamReader] | None = None
        """What the client says after a 101, where one was asked for."""
        if upgrade:
            self._tunnel = asyncio.get_running_loop().create_future()
        self._over = False
        invite = self.wire.invite if self.wire.uninvited else None
        self._exchange = pool.open(
            call, self, fields=fields, upload=upload, upgrade=upgrade, invite=invite
        )

    def abandon(self) -> None:
        """The client has left, or we have. What is in hand ends, and `done` is not told."""
        if self._over:
            return
        self._over = True
        tunnel = self._tunnel
        # It is cancelled with the task that waits for it.
        if tunnel is not None and tunnel.done() and not tunnel.cancelled():
            self._part(tunnel.result())
        else:
            self._record.outcome = "cut" if self.wire.dropped else "client_gone"
            self._exchange.abort()
        self._tell()

    # --- the way down: told by the exchange ------------------------------------------------------

    def received(self, head: Reply | None, data: bytes, last: bool) -> None:
        if self._over:
            return  # a tunnel's last words, to a client that has left
        try:
            self._record.bytes_out += len(data)
            answer = self._answer
            if answer is None:
                assert head is not None
                answer = self._answer = self._begin(head, last)
            if last:
                self._finish(answer.finish(data, streamed=True))
            else:
                self._send(answer, data)
        except ValueError:
            # A head that would break ours. The parser should have seen to it.
            self._break_off(BAD_HEAD)

    def _send(self, answer: ClientAnswer, data: bytes) -> None:
        answer.send(data)
        if self.wire.writing_paused:
            self.wire.on_room = self._exchange.resume
            self._exchange.pause()

    def _begin(self, head: Reply, last: bool) -> ClientAnswer:
        status = self._record.status = head.status
        if status == 101:
            return self._switch(head)
        fields, declared = self._down.fields(head.headers)
        answer = ClientAnswer(self._request, status, fields, reason=head.reason, declared=declared)
        if last and not self._exchange.uploaded:
            answer.close()  # nobody reads the rest of the request
        elif not last and is_event_stream(head):
            self.wire.endless()
        return answer

    def _switch(self, head: Reply) -> ClientAnswer:
        self._record.outcome = "tunnel"
        self.wire.endless()
        assert self._tunnel is not None, "the pool refuses a 101 that nobody asked for"
        self._tunnel.set_result(self.wire.tunnel())
        fields = self._down.switching(head.headers)
        return ClientAnswer(self._request, 101, fields, reason=head.reason, declared=True)

    def failed(self, failure: Failure) -> None:
        if self._over:
            return
        self._record.error = failure.error
        answer = self._answer
        if answer is None or not answer.began:
            self._finish(refuse(self._request, self._record, failure))
            return
        if self._record.status != 101:
            self._record.outcome = "cut"
        answer.cut()
        self._finish(answer)

    def _break_off(self, failure: Failure) -> None:
        """It ends here, for a reason of ours or the client's."""
        if not self._over:
            self._exchange.abort()
            self.failed(msgspec.structs.replace(failure, sent=self._exchange.call.sent))

    def _finish(self, answer: ClientAnswer) -> None:
        self._over = True
        self._tell()
        self._done(answer)

    def _tell(self) -> None:
        record = self._record
        record.sent = self._exchange.call.sent
        record.seconds = monotonic() - self._began
        self._recorder.passthrough(record)

    # --- the way up ------------------------------------------------------------------------------

    async def attended(self, end: asyncio.Future[ClientAnswer]) -> ClientAnswer:
        """The answer, with a task beside it for what the client still has to say. `end` is set by
        `done`. Cancelled, it ends the backend's part too."""
        try:
            if not self._upload and self._tunnel is None:
                return await end
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump())
                answer = await end
                pump.cancel()
            return answer
        except asyncio.CancelledError as left:
            left.__traceback__ = None  # its frames hold it, and what was carried last
            raise
        finally:
            self.abandon()

    async def _pump(self) -> None:
        try:
            if self._upload:
                await self._carry(self._request.content)
            if self._tunnel is not None:
                await self._carry(await self._tunnel)
        except BodyStalled:
            self._break_off(BODY_TIMEOUT)
        except RequestPayloadError:
            self._break_off(BAD_BODY)
        except OSError:
            pass  # the client is gone; whoever waits for the answer is being cancelled

    async def _carry(self, source: StreamReader) -> None:
        exchange = self._exchange
        while await exchange.drain():
            data = await source.readany()
            if not data:
                exchange.write_eof()
                return
            self._record.bytes_in += len(data)
            exchange.write(data)

    def _part(self, said: StreamReader) -> None:
        """A tunnel's client has closed: its last words are delivered."""
        self._exchange.write(said.read_nowait())
        self._exchange.write_eof()
        asyncio.get_running_loop().call_later(PARTING, self._exchange.abort)

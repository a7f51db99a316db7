"""All connections of clients, and the requests in hand on them.

One sweeper looks at every connection five times a second, so that none needs a timer of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from operator import itemgetter
from typing import Any, Protocol, cast

from aiohttp import web

from gateway.answer import ClientAnswer, Done
from gateway.batch import Failure
from gateway.config import settings
from gateway.server import door
from gateway.server.client import Client
from gateway.server.request import Request
from gateway.standstill import Looks

TICK = 0.2
"""Seconds between two looks at a connection: how late a deadline may be, but for the event loop."""
AT_ONCE = 32
"""Connections that are looked at in one go."""
QUIET = 2.0
"""Seconds without a request after which a connection may have to give way."""
ROOM = 16
"""The part of all places, one in so many, that is made free at a time."""
_NEVER = 1e7
"""aiohttp's own idle timer, put far away: it knows nothing of heads that have begun."""


class House(Protocol):
    """Who answers. `worker.App` is it."""

    def begin(self, request: web.BaseRequest, done: Done) -> bool:
        """Takes a request that is complete, if it needs no task of its own; `done` is told its
        answer, perhaps before this returns. If the client leaves first, `on_gone` of the connection
        is called instead. False: this one is for `handle`."""

    def handle(self, request: web.BaseRequest) -> Awaitable[ClientAnswer]: ...

    def malformed(self, status: int, reason: str, client: str) -> None:
        """Something came that is no request, or none that is served: the status it got, why, and
        its client's address. Neither `begin` nor `handle` will see it."""


class Clients(web.Server):
    """All connections of clients: makes them, sweeps them, hands their requests on."""

    def __init__(self, house: House, deadlines: settings.Client, limit: int) -> None:
        # aiohttp takes for an answer whatever has the three things of `ClientAnswer`.
        super().__init__(
            cast(Any, self._serve),
            request_factory=cast(Any, _request),
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=_NEVER,
            tcp_keepalive=True,
            max_line_size=door.LINE,
            max_field_size=door.FIELD,
            max_headers=door.FIELDS,
            read_bufsize=64 * 2**10,
        )
        self.house = house
        self.deadlines = deadlines
        self.limit = limit
        self.open: set[Client] = set()
        """Every connection whose socket is not closed yet."""
        self.empty = asyncio.Event()
        """Set while there is none."""
        self.empty.set()
        self.leaving = False
        """Every answer from now on is its connection's last."""
        self.busy = 0
        """Requests in hand, without those that have no end of their own."""
        self.quiet = asyncio.Event()
        """Set while `busy` is 0."""
        self.quiet.set()
        self.refusals: Counter[str] = Counter()
        """How often a request was refused before the app saw it, by slug."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._unseen: list[Client] = []
        """Those that the sweeper has not looked at in this tick."""
        self._pause = TICK
        self._looks = Looks(0.0)

    def __call__(self) -> Client:
        return Client(self, loop=self._loop, **self._kwargs)

    def start(self) -> None:
        self._looks = Looks(self._loop.time())
        self._sweeper = self._loop.call_later(TICK, self._sweep)

    def entered(self, client: Client) -> None:
        self.open.add(client)
        self.empty.clear()

    def left(self, client: Client) -> None:
        self.open.discard(client)
        if not self.open:
            self.empty.set()

    def refused(self, failure: Failure, peer: str) -> None:
        self.refusals[failure.details] += 1
        self.house.malformed(failure.code, failure.details, peer)

    @property
    def behind(self) -> bool:
        """Some client has not taken all of what it was answered."""
        return any(client.behind for client in self.open)

    async def part(self, seconds: float) -> None:
        """Closes every connection, by a cut where a request is in hand, else when flushed."""
        clients = list(self.open)
        for client in clients:
            client.part()
        handlers = [client._task_handler for client in clients if client._task_handler is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.empty.wait()
                await asyncio.gather(*handlers, return_exceptions=True)
        for client in list(self.open):
            client.cut()
        self._stop()

    async def _serve(self, request: web.BaseRequest) -> ClientAnswer:
        client: Client = request.protocol  # type: ignore[assignment]  # `__call__` made it
        self.serves(client)
        try:
            refusal = door.objection(request)
            if refusal is not None:
                return client.refuse(request, refusal)
            client.expect(request)
            return await self.house.handle(request)
        finally:
            self.done(client)
            client.served(request)

    def serves(self, client: Client) -> None:
        """A drain waits for the request that this client has in hand now."""
        client.answer = None
        client.counted = True
        if not self.busy:
            self.quiet.clear()
        self.busy += 1

    def done(self, client: Client) -> None:
        """A drain need not wait for this client's request any more."""
        if client.counted:
            client.counted = False
            self.busy -= 1
            if not self.busy:
                self.quiet.set()

    def _stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        """Looks at some connections, so that each has its turn within a tick: a look at a thousand
        in one go would hold everybody up for milliseconds."""
        now = self._loop.time()
        if self._looks.counts(now):
            self._look_at_some(now)
        self._sweeper = self._loop.call_later(self._pause, self._sweep)

    def _look_at_some(self, now: float) -> None:
        if not self._unseen:
            if len(self.open) >= self.limit:
                self._make_room(now - QUIET)
            self._unseen = list(self.open)
            self._pause = TICK / (1 + len(self._unseen) // AT_ONCE)
        for client in self._unseen[-AT_ONCE:]:
            if client in self.open:
                client.sweep(now, self.deadlines)
        del self._unseen[-AT_ONCE:]

    def _make_room(self, before: float) -> None:
        """Every place is taken: those who have asked for nothing longest give way to who comes."""
        quiet = [(c.quiet_since, c) for c in self.open if c.quiet_since < before]
        quiet.sort(key=itemgetter(0))
        for _, client in quiet[: max(1, self.limit // ROOM)]:
            client.give_way()


def _request(message: Any, content: Any, client: Client, *_: Any) -> Request:
    """Called by aiohttp, with a writer and a task that nobody needs."""
    return Request(message, content, client)

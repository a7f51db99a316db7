"""The connections to the backend, and whose turn it is on them.

Calls wait in lanes, lanes take turns, one call each, or a few where many lanes wait. A connection
that has finished a call takes the next turn within the same callback. New connections are made only
while calls wait. One sweeper looks at all clocks a few times a second, so that no call needs a
timer, a task or a future.

Owners of lanes are told of replies from here and may answer with anything: submit, stop, close.
While one of them is being told (`telling`), calls are only queued; they are sent when it has
returned. So nothing here is ever entered in the middle of its own work, and a thousand failures in
a row are no recursion. A stream's sink is told by the connection, when nothing here is under way.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Final, cast

import msgspec

from gateway.batch import SAFE_METHODS, Call, Failure, Reply, failed
from gateway.config import Limits, Upstream
from gateway.standstill import Looks
from gateway.upstream import wire
from gateway.upstream.connection import Connection
from gateway.upstream.exchange import Exchange, Sink
from gateway.upstream.lane import Lane, Taker, Verdict
from gateway.upstream.memory import Memory
from gateway.upstream.origin import Origin
from gateway.upstream.retry import RetryBudget

TICK: Final = 0.1
"""Seconds between two looks at the clocks."""
CROWD: Final = 32
"""Waiting lanes for each call of a turn. In a crowd a lane's results then come several at a time,
and fewer writes carry them to its client: a tenth of the CPU with 250 batches of 100."""
PATIENCE: Final = 1.0
"""Seconds that a passed-through request waits for a connection."""
REST = 1.0
"""Seconds without new connections after one failed while others live: the backend has its fill."""
KEPT_WAITING = 0.25
"""Seconds after which a connection that waits for its client makes room for those who wait."""
SHARE: Final = 4
"""Calls of a batch in flight while as many connections wait for clients as there may be at all."""
REPLAYABLE: Final = 64 * 1024
"""The largest body that is sent twice."""

_RETRIED_CONNECTS = frozenset(
    {
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "destination_unavailable",
    }
)


class Pool:
    def __init__(self, upstream: Upstream, limits: Limits) -> None:
        self.origin = Origin(upstream)
        self.timeouts = upstream.timeouts
        self.response_bytes = limits.response_bytes
        self.connections: set[Connection] = set()
        """Live ones that count against the limit: busy and idle."""
        self.detached: set[Connection] = set()
        """Tunnels and event streams. They last as long as their clients like, and those are bounded
        elsewhere; if they counted, a few dozen browsers would leave no connection for anybody."""
        self.idle: list[Connection] = []
        """Most recently used last, and used first: the others may then grow old and go."""
        self.waiting = 0
        """Calls that wait for their turn."""
        self.extra = 0
        """Connections beyond the limit, for those that wait for their clients."""
        self.calls = 0
        """Calls handed to a connection, ever."""
        self.connects: Counter[str] = Counter()
        """By result: `ok`, or the failure's type."""
        self.retries: Counter[str] = Counter()
        """By reason: `connect`, `closed`."""
        self.turns: deque[Lane] = deque()
        """Lanes with waiting calls, next one first."""
        self._taken = 0
        """Calls of the turn that is being taken."""
        self._passed_over: dict[Lane, None] = {}
        """Lanes with waiting calls that take no turns for now: until one of their calls ends, or
        the clocks are looked at."""
        self.telling = 0
        """Owners that are being told of a reply at the moment."""
        self.posted: list[tuple[Connection, bytes]] = []
        """Requests that are written at the end of the event loop's round."""
        self.memory = Memory(self.connections, limits.batch_buffer_bytes, limits.buffer_bytes)

        self._limit = upstream.connections
        self._winding_down = False
        self._most_streams_waiting = upstream.waiting
        self._retry_methods = frozenset(upstream.retry.methods)
        self._budget = RetryBudget(upstream.retry.budget)
        self._again: deque[tuple[Lane, Call]] = deque()
        """Calls being retried, each of which needs a connection that never carried one."""
        self._rest_until = 0.0
        self._looks = Looks(0.0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def lane(self, taker: Taker) -> Lane:
        """A place for a batch, whose answers are collected. Its owner leaves it in the end."""
        lane = Lane(self, taker)
        self.memory.lanes[lane] = None
        return lane

    def open(
        self,
        call: Call,
        sink: Sink,
        *,
        fields: str | None = None,
        upload: int | None = None,
        upgrade: bool = False,
        invite: Callable[[], None] | None = None,
    ) -> Exchange:
        """A call whose answer is streamed to `sink`.

        `fields` are the call's, where they are encoded already. `upload` is the length of a body
        that will be written to the exchange, or `wire.CHUNKED`; None: the request is complete, with
        `call.body`. `upgrade`: a 101 is acceptable. `invite`: called when the backend asks for the
        body, which its sender holds back until then."""
        exchange = Exchange(self, call, sink, fields, upload, upgrade, invite)
        if self.idle and not (self.turns or self.telling):
            connection = self.idle.pop()
            if connection.alive and not connection.readable():
                self._start(connection, exchange, call)
                return exchange
            self._drop(connection)
        if self._full() and self._streams_waiting() >= self._most_streams_waiting:
            self._loop.call_soon(exchange.replied, call, failed(_NO_TURN, call))
        else:
            exchange.submit(call)
        return exchange

    async def close(self) -> None:
        """Ends everything without a word to anybody. Close or stop the lanes before."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in (*self.connections, *self.detached):
            self._drop(connection)
        for _ in range(3):  # the rounds of the loop in which a transport closes, TLS over TCP
            await asyncio.sleep(0)

    def wind_down(self) -> None:
        """Another pool takes its place: calls are served to their end, and nothing is kept after
        them. What comes late, from somebody who began before, is served all the same."""
        self._winding_down = True
        for connection in tuple(self.idle):
            self._retire(connection)

    @property
    def empty(self) -> bool:
        """Nobody has anything here, and nothing is left."""
        busy = self.connections or self.detached or self.connecting
        return not (busy or self.waiting or self._again or self.memory.lanes)

    @property
    def busy(self) -> int:
        """Connections that carry a call: what is in flight."""
        return len(self.connections) - len(self.idle)

    @property
    def connecting(self) -> int:
        """Connections that are being made."""
        return len(self._tasks)

    # --- a lane's side ---------------------------------------------------------------------------

    def stop(self, lane: Lane, verdict: Verdict) -> None:
        ended = self._withdraw(lane, verdict)
        for connection in (*self.connections, *self.detached):
            if connection.lane is lane and (call := connection.call) is not None:
                failure = verdict(call)
                if failure is not None:
                    self._drop(connection)
                    ended.append((call, failure))
        for call, failure in ended:
            self._tell(lane, call, failure)
        self.dispatch()

    def close_lane(self, lane: Lane) -> None:
        self._withdraw(lane, lambda call: _CLOSED)
        for connection in (*self.connections, *self.detached):
            if connection.lane is lane:
                self._drop(connection)
        self.memory.leave(lane)
        self.dispatch()

    def outstanding(self, lane: Lane) -> Iterator[Call]:
        yield from lane.waiting
        yield from (call for owner, call in self._again if owner is lane)
        for connection in self.connections:
            if connection.lane is lane and connection.call is not None:
                yield connection.call

    def _withdraw(self, lane: Lane, verdict: Verdict) -> list[tuple[Call, Failure]]:
        """Takes back those of the lane's calls that have no connection, as the verdict says."""
        ended = []

        def stays(call: Call) -> bool:
            failure = verdict(call)
            if failure is not None:
                ended.append((call, failure))
            return failure is None

        waiting = [call for call in lane.waiting if stays(call)]
        self.waiting -= len(lane.waiting) - len(waiting)
        lane.waiting = deque(waiting)
        if not waiting:
            self._passed_over.pop(lane, None)
            if lane.queued:
                lane.queued = False
                self.turns.remove(lane)
        self._again = deque(pair for pair in self._again if pair[0] is not lane or stays(pair[1]))
        return ended

    def _drop(self, connection: Connection) -> None:
        connection.abort()
        self._forget(connection)

    # --- turns -----------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Gives waiting calls to idle connections, and sees that there are enough."""
        if self.telling:
            return
        while self._find_turn() and self.idle:
            connection = self.idle.pop()
            if connection.alive and not connection.readable():
                self._start(connection, *self._next())
            else:
                self._drop(connection)
        if self.waiting or self._again:
            self._grow()

    def _next(self) -> tuple[Lane, Call]:
        turns = self.turns
        lane = turns[0]
        call = lane.waiting.popleft()
        self.waiting -= 1
        if lane.waiting:
            self._go_round()
        else:
            turns.popleft()
            lane.queued = False
            self._taken = 0
        return lane, call

    def _go_round(self) -> None:
        """The lane has more calls: the turn is over all the same, or not yet in a crowd."""
        self._taken += 1
        if self._taken >= len(self.turns) // CROWD:
            self.turns.rotate(-1)
            self._taken = 0

    def _find_turn(self) -> bool:
        """Whether there is a lane whose turn it is; if so, it is the first."""
        if self.extra >= self._limit:
            self._pass_over()
        return bool(self.turns)

    def _pass_over(self) -> None:
        """Many connections wait for clients that do not read. While memory is short a batch has the
        fewer calls in flight the more such there are, one at least, beside one that its answer
        cannot go on without: others would only wait as well, each with a connection, and a backend
        has only so many."""
        in_flight: dict[Lane, list[Call]] = {}
        while self.turns:
            lane = self.turns[0]
            if lane.exchange is not None or not (lane.over_budget or self.memory.over):
                return
            in_flight = in_flight or self._in_flight()
            calls = in_flight.get(lane, [])
            if len(calls) < max(1, SHARE * self._limit // self.extra):
                return
            if not any(map(lane.urgent, calls)):
                urgent = next(filter(lane.urgent, lane.waiting), None)
                if urgent is not None:
                    lane.waiting.remove(urgent)
                    lane.waiting.appendleft(urgent)
                    return
            self.turns.popleft()
            lane.queued = False
            self._taken = 0
            self._passed_over[lane] = None

    def _in_flight(self) -> dict[Lane, list[Call]]:
        found: dict[Lane, list[Call]] = {}
        for connection in self.connections:
            if connection.lane is not None and connection.call is not None:
                found.setdefault(connection.lane, []).append(connection.call)
        return found

    def _take_turns_again(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self._passed_over.pop(lane, None)
            if lane.waiting and not lane.queued:
                lane.queued = True
                self.turns.append(lane)

    def _start(self, connection: Connection, lane: Lane, call: Call) -> None:
        exchange, body, fields = lane.exchange, call.body, call.headers
        length = exchange.length if exchange is not None else len(body) if body else None
        try:
            common = lane.text if fields is lane.fields else lane.common(fields)
            head = wire.head(call, common, length)
        except ValueError:
            # Checked before, so this is a bug of ours. Told later: we may be inside `submit`.
            self.idle.append(connection)
            self._loop.call_soon(self._tell_and_go_on, lane, call, _BAD_HEAD)
            return
        self.calls += 1
        connection.start(lane, call, head)
        if lane.over_budget:
            self.memory.apply()

    def write_later(self) -> None:
        """Has `posted` written at the end of the event loop's round: to be called for the first.

        Each write may wake the backend and put us aside; in a row they wake it once. Measured:
        a tenth of the CPU per subrequest."""
        self._loop.call_soon(self._write_posted)

    def _write_posted(self) -> None:
        posted, self.posted = self.posted, []
        for connection, data in posted:
            if connection.alive:
                connection.transport.write(data)

    def released(self, connection: Connection, keep: bool) -> None:
        """A connection has no call any more, and takes the next turn if it can."""
        if self.extra >= self._limit:
            self._pass_over()
        turns = self.turns
        if not (keep and connection.alive and connection.started < connection.expires):
            self._retire(connection)
        elif not turns:
            self._leave_idle(connection)
        elif turns[0].waiting[0].method in SAFE_METHODS or not connection.readable():
            # Safe and so soon after an answer it is spared the system call: at worst, a retry.
            self._start(connection, *self._next())
        else:
            self._drop(connection)
        if self._again or (self.waiting and not self._full()):
            self.dispatch()

    def failed(
        self, connection: Connection, lane: Lane, call: Call, failure: Failure, answered: bool
    ) -> None:
        """A connection is lost, and with it its call."""
        self._forget(connection)
        if (
            failure.error == "connection_terminated"
            and not answered
            and connection.reused
            and call.method in self._retry_methods
            and self._may_retry(lane, call, "closed")
        ):
            call.resent = True
            self._again.append((lane, call))
        else:
            self._tell(lane, call, failure)
        self.dispatch()

    def gone(self, connection: Connection) -> None:
        """A transport has closed."""
        if connection in self.connections or connection in self.detached:
            self._forget(connection)
            self.dispatch()

    def detach(self, connection: Connection) -> None:
        """What it carries may last for ever: it no longer counts."""
        self.connections.discard(connection)
        self.detached.add(connection)
        self._count_again(connection)
        connection.expires = 0.0
        self.dispatch()

    def _leave_idle(self, connection: Connection) -> None:
        """There is nothing for it to do."""
        if self._winding_down:
            self._retire(connection)
        else:
            connection.idle_since = monotonic()
            self.idle.append(connection)

    def _retire(self, connection: Connection) -> None:
        if connection.alive:
            connection.close()
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.detached.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self._count_again(connection)

    # --- new connections -------------------------------------------------------------------------

    def _grow(self) -> None:
        """A connection for each waiting call that none is being made for, within the limit."""
        wanted = self.waiting + len(self._again) - self.connecting
        wanted -= sum(len(lane.waiting) for lane in self._passed_over if not lane.queued)
        room = self._limit + self.extra - len(self.connections) - self.connecting
        number = min(wanted, room)
        if number <= 0 or (self.connections and not self._again and self._resting()):
            return
        for _ in range(number):
            task = self._loop.create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._sweeper is None:
            self._looks = Looks(monotonic())
            self._sweeper = self._loop.call_later(TICK, self._sweep)

    def _resting(self) -> bool:
        return monotonic() < self._rest_until

    async def _connect(self) -> None:
        try:
            result = await self.origin.connect(lambda: Connection(self))
        except Exception as error:
            self.report("a connection", error)
            result = Failure("proxy_internal_error", "connect")
        self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if isinstance(result, Failure):
            self._not_connected(result)
        elif flaw := result.unusable():
            result.abort()
            self._not_connected(flaw)
        else:
            self._connected(result)

    def _connected(self, connection: Connection) -> None:
        self.connects["ok"] += 1
        self.connections.add(connection)
        if self._again:
            self._start(connection, *self._again.popleft())
        elif self._find_turn():
            self._start(connection, *self._next())
        else:
            self._leave_idle(connection)
        self.dispatch()

    def _not_connected(self, failure: Failure) -> None:
        """One attempt less. It costs one call its life, unless something else can carry that.

        1. A retried call that has no other attempt coming: it fails.
        2. A call that waits, and no connection lives: it fails or is retried.
        3. Otherwise live connections will get to the calls that wait.
        """
        self.connects[failure.error] += 1
        if len(self._again) > self.connecting:
            self._tell(*self._again.popleft(), failure)
        elif self.connections:
            self._rest_until = monotonic() + REST
        elif self.turns and self.waiting > self.connecting - len(self._again):
            lane, call = self._next()
            if failure.error in _RETRIED_CONNECTS and self._may_retry(lane, call, "connect"):
                self._again.append((lane, call))
            else:
                self._tell(lane, call, failure)
        self.dispatch()

    def _may_retry(self, lane: Lane, call: Call, reason: str) -> bool:
        """What holds for every retry (DESIGN part 4); if it may be, it is counted as done.

        No call is asked about twice: a retried one has a connection made for it, and that it fails
        there, or gets none, is final."""
        small = call.body is None or len(call.body) <= REPLAYABLE
        streamed = lane.exchange is not None and lane.exchange.upload is not None
        if streamed or not small or not self._budget.spend(monotonic(), self.calls):
            return False
        self.retries[reason] += 1
        return True

    # --- telling owners --------------------------------------------------------------------------

    def _tell(self, lane: Lane, call: Call, failure: Failure) -> None:
        if failure.sent != call.sent:
            failure = msgspec.structs.replace(failure, sent=call.sent)
        reply = failed(failure, call)
        if call.began:
            reply.seconds = monotonic() - call.began
        self.reply(lane, call, reply)

    def _tell_and_go_on(self, lane: Lane, call: Call, failure: Failure) -> None:
        self._tell(lane, call, failure)
        self.dispatch()

    def reply(self, lane: Lane, call: Call, reply: Reply) -> None:
        """A call has ended: tells its owner."""
        self.telling += 1
        try:
            lane.taker.replied(call, reply)
        except Exception as error:
            # Raised from a transport's callback it would end somebody else's call.
            self.report("the owner of a reply", error)
        finally:
            self.telling -= 1
        if lane in self._passed_over:
            self._take_turns_again((lane,))

    def report(self, where: str, error: Exception) -> None:
        """A bug of ours: loud, and nobody's failure but its own."""
        self._loop.call_exception_handler({"message": f"a bug in {where}", "exception": error})

    # --- clocks ----------------------------------------------------------------------------------

    def _sweep(self) -> None:
        now = monotonic()
        if self._looks.counts(now):
            self._look_at_clocks(now)
        if self.connections or self.detached or self.connecting or self.waiting or self._again:
            self._sweeper = self._loop.call_later(TICK, self._sweep)
        else:
            self._sweeper = None

    def _look_at_clocks(self, now: float) -> None:
        self._budget.sample(now, self.calls)
        for connection in (*self.connections, *self.detached):
            self._look_at(connection, now)
        self._give_up_turns(now)
        self._take_turns_again(tuple(self._passed_over))
        if self.turns and self._full():
            self._spare(now)
        self.dispatch()  # a rest may be over

    def _look_at(self, connection: Connection, now: float) -> None:
        if connection.lane is None:
            idle = now - connection.idle_since
            if idle > self.timeouts.idle or now > connection.expires:
                self._retire(connection)
        elif connection.paused:
            pass  # its time stands still
        elif connection.touched:
            connection.touched = False
            connection.deadline = max(connection.deadline, now + self.timeouts.stall)
        elif now >= connection.deadline and not connection.awaits_client:
            connection.fail("http_response_timeout", "backend_timeout")

    def _spare(self, now: float) -> None:
        """Whoever waits for a turn does not wait for other people's clients. As many slow uploads
        or readers as there are connections would else leave none to anybody, for as long as they
        like; and they are bounded, being clients: see `_pass_over`."""
        for connection in self.connections:
            if not connection.spared and connection.kept_waiting(now) > KEPT_WAITING:
                connection.spared = True
                connection.expires = 0.0  # it is not used again
                self.extra += 1

    def _count_again(self, connection: Connection) -> None:
        if connection.spared:
            connection.spared = False
            self.extra -= 1

    def _give_up_turns(self, now: float) -> None:
        """Streams that waited too long. While a connection is being made it may be theirs."""
        since = now - PATIENCE - (self.timeouts.connect if self.connecting else 0.0)
        for lane in tuple(self.turns):
            if lane.exchange is not None and lane.exchange.opened < since:
                self.stop(lane, lambda call: _NO_TURN)

    def _full(self) -> bool:
        most = self._limit + self.extra
        return not self.idle and len(self.connections) + self.connecting >= most

    def _streams_waiting(self) -> int:
        return sum(lane.exchange is not None for lane in self.turns)


_CLOSED = Failure("proxy_internal_response", "closed")
_BAD_HEAD = Failure("proxy_internal_error", "bad_head")
_NO_TURN = Failure("connection_limit_reached", "no_connection", retry_after=1)

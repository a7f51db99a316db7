"""A lane is one owner's place at the pool: a batch's, or one passed-through request's.

Calls wait in their lane, and lanes take turns. What a lane's answers hold in memory is counted
here and in the pool's `Memory`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from gateway.batch import Call, Failure, Headers, Reply
from gateway.upstream import wire

if TYPE_CHECKING:
    from gateway.upstream.exchange import Exchange
    from gateway.upstream.pool import Pool

Verdict = Callable[[Call], Failure | None]
"""What becomes of an outstanding call: it ends now with this failure, or (None) runs on."""

_HEADS: Final = 8


class Taker(Protocol):
    """Who owns a lane."""

    def replied(self, call: Call, reply: Reply) -> None:
        """A call has ended, well or not: told exactly once per submitted call.

        Told from the event loop's callbacks or from within `Lane.stop`, never from within
        `Lane.submit`. `reply.held` bytes stay counted until they are given to `Lane.release`.
        """

    def urgent(self, call: Call) -> bool:
        """Whether the batch cannot go on without this call: it is next in order, or what is next
        waits for it. Not while results wait for a client that does not read: then nothing is, or
        there would be no bound. Asked when memory is short, again at each `Lane.reconsider`."""


class Lane:
    __slots__ = ("_heads", "exchange", "fields", "held", "over_budget", "pool", "queued", "taker",
                 "text", "waiting")  # fmt: skip

    def __init__(self, pool: Pool, taker: Taker, exchange: Exchange | None = None) -> None:
        self.pool = pool
        self.taker = taker
        self.exchange = exchange
        """Set when answers are streamed to it instead of being collected."""
        self.waiting: deque[Call] = deque()
        self.queued = False
        """It stands among the pool's turns."""
        self.held = 0
        """Bytes of memory it is charged for."""
        self.over_budget = False
        """It holds more than its own budget, or than its share while all lanes together hold too
        much: only urgent calls are read at the moment."""
        self.fields: Headers = ()
        self.text = ""
        """`fields` encoded. They are those of the last call, and of most calls of a batch."""
        self._heads: dict[int, tuple[Headers, str]] = {}

    def submit(self, call: Call) -> None:
        """Offers a call. It is sent when its turn comes; there is no bound on the wait but `stop`.

        The owner bounds what it offers: a batch has at most `width` calls submitted."""
        self.waiting.append(call)
        pool = self.pool
        pool.waiting += 1
        if not self.queued:
            self.queued = True
            pool.turns.append(self)
        if not pool.telling:
            pool.dispatch()

    def stop(self, verdict: Verdict) -> None:
        """Asks about every outstanding call and ends those that get a failure, replies included.

        What `verdict` says of `sent` is overruled by what is known."""
        self.pool.stop(self, verdict)

    def close(self) -> None:
        """The owner is done: what is outstanding is dropped without a reply, what is held freed."""
        self.pool.close_lane(self)

    def leave(self) -> None:
        """The owner has heard all: what is held is freed. Nothing refers to it any more, so that it
        needs no collector."""
        if self.exchange is None:  # a stream holds nothing
            self.pool.memory.leave(self)
        self.taker = _NOBODY
        self.exchange = None

    def outstanding(self) -> Iterator[Call]:
        """Its calls that have not ended."""
        return self.pool.outstanding(self)

    # --- memory ----------------------------------------------------------------------------------

    def hold(self, size: int) -> None:
        """Charges the lane for bytes its owner keeps: the bulk call's own body."""
        self.pool.memory.hold(self, size)

    def release(self, size: int) -> None:
        """Frees what `hold` or a reply's `held` charged."""
        self.pool.memory.release(self, size)

    def urgent(self, call: Call) -> bool:
        """What the owner says. If it stumbles, reading on is what does least harm."""
        try:
            return self.taker.urgent(call)
        except Exception as error:
            self.pool.report("the owner of a lane", error)
            return True

    def reconsider(self) -> None:
        """Which of its calls are urgent has changed."""
        if self.over_budget:
            self.pool.memory.apply()

    # --- heads -----------------------------------------------------------------------------------

    def common(self, headers: Headers) -> str:
        """`headers` encoded, once per tuple: most calls of a batch share one, so identity will do.
        The tuple is kept beside its text, for its id to stay its own."""
        known = self._heads.get(id(headers))
        if known is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            known = self._heads[id(headers)] = (headers, wire.encode(headers))
        self.fields, self.text = known
        return self.text


class _Nobody:
    def replied(self, call: Call, reply: Reply) -> None:
        """There is nobody to hear it."""

    def urgent(self, call: Call) -> bool:
        return False


_NOBODY = _Nobody()

"""What answers hold in memory, and who may go on reading when it is too much (DESIGN part 4).

A lane that holds more than it may has only its urgent calls read: those that its batch cannot go on
without. What is not read waits in the kernel's socket buffers, so the bound is real.

1. While all lanes together hold little, each may hold its own budget.
2. When they hold more than three quarters of the pool's budget, each may hold its share of the last
   quarter: however much is kept for clients that do not read, small answers to others have room. Of
   those that hold more, one alone is favoured with having its urgent calls read, the oldest that
   has any, so nothing locks up.
3. Above the whole budget nobody is, while an older one of those waits for its client to read.

A lane or the pool stays over until it is a quarter below its bound: pausing costs a system call per
connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.upstream.connection import Connection
    from gateway.upstream.lane import Lane


LITTLE = 1024
"""The part of the reserve, one in so many, that every lane may hold."""


class Memory:
    def __init__(
        self, connections: Iterable[Connection], lane_budget: int, pool_budget: int
    ) -> None:
        self.held = 0
        """Bytes all lanes are charged for together."""
        self.over = False
        """That was more than `_most` at some time, and is not yet well below it."""
        self._full = False
        """It is more than the budget now."""
        self.lanes: dict[Lane, None] = {}
        """Batches, oldest first. Streams are held up by their own readers instead."""
        self._connections = connections
        self.lane_budget = lane_budget
        self._budget = pool_budget
        self._reserve = pool_budget // 4
        self.mark = self._most = pool_budget - self._reserve
        """Bytes above which every further one is weighed; 0 while there are too many."""

    def hold(self, lane: Lane, size: int) -> None:
        lane.held += size
        self.held += size
        if lane.held > self.lane_budget or self.held > self.mark:
            self.weigh(lane)

    def release(self, lane: Lane, size: int) -> None:
        size = min(size, lane.held)  # a closed lane has given back everything already
        lane.held -= size
        self.held -= size
        if lane.over_budget or self.over:
            self.weigh(lane)

    def leave(self, lane: Lane) -> None:
        """The lane is closed; whatever it still held goes with it."""
        if lane not in self.lanes:
            return  # it left before, or is a stream, and holds nothing
        del self.lanes[lane]
        lane.over_budget = False
        self.held -= lane.held
        lane.held = 0
        if self.over:
            self.weigh(lane)
            self.apply()  # another one is the oldest now

    def weigh(self, lane: Lane) -> None:
        before = lane.over_budget, self.over, self._full
        self.over = _over(self.held, self._most, self.over)
        self.mark = 0 if self.over else self._most
        self._full = self.held > self._budget
        lane.over_budget = _over(lane.held, self._allowance(lane), lane.over_budget)
        if before != (lane.over_budget, self.over, self._full):
            self.apply()

    def _allowance(self, lane: Lane) -> int:
        """What a lane may hold before only its urgent calls are read. Shares are larger while lanes
        are few, and those who had such may hold them still: when that is the budget and another
        quarter, there is very little left to anybody."""
        if not self.over:
            return self.lane_budget
        left = min(self._reserve, self._budget + self._reserve - self.held + lane.held)
        share = max(left // max(1, len(self.lanes)), self._reserve // LITTLE)
        return min(self.lane_budget, share)

    def apply(self) -> None:
        """Pauses and resumes connections so that only those are read that may be."""
        for batch in self.lanes:
            batch.over_budget = _over(batch.held, self._allowance(batch), batch.over_budget)
        busy = [c for c in self._connections if c.lane in self.lanes]
        urgent = {
            c for c in busy if c.lane and c.lane.over_budget and c.call and c.lane.urgent(c.call)
        }
        favoured = self._favoured({c.lane for c in urgent if c.lane}) if self.over else None
        for connection in busy:
            lane = connection.lane
            if lane and lane.over_budget:
                read = connection in urgent and (lane is favoured or not self.over)
            else:
                read = True
            if read:
                connection.resume()
            else:
                connection.pause()

    def _favoured(self, lanes: set[Lane]) -> Lane | None:
        """The oldest of these lanes, which have urgent calls in flight and hold much.

        An older one without any is passed over if one waits for a connection, since somebody must
        finish first. If it waits for its client to read, then above the budget all that hold much
        wait with it: one answer more for each of many slow clients would be no bound."""
        for lane in self.lanes:
            if lane in lanes:
                return lane
            if lane.over_budget and self._full and not any(map(lane.urgent, lane.waiting)):
                return None
        return None


def _over(held: int, budget: int, was: bool) -> bool:
    return held > (budget * 3 // 4 if was else budget)

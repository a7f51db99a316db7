"""What answers hold in memory, and who may go on reading when it is too much (DESIGN part 4).

Over a lane's budget all its calls but the urgent ones are no longer read; over the pool's, all but
those of the oldest lane. What its batch cannot go on without is always read, so nothing locks up;
everything else waits in the kernel's socket buffers, so the bound is real. A lane or the pool stays
`over` until it is well below its budget: pausing costs a system call per connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.upstream.connection import Connection
    from gateway.upstream.lane import Lane


class Memory:
    def __init__(
        self, connections: Iterable[Connection], lane_budget: int, pool_budget: int
    ) -> None:
        self.held = 0
        """Bytes all lanes are charged for together."""
        self.over = False
        """That was too much at some time, and is not yet well below it."""
        self._full = False
        """It is too much now."""
        self.lanes: dict[Lane, None] = {}
        """Batches, oldest first. Streams are held up by their own readers instead."""
        self._connections = connections
        self.lane_budget = lane_budget
        self.budget = pool_budget

    def hold(self, lane: Lane, size: int) -> None:
        lane.held += size
        self.held += size
        if lane.held > self.lane_budget or self.held > self.budget:
            self.weigh(lane)

    def release(self, lane: Lane, size: int) -> None:
        size = min(size, lane.held)  # a closed lane has given back everything already
        lane.held -= size
        self.held -= size
        if lane.over or self.over:
            self.weigh(lane)

    def leave(self, lane: Lane) -> None:
        """The lane is closed; whatever it still held goes with it."""
        self.lanes.pop(lane, None)
        lane.over_budget = False
        self.held -= lane.held
        lane.held = 0
        if self.over:
            self.weigh(lane)
            self.apply()  # another one is the oldest now

    def weigh(self, lane: Lane) -> None:
        before = lane.over, self.over, self._full
        lane.over = _over(lane.held, self.lane_budget, lane.over)
        self.over = _over(self.held, self.budget, self.over)
        self._full = self.held > self.budget
        if before != (lane.over, self.over, self._full):
            self.apply()

    def apply(self) -> None:
        """Pauses and resumes connections so that only those are read that may be."""
        for batch in self.lanes:
            batch.over_budget = batch.over or self.over
        busy = [c for c in self._connections if c.lane in self.lanes]
        urgent = {c for c in busy if c.lane and c.call and c.lane.urgent(c.call)}
        favoured = self._favoured({c.lane for c in urgent if c.lane}) if self.over else None
        for connection in busy:
            lane = connection.lane
            if self.over:
                read = lane is favoured and connection in urgent
            else:
                read = not (lane and lane.over) or connection in urgent
            if read:
                connection.resume()
            else:
                connection.pause()

    def _favoured(self, lanes: set[Lane]) -> Lane | None:
        """The oldest of these lanes, which have urgent calls in flight.

        An older one without any is passed over if its calls wait for a connection, since somebody
        must finish first. If it waits for its client to read, then above the budget all wait with
        it: one answer more for each of many slow clients would be no bound."""
        for lane in self.lanes:
            if lane in lanes:
                return lane
            if lane.held and not lane.waiting and self._full:
                return None
        return None


def _over(held: int, budget: int, was: bool) -> bool:
    return held > (budget * 3 // 4 if was else budget)

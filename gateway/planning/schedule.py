"""What may start, given what has ended. Synchronous: nothing here waits, sends or knows why.

Every step is decided exactly once: it ends (`finish`) or it is skipped (told by `finish`). At most
`width` steps run at a time; what is ready waits in the order in which results are delivered, which
in an ordered batch is the client's. The cost is that of the edges, and a batch of reads has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from heapq import heappop, heappush
from itertools import compress
from typing import NamedTuple

from gateway.planning.nouns import Plan


class Skip(NamedTuple):
    """A step that will not run, and the step whose failure decided that."""

    step: int
    because: int


class Schedule:
    """The state of one plan under way."""

    __slots__ = ("_delivery", "_dependents", "_first", "_free", "_rank", "_ready", "_steps",
                 "_undecided", "_waiting", "running", "width")  # fmt: skip

    def __init__(self, plan: Plan, width: int) -> None:
        self.width = width
        self.running = 0
        self._steps = plan.steps
        self._undecided = bytearray(b"\1") * len(plan.steps)
        self._waiting: list[int] = []
        self._dependents: dict[int, list[tuple[int, bool]]] = {}
        self._delivery = plan.delivery
        self._rank: list[int] = []
        self._first = deque(range(len(plan.steps)))
        """Ranks that were ready from the start. A heap of ten thousand reads would cost its depth
        for each of them; those that become ready on the way are few."""
        self._ready: list[int] = []
        self._free = plan.free
        """An end decides nothing but that one more may start."""
        if not plan.free:
            self._look_at_edges()

    def _look_at_edges(self) -> None:
        self._waiting = [len(step.needs) + len(step.follows) for step in self._steps]
        for step in self._steps:
            for before in step.needs:
                self._dependents.setdefault(before, []).append((step.index, True))
            for before in step.follows:
                self._dependents.setdefault(before, []).append((step.index, False))
        self._rank = sorted(range(len(self._steps)), key=self._delivery.__getitem__)
        first = [self._rank[i] for i, count in enumerate(self._waiting) if not count]
        self._first = deque(sorted(first))

    def begin(self) -> list[int]:
        """What starts now: ready steps in order of delivery, up to the width."""
        starts: list[int] = []
        while self.running < self.width and (self._ready or self._first):
            if self._ready and not (self._first and self._first[0] < self._ready[0]):
                index = self._delivery[heappop(self._ready)]
            else:
                index = self._delivery[self._first.popleft()]
            if self._undecided[index]:
                self._undecided[index] = 0
                self.running += 1
                starts.append(index)
        return starts

    def finish(self, index: int, *, failed: bool) -> tuple[list[int], list[Skip]]:
        """A started step has ended: what starts now, and what never will."""
        if self._free and self._first and self.running <= self.width:
            following = self._delivery[self._first.popleft()]
            self._undecided[following] = 0
            return [following], []
        self.running -= 1
        skips: list[Skip] = []
        if failed and self._steps[index].subrequest.barrier:
            skips.extend(self._abort(index))
        if index in self._dependents:
            self._release(index, failed, skips)
        return self.begin(), skips

    def hurry(self, wanted: Collection[int]) -> list[int]:
        """One more of the ready steps, beyond the width, if it is among those wanted."""
        for rank in sorted([*self._first, *self._ready]):
            index = self._delivery[rank]
            if index in wanted and self._undecided[index]:
                if rank in self._first:
                    self._first.remove(rank)
                self._undecided[index] = 0
                self.running += 1
                return [index]
        return []

    def stop(self) -> list[int]:
        """Nothing more starts: the steps that were still undecided, now decided."""
        left = list(compress(range(len(self._undecided)), self._undecided))
        for index in left:
            self._undecided[index] = 0
        self._ready.clear()
        self._first.clear()
        return left

    def _abort(self, barrier: int) -> list[Skip]:
        """A barrier failed: nothing after it has started, and nothing after it will."""
        later = [i for i in range(barrier + 1, len(self._steps)) if self._undecided[i]]
        for index in later:
            self._undecided[index] = 0
        return [Skip(index, barrier) for index in later]

    def _release(self, index: int, failed: bool, skips: list[Skip]) -> None:
        """Tells the dependents of an ended step; those skipped tell theirs, without recursion."""
        ended = [(index, failed)]
        while ended:
            before, bad = ended.pop()
            for dependent, needs in self._dependents.get(before, ()):
                self._waiting[dependent] -= 1
                if not self._undecided[dependent]:
                    continue
                if bad and needs:
                    self._undecided[dependent] = 0
                    skips.append(Skip(dependent, before))
                    ended.append((dependent, True))
                elif not self._waiting[dependent]:
                    heappush(self._ready, self._rank[dependent])

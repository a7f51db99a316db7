"""Results in the plan's order, as bytes, whatever the order in which they came.

A result leaves when everything before it has left. A step with one reply is rendered whole; one
with children or many replies is opened when its turn comes, so that its parts can leave while the
rest is still on its way, and closed after the last of its children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from gateway.batch import Failure, Outcome, Renderer, Reply, Step, failed
from gateway.planning.nouns import Plan

GROUP = Reply(200)
"""Stands for the reply of a step that sends nothing of its own: a nested bulk."""


class Chunk(NamedTuple):
    """Bytes of the answer, and how many bytes of replies are let go with them."""

    data: bytes
    held: int


class Source(Protocol):
    """Where the replies of a step of many calls come from, in their order."""

    def deliver(self) -> Iterator[Reply]: ...


class Delivery:
    """Where the answer stands, and what of it waits to be written."""

    __slots__ = ("_bug", "_ended", "_held", "_nest", "_opened", "_order", "_out", "_renderer",
                 "_sources", "_steps", "_turn", "_whole", "awaits", "done", "replies",
                 "size")  # fmt: skip

    def __init__(self, plan: Plan, renderer: Renderer, bug: Callable[[], None]) -> None:
        """`bug` is told, within its `except`, of a result that could not be rendered."""
        self.size = 0
        """Bytes of results that wait to be taken; what is written before any result is not one."""
        self.done = False
        """The end of the document has been rendered."""
        self._steps = plan.steps
        self._order = (*plan.delivery, -1)
        self.awaits = self._order[0]
        """The step whose turn it is; -1 when all have had theirs."""
        self._renderer = renderer
        self._whole = renderer.whole
        self._bug = bug
        self._out = [renderer.head()]
        self._held = 0
        self.replies: list[Reply | None] = [None] * len(plan.steps)
        """The one reply of each step that has one, put here as it comes."""
        self._sources: dict[int, Source] = {}
        self._ended: dict[int, Outcome] = {}
        self._nest: list[tuple[int, Step, Outcome]] = []
        self._turn = 0
        self._opened = False

    def source(self, index: int, source: Source) -> None:
        """The replies of this step come as they come, until `end`."""
        self._sources[index] = source

    def end(self, index: int, outcome: Outcome) -> None:
        """A step of many replies has ended."""
        self._ended[index] = outcome

    def take(self) -> Chunk:
        """What was rendered since the last time."""
        chunk = Chunk(b"".join(self._out), self._held)
        self._out.clear()
        self.size = self._held = 0
        return chunk

    def drop(self) -> int:
        """Nobody will read the answer: lets go of all that waits; how many bytes that were."""
        held = self._held + sum(reply.held for reply in self.replies if reply is not None)
        held += sum(r.held for source in self._sources.values() for r in source.deliver())
        self.replies = [None] * len(self._steps)
        self._out.clear()
        self.size = self._held = 0
        return held

    def advance(self) -> None:
        """Renders everything that can leave now."""
        index = self.awaits
        while index >= 0:
            step, reply = self._steps[index], self.replies[index]
            if reply is None:
                if index not in self._sources or not self._parts(step):
                    return
            else:
                self.replies[index] = None
                self._held += reply.held
                if step.size == 1 and reply is not GROUP:
                    try:
                        data = self._whole(step, reply)
                    except Exception:
                        data = self._stand_in(step, reply)
                    self._out.append(data)
                    self.size += len(data)
                else:
                    self._group(step, reply)
            self._turn = turn = self._turn + 1
            self.awaits = index = self._order[turn]
            if self._nest:
                self._close_parents()
        if not self.done:
            self._emit(self._renderer.tail())
            self.done = True

    def _close_parents(self) -> None:
        while self._nest and self._nest[-1][0] == self._turn:
            _, parent, outcome = self._nest.pop()
            self._emit(self._renderer.close(parent, outcome))

    def _emit(self, data: bytes) -> None:
        self._out.append(data)
        self.size += len(data)

    def _stand_in(self, step: Step, reply: Reply) -> bytes:
        """A bug of ours in one result, told within its `except`, costs that result, not the
        batch."""
        self._bug()
        failure = Failure("proxy_internal_error", "render", sent=True)
        return self._whole(step, failed(failure, reply.call))

    def _group(self, step: Step, reply: Reply) -> None:
        self._emit(self._renderer.open(step))
        if reply is not GROUP:
            self._emit(self._renderer.part(step, reply))
        self._close(step, Outcome(reply.failed))

    def _parts(self, step: Step) -> bool:
        """The replies of a step of many calls, as far as they are there; True at its end."""
        if not self._opened:
            self._opened = True
            self._emit(self._renderer.open(step))
        for reply in self._sources[step.index].deliver():
            self._held += reply.held
            self._emit(self._renderer.part(step, reply))
        outcome = self._ended.get(step.index)
        if outcome is None:
            return False
        self._opened = False
        self._close(step, outcome)
        return True

    def _close(self, step: Step, outcome: Outcome) -> None:
        """Its own end, or its children first."""
        if step.size == 1:
            self._emit(self._renderer.close(step, outcome))
        else:
            self._nest.append((self._turn + step.size, step, outcome))

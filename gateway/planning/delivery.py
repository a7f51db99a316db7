"""Results in the plan's order, as bytes, whatever the order in which they came.

A result leaves when everything before it has left. A step with one reply is rendered whole; one
with children or many replies is opened when its turn comes, so that its parts can leave while the
rest is still on its way, and closed after the last of its children.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from gateway.batch import Failure, Outcome, Renderer, Reply, Step, failed
from gateway.planning.graph import Plan

GROUP = Reply(200)
"""Stands for the reply of a step that sends nothing of its own: a nested bulk."""


class Piece(NamedTuple):
    """Bytes of the answer, and how many bytes of replies are let go with them."""

    data: bytes
    held: int


class Source(Protocol):
    """Where the replies of a step of many calls come from, in their order."""

    def deliver(self) -> Iterator[Reply]: ...


class Delivery:
    """Where the answer stands."""

    __slots__ = ("_ended", "_nest", "_opened", "_order", "_renderer", "_replies", "_sources",
                 "_steps", "_turn", "bugs", "done")  # fmt: skip

    def __init__(self, plan: Plan, renderer: Renderer) -> None:
        self.done = False
        """The end of the document has been rendered."""
        self.bugs = 0
        """Results that could not be rendered and became 500 results."""
        self._steps = plan.steps
        self._order = plan.delivery
        self._renderer = renderer
        self._replies: list[Reply | None] = [None] * len(plan.steps)
        self._sources: dict[int, Source] = {}
        self._ended: dict[int, Outcome] = {}
        self._nest: list[tuple[int, Step, Outcome]] = []
        self._turn = 0
        self._opened = False

    @property
    def awaits(self) -> int:
        """The step whose turn it is; -1 when all have had theirs."""
        return self._order[self._turn] if self._turn < len(self._order) else -1

    def reply(self, index: int, reply: Reply) -> None:
        """The one reply of a step."""
        self._replies[index] = reply

    def source(self, index: int, source: Source) -> None:
        """The replies of this step come as they come, until `end`."""
        self._sources[index] = source

    def end(self, index: int, outcome: Outcome) -> None:
        """A step of many replies has ended."""
        self._ended[index] = outcome

    def drop(self) -> int:
        """Nobody will read the answer: lets go of what waits; how many bytes that were."""
        held = sum(reply.held for reply in self._replies if reply is not None)
        held += sum(r.held for source in self._sources.values() for r in source.deliver())
        self._replies = [None] * len(self._steps)
        return held

    def pieces(self) -> Iterator[Piece]:
        """Everything that can leave now."""
        while self._turn < len(self._order):
            index = self._order[self._turn]
            reply = self._replies[index]
            if reply is not None:
                self._replies[index] = None
                step = self._steps[index]
                if step.size == 1 and reply is not GROUP:
                    yield Piece(self._whole(step, reply), reply.held)
                else:
                    yield from self._group(step, reply)
            elif index in self._sources:
                yield from self._parts(self._steps[index])
                if index not in self._ended:
                    return
                yield from self._close(self._steps[index], self._ended[index])
            else:
                return
            self._turn += 1
            self._opened = False
            while self._nest and self._nest[-1][0] == self._turn:
                _, parent, outcome = self._nest.pop()
                yield Piece(self._renderer.close(parent, outcome), 0)
        if not self.done:
            self.done = True
            yield Piece(self._renderer.tail(), 0)

    def _group(self, step: Step, reply: Reply) -> Iterator[Piece]:
        yield Piece(self._renderer.open(step), 0)
        if reply is not GROUP:
            yield Piece(self._renderer.part(step, reply), reply.held)
        yield from self._close(step, Outcome(reply.failed, 1, reply.failure))

    def _whole(self, step: Step, reply: Reply) -> bytes:
        """A bug of ours in one result costs that result, not the batch."""
        try:
            return self._renderer.whole(step, reply)
        except Exception:
            self.bugs += 1
            bug = Failure("proxy_internal_error", "render", sent=True)
            return self._renderer.whole(step, failed(bug, reply.call))

    def _parts(self, step: Step) -> Iterator[Piece]:
        if not self._opened:
            self._opened = True
            yield Piece(self._renderer.open(step), 0)
        for reply in self._sources[step.index].deliver():
            yield Piece(self._renderer.part(step, reply), reply.held)

    def _close(self, step: Step, outcome: Outcome) -> Iterator[Piece]:
        """Its own end, or its children first."""
        if step.size == 1:
            yield Piece(self._renderer.close(step, outcome), 0)
        else:
            self._nest.append((self._turn + step.size, step, outcome))

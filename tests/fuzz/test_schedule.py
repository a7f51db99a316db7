"""The schedule against a model that keeps no counters: it looks at the whole plan each time."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.batch import Batch, Subrequest
from gateway.planning.graph import plan
from gateway.planning.nouns import Plan
from gateway.planning.schedule import Schedule, Skip

Shape = tuple[str, bool, set[int], set[int]]
"""A method, whether it is a barrier, what it needs and what it reads."""

TIED = st.tuples(
    st.sampled_from(["GET", "GET", "POST"]),
    st.booleans(),
    st.sets(st.integers(0, 11), max_size=3),
    st.sets(st.integers(0, 11), max_size=2),
)
SHAPES: st.SearchStrategy[list[Shape]] = st.lists(TIED, max_size=12) | st.lists(
    st.just(("GET", False, set(), set())), max_size=12
)


def _tree(shapes: list[Shape], order: str) -> Plan:
    """Barriers are for ordered batches, needs for the others, as no format has both. Names lead to
    earlier steps only; a graph is then turned round."""
    subrequests = [
        Subrequest(
            where=f"requests[{index}]",
            method=method,
            target="/",
            name=f"n{index}" if any(needs or reads for _, _, needs, reads in shapes) else None,
            barrier=barrier and order == "ordered",
            needs=tuple(f"n{n}" for n in sorted(needs) if n < index and order == "graph"),
            reads=tuple(f"n{n}" for n in sorted(reads) if n < index),
        )
        for index, (method, barrier, needs, reads) in enumerate(shapes)
    ]
    if order == "graph":
        subrequests.reverse()
    return plan(Batch("test", tuple(subrequests), order))  # type: ignore[arg-type]


class Scheduling(RuleBasedStateMachine):
    """Steps end in any order, well or not; now and then somebody hurries one, or stops all."""

    @initialize(
        shapes=SHAPES,
        order=st.sampled_from(["ordered", "graph"]),
        width=st.integers(1, 4),
        patience=st.integers(0, 12),
    )
    def begin(self, shapes: list[Shape], order: str, width: int, patience: int) -> None:
        self.tree = _tree(shapes, order)
        self.width = width
        self.patience = patience
        """How many ends are seen before anybody stops the rest."""
        self.schedule = Schedule(self.tree, width)
        self.ended: dict[int, bool] = {}
        """Step -> whether it failed."""
        self.skipped: set[int] = set()
        self.running: set[int] = set()
        self.hurried = 0
        self._started(self.schedule.begin())

    # --- what may happen -------------------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(data=st.data(), failed=st.booleans())
    def finish(self, data: st.DataObject, failed: bool) -> None:
        index = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(index)
        self.ended[index] = failed
        starts, skips = self.schedule.finish(index, failed=failed)
        self._skipped(skips)
        if failed and self.tree.steps[index].subrequest.barrier:
            assert not [later for later in self._undecided() if later > index]
        self._started(starts)

    @rule(wanted=st.sets(st.integers(0, 11), max_size=3))
    def hurry(self, wanted: set[int]) -> None:
        possible = [index for index in self._ready() if index in wanted]
        starts = self.schedule.hurry(wanted)
        assert starts == possible[:1]
        self.hurried += len(starts)
        self.running.update(starts)

    @precondition(lambda self: len(self.ended) >= self.patience)
    @rule()
    def stop(self) -> None:
        left = self.schedule.stop()
        assert left == sorted(self._undecided())
        self.skipped.update(left)

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def nothing_waits_that_could_run(self) -> None:
        assert len(self.running) <= self.width + self.hurried
        assert self.schedule.running == len(self.running)
        assert len(self.running) >= self.width or not self._ready()

    @invariant()
    def everything_is_decided_in_the_end(self) -> None:
        """An acyclic plan never hangs: while a step is undecided, one runs."""
        assert self.running or not self._undecided()
        assert self.running or not self.schedule.begin()

    @invariant()
    def a_write_is_alone(self) -> None:
        steps = [self.tree.steps[index] for index in self.running]
        if self.tree.batch.order == "ordered" and len(steps) > 1:
            assert all(step.subrequest.safe for step in steps)

    # --- the model -------------------------------------------------------------------------------

    def _undecided(self) -> set[int]:
        return {*range(len(self.tree.steps))} - {*self.ended} - self.skipped - self.running

    def _over(self, indexes: Iterable[int]) -> bool:
        return all(index in self.ended or index in self.skipped for index in indexes)

    def _ready(self) -> list[int]:
        """In the order of delivery."""
        return [
            index
            for index in self.tree.delivery
            if index in self._undecided()
            and self._over((*self.tree.steps[index].needs, *self.tree.steps[index].follows))
        ]

    def _started(self, starts: list[int]) -> None:
        """The first of those that are ready, as many as there is room for, or were once hurried."""
        ready = self._ready()
        assert starts == ready[: len(starts)]
        for index in starts:
            assert all(self.ended.get(before) is False for before in self.tree.steps[index].needs)
        self.running.update(starts)

    def _skipped(self, skips: list[Skip]) -> None:
        """Only what is after a failed barrier, or needs what failed or was skipped."""
        before = self._undecided()
        self.skipped.update(skip.step for skip in skips)
        assert len(skips) == len({skip.step for skip in skips})
        assert {skip.step for skip in skips} <= before
        for skip in skips:
            assert self.ended.get(skip.because) or skip.because in self.skipped
            barrier = self.tree.steps[skip.because].subrequest.barrier
            assert skip.because in self.tree.steps[skip.step].needs or (
                barrier and skip.because < skip.step
            )
        for index in self._undecided():
            needs = self.tree.steps[index].needs
            assert not any(self.ended.get(need) or need in self.skipped for need in needs)


TestScheduling = Scheduling.TestCase

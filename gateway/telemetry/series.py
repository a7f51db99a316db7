"""The state of all metrics at one moment, as plain data, and how several become one.

A process takes a `Snapshot` on its event loop, which is cheap; what is slow, turning it into text,
happens in a thread. With workers the parent does it: they send snapshots, `Fleet` adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import add
from typing import NewType

import msgspec

from gateway.telemetry.catalogue import BY_NAME

Labels = tuple[str, ...]
Worker = NewType("Worker", int)


class Exemplar(msgspec.Struct, frozen=True):
    """One observation that can be looked up as a trace."""

    trace_id: str
    value: float
    at: float
    """Seconds since 1970."""


class Distribution(msgspec.Struct):
    """One series of a histogram."""

    counts: list[int]
    """Per bucket, not cumulative; the last is for what exceeds all bounds."""
    sum: float = 0.0
    exemplars: dict[int, Exemplar] = {}
    """The newest of each bucket."""

    def copy(self) -> Distribution:
        return Distribution(self.counts.copy(), self.sum, self.exemplars.copy())

    def add(self, other: Distribution) -> None:
        self.counts = [
            mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.sum += other.sum
        for bucket, exemplar in other.exemplars.items():
            mine = self.exemplars.get(bucket)
            if mine is None or mine.at < exemplar.at:
                self.exemplars[bucket] = exemplar


class Snapshot(msgspec.Struct):
    values: dict[str, dict[Labels, float]] = {}
    """Counters and gauges, by the metric's name."""
    distributions: dict[str, dict[Labels, Distribution]] = {}

    def lasting(self) -> Snapshot:
        """What stays true when the process has ended: everything but its gauges."""
        values = {
            name: family for name, family in self.values.items() if BY_NAME[name].kind == "counter"
        }
        return Snapshot(values, self.distributions)


_MERGE: dict[str, Callable[[float, float], float]] = {"sum": add, "max": max, "min": min}


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot that speaks for all."""
    total = Snapshot()
    for snapshot in snapshots:
        for name, family in snapshot.values.items():
            combine = _MERGE[BY_NAME[name].merge]
            into = total.values.setdefault(name, {})
            for labels, value in family.items():
                into[labels] = combine(into[labels], value) if labels in into else value
        for name, series in snapshot.distributions.items():
            known = total.distributions.setdefault(name, {})
            for labels, distribution in series.items():
                if labels in known:
                    known[labels].add(distribution)
                else:
                    known[labels] = distribution.copy()
    return total


class Fleet:
    """The metrics of a process that has workers: theirs, its own, and what ended ones counted."""

    def __init__(self) -> None:
        self._ended = Snapshot()
        self._living: dict[Worker, Snapshot] = {}

    def report(self, worker: Worker, snapshot: Snapshot) -> None:
        self._living[worker] = snapshot

    def ended(self, worker: Worker) -> None:
        """Its gauges go with it. What it counted after its last report is lost."""
        last = self._living.pop(worker, None)
        if last is not None:
            self._ended = merge((self._ended, last.lasting()))

    def snapshot(self) -> Snapshot:
        return merge((self._ended, *self._living.values()))

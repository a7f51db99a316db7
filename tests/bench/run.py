"""A run: what every case gets to work with, and where it puts what it found."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contestants import Running, Site
from tests.bench.report import Report, Table, Verdict
from tests.bench.rounds import CLIENTS, Effort, Samples, interleave
from tests.bench.workload import Work

By = dict[str, Samples]


@dataclass
class Run:
    site: Site
    report: Report
    effort: Effort
    results: Path
    quick: bool = False

    async def compare(
        self,
        contestants: Sequence[Running],
        work: Work,
        *,
        clients: int = CLIENTS,
        effort: Effort | None = None,
    ) -> By:
        found = await interleave(
            contestants, work, effort or self.effort, clients=clients, trouble=self.trouble
        )
        samples = self.report.samples.setdefault(work.name, {})
        samples.update({name: sample.as_dict() for name, sample in found.items()})
        said = ", ".join(f"{name} {sample.microseconds:.1f}" for name, sample in found.items())
        progress(f"{work.name}: {said} us")
        return found

    def trouble(self, words: str) -> None:
        progress(f"left out: {words}")
        self.report.troubles.append(words)

    def verdict(
        self,
        measure: str,
        value: float,
        unit: str = "",
        *,
        most: float | None = None,
        least: float | None = None,
        note: str = "",
    ) -> None:
        row = Verdict(measure, value, unit, most, least, note)
        progress(f"{row.measure}: {row.value:.3g}{row.unit} {row.target} {row.holds}")
        self.report.verdicts.append(row)

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str | float]],
        words: str = "",
    ) -> None:
        self.report.tables.append(Table(title, columns, rows, words))


def ratio(found: By, name: str, other: str) -> float:
    """CPU of one as a share of the other's; not a number when either is missing."""
    if name not in found or other not in found:
        return math.nan
    return found[name].microseconds / found[other].microseconds


def progress(words: str) -> None:
    print(f"  {words}", file=sys.stderr, flush=True)

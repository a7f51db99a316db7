"""What a run found: targets with their verdicts, tables, and everything as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """One measured value beside the bound it must keep."""

    measure: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """None where there is a value to state and no target to keep."""
        if self.most is None and self.least is None:
            return None
        if math.isnan(self.value):
            return False
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    @property
    def target(self) -> str:
        if self.most is not None:
            return f"at most {number(self.most)}{self.unit}"
        return f"at least {number(self.least)}{self.unit}" if self.least is not None else ""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    words: str = ""

    def markdown(self) -> str:
        lines = [f"### {self.title}", ""]
        lines += [self.words, ""] if self.words else []
        lines += ["| " + " | ".join(self.columns) + " |", "|---" * len(self.columns) + "|"]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in self.rows]
        return "\n".join([*lines, ""])


@dataclass
class Report:
    machine: Mapping[str, str]
    verdicts: list[Verdict] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Contestants that could not run here, and why."""
    troubles: list[str] = field(default_factory=list)
    """Wrong answers and lost connections: what was left out because of them."""
    samples: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        return "\n".join(
            [
                *(f"- {name}: {value}" for name, value in self.machine.items()),
                "",
                _verdicts(self.verdicts).markdown(),
                *(table.markdown() for table in self.tables),
                *(f"- not here: {name}: {reason}" for name, reason in self.absent.items()),
                *(f"- left out: {trouble}" for trouble in self.troubles),
            ]
        )

    def write(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "latest.md").write_text(self.markdown() + "\n")
        document = {
            "machine": dict(self.machine),
            "targets": [{**asdict(row), "holds": row.holds} for row in self.verdicts],
            "samples": self.samples,
            "absent": self.absent,
            "troubles": self.troubles,
        }
        (directory / "latest.json").write_text(json.dumps(document, indent=1))


def number(value: float) -> str:
    """Three digits that mean something, and no more."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}".rstrip("0").rstrip(".")


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    said = {True: "holds", False: "**does not hold**", None: ""}
    return Table(
        "Targets",
        ("measure", "measured", "target", ""),
        [
            (
                row.measure + (f" ({row.note})" if row.note else ""),
                number(row.value) + row.unit,
                row.target,
                said[row.holds],
            )
            for row in verdicts
        ],
    )


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else number(value)

"""The numbers that the gateway promises and that no other case measures.

Which they all are, and what measures each, is a list in `tests/faults/README.md`.
"""

from __future__ import annotations

from tests.bench.cases.goals import amplification, once, overload, records, times
from tests.bench.run import Run


async def run(run: Run) -> None:
    await once.run(run)
    await times.run(run)
    await records.run(run)
    await amplification.run(run)
    await overload.run(run)

"""What compiling saves: the gateway beside itself as it is written."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.contestants import gateway
from tests.bench.run import By, Run
from tests.bench.stats import median
from tests.bench.workload import Workload
from tests.support.engine import ROOT, is_compiled

WORKS = (Workload(1), Workload(10), Workload(10, post=True), Workload(100))


async def run(run: Run) -> None:
    if not is_compiled():
        return
    with TemporaryDirectory() as directory:
        sources = Path(directory) / "gateway"
        shutil.copytree(ROOT / "gateway", sources, ignore=shutil.ignore_patterns("*.so"))
        interpreted = gateway("interpreted", env={"PYTHONPATH": directory})
        async with run.site.running([gateway(), interpreted]) as contestants:
            for work in WORKS:
                found = await run.compare(contestants, work)
                run.verdict(f"compiled, {work.name}, by interpreted", _share(found))


def _share(found: By) -> float:
    """The median of the rounds' ratios: neighbours in time, so noise is in both."""
    if len(found) < 2:
        return math.nan
    pairs = zip(found["gateway"].cpu, found["interpreted"].cpu, strict=True)
    return median([compiled / written for compiled, written in pairs])

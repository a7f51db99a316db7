"""A batch of 10,000: its cost per subrequest beside that of 100."""

from __future__ import annotations

import math

from tests.bench.contestants import gateway
from tests.bench.run import Run
from tests.bench.workload import Workload


async def run(run: Run) -> None:
    async with run.site.running([gateway()]) as contestants:
        small = await run.compare(contestants, Workload(100))
        large = await run.compare(contestants, Workload(10_000))
    costs = [by["gateway"].microseconds for by in (large, small) if "gateway" in by]
    share = costs[0] / costs[1] if len(costs) == 2 else math.nan
    run.verdict("10,000 subrequests: cost of each by that in a batch of 100", share, most=1.2)

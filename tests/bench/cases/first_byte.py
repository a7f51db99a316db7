"""Time to the first byte while the last of 100 subrequests is slow."""

from __future__ import annotations

from tests.bench.contestants import gateway
from tests.bench.load import rounds
from tests.bench.rounds import checked
from tests.bench.run import Run
from tests.bench.stats import median
from tests.bench.workload import Workload

FAST = Workload(100)
SLOW = Workload(100, slow_last=True)
FLUSH = 20.0
"""Milliseconds: the flush timer's default."""
REPEATS = 6


async def run(run: Run) -> None:
    async with run.site.running([gateway()]) as (mine,):
        await checked(mine, SLOW)
        fast, slow = [], []
        for _ in range(REPEATS):
            request = FAST.request("sugarcrm", mine.address)
            fast += (await rounds(mine.address, request, clients=1, each=5)).latencies
            request = SLOW.request("sugarcrm", mine.address)
            slow += (await rounds(mine.address, request, clients=1, each=1)).firsts
    whole, first = median(fast) * 1e3, median(slow) * 1e3
    run.verdict(
        "first byte with one slow subrequest at the end of 100",
        first,
        " ms",
        most=whole + FLUSH,
        note=f"100 fast ones take {whole:.1f} ms, the flush timer {FLUSH:.0f} ms",
    )

"""Small batches of 64 clients, alone and beside one client with batches of 10,000."""

from __future__ import annotations

import asyncio

from tests.bench.contestants import Running, gateway
from tests.bench.load import Load, closed, offered
from tests.bench.rounds import checked
from tests.bench.run import Run
from tests.bench.stats import median, percentile
from tests.bench.workload import Workload

SMALL = Workload(10)
LARGE = Workload(10_000)
CLIENTS = 64
SECONDS = 1.5
RATE = 100.0
"""Small batches a second in the second row: what a lightly used gateway would see."""
ROUNDS = 3


async def run(run: Run) -> None:
    async with run.site.running([gateway()]) as (mine,):
        await checked(mine, SMALL)
        await checked(mine, LARGE)
        busy = [await _beside(mine, paced=False) for _ in range(ROUNDS)]
        paced = [await _beside(mine, paced=True) for _ in range(ROUNDS)]
    run.verdict(
        "64 clients with small batches beside one with batches of 10,000: p99 by p99 alone",
        median([beside / alone for alone, beside in busy]),
        most=3.0,
        note=_said(busy),
    )
    run.verdict(
        f"the same with {RATE:.0f} small batches a second in all",
        median([beside / alone for alone, beside in paced]),
        note=_said(paced),
    )


async def _beside(mine: Running, *, paced: bool) -> tuple[float, float]:
    """The small batches' p99, alone and beside the large ones, in milliseconds."""
    alone = await _small(mine, paced=paced)
    stop = asyncio.Event()
    large = asyncio.create_task(_large(mine, stop))
    await asyncio.sleep(0.2)  # until the large batch is being answered
    beside = await _small(mine, paced=paced)
    stop.set()
    await large
    return percentile(alone.latencies, 0.99) * 1e3, percentile(beside.latencies, 0.99) * 1e3


async def _small(mine: Running, *, paced: bool) -> Load:
    request = SMALL.request("sugarcrm", mine.address)
    if paced:
        return await offered(mine.address, request, rate=RATE, seconds=SECONDS, most=CLIENTS)
    return await closed(mine.address, request, clients=CLIENTS, seconds=SECONDS)


async def _large(mine: Running, stop: asyncio.Event) -> None:
    request = LARGE.request("sugarcrm", mine.address)
    while not stop.is_set():
        await closed(mine.address, request, clients=1, seconds=0)


def _said(pairs: list[tuple[float, float]]) -> str:
    alone, beside = (median(values) for values in zip(*pairs, strict=True))
    return f"p99 {alone:.1f} ms alone, {beside:.1f} ms beside"

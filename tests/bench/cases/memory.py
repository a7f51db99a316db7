"""Four batches of 1,000 answers of 8 MB, 32 GB in all, to clients that read slowly."""

from __future__ import annotations

import asyncio
import time

from tests.bench.contestants import Running, gateway
from tests.bench.load import GRACE, rounds
from tests.bench.rounds import checked
from tests.bench.run import Run
from tests.bench.workload import Workload

BATCH = Workload(1000, page="big")
CLIENTS = 4
BUFFER = 96 * 2**20
"""`limits.buffer_bytes` as it is delivered."""
ALLOWANCE = 40 * 2**20
SLOW, FAST = 5.0, 5.0
"""Seconds of reading 1 MB/s and of reading at full speed; the rest of the answer is not awaited."""
PIECE = 64 * 1024


async def run(run: Run) -> None:
    async with run.site.running([gateway()]) as (mine,):
        await checked(mine, Workload(2, page="big"))
        request = Workload(10).request("sugarcrm", mine.address)
        await rounds(mine.address, request, clients=CLIENTS, each=20)
        await asyncio.sleep(0.5)
        mine.process.forget_peak()
        idle = mine.process.resident()
        got = await asyncio.gather(*(_slow_client(mine) for _ in range(CLIENTS)))
        peak = mine.process.peak()
    run.verdict(
        "memory over idle, four slow clients, each 1,000 answers of 8 MB",
        (peak - idle) / 2**20,
        " MiB",
        most=(BUFFER + ALLOWANCE) / 2**20,
        note=f"idle {idle / 2**20:.0f} MiB; {sum(got) / 2**20:.0f} MiB of answers read",
    )


async def _slow_client(mine: Running) -> int:
    reader, writer = await asyncio.open_connection(*mine.address, limit=PIECE)
    try:
        writer.write(BATCH.request("sugarcrm", mine.address))
        return await _read(reader, SLOW, PIECE / 1e6) + await _read(reader, FAST, 0.0)
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader, seconds: float, pause: float) -> int:
    total = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        total += len(data := await asyncio.wait_for(reader.read(PIECE), GRACE))
        if not data:
            raise ConnectionError("the answer ended early")
        await asyncio.sleep(pause)
    return total

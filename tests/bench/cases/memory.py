"""Four batches of 1,000 answers of 8 MB, 32 GB in all, to clients that read slowly.

A container of 256 MiB is to survive that. A control group takes rights that a benchmark should not
ask for, so the process may have 256 MiB of data (RLIMIT_DATA: the kernel refuses it more), and what
a group would count is added up: all that is resident, and what waits in the process's sockets.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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
CONTAINER = 256 * 2**20
LOOKS = 0.1
"""Seconds between two looks at what a container would count."""
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
        resource.prlimit(mine.process.pid, resource.RLIMIT_DATA, (CONTAINER, CONTAINER))
        counted: list[int] = []
        looking = asyncio.create_task(_looks(mine, counted))
        got = await asyncio.gather(*(_slow_client(mine) for _ in range(CLIENTS)))
        looking.cancel()
        peak = mine.process.peak()
        await checked(mine, Workload(10))
    run.verdict(
        "memory over idle, four slow clients, each 1,000 answers of 8 MB",
        (peak - idle) / 2**20,
        " MiB",
        most=(BUFFER + ALLOWANCE) / 2**20,
        note=f"idle {idle / 2**20:.0f} MiB; {sum(got) / 2**20:.0f} MiB of answers read",
    )
    run.verdict(
        "memory that a container would count meanwhile, sockets included",
        max(peak, *counted) / 2**20,
        " MiB",
        most=CONTAINER / 2**20,
        note=f"resident {peak / 2**20:.0f} MiB; 256 MiB of data allowed, and it serves on",
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


async def _looks(mine: Running, found: list[int]) -> None:
    """Bytes resident and in sockets, now and again."""
    while True:
        found.append(mine.process.resident() + _sockets(mine.process.pid))
        await asyncio.sleep(LOOKS)


def _sockets(pid: int) -> int:
    """Bytes that wait in the process's own, either way."""
    own = set(_descriptors(pid))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [fields[4].split(":") for fields in lines if f"socket:[{fields[9]}]" in own]
    return sum(int(sent, 16) + int(received, 16) for sent, received in queues)


def _descriptors(pid: int) -> Iterator[str]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            yield os.readlink(path)

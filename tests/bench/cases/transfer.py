"""One GB down and one GB up through the gateway: its memory must not notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from tests.bench.backend import HUGE
from tests.bench.contestants import Running, gateway
from tests.bench.load import LoadError, get, rounds
from tests.bench.run import Run
from tests.bench.workload import OUTER, Passed

ALLOWANCE = 40.0
PIECE = bytes(1 << 18)


async def run(run: Run) -> None:
    async with run.site.running([gateway()]) as (mine,):
        request = Passed().request("sugarcrm", mine.address)
        await rounds(mine.address, request, clients=4, each=50)
        down = await _over_idle(mine, _download)
        up = await _over_idle(mine, _upload)
    run.verdict("memory over idle while 1 GB goes down", down, " MiB", most=ALLOWANCE)
    run.verdict("memory over idle while 1 GB goes up", up, " MiB", most=ALLOWANCE)


async def _over_idle(mine: Running, transfer: Callable[[Running], Awaitable[None]]) -> float:
    mine.process.forget_peak()
    idle = mine.process.resident()
    await transfer(mine)
    return (mine.process.peak() - idle) / 2**20


async def _download(mine: Running) -> None:
    load = await rounds(mine.address, get("/huge", mine.address, OUTER), clients=1, each=1)
    if not load.latencies:
        raise LoadError("the download did not end")


async def _upload(mine: Running) -> None:
    reader, writer = await asyncio.open_connection(*mine.address)
    try:
        head = f"POST /sink HTTP/1.1\r\nHost: bench\r\nContent-Length: {HUGE}\r\n\r\n"
        writer.write(head.encode())
        for _ in range(0, HUGE, len(PIECE)):
            writer.write(PIECE[: min(len(PIECE), HUGE)])
            await writer.drain()
        answer = await reader.readuntil(b"}")
        received = json.loads(answer[answer.rindex(b"{") :])["received"]
        if received != HUGE:
            raise LoadError(f"{received} of {HUGE} bytes arrived")
    finally:
        writer.transport.abort()

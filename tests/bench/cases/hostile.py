"""What everybody else feels of hostile documents, one at a time, and of a crowd of slow clients
with compressed bombs among them.

Seen from outside, as in `scrape`: a small request passed through waits for the event loop as
everything else does, and what it takes beyond its usual time is the stall.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.bench.contestants import Running, gateway
from tests.bench.load import offered, once, request
from tests.bench.rounds import checked
from tests.bench.run import Run
from tests.bench.stats import median, percentile
from tests.bench.workload import Passed, Workload
from tests.security.hostile import SIZE, documents

DEFAULTS = {"subrequests": 100, "request_bytes": "4MiB"}
"""As it is delivered: other cases need more."""
STALLS = {SIZE: 100.0, 2**20: 50.0}
"""Bytes of a document -> milliseconds that others may be kept waiting."""
AGAIN = 2
"""How often a document is tried anew that keeps others waiting for longer."""
SMALL = Workload(10)
SLOW = 900
READERS = 50
RATE = 100.0
SECONDS = 2.0
ROUNDS = 3
SETTLING = 5.0
"""Seconds until those who keep others waiting have been noticed."""
PAUSE = 0.05
"""Seconds between two bombs."""
DRIP = 1.0
PORTIONS = 50
"""Seconds between two bytes of a slow client, and parts of them."""
JSON = [("Content-Type", "application/json")]


async def run(run: Run) -> None:
    async with run.site.running([gateway(limits=DEFAULTS)]) as (mine,):
        await checked(mine, SMALL)
        for size, most in STALLS.items():
            await _documents(run, mine, size, most)
    async with run.site.running([gateway(limits=DEFAULTS)]) as (mine,):
        await checked(mine, SMALL)
        await _crowd(run, mine)


# --- documents -----------------------------------------------------------------------------------


async def _documents(run: Run, mine: Running, size: int, most: float) -> None:
    usual = median(await _passed(mine, SECONDS))
    felt = [
        (*await _least(mine, path, body, usual, most / 1e3), path, body)
        for path, body in documents(size)
    ]
    stall, _, path, body = max(felt)
    run.verdict(
        f"what others feel of the worst hostile document of {size >> 20} MiB",
        stall * 1e3,
        " ms",
        most=most,
        note=f"{len(felt)} documents; the worst: {path} {body[:60].decode(errors='replace')}...",
    )
    run.verdict(
        f"memory for the worst hostile document of {size >> 20} MiB",
        max(grown for _, grown, *_ in felt) / 2**20,
        " MiB",
        most=64.0,
    )


async def _least(
    mine: Running, path: str, body: bytes, usual: float, most: float
) -> tuple[float, int]:
    """What a document does it does every time; what else the machine does it does once."""
    felt = await _beside(mine, path, body, usual)
    for _ in range(AGAIN):
        if felt[0] <= most:
            break
        felt = min(felt, await _beside(mine, path, body, usual))
    return felt


async def _beside(mine: Running, path: str, body: bytes, usual: float) -> tuple[float, int]:
    """Seconds by which a request was late at most, and bytes by which the process grew."""
    probing = asyncio.create_task(_passed(mine, 0.5))
    await asyncio.sleep(0.1)
    mine.process.forget_peak()
    before = mine.process.resident()
    await once(mine.address, request("POST", path, mine.address, JSON, body))
    grown = mine.process.peak() - before
    return max(await probing) - usual, grown


async def _passed(mine: Running, seconds: float) -> list[float]:
    asked = Passed().request("sugarcrm", mine.address)
    load = await offered(mine.address, asked, rate=RATE, seconds=seconds, most=16)
    return load.latencies


# --- the crowd -----------------------------------------------------------------------------------


async def _crowd(run: Run, mine: Running) -> None:
    alone = [await _p99(mine) for _ in range(ROUNDS)]
    async with _slow_clients(mine), _bombs(mine):
        await asyncio.sleep(SETTLING)
        beside = [await _p99(mine) for _ in range(ROUNDS)]
    before, after = median(alone), median(beside)
    run.verdict(
        f"small batches beside {SLOW} slow clients, {READERS} slow readers and compressed bombs: "
        "p99 by p99 alone",
        after / before,
        most=2.0,
        note=f"p99 {before * 1e3:.1f} ms alone, {after * 1e3:.1f} ms beside",
    )


async def _p99(mine: Running) -> float:
    asked = SMALL.request("sugarcrm", mine.address)
    load = await offered(mine.address, asked, rate=RATE, seconds=SECONDS, most=16)
    return percentile(load.latencies, 0.99)


@asynccontextmanager
async def _slow_clients(mine: Running) -> AsyncIterator[None]:
    """Those who say nothing, or drip heads and bodies, and those who do not read."""
    upload = request("POST", "/slow", mine.address, JSON, b" " * 100_000)
    bulk = request("POST", "/bulk", mine.address, JSON, b" " * 100_000)
    openings = (b"", upload[:20], upload[:-99_999], bulk[:-99_999])
    asked = Workload(20, page="big").request("sugarcrm", mine.address)
    said = [*itertools.islice(itertools.cycle(openings), SLOW), *[asked] * READERS]
    writers = []
    for words in said:
        _, writer = await asyncio.open_connection(*mine.address, limit=1000)
        writer.write(words)
        writers.append(writer)
    dripping = asyncio.create_task(_drip([w for w, words in zip(writers, said, strict=True)
                                          if words and words is not asked]))  # fmt: skip
    try:
        yield
    finally:
        dripping.cancel()
        for writer in writers:
            writer.transport.abort()


@asynccontextmanager
async def _bombs(mine: Running) -> AsyncIterator[None]:
    """Bulk calls that would be 128 MiB if anybody unpacked them, one after another."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join([*(packer.compress(b" " * 2**20) for _ in range(128)), packer.flush()])
    fields = [*JSON, ("Content-Encoding", "gzip")]
    wish = request("POST", "/bulk", mine.address, fields, bomb)

    async def throw() -> None:
        while True:
            await once(mine.address, wish)
            await asyncio.sleep(PAUSE)

    throwing = asyncio.create_task(throw())
    try:
        yield
    finally:
        throwing.cancel()


async def _drip(writers: list[asyncio.StreamWriter]) -> None:
    """Everybody a byte, spread over the time: all at once would be a burst of our own making."""
    for number in itertools.count():
        await asyncio.sleep(DRIP / PORTIONS)
        for writer in writers[number % PORTIONS :: PORTIONS]:
            if not writer.is_closing():
                writer.write(b" ")

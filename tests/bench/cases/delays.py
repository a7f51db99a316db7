"""A backend that takes its time: what a batch costs its client in waiting."""

from __future__ import annotations

import asyncio
import math
import time

from tests.bench.backend import collection
from tests.bench.contestants import BULK_PEERS, gateway
from tests.bench.formats import FORMATS
from tests.bench.load import Address, Client, LoadError, connected, get, rounds
from tests.bench.run import By, Run
from tests.bench.stats import median
from tests.bench.workload import OUTER, Workload

BATCH = 20
SLEEPS = ("0ms", "5ms", "20ms")
REPEATS = 20


async def run(run: Run) -> None:
    found: dict[str, By] = {}
    direct: dict[str, float] = {}
    async with run.site.running([gateway(batch={"width": BATCH}), *BULK_PEERS]) as contestants:
        for sleep in SLEEPS:
            found[sleep] = await run.compare(contestants, Workload(BATCH, sleep=sleep), clients=1)
            direct[sleep] = await _client_alone(run.site.backend.address, sleep)
    one = await _one_call(run.site.backend.address, "20ms")
    mine = found["20ms"].get("gateway")
    run.verdict(
        f"{BATCH} subrequests at a 20 ms backend, width {BATCH}: batch p50 by one call's p50",
        mine.milliseconds(0.5) / one if mine else math.nan,
        most=1.25,
        note=f"one call: {one:.1f} ms",
    )
    names = ["gateway", *(peer.name for peer in BULK_PEERS)]
    run.table(
        f"A batch of {BATCH} x 200B, one client, p50 in milliseconds",
        ("backend", *names, f"the client itself, {BATCH} connections"),
        [
            (
                f"after {sleep}",
                *(by[name].milliseconds(0.5) if name in by else math.nan for name in names),
                direct[sleep],
            )
            for sleep, by in found.items()
        ],
    )


async def _one_call(address: Address, sleep: str) -> float:
    load = await rounds(address, _get(0, sleep, address), clients=1, each=REPEATS)
    return median(load.latencies) * 1e3


async def _client_alone(address: Address, sleep: str) -> float:
    """The p50 in milliseconds of the same calls in parallel, without any gateway."""
    times: list[float] = []
    left = 0
    done = asyncio.Event()

    def answered(client: Client) -> None:
        nonlocal left
        left -= 1
        if client.lost or not left:
            done.set()

    async with connected(address, BATCH, answered) as clients:
        for _ in range(REPEATS):
            left = BATCH
            done.clear()
            began = time.perf_counter()
            for number, client in enumerate(clients):
                client.ask(_get(number, sleep, address))
            await done.wait()
            times.append(time.perf_counter() - began)
            if any(client.lost for client in clients):
                raise LoadError("connection lost")
    return median(times) * 1e3


def _get(number: int, sleep: str, address: Address) -> bytes:
    path = f"{FORMATS['sugarcrm'].prefix}/{collection('200B', sleep)}/{number}"
    return get(path, address, OUTER[1:])

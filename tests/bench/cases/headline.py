"""CPU per subrequest over batches and answer sizes: the claim on the tin."""

from __future__ import annotations

import math
from dataclasses import replace

from tests.bench.backend import SIZES
from tests.bench.contestants import BULK_PEERS, gateway
from tests.bench.rounds import CLIENTS
from tests.bench.run import By, Run, ratio
from tests.bench.stats import geometric_mean
from tests.bench.workload import Workload

BATCHES = (10, 100, 1000)
TARGETS = {
    "nginx Lua decode": 0.6,
    "nginx Lua splice": 1.2,
    "nginx pipeline": 0.4,
    "aiohttp": 0.15,
}
WORST = 1.4
"""Of nginx Lua decode, in every single case."""

Found = dict[Workload, By]


async def run(run: Run) -> None:
    found: Found = {}
    async with run.site.running([gateway(), *BULK_PEERS]) as contestants:
        for batch in BATCHES:
            for size in SIZES:
                work = Workload(batch, size)
                # Four such batches of every peer's take half a minute; one client shows the same.
                huge = batch == max(BATCHES) and (run.quick or size == "50kB")
                found[work] = await run.compare(
                    contestants,
                    work,
                    clients=1 if huge else CLIENTS,
                    effort=replace(run.effort, budget=20.0) if huge else None,
                )
    _judge(run, found)
    _tabulate(run, found)


def _judge(run: Run, found: Found) -> None:
    plain = found[Workload(100, "200B")]
    run.verdict(
        "CPU per subrequest, 100 GETs of 200 B, against a plain aiohttp handler",
        ratio(plain, "gateway", "aiohttp"),
        most=0.25,
    )
    for peer, most in TARGETS.items():
        ratios = [ratio(by, "gateway", peer) for by in found.values()]
        run.verdict(
            f"CPU per subrequest, geometric mean, against {peer}",
            math.nan if any(map(math.isnan, ratios)) else geometric_mean(ratios),
            most=most,
        )
    ratios = [ratio(by, "gateway", "nginx Lua decode") for by in found.values()]
    run.verdict("the worst of these cases, against nginx Lua decode", max(ratios), most=WORST)


def _tabulate(run: Run, found: Found) -> None:
    names = ["gateway", *TARGETS]
    run.table(
        "CPU per subrequest, microseconds",
        ("batch", *names, *(f"of {peer}" for peer in TARGETS)),
        [
            (
                work.name,
                *(by[name].microseconds if name in by else math.nan for name in names),
                *(ratio(by, "gateway", peer) for peer in TARGETS),
            )
            for work, by in found.items()
        ],
    )
    run.table(
        "A batch's time, milliseconds: p50 / p90 / p99",
        ("batch", *names),
        [(work.name, *(_times(by, name) for name in names)) for work, by in found.items()],
        "Four clients that ask again at once (one at 1000 x 50kB), contestant on one processor.",
    )
    run.table(
        "Peak resident memory, MiB",
        ("batch", *names),
        [
            (work.name, *(by[name].peak / 2**20 if name in by else math.nan for name in names))
            for work, by in found.items()
            if work.batch > 10
        ],
    )


def _times(by: By, name: str) -> str:
    if name not in by:
        return "-"
    return " / ".join(f"{by[name].milliseconds(share):.3g}" for share in (0.5, 0.9, 0.99))

"""Requests that are no bulk calls: CPU per request beside proxies."""

from __future__ import annotations

import math

from tests.bench.contestants import PROXIES, gateway
from tests.bench.run import By, Run, ratio
from tests.bench.workload import Passed

WORKS = (Passed("200B"), Passed("2kB"))
TARGETS = {"Envoy": 1.3, "aiohttp proxy": 0.5, "nginx proxy_pass": None}
CLIENTS = 16


async def run(run: Run) -> None:
    found: dict[str, By] = {}
    async with run.site.running([gateway(), *PROXIES]) as contestants:
        for work in WORKS:
            found[work.name] = await run.compare(contestants, work, clients=CLIENTS)
    for name, by in found.items():
        for peer, most in TARGETS.items():
            share = ratio(by, "gateway", peer)
            run.verdict(f"pass-through, {name}, against {peer}", share, most=most)
    names = ["gateway", *TARGETS]
    run.table(
        "Pass-through, CPU per request, microseconds, and p50 / p99 in milliseconds",
        ("request", *names),
        [(name, *(_shown(by, peer) for peer in names)) for name, by in found.items()],
        f"{CLIENTS} clients that ask again at once.",
    )


def _shown(by: By, name: str) -> str:
    if name not in by:
        return "-"
    sample = by[name]
    times = f"{sample.milliseconds(0.5):.2g} / {sample.milliseconds(0.99):.2g}"
    return f"{sample.microseconds:.1f} ({times})" if not math.isnan(sample.microseconds) else "-"

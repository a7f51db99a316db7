"""What traces cost: the gateway told to make them, beside itself without.

Unsampled is what nearly every request is in production: ids are drawn and sent on, no span is
kept. Sampled, every subrequest is a span that leaves for a collector.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tests.bench.contestants import gateway
from tests.bench.run import By, Run
from tests.bench.stats import median
from tests.bench.workload import Workload

WORKS = (Workload(10), Workload(100))
MOST = 10.0
"""Microseconds of a subrequest that is not sampled."""
ROUNDS = 3
"""Times as many as usual: a difference is smaller than what it is the difference of."""


async def run(run: Run) -> None:
    # The backend reads what it is sent there and says 200, which is all a collector needs to do.
    collector = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{run.site.backend.url}/sink"}
    contestants = (
        gateway(),
        gateway("unsampled", env={**collector, "OTEL_TRACES_SAMPLER": "always_off"}),
        gateway("sampled", env={**collector, "OTEL_TRACES_SAMPLER": "always_on"}),
    )
    effort = replace(run.effort, rounds=ROUNDS * run.effort.rounds)
    async with run.site.running(contestants) as running:
        for work in WORKS:
            found = await run.compare(running, work, effort=effort)
            for name, most in (("unsampled", MOST), ("sampled", None)):
                run.verdict(
                    f"CPU per subrequest that traces add, {name}, {work.name}",
                    _added(found, name),
                    " us",
                    most=most,
                )


def _added(found: By, name: str) -> float:
    """The median of the rounds' differences: neighbours in time, so noise is in both."""
    if name not in found or "gateway" not in found:
        return math.nan
    pairs = zip(found[name].cpu, found["gateway"].cpu, strict=True)
    return median([traced - plain for traced, plain in pairs]) * 1e6

"""Other shapes of a bulk call, a batch of one, and the peers that have no target."""

from __future__ import annotations

import math

from tests.bench.contestants import BULK_PEERS, EXTRA_PEERS, Running, gateway
from tests.bench.load import LoadError
from tests.bench.rounds import checked
from tests.bench.run import By, Run, ratio
from tests.bench.workload import Workload, WrongAnswer

SHAPES = (
    Workload(10, post=True),
    Workload(100, post=True),
    Workload(100, "2kB", post=True),
    Workload(10, own=True),
    Workload(100, own=True),
    Workload(100, "2kB", own=True),
)
PLAIN = (Workload(1), Workload(10), Workload(100), Workload(100, "2kB"))


async def run(run: Run) -> None:
    async with run.site.running([gateway(), *BULK_PEERS]) as contestants:
        contestants = [running for running in contestants if await _sends_bodies(run, running)]
        for shape in SHAPES:
            by = await run.compare(contestants, shape)
            share = ratio(by, "gateway", "nginx Lua decode")
            run.verdict(f"{shape.name}, against nginx Lua decode", share, most=1.4)
    async with run.site.running([gateway(), *BULK_PEERS, *EXTRA_PEERS]) as contestants:
        plain = {work: await run.compare(contestants, work) for work in PLAIN}
    _alone(run, plain[Workload(1)])
    _tabulate(run, plain)


async def _sends_bodies(run: Run, running: Running) -> bool:
    """Whether a body arrives as it was: the timed page tells its length only."""
    try:
        await checked(running, Workload(10, post=True, page="echo"))
    except (LoadError, WrongAnswer) as trouble:
        run.trouble(f"{running.name} at bodies: {trouble}")
        return False
    return True


def _alone(run: Run, by: By) -> None:
    run.verdict("batch of one, against nginx Lua decode", _of(by, "nginx Lua decode"), most=2.7)
    run.verdict("batch of one, against aiohttp", _of(by, "aiohttp"), most=0.6)


def _of(by: By, peer: str) -> float:
    return ratio(by, "gateway", peer)


def _tabulate(run: Run, found: dict[Workload, By]) -> None:
    names = ["gateway", *(peer.name for peer in (*BULK_PEERS, *EXTRA_PEERS))]
    run.table(
        "All contestants, CPU per subrequest, microseconds",
        ("batch", *names),
        [
            (work.name, *(by[name].microseconds if name in by else math.nan for name in names))
            for work, by in found.items()
        ],
    )

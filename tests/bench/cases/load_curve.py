"""Latency against load: requests arrive at a rate, whether or not earlier ones are answered."""

from __future__ import annotations

from tests.bench.contestants import AIOHTTP_TUNED, BULK_PEERS, Running, gateway
from tests.bench.load import LoadError, offered, rounds
from tests.bench.plot import Point, svg
from tests.bench.rounds import checked
from tests.bench.run import Run, progress
from tests.bench.stats import percentile
from tests.bench.workload import Workload

WORK = Workload(20, "2kB")
RATES = (500, 1_000, 2_000, 4_000, 8_000, 12_000, 16_000, 24_000, 32_000, 48_000)
"""Subrequests a second."""
SECONDS = 1.0
TOO_LONG = 0.5
"""Seconds of p99 beyond which a contestant is full, and higher rates tell nothing."""
CONNECTIONS = 64


async def run(run: Run) -> None:
    middle: dict[str, list[Point]] = {}
    tail: dict[str, list[Point]] = {}
    async with run.site.running([gateway(), *BULK_PEERS, AIOHTTP_TUNED]) as contestants:
        for running in contestants:
            await checked(running, WORK)
            middle[running.name], tail[running.name] = await _curve(run, running)
    _draw(run, "load-p50", f"Latency against load: {WORK.name}, p50", middle)
    _draw(run, "load-p99", f"Latency against load: {WORK.name}, p99", tail)
    run.table(
        f"Batches of {WORK.name} at a fixed rate: p50 / p99 in milliseconds",
        ("subrequests a second", *tail),
        [
            (f"{rate:,}", *(_cell(middle[name], tail[name], rate) for name in tail))
            for rate in RATES
        ],
    )


async def _curve(run: Run, running: Running) -> tuple[list[Point], list[Point]]:
    request = WORK.request(running.contestant.format, running.address)
    await rounds(running.address, request, clients=8, each=5)
    middle: list[Point] = []
    tail: list[Point] = []
    for rate in RATES:
        try:
            load = await offered(
                running.address,
                request,
                rate=rate / WORK.batch,
                seconds=SECONDS,
                most=CONNECTIONS,
            )
        except LoadError as trouble:
            run.trouble(f"{running.name} at {rate} subrequests a second: {trouble}")
            break
        p50, p99 = (percentile(load.latencies, share) for share in (0.5, 0.99))
        progress(f"{running.name} at {rate}/s: {p50 * 1e3:.3g} / {p99 * 1e3:.3g} ms")
        middle.append((rate, p50 * 1e3))
        tail.append((rate, p99 * 1e3))
        if p99 > TOO_LONG:
            break
    return middle, tail


def _draw(run: Run, name: str, title: str, lines: dict[str, list[Point]]) -> None:
    run.results.mkdir(exist_ok=True)
    picture = svg(title, "subrequests a second", "milliseconds", lines)
    (run.results / f"{name}.svg").write_text(picture)


def _cell(middle: list[Point], tail: list[Point], rate: float) -> str:
    found = [(p50, p99) for (at, p50), (_, p99) in zip(middle, tail, strict=True) if at == rate]
    return f"{found[0][0]:.3g} / {found[0][1]:.3g}" if found else ""

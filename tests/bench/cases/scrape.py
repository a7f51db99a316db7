"""How late the event loop is while `/metrics` is scraped with 1,000 series.

Seen from outside: a small request passed through, a hundred times a second, waits for the loop as
everything else does. What it takes beyond its usual time is the lag.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.bench.contestants import Running, gateway
from tests.bench.formats import FORMATS, Call
from tests.bench.load import Address, get, offered, once, request
from tests.bench.run import Run
from tests.bench.stats import median, percentile
from tests.bench.workload import OUTER, Passed

ROUTES = 70
SERIES = 1000
SECONDS = 4.0
PERIOD = 0.1
"""Seconds between scrapes: a hundred times as often as Prometheus asks."""
RATE = 100.0


async def run(run: Run) -> None:
    routes = [f"/rest/v11_3/module{number}/{{id}}" for number in range(ROUTES)]
    async with run.site.running([gateway(routes=routes)]) as (mine,):
        await _touch_routes(mine)
        ops = operators(mine)
        series = await _scrape(ops)
        quiet = await _probe(mine)
        stop = asyncio.Event()
        scraping = asyncio.create_task(_keep_scraping(ops, stop))
        scraped = await _probe(mine)
        stop.set()
        scrapes = await scraping
    usual = median(quiet)
    before = percentile([latency - usual for latency in quiet], 0.99) * 1e3
    run.verdict(
        "event loop lag while /metrics is scraped, p99",
        percentile([latency - usual for latency in scraped], 0.99) * 1e3,
        " ms",
        most=15.0,
        note=f"{series} series, {scrapes} scrapes; {before:.1f} ms without any",
    )
    if series < SERIES:
        run.trouble(f"scrape: {series} series, {SERIES} wanted")


async def _touch_routes(mine: Running) -> None:
    """The backend does not know these modules: its 404s make series as well as pages would."""
    speech = FORMATS["sugarcrm"]
    calls = [Call(f"/module{number}/1") for number in range(ROUTES)]
    body = json.dumps(speech.document(calls)).encode()
    await once(mine.address, request("POST", speech.endpoint, mine.address, OUTER, body))


def operators(mine: Running) -> Address:
    settings = json.loads((Path(mine.process.log).parent / "gateway.json").read_text())
    host, _, port = settings["ops"].rpartition(":")
    return host, int(port)


async def _probe(mine: Running) -> list[float]:
    asked = Passed().request("sugarcrm", mine.address)
    load = await offered(mine.address, asked, rate=RATE, seconds=SECONDS, most=16)
    return load.latencies


async def _keep_scraping(ops: Address, stop: asyncio.Event) -> int:
    count = 0
    while not stop.is_set():
        await _scrape(ops)
        count += 1
        await asyncio.sleep(PERIOD)
    return count


async def _scrape(ops: Address) -> int:
    client = await once(ops, get("/metrics", ops))
    lines = bytes(client.framing.body).splitlines()
    return sum(1 for line in lines if line and not line.startswith(b"#"))

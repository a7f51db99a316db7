"""What hostile clients leave in metrics and in the log: series, pages, lines.

The log is read as bytes, as whoever reads it on a terminal would. Malformed is what is no HTTP, and
a bulk call whose document cannot be read: both come from one source here, in less than a minute.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator

from tests.bench.cases.scrape import operators
from tests.bench.contestants import Running, gateway
from tests.bench.load import Address, get, once
from tests.bench.run import Run
from tests.security.siege import FORMATS, TRUTO, Siege, head, posted
from tests.security.test_labels import every_sort, hostile, series
from tests.security.test_records import SPELLINGS, careless

LABELS = 500
AT_ONCE = 50
SCRAPES = 20
FLOOD = 2000
CLIENTS = 20
LOUD = {"format": "json", "level": "debug", "subrequests": "all", "sample": 1}
MALFORMED = [
    head("GET / HTTP/1.1", [("Host", "a b")]),
    head("GET /\x01 HTTP/1.1"),
    head("what is this?"),
    head("GET / HTTP/1.1", [("Content-Length", "1"), ("Transfer-Encoding", "chunked")]),
    *(posted(path, b"{nonsense") for path in (*(form.path for form in FORMATS), TRUTO)),
]


async def run(run: Run) -> None:
    async with run.site.running([gateway(log=LOUD)]) as (mine,):
        await _labels(run, mine)
    async with run.site.running([gateway(log=LOUD)]) as (other,):
        await careless(_Siege(other))
    _lines(run, [*_log(mine), *_log(other)])
    async with run.site.running([gateway()]) as (mine,):
        await _flooded(mine)
    _flood(run, _log(mine))


class _Siege(Siege):
    """A gateway that runs as a process of its own."""

    def __init__(self, mine: Running) -> None:
        self.address = "{}:{}".format(*mine.address)
        self.ops = "{}:{}".format(*operators(mine))


# --- metrics -------------------------------------------------------------------------------------


async def _labels(run: Run, mine: Running) -> None:
    gate, names, ops = _Siege(mine), hostile(LABELS), operators(mine)
    await every_sort(gate, ["usual"] * 20)
    before = series(await gate.metrics())
    while batch := list(itertools.islice(names, AT_ONCE)):
        await every_sort(gate, batch)
    made = series(await gate.metrics()) - before
    run.verdict(f"series that {LABELS} hostile labels make", len(made), most=300)
    scrapes = [await _scrape(ops) for _ in range(SCRAPES)]
    run.verdict(
        "the slowest of some scrapes after them",
        max(seconds for seconds, _ in scrapes) * 1e3,
        " ms",
        most=50.0,
        note=f"{len(before) + len(made)} series",
    )
    run.verdict("scrapes that were not 200", sum(status != 200 for _, status in scrapes), most=0)


async def _scrape(ops: Address) -> tuple[float, int]:
    began = time.perf_counter()
    answer = await once(ops, get("/metrics", ops))
    return time.perf_counter() - began, answer.framing.status


# --- the log -------------------------------------------------------------------------------------


def _log(mine: Running) -> list[bytes]:
    """All that it has said, once it has ended."""
    return mine.process.log.read_bytes().splitlines()


def _lines(run: Run, lines: list[bytes]) -> None:
    odd = [line for line in lines if not line.decode(errors="replace").isprintable()]
    told = [line for line in lines if any(mark in _checked(line) for mark in SPELLINGS)]
    note = f"of {len(lines)}"
    run.verdict("lines of the log with a control byte in them", len(odd), most=0, note=note)
    run.verdict("lines of the log with a secret in them", len(told), most=0, note=note)


def _checked(line: bytes) -> str:
    """All but the path of a passed request, which is told: its query is not."""
    told = json.loads(line)
    return json.dumps(told | {"path": told.get("path", "").partition("?")[2]})


async def _flooded(mine: Running) -> None:
    gate, wishes = _Siege(mine), iter(itertools.islice(itertools.cycle(MALFORMED), FLOOD))

    async def client(wishes: Iterator[bytes]) -> None:
        for wish in wishes:
            await gate.talk(wish, answers=1)

    await asyncio.gather(*(client(wishes) for _ in range(CLIENTS)))


def _flood(run: Run, lines: list[bytes]) -> None:
    events = Counter(json.loads(line)["event"] for line in lines)
    for ours in ("serving", "draining", "stopped"):
        events.pop(ours, None)
    run.verdict(
        "lines that malformed traffic of one source made in a minute",
        events.total(),
        most=100,
        note=f"{FLOOD} requests; " + ", ".join(f"{name} {n}" for name, n in events.items()),
    )

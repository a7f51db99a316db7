"""A soak of a few hundred bulk calls: the books balance."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.soak.ledger import Ledger, Told
from tests.soak.run import Report, soak

ENOUGH = 300


async def test_nothing_is_lost_and_nothing_is_left_under_random_faults() -> None:
    async def pace(ledger: Ledger) -> None:
        while ledger.figures["batches"] < ENOUGH:
            await asyncio.sleep(0.02)

    async with asyncio.timeout(120):
        report = await soak(pace)
    assert report.mistakes == []
    assert report.faults.total() > 50


def test_the_books_show_a_write_that_was_sent_twice_and_a_result_that_lies() -> None:
    ledger = Ledger(Counter({"b1.0": 2, "b1.1": 1}))
    entry = ledger.bulk("b1", ["POST", "POST", "GET"])
    entry.results, entry.over = [Told(200, None), Told(502, False), Told(200, None)], True
    ledger.heard({"event": "batch", "id": "b1", "ok": 2, "failed": 1, "skipped": 0,
                  "writes_sent": "0", "writes_unsent": "1"})  # fmt: skip
    ledger.end()
    assert len(ledger.mistakes) == 5


def test_a_long_soak_tells_by_how_much_memory_grows_in_an_hour() -> None:
    """What it takes in the beginning, while caches fill, is left out."""
    resident = [n << 20 for n in range(99)] + [(99 << 20) + n * 1024 for n in range(300)]
    report = Report(Counter(), Counter(), [], resident)
    (told,) = [line for line in report.lines() if line.startswith("slope")]
    assert told == "slope of resident memory: 3.5 MiB an hour"

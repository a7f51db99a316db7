"""One soak: the gateway as a process, its backend and its clients in this one."""

from __future__ import annotations

import asyncio
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import linear_regression, mean
from typing import Any

import aiohttp

from tests.soak.backend import FaultyBackend
from tests.soak.ledger import Ledger
from tests.soak.load import Load, session
from tests.support.program import Program, program

CLIENTS = 8
SHARE = 0.05
"""Of the backend's requests that meet a fault."""
GROWTH = 8 * 2**20
"""Bytes that a process may grow by between a quarter and the end of a long soak."""
LONG, LONGER = 60, 300
"""Seconds from which on a soak says something of memory, and of its slope."""
PATIENCE = 60.0

Pace = Callable[[Ledger], Awaitable[None]]
"""Returns when the load is to end."""


@dataclass
class Report:
    figures: Counter[str]
    faults: Counter[str]
    mistakes: list[str]
    resident: list[int] = field(default_factory=list)
    """Bytes, once a second."""
    descriptors: tuple[int, int] = (0, 0)
    """Before and after."""

    @property
    def growth(self) -> int:
        """Bytes between the second quarter and the last."""
        quarter = len(self.resident) // 4
        if not quarter:
            return 0
        return int(mean(self.resident[-quarter:]) - mean(self.resident[quarter : 2 * quarter]))

    @property
    def slope(self) -> float:
        """Bytes an hour, by least squares over the second half: caches fill in the first."""
        later = self.resident[len(self.resident) // 2 :]
        return linear_regression(range(len(later)), later).slope * 3600

    def lines(self) -> Iterator[str]:
        for name, number in self.figures.items():
            yield f"{name}: {number}"
        yield f"faults injected: {self.faults.total()}"
        yield f"descriptors at rest: {self.descriptors[0]} before, {self.descriptors[1]} after"
        if self.resident:
            top = max(self.resident) / 2**20
            yield f"resident memory: {top:.0f} MiB at most, grown by {self.growth / 2**20:.1f} MiB"
        if len(self.resident) >= LONGER:
            yield f"slope of resident memory: {self.slope / 2**20:.1f} MiB an hour"
        yield f"lost: {len(self.mistakes)}"
        yield from self.mistakes[:20]


def settings(url: str) -> dict[str, Any]:
    """Short patience, and ids that the books are kept by."""
    return {
        "upstream": {"url": url, "timeouts": {"response": "1s", "idle": "1s"}},
        "headers": {"trusted_proxies": ["127.0.0.1"]},
        "log": {"subrequests": "all"},
        "drain": {"delay": "0s"},
    }


async def soak(pace: Pace, seed: int = 1) -> Report:
    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        async with FaultyBackend(random, SHARE) as backend:
            ledger = Ledger(backend.seen)
            async with program(Path(folder), settings(backend.url)) as gateway:
                gateway.hear = ledger.heard
                report = Report(ledger.figures, backend.faults, ledger.mistakes)
                load = Load(f"http://{gateway.address}", ledger, random)
                await _once(load)
                before = await _at_rest(gateway)
                with _watching(gateway, ledger, report):
                    await _under_load(load, ledger, pace)
                report.descriptors = (before, await _at_rest(gateway))
                counted = await _metrics(gateway)
                gateway.signal(signal.SIGTERM)
                if await gateway.ended() != 0:
                    ledger.mistakes.append("no clean end")
            ledger.end()
            ledger.mistakes += [f"the backend got {line!r}" for line in backend.garbled]
            _compare(ledger, counted, report)
    return report


async def _once(load: Load) -> None:
    """What a process opens with its first request, it keeps."""
    async with session() as client:
        for _ in range(20):
            await load.something(client)


async def _under_load(load: Load, ledger: Ledger, pace: Pace) -> None:
    end = asyncio.Event()
    async with session() as client:
        clients = [asyncio.ensure_future(load.client(client, end)) for _ in range(CLIENTS)]
        paced = asyncio.ensure_future(pace(ledger))
        await asyncio.wait([paced, *clients], return_when=asyncio.FIRST_COMPLETED)
        paced.cancel()
        end.set()
        await asyncio.gather(*clients)


async def _at_rest(gateway: Program) -> int:
    """Its descriptors once it has nothing in hand, and no connection to the backend."""
    async with asyncio.timeout(PATIENCE):
        while _in_hand(await _metrics(gateway)):
            await asyncio.sleep(0.1)
    looks = []
    for _ in range(5):  # our own last connection is one of them for a moment
        await asyncio.sleep(0.05)
        looks.append(gateway.descriptors)
    return min(looks)


def _in_hand(figures: dict[str, float]) -> float:
    names = (
        "gateway_buffered_bytes",
        "gateway_batches_in_flight",
        "gateway_subrequests_in_flight",
        "gateway_upstream_connections{",
    )
    return sum(value for name, value in figures.items() if name.startswith(names))


@contextmanager
def _watching(gateway: Program, ledger: Ledger, report: Report) -> Iterator[None]:
    """Looks at memory and audits, once a second; new settings now and then disturb nothing."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            report.resident.append(gateway.resident)
            ledger.audit()
            if len(report.resident) % 10 == 0:
                gateway.signal(signal.SIGHUP)
                report.figures["reloads"] += 1

    task = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        task.cancel()


async def _metrics(gateway: Program) -> dict[str, float]:
    """By series."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{gateway.ops}/metrics") as answer:
            lines = (await answer.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def _compare(ledger: Ledger, counted: dict[str, float], report: Report) -> None:
    """Metrics, log and results say the same, and nothing grew."""

    def total(name: str) -> float:
        return sum(value for series, value in counted.items() if series.startswith(name + "{"))

    for name, asked in (
        ("gateway_batches_total", ledger.figures["batches"]),
        ("gateway_passthrough_requests_total", ledger.figures["passed"]),
    ):
        if total(name) != asked:
            ledger.mistakes.append(f"{name}: {total(name)} of {asked}")
    given, skipped = (
        total("gateway_subrequests_total"),
        total("gateway_subrequests_skipped_total"),
    )
    if given + skipped != ledger.figures["subrequests"]:
        ledger.mistakes.append(f"metrics know {given} subrequests given and {skipped} skipped")
    metrics = Counter[str]()
    for series, value in counted.items():
        if series.startswith("gateway_subrequests_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
            metrics[f"{labels['method']} {labels['status']}"] += int(value)
    answered = {name: n for name, n in ledger.parts.items() if not name.endswith(" 000")}
    if answered != {name: n for name, n in metrics.items() if not name.endswith(" 000")}:
        ledger.mistakes.append(f"the log has {answered}, metrics have {dict(metrics)}")
    if report.descriptors[1] > report.descriptors[0]:
        ledger.mistakes.append(f"descriptors: {report.descriptors}")
    if len(report.resident) >= LONG and report.growth > GROWTH:
        ledger.mistakes.append(f"memory grew by {report.growth} bytes")

"""What reaches a failing backend how often: ten thousand writes and some repeatable calls while a
twentieth of all requests meet a fault, then reads while it closes every connection it kept."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.bench.load import Address, once, request
from tests.bench.run import Run
from tests.soak.backend import FaultyBackend
from tests.soak.run import settings
from tests.support.program import program
from tests.support.raw_backend import Peer, RawBackend, ok

SHARE = 0.05
"""Of the backend's requests that meet a fault."""
WRITES = ["POST", "PATCH"] * 20
REPEATABLE = ["GET", "GET", "PUT", "DELETE", "GET"] * 2
MIXED = [*WRITES[:20], *REPEATABLE, *WRITES[20:]]
BATCHES = 250
READS = ["GET"] * 50
READING = 60
"""Batches of reads: they take less than the ten seconds over which retries are counted."""
CLIENTS = 24


async def run(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await _faults(run, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        await _closing(run, Path(folder))


async def _faults(run: Run, folder: Path) -> None:
    async with FaultyBackend(Random(1), SHARE) as backend:
        async with program(folder, settings(backend.url)) as gateway:
            clients = _Clients(gateway.address)
            await clients.ask(MIXED, BATCHES)
        seen = backend.seen
    writes, repeatable = _times(seen, WRITES), _times(seen, REPEATABLE)
    told = (
        f"{BATCHES * len(WRITES):,} sent, {writes.total():,} seen, {backend.faults.total()} faults"
    )
    twice = sum(times > 1 for times in writes.values())
    run.verdict("POSTs and PATCHes that a failing backend saw twice", twice, most=0, note=told)
    run.verdict("the most that it saw of one GET, PUT or DELETE", max(repeatable.values()), most=2)
    run.verdict(
        "bulk calls without one result for each subrequest",
        clients.incomplete,
        most=0,
        note=f"of {BATCHES}; outer statuses {dict(clients.said)}",
    )


async def _closing(run: Run, folder: Path) -> None:
    """A read on a kept connection that has been closed is repeated, within the budget."""
    seen: Counter[bytes | None] = Counter()

    async def closes(peer: Peer) -> None:
        for answer in (ok(), b""):
            seen[(await peer.request()).header("x-request-id")] += 1
            await peer.send(answer)

    async with RawBackend(closes) as backend:
        async with program(folder, settings(backend.url)) as gateway:
            await _Clients(gateway.address).ask(READS, READING)
    repeats = seen.total() - len(seen)
    run.verdict(
        "repeats, of all reads that a backend sees that closes every second one's connection",
        repeats / seen.total(),
        most=0.1,
        note=f"{repeats} of {seen.total():,}",
    )


class _Clients:
    """Some at a time, each with a connection of its own for every bulk call."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address: Address = (host, int(port))
        self.said: Counter[int] = Counter()
        self.incomplete = 0

    async def ask(self, methods: list[str], batches: int) -> None:
        numbers = iter(range(batches))
        await asyncio.gather(*(self._client(methods, numbers) for _ in range(CLIENTS)))

    async def _client(self, methods: list[str], numbers: Iterator[int]) -> None:
        for number in numbers:
            entries = [
                {"url": "/thing", "method": method, **({} if method == "GET" else {"data": "{}"})}
                for method in methods
            ]
            fields = [("Content-Type", "application/json"), ("X-Request-Id", f"b{number}")]
            body = json.dumps({"requests": entries}).encode()
            answer = await once(
                self._address, request("POST", "/bulk", self._address, fields, body)
            )
            self.said[answer.framing.status] += 1
            self.incomplete += _results(bytes(answer.framing.body)) != len(methods)


def _results(body: bytes) -> int:
    answer = json.loads(body)
    return len(answer) if isinstance(answer, list) else 0


def _times(seen: Counter[str], methods: list[str]) -> Counter[str]:
    """How often the backend saw each call of these methods."""
    wanted = {str(index) for index, method in enumerate(MIXED) if method in methods}
    return Counter({id: n for id, n in seen.items() if id.rpartition(".")[2] in wanted})

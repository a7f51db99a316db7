"""What is left of the gateway's best when four times as much is asked of it.

Its best is what clients get that ask again when they are answered. Then bulk calls arrive at four
times that rate, whether or not earlier ones are answered, over a bounded number of connections:
whoever finds all of them busy is a client that could not even ask, and is counted as that. A
connection that the gateway closes is opened again.

Best and rest are had in turns, several times, and what is told is the median: a shared machine is
half as fast again in one second as in the next.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.bench.contestants import Running, gateway
from tests.bench.load import Address, Client, closed
from tests.bench.machine import OTHERS
from tests.bench.rounds import checked
from tests.bench.run import Run
from tests.bench.stats import percentile
from tests.bench.workload import Workload

SIZES = (10, 100)
TIMES = 4
CLIENTS = 16
CONNECTIONS = 900
"""Fewer than `client.connections`, more than `limits.batches`."""
ROUNDS = 5
PEAK, BEFORE, SECONDS = 1.0, 1.0, 2.0
"""Of the best, of overload before it is looked at, of overload."""


@dataclass
class Book:
    """What came of what was offered."""

    offered: int = 0
    said: Counter[int] = field(default_factory=Counter)
    """Answers by status; 0: the connection was closed without one."""
    unasked: int = 0
    """No connection was free."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of those that were answered 200."""


@dataclass(frozen=True)
class Turn:
    """The best, and what was left of it right afterwards."""

    best: float
    """Batches a second."""
    each: float
    """Seconds of CPU that one of them takes."""
    book: Book
    used: float
    """Seconds of CPU in the time of the book."""

    @property
    def served(self) -> float:
        """Of the best."""
        return self.book.said[200] / SECONDS / self.best

    @property
    def refusal(self) -> float:
        """Seconds of CPU, if what is served costs as much as ever."""
        refused = self.book.said[503]
        return (self.used - self.book.said[200] * self.each) / refused if refused else 0.0


async def run(run: Run) -> None:
    rows = [await _overloaded(run, Workload(size)) for size in SIZES]
    run.table(
        f"At {TIMES} times the best, per second",
        ("batch", "best", "offered", "200", "503", "others", "no connection free",
         "CPU", "us of it a 200 at its best", "us of it a refusal", "p99 of 200s, ms"),
        rows,
    )  # fmt: skip


async def _overloaded(run: Run, work: Workload) -> tuple[str | float, ...]:
    async with run.site.running([gateway()]) as (mine,):
        await checked(mine, work)
        with _aside():
            turns = sorted([await _turn(mine, work) for _ in range(ROUNDS)], key=lambda t: t.served)
    turn = turns[ROUNDS // 2]
    book, each, used = turn.book, turn.each, turn.used
    good, refused = book.said[200], book.said[503]
    run.verdict(
        f"batches of {work.batch} at {TIMES} times the best: of the best, served",
        turn.served,
        least=0.8,
        note=f"{turns[0].served:.2f} to {turns[-1].served:.2f} in {ROUNDS} turns; in the middle "
        f"one best {turn.best:.0f} a second, offered {book.offered / SECONDS:.0f}, served "
        f"{good / SECONDS:.0f}, 503 {refused / SECONDS:.0f} at {turn.refusal * 1e6:.0f} us each",
    )
    others = sum(book.said.values()) - good - refused
    counts = (book.offered, good, refused, others, book.unasked)
    return (f"{work.batch}", turn.best, *(count / SECONDS for count in counts), used / SECONDS,
            each * 1e6, turn.refusal * 1e6, percentile(book.latencies, 0.99) * 1e3)  # fmt: skip


async def _turn(mine: Running, work: Workload) -> Turn:
    best, each = await _best(mine, work)
    offer = _Offer(mine.address, work.request("sugarcrm", mine.address), TIMES * best)
    return Turn(best, each, *await offer.made(mine.process.cpu))


@contextmanager
def _aside() -> Iterator[None]:
    """Off the gateway's processor: so much load would be felt there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, OTHERS)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _best(mine: Running, work: Workload) -> tuple[float, float]:
    """Batches a second, and the CPU of each."""
    asked = work.request("sugarcrm", mine.address)
    before = mine.process.cpu()
    load = await closed(mine.address, asked, clients=CLIENTS, seconds=PEAK)
    answered = len(load.latencies)
    return answered / load.seconds, (mine.process.cpu() - before) / answered


class _Offer:
    """Requests at a rate, over connections that are kept as long as the gateway keeps them."""

    def __init__(self, address: Address, request: bytes, rate: float) -> None:
        self._address = address
        self._request = request
        self._rate = rate
        self._free: deque[Client] = deque()
        self._all: set[Client] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._book = Book()

    async def made(self, cpu: Callable[[], float]) -> tuple[Book, float]:
        """The book of the time after the beginning, and the CPU seconds used in it."""
        for _ in range(CONNECTIONS):
            await self._open()
        try:
            await self._arrive(BEFORE)
            self._book, before = Book(), cpu()
            await self._arrive(SECONDS)
            return self._book, cpu() - before
        finally:
            for task in self._opening:
                task.cancel()
            for client in self._all:
                client.close()

    async def _arrive(self, seconds: float) -> None:
        began = time.perf_counter()
        book, number = self._book, 0
        while (now := time.perf_counter()) < began + seconds:
            while began + number / self._rate <= now:
                number += 1
                self._ask(began + number / self._rate)
            await asyncio.sleep(0.001)
        book.offered = number

    def _ask(self, due: float) -> None:
        while self._free:
            client = self._free.popleft()
            if not client.lost:
                client.ask(self._request, due)
                return
            self._replace(client)
        self._book.unasked += 1

    def _answered(self, client: Client) -> None:
        self._book.said[0 if client.lost else client.framing.status] += 1
        if client.lost:
            self._replace(client)
            return
        if client.framing.status == 200:
            self._book.latencies.append(time.perf_counter() - client.due)
        self._free.append(client)

    def _replace(self, client: Client) -> None:
        self._all.discard(client)
        task = asyncio.ensure_future(self._open())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: Client(self._answered), *self._address)
        self._all.add(client)
        self._free.append(client)

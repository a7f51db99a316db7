"""The clients: raw connections in this very process, a few microseconds per answer.

Closed: each client asks again as soon as it is answered; CPU per subrequest is taken so. Open:
requests arrive at a fixed rate whether or not earlier ones are done, and latency counts from when
a request should have been sent; latency against load is taken so, for a closed loop slows down
with the server and hides what waiting clients would see.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from tests.bench.framing import Framing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READ = 256 * 1024
GRACE = 60.0
"""Seconds in which answers still under way at the end of a sample must arrive."""

Address = tuple[str, int]


class LoadError(Exception):
    """An answer that was not 200, or a connection lost: the sample is worth nothing."""


@dataclass
class Load:
    """What the clients saw."""

    latencies: list[float] = field(default_factory=list)
    """Seconds from asking, or from when it was due, to the last byte."""
    firsts: list[float] = field(default_factory=list)
    """Seconds to the first byte."""
    seconds: float = 0.0
    client_cpu: float = 0.0
    """CPU seconds of the load itself: near the sample's own length it would be the limit."""


class Client(asyncio.BufferedProtocol):
    """One kept connection: one request out, one answer in, then `answered(self)`."""

    def __init__(self, answered: Callable[[Client], None], *, keep: bool = False) -> None:
        self._answered = answered
        self.framing = Framing(keep=keep)
        self._buffer = bytearray(READ)
        self._view = memoryview(self._buffer)
        self.transport: asyncio.Transport | None = None
        self.due = self.first = 0.0
        self.busy = False
        self.lost = False

    def ask(self, request: bytes, due: float | None = None) -> None:
        assert self.transport is not None
        self.framing.begin()
        self.first = 0.0
        self.busy = True
        self.due = time.perf_counter() if due is None else due
        self.transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.busy:
            self._answered(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        if not self.first:
            self.first = time.perf_counter()
        if self.framing.feed(self._buffer, nbytes):
            self.busy = False
            self._answered(self)

    def close(self) -> None:
        self.busy = False
        if self.transport is not None:
            self.transport.abort()


@asynccontextmanager
async def connected(
    address: Address, count: int, answered: Callable[[Client], None], *, keep: bool = False
) -> AsyncIterator[list[Client]]:
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    try:
        for _ in range(count):
            _, client = await loop.create_connection(lambda: Client(answered, keep=keep), *address)
            clients.append(client)
        yield clients
    finally:
        for client in clients:
            client.close()


class _Run:
    """One sample under way: keeps the book until nothing is asked any more."""

    def __init__(self) -> None:
        self.load = Load()
        self.trouble = ""
        self.done = asyncio.Event()

    def note(self, client: Client) -> bool:
        """Enters an answer; False when the sample is spoilt."""
        if client.lost or client.framing.status != 200:
            self.trouble = "connection lost" if client.lost else f"status {client.framing.status}"
            self.done.set()
            return False
        self.load.latencies.append(time.perf_counter() - client.due)
        self.load.firsts.append(client.first - client.due)
        return True

    async def end(self, within: float) -> Load:
        began, cpu = time.perf_counter(), time.process_time()
        try:
            await asyncio.wait_for(self.done.wait(), within)
        except TimeoutError:
            raise LoadError(f"answers missing after {within:.0f} s") from None
        if self.trouble:
            raise LoadError(self.trouble)
        self.load.seconds = time.perf_counter() - began
        self.load.client_cpu = time.process_time() - cpu
        return self.load


async def once(address: Address, request: bytes, *, within: float = GRACE) -> Client:
    """One request; the client that is returned holds status, head and body."""
    done = asyncio.Event()
    async with connected(address, 1, lambda _: done.set(), keep=True) as (client,):
        client.ask(request)
        try:
            await asyncio.wait_for(done.wait(), within)
        except TimeoutError:
            raise LoadError(f"no answer within {within:.0f} s") from None
        if client.lost:
            raise LoadError("connection lost")
        return client


async def rounds(address: Address, request: bytes, *, clients: int, each: int) -> Load:
    """Closed: every client asks `each` times. For warming up, and where time is no measure."""
    left = clients * each
    asked = clients
    run = _Run()

    def answered(client: Client) -> None:
        nonlocal left, asked
        if not run.note(client):
            return
        left -= 1
        if asked < clients * each:
            asked += 1
            client.ask(request)
        elif not left:
            run.done.set()

    async with connected(address, clients, answered) as connections:
        for client in connections:
            client.ask(request)
        return await run.end(GRACE)


async def closed(address: Address, request: bytes, *, clients: int, seconds: float) -> Load:
    """Closed: every client asks again and again until the time is over, then is waited for."""
    run = _Run()
    under_way = clients
    stop = time.perf_counter() + seconds

    def answered(client: Client) -> None:
        nonlocal under_way
        if not run.note(client):
            return
        if time.perf_counter() < stop:
            client.ask(request)
            return
        under_way -= 1
        if not under_way:
            run.done.set()

    async with connected(address, clients, answered) as connections:
        for client in connections:
            client.ask(request)
        return await run.end(seconds + GRACE)


async def offered(
    address: Address, request: bytes, *, rate: float, seconds: float, most: int
) -> Load:
    """Open: `rate` requests a second over `most` connections; latency from the due time."""
    run = _Run()
    free: deque[Client] = deque()
    waiting: deque[float] = deque()
    loop = asyncio.get_running_loop()
    total = max(1, round(rate * seconds))

    def answered(client: Client) -> None:
        if not run.note(client):
            return
        if waiting:
            client.ask(request, waiting.popleft())
        else:
            free.append(client)
        if len(run.load.latencies) == total:
            run.done.set()

    def arrive(number: int, began: float) -> None:
        """All that are due by now: a loop that is late catches up instead of thinning the load."""
        now = time.perf_counter()
        while number < total and began + number / rate <= now:
            due = began + number / rate
            number += 1
            if free:
                free.popleft().ask(request, due)
            else:
                waiting.append(due)
        if number < total:
            loop.call_later(began + number / rate - time.perf_counter(), arrive, number, began)

    async with connected(address, most, answered) as connections:
        free.extend(connections)
        arrive(0, time.perf_counter())
        return await run.end(seconds + GRACE)


def get(path: str, address: Address, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    return request("GET", path, address, headers, b"")


def request(
    method: str, path: str, address: Address, headers: Sequence[tuple[str, str]], body: bytes
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body

"""How late things end that have a time: deadlines, connections whose client has left, readiness
after SIGTERM, the process behind its last answer, a document that the drain's end cuts short."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.bench.load import LoadError
from tests.bench.run import Run
from tests.front import raw
from tests.security.siege import Answer, Reader, got, head, posted
from tests.support.program import Program, program
from tests.support.raw_backend import Peer, RawBackend, ok, silent

REPEATS = 5
DRAINS = 3
DEADLINE = 1.0
BATCH = 2.5
"""Seconds for a bulk call: the third of its writes is in flight then."""
DRAIN = 3.0
RESERVE = 2.0
"""Of the drain's time, for answers to be written: batches end so long before it."""
SECONDS = {"connect": "1s", "response": "1s"}
WRITES = [{"url": f"/{number}", "method": "POST", "data": "{}"} for number in range(5)]
READS = [{"url": "/a"}, {"url": "/b"}]
BULK = [("Content-Type", "application/json"), ("Content-Length", "9")]


async def run(run: Run) -> None:
    await _deadlines(run)
    await _gone(run)
    await _drained(run)
    await _forced(run)


# --- deadlines -----------------------------------------------------------------------------------


async def _deadlines(run: Run) -> None:
    """Of a head, a body, a passed request, a subrequest, a whole bulk call, a TLS handshake."""
    waiting = {"header": "1s", "body_stall": "1s"}
    more = {"limits": {"batch_time": f"{BATCH}s"}, "client": waiting}
    async with _behind(silent, timeouts=SECONDS, **more) as (gateway, backend):
        tls = {"url": backend.url.replace("http:", "https:"), "timeouts": SECONDS}
        async with _started(upstream=tls) as shaking:
            at, tls_at = gateway.address, shaking.address
            kinds = {
                "a head": _late(at, b"GET / HTTP/1.1\r\n", DEADLINE),
                "a body": _late(at, head("POST /bulk HTTP/1.1", BULK) + b"{", DEADLINE),
                "a passed request": _late(at, got("/a"), DEADLINE),
                "a subrequest": _late(at, posted("/bulk", {"requests": READS}), DEADLINE),
                "a bulk call": _late(at, posted("/bulk", {"requests": WRITES}), BATCH),
                "connecting, twice": _late(tls_at, got("/a"), 2 * DEADLINE),
            }
            late = dict(zip(kinds, await asyncio.gather(*kinds.values()), strict=True))
    run.verdict(
        "the latest of the deadlines, beyond its time",
        max(late.values()),
        " s",
        most=0.25,
        note=", ".join(f"{kind} {seconds:.3f}" for kind, seconds in late.items()),
    )


async def _late(address: str, said: bytes, deadline: float) -> float:
    """Seconds from the deadline to the end of answer or connection, the worst of some."""
    return max(await asyncio.gather(*(_until(address, said) for _ in range(REPEATS)))) - deadline


async def _until(address: str, said: bytes) -> float:
    began = time.perf_counter()
    async with raw(address) as client:
        client.send(said)
        with suppress(LoadError):
            await _whole(client.reader)
    return time.perf_counter() - began


# --- clients that leave --------------------------------------------------------------------------


async def _gone(run: Run) -> None:
    asked = (got("/a"), posted("/bulk", {"requests": READS}))
    async with _behind(_asked) as (gateway, backend), AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(raw(gateway.address)) for _ in range(2 * REPEATS)
        ]
        for number, client in enumerate(clients):
            client.send(asked[number % 2])
        await backend.until(lambda: len(backend.requests) == 3 * REPEATS)
        asked_of = [peer for peer in backend.peers if peer.requests]
        left = time.perf_counter()
        for number, client in enumerate(clients):
            (client.close if number % 3 else client.writer.transport.abort)()
        await backend.until(lambda: all(peer.closed.is_set() for peer in asked_of))
        seconds = time.perf_counter() - left
    run.verdict("from clients' leaving to the end of the last connection to the backend",
                seconds, " s", most=1.0, note=f"{3 * REPEATS} reads in flight")  # fmt: skip


async def _asked(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


# --- the end of the process ----------------------------------------------------------------------


async def _drained(run: Run) -> None:
    ends = [await _drain() for _ in range(DRAINS)]
    unready, ended, statuses = (list(values) for values in zip(*ends, strict=True))
    run.verdict("from SIGTERM to /readyz answering 503", max(unready), " s", most=0.1)
    run.verdict(
        "from the backend's last answer to the end of the process",
        max(ended),
        " s",
        most=1.0,
        note=f"exit statuses {statuses}",
    )
    run.verdict("processes that did not end with 0", sum(map(bool, statuses)), most=0)


async def _drain() -> tuple[float, float, int]:
    """A batch is in hand, and its backend answers after the doors have closed."""
    gate = asyncio.Event()

    async def held(peer: Peer) -> None:
        await peer.request()
        await gate.wait()
        await peer.send(ok())

    async with _behind(held, drain={"delay": "0.3s"}) as (gateway, backend):
        async with raw(gateway.address) as client, raw(gateway.ops) as operator:
            client.send(posted("/bulk", {"requests": READS[:1]}))
            await backend.until(lambda: len(backend.requests) == 1)
            gateway.signal(signal.SIGTERM)
            began = time.perf_counter()
            while (await _ready(operator)) != 503:
                pass
            unready = time.perf_counter() - began
            await asyncio.sleep(0.6)
            gate.set()
            answered = time.perf_counter()
            _same([entry["status"] for entry in (await _whole(client.reader)).json], [200])
            status = await gateway.ended()
            return unready, time.perf_counter() - answered, status


async def _ready(operator: Any) -> int:
    operator.send(got("/readyz"))
    return (await _whole(operator.reader)).status


async def _forced(run: Run) -> None:
    """What the drain's time leaves unfinished ends as a document with a result for each entry."""
    drain = {"delay": "0s", "timeout": f"{DRAIN}s"}
    async with _behind(silent, drain=drain) as (gateway, backend), raw(gateway.address) as client:
        client.send(posted("/bulk", {"requests": WRITES}))
        await backend.until(lambda: len(backend.peers) == 1)
        gateway.signal(signal.SIGTERM)
        forced = time.perf_counter() + DRAIN - RESERVE
        results = (await _whole(client.reader)).json
        seconds = time.perf_counter() - forced
    _same([entry["status"] for entry in results], [503] * len(WRITES))
    run.verdict("from a forced end of bulk calls to the end of a valid answer",
                seconds, " s", most=2.0)  # fmt: skip


# --- helpers -------------------------------------------------------------------------------------


@asynccontextmanager
async def _behind(
    script: Any, timeouts: Any = None, **settings: Any
) -> AsyncIterator[tuple[Program, RawBackend]]:
    async with RawBackend(script) as backend:
        upstream = {"url": backend.url, **({"timeouts": timeouts} if timeouts else {})}
        async with _started(upstream=upstream, **settings) as gateway:
            yield gateway, backend


@asynccontextmanager
async def _started(**settings: Any) -> AsyncIterator[Program]:
    with tempfile.TemporaryDirectory() as folder:
        async with program(Path(folder), settings) as gateway:
            yield gateway


async def _whole(reader: asyncio.StreamReader) -> Answer:
    answers = Reader()
    while not any(answer.complete for answer in answers.answers):
        data = await reader.read(65536)
        if not data:
            raise LoadError("closed before the end of the answer")
        answers.feed(data)
    return answers.answers[0]


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise LoadError(f"{found} instead of {expected}")

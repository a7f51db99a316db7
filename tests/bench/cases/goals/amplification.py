"""What one hostile request costs the gateway, beside what it costs whoever sends it.

The bounds are Envoy's, whose threat model calls it a fault when a request takes a hundred times its
limit of memory, or a hundred times as much CPU as its client. So:

- CPU is the gateway's, all its processes, by the CPU that a client spends on sending that request
  and reading its answer: bare sockets, nothing parsed. On loopback that is little more than copying
  the bytes, a quarter of a nanosecond each; a network card or TLS would cost the client more.
- Memory is the growth of the resident set by the bytes of the document. That says something of
  documents that are large; what a small one can make the gateway hold has a bound of its own.
- Calls that a short document asks for are what it is paid for by (`rate_limit`, 10,000 in a bulk
  call at most), and no bytes of input. They are held to the same bound all the same, and what one
  of them costs is told.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.bench.cases.hostile import DEFAULTS, JSON
from tests.bench.contestants import Running, gateway
from tests.bench.framing import Framing
from tests.bench.load import Address, LoadError, request
from tests.bench.run import Run
from tests.bench.stats import median
from tests.bench.workload import Workload
from tests.security.hostile import LISTED, documents, templates
from tests.security.siege import AGENDIZE, FORMATS, SUGARCRM, TRUTO, truto
from tests.support.raw_backend import Peer, RawBackend, ok

ORDINARY = Workload(100)
SETTLING = 0.02
"""Seconds after an answer, for what is still done then."""
READ = 2**18
MOST = 100.0
"""Times the client's CPU."""


@dataclass(frozen=True, slots=True)
class Cost:
    what: str
    size: int
    status: int
    cpu: float
    client: float
    """Seconds."""
    grown: int
    """Bytes."""
    calls: int = 0

    @property
    def row(self) -> tuple[str | float, ...]:
        times, per_byte = self.cpu / self.client, self.cpu / self.size * 1e9
        grown = self.grown / 2**20
        return self.what, self.status, self.size, self.calls, self.cpu * 1e3, per_byte, times, grown


async def run(run: Run) -> None:
    async with run.site.running([gateway(limits=DEFAULTS)]) as (mine,):
        await _cost(mine, "warm", *_ordinary())
        # The lesser first: what an allocator has kept would hide what they take.
        lesser = [await _cost(mine, *_named(*wish)) for wish in documents(2**20)]
        large = [await _cost(mine, *_named(*wish)) for wish in documents()]
    async with RawBackend(_pages) as backend:
        upstream = {"url": backend.url}
        async with run.site.running([gateway(limits=DEFAULTS, upstream=upstream)]) as (mine,):
            await _cost(mine, "warm", *_ordinary())
            small = [await _counted(mine, backend, *wish) for wish in _short()]
    _judge(run, large, lesser, small)


def _judge(run: Run, large: list[Cost], lesser: list[Cost], small: list[Cost]) -> None:
    every = [*small, *large, *lesser]
    # All are of one size, so what a client spends on one is a matter of that size alone.
    client = median([cost.client for cost in large])
    worst = max(large, key=lambda cost: cost.cpu)
    run.verdict(
        "CPU for the worst hostile document of 4 MiB, by its client's",
        worst.cpu / client,
        most=MOST,
        note=f"{worst.cpu * 1e3:.0f} ms, {worst.cpu / worst.size * 1e9:.0f} ns a byte, client "
        f"{client * 1e3:.2f} ms: {worst.what}",
    )
    run.verdict(
        "memory for the worst hostile document of 4 MiB or 1 MiB, by its bytes",
        max(cost.grown / cost.size for cost in [*large, *lesser]),
        most=24.0,
    )
    asking = max(small, key=lambda cost: cost.cpu / cost.client)
    run.verdict(
        "CPU for the worst short document, by its client's",
        asking.cpu / asking.client,
        most=MOST,
        note=f"{asking.what}: {asking.calls} calls, {_per_call(asking):.0f} us each; an ordinary "
        f"subrequest {_per_call(small[0]):.0f} us",
    )
    run.verdict(
        "memory for the worst hostile request, large or short",
        max(cost.grown for cost in every) / 2**20,
        " MiB",
        most=64.0,
    )
    run.verdict(
        "hostile documents that are answered 500 as a whole",
        sum(cost.status == 500 for cost in every),
        most=0,
        note=f"of {len(every)}",
    )
    columns = ("document", "status", "bytes", "calls", "ms", "ns a byte", "by its client", "MiB")
    run.table("What hostile documents cost", columns, [cost.row for cost in every])


def _per_call(cost: Cost) -> float:
    return cost.cpu / max(1, cost.calls) * 1e6


# --- documents -----------------------------------------------------------------------------------


def _ordinary() -> tuple[str, bytes]:
    entries = [SUGARCRM.entry(call.path) for call in ORDINARY.calls()]
    return SUGARCRM.path, SUGARCRM.document(entries)


def _short() -> Iterator[tuple[str, str, bytes]]:
    """What asks for much in few bytes, in every format."""
    yield "an ordinary bulk call", *_ordinary()
    for form in FORMATS:
        yield f"{form.name}: tiny entries", form.path, form.document([form.entry("/")] * 100)
        key = form.target.encode()
        twice = b'{"requests":[{"%b":"/a","%b":"/b"}]}' % (key, key)
        yield f"{form.name}: a key twice", form.path, twice
    group = SUGARCRM.entry("/bulk", "POST", body={"requests": [SUGARCRM.entry("/a")] * 99})
    yield "sugarcrm: nested", SUGARCRM.path, SUGARCRM.document([group])
    yield "agendize: nested", AGENDIZE.path, AGENDIZE.document([_nested(50)])
    first = AGENDIZE.entry("/page") | {"name": "a"}
    wide = AGENDIZE.entry("/b", "POST", body=["${result=a:$..*}"] * 1000)
    yield "agendize: references", AGENDIZE.path, AGENDIZE.document([first, wide])
    ring = [AGENDIZE.entry(f"/${{result=n{(i + 1) % 90}:$.id}}") | {"name": f"n{i}"}
            for i in range(90)]  # fmt: skip
    yield "agendize: a ring", AGENDIZE.path, AGENDIZE.document(ring)
    get = {"method": "get", "id": "{{args.a}}", "loop_on": "args.a"}
    loops = [{"resource": f"n{i}"} | get for i in range(10)]
    yield "truto: loops", TRUTO, truto(*loops, args={"a": list(range(1000))})
    yield "truto: pages", TRUTO, truto({"resource": "page", "method": "list"})
    node = {"resource": "leaf", "method": "list"}
    products = [node | {"name": "n0"}] + [
        node | {"name": f"n{i}", "depends_on": f"n{i - 1}",
                "query": {"of": f"{{{{resources.n{i - 1}.id}}}}"}} for i in range(1, 5)
    ]  # fmt: skip
    yield "truto: products of loops", TRUTO, truto(*products)
    yield from templates()


def _nested(depth: int) -> dict[str, object]:
    inside = AGENDIZE.entry("/a")
    for _ in range(depth):
        inside = AGENDIZE.entry("/a") | {"requests": [inside]}
    return inside


def _named(path: str, body: bytes) -> tuple[str, str, bytes]:
    """With how it begins, so that a table can hold it."""
    begins = body[:60].decode(errors="replace").replace("|", "\\|").replace("\n", " ")
    return f"{path} {begins}...", path, body


RECORDS = [{"id": str(number), "name": "n" * 20} for number in range(10)]
NUMBERS = itertools.count()


async def _pages(peer: Peer) -> None:
    """Ten records; `page` always has a next one, and `big` is what templates name."""
    while True:
        page: dict[str, object] = {"result": RECORDS}
        target = (await peer.request()).target
        if "/page" in target:
            page["next_cursor"] = f"c{next(NUMBERS)}"
        await peer.send(ok(json.dumps(LISTED if "/big" in target else page).encode()))


# --- costs ---------------------------------------------------------------------------------------


async def _counted(mine: Running, backend: RawBackend, what: str, path: str, body: bytes) -> Cost:
    backend.requests.clear()
    cost = await _cost(mine, what, path, body)
    return replace(cost, calls=len(backend.requests))


async def _cost(mine: Running, what: str, path: str, body: bytes) -> Cost:
    wish = request("POST", path, mine.address, JSON, body)
    mine.process.forget_peak()
    before, cpu = mine.process.resident(), mine.process.cpu()
    status, client = await asyncio.to_thread(_ask, mine.address, wish)
    await asyncio.sleep(SETTLING)
    used = mine.process.cpu() - cpu
    return Cost(what, len(wish), status, used, client, mine.process.peak() - before)


def _ask(address: Address, wish: bytes) -> tuple[int, float]:
    """A status, and the CPU seconds of this thread, which reads while it still sends."""
    framing, buffer, left = Framing(), bytearray(READ), memoryview(wish)
    with socket.create_connection(address) as peer:
        peer.setblocking(False)
        poll = select.poll()
        poll.register(peer, select.POLLIN | select.POLLOUT)
        began = time.thread_time()
        while True:
            ((_, ready),) = poll.poll()
            if ready & select.POLLIN:
                size = peer.recv_into(buffer)
                if not size:
                    raise LoadError("connection closed before the end of the answer")
                if framing.feed(buffer, size):
                    return framing.status, time.thread_time() - began
            if left and ready & select.POLLOUT:
                left = left[peer.send(left) :]
                if not left:
                    poll.modify(peer, select.POLLIN)

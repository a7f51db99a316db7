"""The whole gateway between a client and a backend with a fault, and the books kept on all three.

A request's target says what the backend does with it: `/fault/...` commits the fault of the test,
anything else is answered well. Every target is used once, so that both ends can be compared.
`Stage.settled` and `Stage.balance` are what has to hold after every fault, whichever it was.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from gateway.app import App
from gateway.config.settings import Listener, Log, Settings, Timeouts, Upstream
from gateway.server import serving
from gateway.server.worker import Gateway
from tests.front import Raw, eventually, raw
from tests.security.siege import Answer, Reader, got, posted
from tests.support.program import indexes
from tests.support.raw_backend import Peer, RawBackend, Script, ok

LOOPBACK = Listener(address="127.0.0.1:0")
WELL = b'{"well":1}'
PATIENCE = 30.0

Fault = Callable[[Peer], Awaitable[None]]
"""What the backend does with a request it has read. If there are more on that connection it serves
them."""


def committing(fault: Fault) -> Script:
    """A backend that answers, and commits the fault where the target says so."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.target.startswith("/fault/"):
                await fault(peer)
            else:
                await peer.send(ok(WELL))

    return script


class Result(NamedTuple):
    """One subrequest's, as the client has it."""

    status: int
    contents: Any
    error: str
    """RFC 9209 type, where the gateway made it."""
    sent: bool | None
    """What it says of that; None: the backend made it."""


class Passed(NamedTuple):
    """A passed request's answer, or what there was of it."""

    status: int
    body: bytes
    error: str
    cut: bool
    """It ended so that nobody can take it for whole."""


@dataclasses.dataclass
class Bulk:
    """One bulk call: what was asked."""

    entries: list[tuple[str, str]]
    """Method and target."""
    data: str = "{}"
    """What every write brings."""

    @property
    def request(self) -> bytes:
        wishes = [
            {"method": method, "url": target, **({"data": self.data} if method != "GET" else {})}
            for method, target in self.entries
        ]
        return posted("/bulk", {"requests": wishes})

    @property
    def writes(self) -> dict[int, str]:
        """Targets of what has an effect, by index."""
        return {i: target for i, (method, target) in enumerate(self.entries) if method != "GET"}


class Stage:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        assert isinstance(gateway.worker.app, App)
        self.app = gateway.worker.app
        self.bulks: list[Bulk] = []
        """Admitted ones, in the order of their ends."""
        self.passes = 0
        self._number = 0
        self._backends: list[RawBackend] = []

    def watch(self, backend: RawBackend) -> None:
        """What it received is compared with what the log says."""
        self._backends.append(backend)

    # --- clients ---------------------------------------------------------------------------------

    def target(self, kind: str) -> str:
        self._number += 1
        return f"/{kind}/{self._number}"

    def bulk(self, *wishes: str, data: str = "{}") -> Bulk:
        """`"POST fault"`: a method and what kind of target."""
        pairs = [wish.split() for wish in wishes]
        self.bulks.append(Bulk([(method, self.target(kind)) for method, kind in pairs], data))
        return self.bulks[-1]

    async def results(self, *wishes: str, data: str = "{}") -> list[Result]:
        """A bulk call whose answer has to be whole: one result for each wish."""
        answer, cut = await self.ask(self.bulk(*wishes, data=data).request)
        assert (answer.status, answer.complete, cut) == (200, True, False)
        results = [_result(entry) for entry in answer.json]
        assert len(results) == len(wishes)
        return results

    async def passed(self, method: str, kind: str, body: bytes = b"", *fields: str) -> Passed:
        """A request that is no bulk call."""
        self.passes += 1
        pairs = [("Content-Length", str(len(body)))] if body else []
        request = got(self.target(kind), (*pairs, *(_pair(field) for field in fields)), method)
        answer, cut = await self.ask(request + body)
        error = _error(", ".join(answer.all("proxy-status")))[0]
        return Passed(answer.status, answer.body, error, cut)

    async def ask(self, request: bytes) -> tuple[Answer, bool]:
        """What a client reads, on a connection of its own, until there is an answer or an end."""
        reader = Reader()
        async with self.client() as client:
            client.send(request)
            while not any(answer.complete for answer in reader.answers):
                try:
                    data = await client.reader.read(65536)
                except ConnectionResetError:
                    return _first(reader), True
                if not data:
                    answer = _first(reader)
                    return answer, not answer.complete
                reader.feed(data)
        return _first(reader), False

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Raw]:
        async with asyncio.timeout(PATIENCE), raw(self.gateway.address) as client:
            yield client

    # --- what has to hold after every fault ------------------------------------------------------

    async def works(self) -> None:
        """The next batch and the next request are served as if nothing had happened."""
        results = await self.results("GET well", "POST well", "GET well")
        assert [r.status for r in results] == [200, 200, 200], results
        assert (await self.passed("GET", "well"))[:2] == (200, WELL)

    async def settled(self) -> None:
        """Nothing is in hand and no byte is held."""
        await eventually(lambda: not any(self.held().values()))
        answer, _ = await self._operators("/metrics")
        assert "gateway_buffered_bytes 0.0" in answer.body.decode().splitlines()

    def held(self) -> dict[str, int]:
        pools, admission = self.app.pools, self.app.admission
        return {
            "calls": pools.busy + pools.waiting,
            "connecting": pools.connections["connecting"],
            "spared": sum(pool.extra for pool in pools),
            "lanes": sum(len(pool.memory.lanes) + len(pool.detached) for pool in pools),
            "bytes": pools.held + admission.reading,
            "batches": len(self.app.execution),
            "requests": self.gateway.worker.clients.busy,
        }

    async def _operators(self, path: str) -> tuple[Answer, bool]:
        reader = Reader()
        async with asyncio.timeout(PATIENCE), raw(self.gateway.ops_address) as client:
            client.send(got(path, [("Connection", "close")]))
            reader.feed(await client.rest())
        return _first(reader), False

    def balance(self, lines: list[dict[str, Any]]) -> None:
        """Every write is in the log, as sent or as not sent, and the backend agrees; no read was
        seen more than twice and no write more than once; nothing of ours went wrong."""
        told = [line for line in lines if line["event"] == "batch"]
        assert len(told) == len(self.bulks), told
        for bulk, line in zip(self.bulks, told, strict=True):
            sent, unsent = indexes(line.get("writes_sent")), indexes(line.get("writes_unsent"))
            assert not sent & unsent, line
            assert sent | unsent == bulk.writes.keys(), line
            for index, target in bulk.writes.items():
                assert self._times(target) <= (index in sent), (target, line)
        targets = {request.target for b in self._backends for request in b.requests}
        assert all(self._times(target) <= 2 for target in targets)
        passed = [line for line in lines if line["event"] == "request"]
        assert len(passed) == self.passes
        for line in passed:
            assert line["outcome"] == "ok" or line["sent"] or not self._times(line["path"]), line
        assert not [line for line in lines if line["event"] in ("bug", "event_loop", "library")]

    def _times(self, target: str) -> int:
        return sum(r.target == target for b in self._backends for r in b.requests)


@asynccontextmanager
async def staged(url: str, **sections: Any) -> AsyncIterator[Stage]:
    """The gateway in front of `url`; `upstream` holds more settings of that section."""
    patient = {"timeouts": Timeouts(idle=60.0)}  # nothing is right because it was idle for long
    upstream = Upstream(url=url, **{**patient, **sections.pop("upstream", {})})
    settings = dataclasses.replace(
        Settings(),
        listen=(LOOPBACK,),
        ops=LOOPBACK,
        log=Log(format="json", sample=1.0),
        upstream=upstream,
        **sections,
    )
    async with serving(settings) as gateway:
        yield Stage(gateway)


@asynccontextmanager
async def at_rest() -> AsyncIterator[None]:
    """No task and no descriptor more at the end than at the beginning."""
    async with RawBackend(committing(Peer.gone)):
        pass  # libuv opens a spare descriptor with its first stream, and keeps it
    tasks, descriptors = asyncio.all_tasks(), _descriptors()
    yield
    await eventually(lambda: asyncio.all_tasks() <= tasks)
    await eventually(lambda: _descriptors() <= descriptors)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- reading -------------------------------------------------------------------------------------


def _first(reader: Reader) -> Answer:
    return next((answer for answer in reader.answers), Answer())


def _pair(field: str) -> tuple[str, str]:
    name, _, value = field.partition(": ")
    return name, value


def _result(entry: dict[str, Any]) -> Result:
    error, sent = _error(entry["headers"].get("Proxy-Status", ""))
    return Result(entry["status"], entry["contents"], error, sent)


def _error(proxy_status: str) -> tuple[str, bool | None]:
    error = re.search(r"bulk-gateway; error=(\w+)", proxy_status)
    sent = re.search(r"sent=\?([01])", proxy_status)
    return error[1] if error else "", sent[1] == "1" if sent else None


def statuses(results: Iterable[Result]) -> list[int]:
    return [result.status for result in results]


def errors(results: Sequence[Result]) -> list[str]:
    return [result.error for result in results]

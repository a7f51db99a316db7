"""What befalls the process: signals while there is work, a disk that is full, no descriptors left.

`bulk-gateway run` as it is, with three kinds of work in hand: a bulk call whose write is in
flight, an upload whose end has not come, a WebSocket.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.stage import WELL, Bulk, committing
from tests.front import Raw, raw
from tests.security.siege import Answer, Reader, got, head
from tests.support.program import ROOT, Program, indexes, mute, program
from tests.support.raw_backend import Peer, RawBackend, ok

BULK = Bulk([("GET", "/well/1"), ("POST", "/fault/2"), ("POST", "/well/3"), ("GET", "/well/4")])
HANDSHAKE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")]


def settings(backend: RawBackend, **sections: Any) -> dict[str, Any]:
    drain = {"delay": "0s", "timeout": "60s"}
    more = {"upstream": {"url": backend.url}, "drain": drain, "log": {"sample": 1}}
    return {**more, **sections}


async def whole(client: Raw) -> Answer:
    """An answer, up to its end."""
    reader = Reader()
    while not any(answer.complete for answer in reader.answers):
        data = await client.reader.read(65536)
        assert data, "closed before its end"
        reader.feed(data)
    return reader.answers[0]


# --- work in hand --------------------------------------------------------------------------------


class Work:
    """Something in hand that goes on when `gate` opens, over one client's connection."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()

    async def script(self, peer: Peer) -> None:
        """The backend's part."""
        await committing(self.held)(peer)

    async def held(self, peer: Peer) -> None:
        self.begun.set()
        await self.gate.wait()
        await peer.send(ok(WELL))

    async def begin(self, client: Raw) -> None:
        client.send(BULK.request)
        await self.begun.wait()

    async def end(self, client: Raw) -> None:
        """Finishes it, and finds it well done."""
        self.gate.set()
        assert [entry["status"] for entry in (await whole(client)).json] == [200] * 4


class Upload(Work):
    async def script(self, peer: Peer) -> None:
        await peer.head()
        self.begun.set()
        assert await peer.read(6) == b"abcdef"
        await peer.send(ok(WELL))

    async def begin(self, client: Raw) -> None:
        client.send(head("POST /x HTTP/1.1", [("Content-Length", "6")]) + b"abc")
        await self.begun.wait()

    async def end(self, client: Raw) -> None:
        client.send(b"def")
        assert (await whole(client)).body == WELL


class WebSocket(Work):
    async def script(self, peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        while data := await peer.read_some():
            await peer.send(data)

    async def begin(self, client: Raw) -> None:
        client.send(got("/chat", HANDSHAKE))
        await client.head()
        await self.end(client)

    async def end(self, client: Raw) -> None:
        client.send(b"echo!")
        await client.until(b"echo!")


WORK: dict[str, Callable[[], Work]] = {
    "a bulk call": Work,
    "an upload": Upload,
    "a WebSocket": WebSocket,
}

Busy = Callable[..., AbstractAsyncContextManager[tuple[Program, Raw, Work]]]


@pytest.fixture
def busy(tmp_path: Path) -> Busy:
    """The process with this work in hand."""

    @asynccontextmanager
    async def begun(kind: str, **sections: Any) -> AsyncIterator[tuple[Program, Raw, Work]]:
        work = WORK[kind]()
        async with (
            asyncio.timeout(60),
            RawBackend(work.script) as backend,
            program(tmp_path, settings(backend, **sections)) as gateway,
            raw(gateway.address) as client,
        ):
            await work.begin(client)
            yield gateway, client, work

    return begun


def accounted(gateway: Program, sent: set[int], unsent: set[int]) -> None:
    """What the log says of `BULK`'s writes."""
    (line,) = [line for line in gateway.lines if line["event"] == "batch"]
    assert indexes(line.get("writes_sent")) == sent
    assert indexes(line.get("writes_unsent")) == unsent


def unfinished_are_503(results: list[dict[str, Any]]) -> None:
    """`BULK`'s, the first write being in flight."""
    assert [entry["status"] for entry in results] == [200, 503, 503, 503]
    sent = ["sent=?1" in entry["headers"]["Proxy-Status"] for entry in results[1:]]
    assert sent == [True, False, False]


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WORK)
async def test_sigterm_lets_what_was_accepted_end(kind: str, busy: Busy) -> None:
    """A WebSocket has no end of its own, so it does not hold the drain."""
    async with busy(kind) as (gateway, client, work):
        gateway.signal(signal.SIGTERM)
        await gateway.said("draining")
        if kind != "a WebSocket":
            await work.end(client)
        assert await gateway.ended() == 0
        if kind == "a bulk call":
            accounted(gateway, {1, 2}, set())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_that_come_before_it_serves_are_obeyed_then(workers: str) -> None:
    """A SIGHUP finds nothing to read again, a SIGTERM ends it."""

    def early() -> None:
        """The command holds them back in the same way, from when it is there."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)

    run = (sys.executable, "-m", "gateway", "run", "--workers", workers)
    places = ("--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0")
    environment = {**os.environ, "GATEWAY_DRAIN__DELAY": "0s"}
    done = subprocess.run(
        (*run, *places),
        cwd=ROOT,
        env=environment,
        preexec_fn=early,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == 0
    assert b"serving" in done.stderr


async def test_a_second_sigterm_cuts_visibly_and_the_status_says_so(busy: Busy) -> None:
    async with busy("an upload") as (gateway, client, _):
        gateway.signal(signal.SIGTERM)
        await gateway.said("draining")
        gateway.signal(signal.SIGTERM)
        await cut(client)
        assert await gateway.ended() == 1
        (line,) = [line for line in gateway.lines if line["event"] == "request"]
        assert (line["outcome"], line["sent"]) == ("cut", True)


async def test_a_second_sigterm_ends_a_bulk_call_validly_and_the_status_says_so(
    busy: Busy,
) -> None:
    async with busy("a bulk call") as (gateway, client, _):
        gateway.signal(signal.SIGTERM)
        await gateway.said("draining")
        gateway.signal(signal.SIGTERM)
        unfinished_are_503((await whole(client)).json)
        assert await gateway.ended() == 1
        accounted(gateway, {1}, {2})


async def cut(client: Raw) -> None:
    reader = Reader()
    try:
        reader.feed(await client.reader.read())
    except ConnectionResetError:
        return
    assert not any(answer.complete for answer in reader.answers)


async def test_when_the_drains_time_is_over_unfinished_subrequests_are_503(busy: Busy) -> None:
    """And the document has its valid end."""
    async with busy("a bulk call", drain={"delay": "0s", "timeout": "2.2s"}) as (
        gateway,
        client,
        _,
    ):
        gateway.signal(signal.SIGTERM)
        unfinished_are_503((await whole(client)).json)
        assert await gateway.ended() == 0
        accounted(gateway, {1}, {2})


async def begins(peer: Peer) -> None:
    """An answer without a length, of which more is to come."""
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n")
    await peer.gone()


@pytest.mark.parametrize(
    "request_", [BULK.request, got("/fault/1")], ids=["a bulk call", "a passed request"]
)
async def test_a_process_that_is_killed_has_not_ended_its_answers(
    request_: bytes, tmp_path: Path
) -> None:
    """To an HTTP/1.0 client, as nginx is at its defaults, a mere close would be the end of one."""
    async with (
        asyncio.timeout(60),
        RawBackend(committing(begins)) as backend,
        program(tmp_path, settings(backend)) as gateway,
        raw(gateway.address) as client,
    ):
        client.send(request_.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        await client.until(b"well")
        gateway.signal(signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await gateway.ended()


async def test_an_answer_without_a_length_that_has_ended_is_whole(tmp_path: Path) -> None:
    """No reset overtakes its last bytes."""
    body = bytes(8 * 2**20)

    async def gives(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n")
        await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        await peer.gone()

    async with (
        asyncio.timeout(60),
        RawBackend(committing(gives)) as backend,
        program(tmp_path, settings(backend)) as gateway,
        raw(gateway.address) as client,
    ):
        client.send(got("/fault/1").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert (await client.rest()).endswith(b"\r\n\r\nab" + body)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0


SCRAPES = {
    "idle": got("/metrics"),
    "half asked for": b"GET /metr",
    "not read": got("/metrics") * 200,
    "half a body": b"POST /explain/sugarcrm HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
}


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_scrape_holds_a_drain(workers: int, tmp_path: Path) -> None:
    async with (
        asyncio.timeout(30),  # aiohttp by itself would wait for twice that
        RawBackend(committing(Peer.gone)) as backend,
        program(tmp_path, settings(backend, workers=workers)) as gateway,
        AsyncExitStack() as operators,
    ):
        for said in SCRAPES.values():
            operator = await operators.enter_async_context(raw(gateway.ops))
            operator.send(said)
        assert await metrics(gateway, "gateway_draining ") == 0  # by now the others are in hand
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0


@pytest.mark.parametrize("kind", WORK)
async def test_sighup_disturbs_nothing(kind: str, busy: Busy) -> None:
    async with busy(kind) as (gateway, client, work):
        gateway.signal(signal.SIGHUP)
        await gateway.said("settings_reloaded")
        await work.end(client)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        if kind == "a bulk call":
            accounted(gateway, {1, 2}, set())


# --- shortages -----------------------------------------------------------------------------------


async def test_a_full_disk_costs_log_lines_and_nothing_else(tmp_path: Path) -> None:
    """They are counted."""
    with Path("/dev/full").open("wb") as log:  # noqa: ASYNC230  it is no file
        async with (
            asyncio.timeout(60),
            RawBackend(committing(Peer.gone)) as backend,
            mute(tmp_path, settings(backend), log) as gateway,
        ):
            await well(gateway)
            metric = 'gateway_log_lines_dropped_total{reason="write_failed"} '
            while not (dropped := await metrics(gateway, metric)) or dropped < 3:
                await asyncio.sleep(0.02)
            await well(gateway)
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0


async def test_without_descriptors_every_subrequest_has_a_result_and_then_all_is_well(
    tmp_path: Path,
) -> None:
    """The backend holds every answer back until no connection can be made any more."""
    gate = asyncio.Event()

    async def held(peer: Peer) -> None:
        await gate.wait()
        await peer.send(ok(WELL))

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))

    wishes = [("POST" if i == 7 else "GET", f"/fault/{i}") for i in range(8)]
    async with (
        asyncio.timeout(60),
        RawBackend(committing(held)) as backend,
        program(tmp_path, settings(backend), few) as gateway,
    ):
        async with AsyncExitStack() as crowd:
            clients = [await crowd.enter_async_context(raw(gateway.address)) for _ in range(8)]
            for client in clients:  # once accepted, a client is not turned away without a word
                client.send(got("/well/0"))
                assert (await whole(client)).status == 200
            for client in clients:
                client.send(Bulk(wishes).request)
            await full(gateway)
            gate.set()
            for client in clients:
                statuses = [entry["status"] for entry in (await whole(client)).json]
                assert len(statuses) == 8
                assert set(statuses) <= {200, 503}
        while gateway.descriptors > 40:  # until the gateway has seen that the crowd has left
            await asyncio.sleep(0.005)
        await well(gateway)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        lines = [line for line in gateway.lines if line["event"] == "batch"][:8]
        sent = sum(line.get("writes_sent") == "7" for line in lines)
        unsent = sum(line.get("writes_unsent") == "7" for line in lines)
        assert (len(lines), sent + unsent) == (8, 8)
        assert sent == sum(request.target == "/fault/7" for request in backend.requests)


async def full(gateway: Program) -> None:
    while gateway.descriptors < 48:
        await asyncio.sleep(0.005)


# --- the next batch ------------------------------------------------------------------------------


async def well(gateway: Program) -> None:
    """It serves as if nothing had happened."""
    async with raw(gateway.address) as client:
        client.send(Bulk([("GET", "/well/8"), ("POST", "/well/9")]).request)
        assert [entry["status"] for entry in (await whole(client)).json] == [200, 200]
    async with raw(gateway.address) as client:
        client.send(got("/well/10"))
        assert json.loads((await whole(client)).body) == json.loads(WELL)


async def metrics(gateway: Program, name: str) -> float:
    async with raw(gateway.ops) as client:
        client.send(got("/metrics", [("Connection", "close")]))
        answer = (await whole(client)).body.decode()
    return sum(float(line[len(name) :]) for line in answer.splitlines() if line.startswith(name))

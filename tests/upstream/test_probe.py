"""How the backend is, as it says itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.config import Probe as Declared
from gateway.upstream.probe import UNKNOWN, Probe
from tests.support.ports import free_port
from tests.support.raw_backend import (
    RawBackend,
    after_request,
    answering,
    gated,
    ok,
    silent,
)
from tests.upstream.conftest import configured


class Probing:
    def __init__(self) -> None:
        self.troubles: asyncio.Queue[str] = asyncio.Queue()
        self.probe: Probe


@asynccontextmanager
async def probing(url: str, within: float = 5.0, trouble: str = UNKNOWN) -> AsyncIterator[Probing]:
    upstream, _ = configured(url)
    upstream = replace(upstream, probe=Declared(path="/health?deep", interval=0.01, timeout=within))
    it = Probing()
    it.probe = Probe(upstream, "/health?deep", it.troubles.put_nowait, trouble)
    try:
        async with asyncio.timeout(20):
            yield it
    finally:
        await it.probe.close()


async def test_a_backend_that_answers_is_well() -> None:
    async with RawBackend(answering(ok())) as backend, probing(backend.url) as it:
        assert it.probe.trouble == UNKNOWN
        assert await it.troubles.get() == ""
        assert it.probe.trouble == ""
        request = backend.requests[0]
        assert request.line == b"GET /health?deep HTTP/1.1"
        assert request.header("host") == backend.url.removeprefix("http://").encode()


async def test_every_change_is_told_once() -> None:
    well, ill = ok(), ok(status="503 Later")
    answers = answering(well, well, ill, ill, ill, well)
    async with RawBackend(answers) as backend, probing(backend.url) as it:
        told = [await it.troubles.get() for _ in range(3)]
        await backend.until(lambda: len(backend.requests) > 8)
    assert told == ["", "status_503", ""]
    assert it.troubles.empty()


@pytest.mark.parametrize(
    ("status", "trouble"), [("204 No", ""), ("302 Found", ""), ("404 No", "status_404")]
)
async def test_less_than_400_is_well(status: str, trouble: str) -> None:
    async with RawBackend(answering(ok(b"", status=status))) as backend:
        async with probing(backend.url) as it:
            assert await it.troubles.get() == trouble


async def test_the_head_of_an_answer_will_do() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    async with RawBackend(after_request(head)) as backend, probing(backend.url) as it:
        assert await it.troubles.get() == ""


async def test_nobody_there_silence_and_nonsense_are_trouble() -> None:
    async with probing(f"http://127.0.0.1:{free_port()}") as it:
        assert await it.troubles.get() == "refused"
    async with RawBackend(silent) as backend, probing(backend.url, within=0.05) as it:
        assert await it.troubles.get() == "no_answer_in_time"
    async with RawBackend(after_request(b"hello\r\n\r\n")) as backend, probing(backend.url) as it:
        assert await it.troubles.get() not in ("", UNKNOWN)


async def test_what_was_known_before_holds_until_the_first_answer() -> None:
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as backend, probing(backend.url, trouble="") as it:
        await backend.until(lambda: bool(backend.requests))
        assert it.probe.trouble == ""
        gate.set()
        await backend.until(lambda: len(backend.requests) > 2)
        assert it.troubles.empty()


async def test_nothing_is_left_when_it_ends_in_the_middle_of_a_probe() -> None:
    async with RawBackend(silent) as backend:
        async with probing(backend.url):
            await backend.until(lambda: bool(backend.peers))
        await backend.until(lambda: not backend.open)

"""Every test here runs on uvloop and on plain asyncio, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from gateway.batch import Call, Failure, Reply
from gateway.config import Limits, Retry, Timeouts, Upstream, UpstreamTls
from gateway.upstream import Pool

HOST = (("Host", "backend.test"),)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Owner:
    """A batch in the smallest form: sends calls, keeps replies."""

    def __init__(self, pool: Pool) -> None:
        self.lane = pool.lane(self)
        self.replies: list[Reply] = []
        self.then: Callable[[Reply], object] = lambda reply: None
        """Done within `replied`."""
        self.is_urgent: Callable[[Call], bool] = lambda call: True
        self._news = asyncio.Event()

    def send(self, method: str = "GET", target: str = "/", **fields: Any) -> Call:
        call = Call(method, target, fields.pop("headers", HOST), **fields)
        self.lane.submit(call)
        return call

    async def get(self, target: str = "/", method: str = "GET", **fields: Any) -> Reply:
        """One call and its reply."""
        call = self.send(method, target, **fields)
        return await self.reply(call)

    async def reply(self, call: Call) -> Reply:
        while not (found := [reply for reply in self.replies if reply.call is call]):
            self._news.clear()
            await self._news.wait()
        assert len(found) == 1
        return found[0]

    async def count(self, number: int) -> list[Reply]:
        """Waits for so many replies in all."""
        while len(self.replies) < number:
            self._news.clear()
            await self._news.wait()
        return self.replies

    def free(self) -> None:
        """Gives back what its replies hold."""
        for reply in self.replies:
            self.lane.release(reply.held)
            reply.held = 0

    def replied(self, call: Call, reply: Reply) -> None:
        self.replies.append(reply)
        self.then(reply)
        self._news.set()

    def urgent(self, call: Call) -> bool:
        return self.is_urgent(call)


MakePool = Callable[..., AbstractAsyncContextManager[Pool]]


@pytest.fixture
def pool_for() -> MakePool:
    """`async with pool_for(url, connections=2, response=0.3, ...) as pool`. At its end every lane
    is back where it began: no call, no byte held."""

    @asynccontextmanager
    async def make(url: str, **settings: Any) -> AsyncIterator[Pool]:
        pool = Pool(*configured(url, **settings))
        try:
            async with asyncio.timeout(20):  # a test that hangs fails
                yield pool
        except BaseException:
            await pool.close()
            raise
        assert pool.waiting == 0
        assert pool.busy == 0
        for lane in tuple(pool.memory.lanes):
            lane.close()
        assert pool.memory.held == 0
        await pool.close()
        assert not pool.connections
        assert not pool.detached
        assert pool.connecting == 0

    return make


def configured(url: str, **settings: Any) -> tuple[Upstream, Limits]:
    """Settings with some changed, wherever they stand. An idle connection stays, so that one that
    is not to be kept cannot pass for one."""

    def taken(default: Any) -> Any:
        known = {name: settings.pop(name) for name in default.__slots__ if name in settings}
        return replace(default, **known)

    timeouts, retry, limits = taken(Timeouts(idle=60.0)), taken(Retry()), taken(Limits())
    tls = taken(UpstreamTls())
    upstream = Upstream(url=url, timeouts=timeouts, retry=retry, tls=tls)
    upstream = taken(upstream)
    assert not settings, settings
    return upstream, limits


async def until(condition: Callable[[], object]) -> None:
    """Lets the event loop run until `condition` holds, where there is no event to wait for."""
    while not condition():
        await asyncio.sleep(0)


def failure(reply: Reply) -> tuple[str, str]:
    """The type and slug of a reply's failure."""
    assert isinstance(reply.failure, Failure), reply
    return reply.failure.error, reply.failure.details

"""Asking the backend how it is, now and then.

Over connections of its own, so that a backend which is merely busy is not called dead for it, and
so that its name, its addresses and TLS are tried as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gateway.batch import Call, Failure, Reply
from gateway.config import Limits, Upstream
from gateway.upstream.pool import Pool

Told = Callable[[str], None]

UNKNOWN = "not_asked_yet"


class Probe:
    """What a backend says of itself. It is well when it answers with less than 400."""

    def __init__(self, upstream: Upstream, path: str, told: Told, trouble: str = UNKNOWN) -> None:
        """`told` is called whenever `trouble` begins, changes or ends."""
        self.trouble = trouble
        """Why no calls should go there, a slug; empty: all is well."""
        self._path = path
        self._settings = upstream.probe
        self._told = told
        own = upstream.host in ("preserve", "upstream")
        self._fields = (
            ("Host", upstream.authority if own else upstream.host),
            ("User-Agent", "bulk-gateway"),
            ("Accept", "*/*"),
        )
        self._pool = Pool(_alone(upstream), Limits())
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        self._task.cancel()
        self._pool.wind_down()

    async def close(self) -> None:
        self.stop()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._pool.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            trouble = await self._ask()
            if trouble != self.trouble:
                self.trouble = trouble
                self._told(trouble)
            await asyncio.sleep(began + self._settings.interval - loop.time())

    async def _ask(self) -> str:
        first = _First()
        exchange = self._pool.open(Call("GET", self._path, self._fields), first)
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await first.verdict
        except TimeoutError:
            return "no_answer_in_time"
        finally:
            exchange.abort()


class _First:
    """The sink of a probe's answer: its head will do."""

    def __init__(self) -> None:
        self.verdict: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def received(self, head: Reply | None, data: bytes, last: bool) -> None:
        if head is not None:
            self._say(f"status_{head.status}" if head.status >= 400 else "")

    def failed(self, failure: Failure) -> None:
        self._say(failure.details)

    def _say(self, trouble: str) -> None:
        if not self.verdict.done():
            self.verdict.set_result(trouble)


def _alone(upstream: Upstream) -> Upstream:
    """A pool's settings for one call at a time."""
    probe, timeouts = upstream.probe, upstream.timeouts
    connect = min(timeouts.connect, probe.timeout)
    return replace(
        upstream,
        connections=1,
        timeouts=replace(timeouts, connect=connect, response=probe.timeout),
    )

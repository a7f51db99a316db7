"""A small legacy CRM: what somebody may have in the cellar, with no bulk endpoint anywhere.

It takes its time over everything and keeps a record of when each call came and ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from aiohttp import web

from gateway.demo.api import Handler
from gateway.demo.store import seeded
from gateway.demo.vendors import VENDORS


@dataclass(slots=True)
class Seen:
    """One call as the backend met it; times are the event loop's."""

    request_id: str
    method: str
    target: str
    began: float
    ended: float = 0.0
    status: int = 0
    """0 when the caller left."""


class Crm:
    """The whole backend."""

    def __init__(self, work: float = 0.03) -> None:
        self.work = work
        """Seconds that an ordinary call takes."""
        self.seen: deque[Seen] = deque(maxlen=10_000)
        self.app = web.Application(middlewares=[self._record])
        self.app.on_response_prepare.append(_say_less)
        store = seeded()
        for vendor in VENDORS:
            vendor(store, self._labour).mount(self.app)

    async def _labour(self, times: float) -> None:
        await asyncio.sleep(self.work * times)

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        clock = asyncio.get_running_loop().time
        request_id = request.headers.get("X-Request-Id", "")
        seen = Seen(request_id, request.method, request.raw_path, clock())
        self.seen.append(seen)
        try:
            response = await handler(request)
            seen.status = response.status
        except web.HTTPException as exception:
            seen.status = exception.status
            raise
        finally:
            seen.ended = clock()
        return response


async def _say_less(_: web.Request, response: web.StreamResponse) -> None:
    """What a web server adds to every answer is in the way when answers are looked at."""
    response.headers.popall("Server", None)
    response.headers.popall("Date", None)

"""The operators' listener, as a process opens it.

Operators must get in whatever happens, so nobody can fill it: whoever comes when it is full takes
the place of the one who has been idle longest. And it answers what is no request in words of its
own, since aiohttp's quote the bytes they stumbled over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.admin import problem
from gateway.server.listeners import Certificates, Door
from gateway.statuses import PHRASES

PARTING = 0.25
"""Seconds for answers that are in hand at the end."""
MOST = 32
"""Connections at a time, of the descriptors that are spared for more than clients."""
IDLE = 15.0
"""Seconds between two requests, and for a head."""


async def serve_operators(
    application: web.Application, doors: Iterable[Door], certificates: Certificates
) -> web.AppRunner:
    """Serves until the runner's `cleanup`. Raises `CannotListen`, and then leaves nothing."""
    runner = _Runner(
        application,
        access_log=None,
        shutdown_timeout=PARTING,
        auto_decompress=False,
        keepalive_timeout=IDLE,
    )
    try:
        await runner.setup()
        for door in doors:
            context = certificates.context(door)
            await web.SockSite(runner, door.sock, ssl_context=context).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **made._kwargs)


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        connections = self.connections
        if len(connections) >= MOST:
            idle = (operator for operator in connections if operator._current_request is None)
            next(idle, connections[0]).force_close()
        return _Operator(self, loop=self._loop, **self._kwargs)


class _Operator(RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size:
            raise ConnectionResetError
        answer = problem(status, PHRASES[status].lower())
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """They quote too; a fault of ours is told by the pages themselves."""

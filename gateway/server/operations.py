"""The operators' listener, as a process opens it."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from gateway.server.listeners import Certificates, Door

PARTING = 1.0
"""Seconds for answers that are in hand at the end."""


async def serve_operators(
    application: web.Application, doors: Iterable[Door], certificates: Certificates
) -> web.AppRunner:
    """Serves until the runner's `cleanup`. Raises `CannotListen`, and then leaves nothing."""
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=PARTING, auto_decompress=False
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

"""A browser: what a page notices of its site, straight and through the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.passthrough.site import SITE, application
from tests.security.siege import siege
from tests.support.outside import debian

OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--disable-sync", "--no-proxy-server", "--password-store=basic"),
]


async def test_a_page_notices_nothing(tmp_path: Path) -> None:
    program, app = debian("chromium"), application()
    site = app[SITE]
    async with served(app) as address, siege(f"http://{address}") as gateway:
        site.next = f"http://{gateway.address}/?bulk"
        async with browser(program, tmp_path, f"http://{address}/"), asyncio.timeout(60):
            straight, through = await site.reports.get(), await site.reports.get()
    assert [name for name, seen in straight.items() if "failed" in seen] == []
    assert straight.pop("a bulk call") == ["only through the gateway"]
    assert through.pop("a bulk call") == [True, [200, 200]]
    assert through == straight


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def browser(program: str, folder: Path, url: str) -> AsyncIterator[None]:
    log = folder / "log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(program, *OPTIONS, f"--user-data-dir={folder}/profile", url), stdout=file, stderr=file
        )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()

"""The same with what is known to help: uvloop, orjson, more connections, nothing decoded twice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import orjson
import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web
from yarl import URL

NOT_INHERITED = {"host", "content-length", "content-type", "connection", "accept-encoding"}
SKIPPED = ("User-Agent", "Accept-Encoding", "Accept")
SESSION = web.AppKey("session", ClientSession)
BACKEND = web.AppKey("backend", str)


async def bulk(request: web.Request) -> web.Response:
    document = orjson.loads(await request.read())
    inherited = {
        name: value for name, value in request.headers.items() if name.lower() not in NOT_INHERITED
    }
    calls = (one(request.app, part, inherited) for part in document["requests"])
    results = await asyncio.gather(*calls)
    return web.Response(body=orjson.dumps(results), content_type="application/json")


async def one(app: web.Application, part: dict[str, Any], inherited: dict[str, str]) -> Any:
    url = URL(f"{app[BACKEND]}/rest/{part['url'].lstrip('/')}", encoded=True)
    body = part.get("data")
    headers = inherited
    if body is not None or "headers" in part:
        headers = {**inherited, **part.get("headers", {})}
    if body is not None:
        headers["Content-Type"] = "application/json"
    method = part.get("method", "GET")
    async with app[SESSION].request(method, url, headers=headers, data=body) as answer:
        return {
            "contents": orjson.loads(await answer.read()),
            "headers": {str(name): value for name, value in answer.headers.items()},
            "status": answer.status,
            "status_text": answer.reason,
        }


async def session(app: web.Application) -> AsyncIterator[None]:
    connector = TCPConnector(limit=64, limit_per_host=64, keepalive_timeout=60)
    async with ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
        skip_auto_headers=SKIPPED,
    ) as app[SESSION]:
        yield


def main(port: int, backend: str) -> None:
    app = web.Application(client_max_size=2**30)
    app[BACKEND] = backend
    app.cleanup_ctx.append(session)
    app.router.add_post("/rest/v11_3/bulk", bulk)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

"""A bulk endpoint as aiohttp's documentation leads one to write it: session, gather, json."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientSession, web

NOT_INHERITED = {"host", "content-length", "content-type", "connection", "accept-encoding"}
SESSION = web.AppKey("session", ClientSession)
BACKEND = web.AppKey("backend", str)


async def bulk(request: web.Request) -> web.Response:
    document = await request.json()
    inherited = {
        name: value for name, value in request.headers.items() if name.lower() not in NOT_INHERITED
    }
    calls = (one(request.app, part, inherited) for part in document["requests"])
    results = await asyncio.gather(*calls)
    return web.Response(text=json.dumps(results), content_type="application/json")


async def one(app: web.Application, part: dict[str, Any], inherited: dict[str, str]) -> Any:
    url = f"{app[BACKEND]}/rest/{part['url'].lstrip('/')}"
    headers = {**inherited, **part.get("headers", {})}
    body = part.get("data")
    if body is not None:
        headers["Content-Type"] = "application/json"
    method = part.get("method", "GET")
    async with app[SESSION].request(method, url, headers=headers, data=body) as answer:
        return {
            "contents": await answer.json(),
            "headers": dict(answer.headers),
            "status": answer.status,
            "status_text": answer.reason,
        }


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession() as app[SESSION]:
        yield


def main(port: int, backend: str) -> None:
    app = web.Application(client_max_size=2**30)
    app[BACKEND] = backend
    app.cleanup_ctx.append(session)
    app.router.add_post("/rest/v11_3/bulk", bulk)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

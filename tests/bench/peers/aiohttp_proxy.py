"""A reverse proxy of aiohttp's server on aiohttp's client, for the pass-through rows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
}
SESSION = web.AppKey("session", ClientSession)
BACKEND = web.AppKey("backend", str)


async def pass_on(request: web.Request) -> web.Response:
    headers = [(name, value) for name, value in request.headers.items() if kept(name)]
    body = await request.read() if request.can_read_body else None
    url = request.app[BACKEND] + request.path_qs
    async with request.app[SESSION].request(
        request.method, url, headers=headers, data=body, allow_redirects=False
    ) as answer:
        content = await answer.read()
        web_answer = web.Response(status=answer.status, reason=answer.reason, body=content)
        for name, value in answer.headers.items():
            if kept(name):
                web_answer.headers[name] = value
        return web_answer


def kept(name: str) -> bool:
    return name.lower() not in HOP_BY_HOP


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(auto_decompress=False) as app[SESSION]:
        yield


def main(port: int, backend: str) -> None:
    app = web.Application(client_max_size=2**30)
    app[BACKEND] = backend
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", pass_on)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

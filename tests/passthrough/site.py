"""The backend of page.html, on aiohttp's server: what a browser may ask of a site."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from aiohttp import web

PAGE = Path(__file__).parent / "page.html"
routes = web.RouteTableDef()


class Site:
    """What it remembers between requests."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        """Of the page, one per address."""
        self.next = ""
        """Where the page is to go after its first report."""
        self.go = asyncio.Semaphore(0)
        self.left = asyncio.Event()
        self.asked_again = 0


SITE = web.AppKey("site", Site)


def application() -> web.Application:
    app = web.Application(client_max_size=2**25)
    app[SITE] = Site()
    app.add_routes(routes)
    return app


@routes.get("/")
async def page(request: web.Request) -> web.StreamResponse:
    return web.FileResponse(PAGE)


@routes.post("/report")
async def report(request: web.Request) -> web.Response:
    site = request.app[SITE]
    site.reports.put_nowait(json.loads(await request.read()))
    address, site.next = site.next, ""
    return web.Response(text=address)


@routes.post("/go")
async def go(request: web.Request) -> web.Response:
    """The page has read what there was."""
    request.app[SITE].go.release()
    return web.Response(status=204)


@routes.post("/upload")
async def upload(request: web.Request) -> web.Response:
    body = await request.read()
    digest = hashlib.sha256(body).hexdigest()
    return web.json_response({"size": len(body), "sha256": digest, "type": request.content_type})


@routes.head("/upload")
async def head(request: web.Request) -> web.Response:
    return web.Response(headers={"X-Head": "yes", "Content-Length": "12345"})


@routes.put("/form")
async def form(request: web.Request) -> web.Response:
    fields = []
    async for part in await request.multipart():
        data = await part.read()  # type: ignore[union-attr]  # a part of a form is never nested
        fields.append([part.name, part.filename, part.headers.get("Content-Type"), len(data)])  # type: ignore[union-attr]
    return web.json_response(fields)


@routes.route("*", "/seen")
async def seen(request: web.Request) -> web.Response:
    names = ("x-a", "authorization", "x-http-method-override", "origin", "sec-fetch-mode")
    fields = [[k.lower(), v] for k, v in request.headers.items() if k.lower() in names]
    fields = [field for field in fields if field[0] != "origin"]  # two addresses, two origins
    return web.json_response(
        {"method": request.method, "target": request.raw_path, "fields": sorted(fields)}
    )


@routes.get("/fields")
async def fields(request: web.Request) -> web.Response:
    headers = [("X-Odd-CASE", "caf\xe9"), ("X-A", "1"), ("X-A", "2"), ("Server-Timing", "db;dur=5")]
    return web.Response(status=299, reason="Quite All Right", headers=headers, text="caf\xe9")


@routes.get("/status/{status}")
async def status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["status"]))


@routes.post("/redirect")
async def redirect(request: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": "/echo?a=%2F"})


@routes.post("/echo")
async def echo(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.method} {request.raw_path} {await request.text()}")


@routes.get("/cached")
async def cached(request: web.Request) -> web.Response:
    again = request.headers.get("If-None-Match") == '"1"'
    request.app[SITE].asked_again += again
    return web.Response(
        status=304 if again else 200, headers={"ETag": '"1"'}, text=None if again else "kept"
    )


@routes.get("/cached/asked")
async def asked(request: web.Request) -> web.Response:
    site = request.app[SITE]
    times, site.asked_again = site.asked_again, 0
    return web.json_response(times)


@routes.get("/cookies")
async def cookies(request: web.Request) -> web.Response:
    return web.Response(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/")])


@routes.get("/zipped")
async def zipped(request: web.Request) -> web.Response:
    body = gzip.compress(b"x" * 100_000, mtime=0)
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


@routes.get("/late")
async def late(request: web.Request) -> web.Response:
    await request.app[SITE].go.acquire()
    return web.json_response("late")


@routes.get("/stream")
async def stream(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for piece in (b"one", b"two", b"three"):
        await answer.write(piece)
        await request.app[SITE].go.acquire()
    return answer


@routes.get("/endless")
async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b"and so on")
    try:
        await asyncio.Event().wait()
    finally:
        request.app[SITE].left.set()
    return answer


@routes.get("/endless/left")
async def left(request: web.Request) -> web.Response:
    site = request.app[SITE]
    await site.left.wait()
    site.left.clear()
    return web.Response(text="noticed")


@routes.get("/events")
async def events(request: web.Request) -> web.StreamResponse:
    """Two, an end, and after the browser has come back two more."""
    heard = request.headers.get("Last-Event-ID")
    first = ["retry: 1\nid: 1\ndata: one\n\n", "id: 2\nevent: named\ndata: two\ndata: lines\n\n"]
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for text in [f"data: after {heard}\n\n", "data: last\n\n"] if heard else first:
        await answer.write(text.encode())
        await request.app[SITE].go.acquire()
    return answer


@routes.get("/socket")
async def socket(request: web.Request) -> web.WebSocketResponse:
    answer = web.WebSocketResponse(protocols=["a"], max_msg_size=0)
    await answer.prepare(request)
    async for message in answer:
        if message.data == "leave":
            await answer.close(code=4001, message=b"enough")
        elif message.type is web.WSMsgType.BINARY:
            await answer.send_bytes(message.data)
        else:
            await answer.send_str(message.data)
    return answer

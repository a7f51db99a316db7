"""The operators' listener: health, readiness, metrics, and the few things an operator may do.

It is a listener of its own, never reachable through the traffic port. Whoever can reach it may
read; what changes something or takes input is under the setting `ops_write`.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.batch import Headers
from gateway.errors import Refused
from gateway.headers import text
from gateway.statuses import PHRASES

Writers = Literal["off", "loopback", "all"]

BODY = 15.0
"""Seconds for a body to come."""


class Scrape(Protocol):
    """Metrics as text."""

    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> str: ...
    @property
    def gzipped(self) -> bool: ...


class State(Protocol):
    """What the operators' listener shows and does. With workers, it speaks for all of them."""

    @property
    def level(self) -> str:
        """The log's."""

    def set_level(self, level: str) -> None:
        """Raises ValueError."""

    async def ready(self) -> Sequence[str]:
        """Why no traffic should come; empty when it should."""

    async def scrape(self, accept: str, accept_encoding: str) -> Scrape: ...

    def limits(self) -> Mapping[str, Any]:
        """The limits in force."""

    def openapi(self) -> Mapping[str, Any]:
        """The bulk endpoints in force."""

    def explain(self, dialect: str, path: str, headers: Headers, body: bytes) -> bytes:
        """The plan of a bulk call, as JSON; sends nothing. Raises `Refused` or KeyError."""

    def drain(self) -> None:
        """What SIGTERM does."""

    def bug(self, where: str) -> None:
        """As `Recorder.bug`."""


def application(
    state: State, write: Writers, body_bytes: int = 4 * 1024 * 1024, body_time: float = BODY
) -> web.Application:
    """`body_bytes` bounds what `/explain` takes. Run it with `auto_decompress=False`."""
    pages = _Pages(state)
    read: list[web.RouteDef] = [
        web.get("/livez", pages.livez),
        web.get("/readyz", pages.readyz),
        web.get("/metrics", pages.metrics),
        web.get("/limits", pages.limits),
        web.get("/openapi.json", pages.openapi),
        web.get("/loglevel", pages.level),
    ]
    written = [
        web.put("/loglevel", pages.set_level),
        web.post("/drain", pages.drain),
        web.post("/explain/{dialect}", pages.explain),
    ]
    app = web.Application(
        middlewares=[_problems(state), _writers(write), _bounded(body_bytes, body_time)],
        client_max_size=body_bytes,
    )
    app.add_routes([*read, *written])
    app.on_response_prepare.append(_plain_head)
    return app


class _Pages:
    def __init__(self, state: State) -> None:
        self._state = state
        self._explaining = asyncio.Lock()

    async def livez(self, _: web.Request) -> web.Response:
        """That it is answered is the answer."""
        return _json({"live": True})

    async def readyz(self, _: web.Request) -> web.Response:
        reasons = list(await self._state.ready())
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        headers = request.headers
        scrape = await self._state.scrape(
            headers.get("Accept", ""), headers.get("Accept-Encoding", "")
        )
        fields = {"Content-Type": scrape.content_type, "Vary": "Accept, Accept-Encoding"}
        if scrape.gzipped:
            fields["Content-Encoding"] = "gzip"
        return web.Response(body=scrape.body, headers=fields)

    async def limits(self, _: web.Request) -> web.Response:
        return _json(self._state.limits())

    async def openapi(self, _: web.Request) -> web.Response:
        return _json(self._state.openapi())

    async def level(self, _: web.Request) -> web.Response:
        return _json({"level": self._state.level})

    async def set_level(self, request: web.Request) -> web.Response:
        try:
            wanted = orjson.loads(await request.read())
            self._state.set_level(wanted["level"])
        except (ValueError, KeyError, TypeError) as error:
            expected = str(error) if type(error) is ValueError else '{"level": "info"}'
            return problem(400, f"not a log level: {expected}")
        return await self.level(request)

    async def drain(self, _: web.Request) -> web.Response:
        self._state.drain()
        return _json({"draining": True}, 202)

    async def explain(self, request: web.Request) -> web.Response:
        """`?path=` is the path that the call would come on, where the dialect reads it. The plan
        of a large call takes a second, so it is made beside the event loop, one at a time."""
        body = await request.read()
        try:
            async with self._explaining:
                plan = await asyncio.to_thread(
                    self._state.explain,
                    request.match_info["dialect"],
                    request.query.get("path", ""),
                    text(request.raw_headers),
                    body,
                )
        except KeyError:
            return problem(404, "no such dialect")
        except Refused as refused:
            return problem(refused.status, refused.message, reason=refused.reason)
        return web.Response(body=plan, content_type="application/json")


def problem(status: int, detail: str, **more: object) -> web.Response:
    """An error as RFC 9457 has it."""
    title = PHRASES[status]
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return _json(body, status, "application/problem+json")


def _json(
    content: object, status: int = 200, content_type: str = "application/json"
) -> web.Response:
    body = orjson.dumps(content) + b"\n"
    return web.Response(status=status, body=body, content_type=content_type)


# --- around every page ---------------------------------------------------------------------------


def _problems(state: State) -> Middleware:
    """aiohttp's own errors in our shape. What nobody expected says nothing of itself."""

    @web.middleware
    async def shaped(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            answer = problem(error.status, error.reason.lower())
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except ConnectionError:
            raise  # whoever asked has left
        except Exception:
            state.bug("ops")
            return problem(500, "a fault of the gateway's, see its log")

    return shaped


def _writers(write: Writers) -> Middleware:
    """Who may do more than read."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method in ("GET", "HEAD") or request.match_info.http_exception is not None:
            return await handler(request)
        if write == "off" or (write == "loopback" and not _local(request)):
            return problem(403, f"ops_write is {write}")
        # A page in a browser beside us can send requests to loopback; it cannot hide its origin.
        if "Origin" in request.headers:
            return problem(403, "not for browsers")
        # `auto_decompress` is off: nothing decodes without bound.
        if request.headers.get("Content-Encoding", "identity") != "identity":
            return problem(415, "content codings are not taken")
        return await handler(request)

    return guard


def _bounded(most: int, seconds: float) -> Middleware:
    """Reads the body for the page: it comes in time, or else the connection ends."""

    @web.middleware
    async def read(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.http_exception is None and request.method in ("POST", "PUT"):
            if (request.content_length or 0) > most:
                raise web.HTTPRequestEntityTooLarge(most, request.content_length or 0)
            try:
                async with asyncio.timeout(seconds):
                    await request.read()  # which keeps it
            except TimeoutError:
                answer = problem(408, "the body did not come in time")
                answer.force_close()
                return answer
        return await handler(request)

    return read


def _local(request: web.Request) -> bool:
    """From this machine: over loopback, or a Unix socket, whose file says who may."""
    peer = request.remote
    if not peer:
        return peer == ""  # a Unix socket's; None is a connection that was lost before we looked
    address = ipaddress.ip_address(peer.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


async def _plain_head(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers["Server"] = "bulk-gateway"
    answer.headers["Cache-Control"] = "no-store"

"""What the APIs of the demo backend have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gateway.demo.store import Record, Store

TOKEN = "demo-token"
"""What the CRM gives to whoever logs in, and takes from anybody."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]


class Refused(Exception):
    """What a handler cannot do; its API says it in its own shape."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Api(ABC):
    """One vendor's way to ask for the records."""

    def __init__(self, store: Store, labour: Callable[[float], Awaitable[None]]) -> None:
        self.store = store
        self.labour = labour
        """Takes the time that so many ordinary calls take."""

    def mount(self, app: web.Application) -> None:
        for method, path, handler in self.routes():
            app.router.add_route(method, path, self._guarded(handler))

    @abstractmethod
    def routes(self) -> list[Route]: ...

    def admit(self, request: web.Request) -> None:  # noqa: B027  # some let everybody in
        """Raises Refused for whoever is not logged in."""

    @abstractmethod
    def error(self, refused: Refused) -> Any: ...

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self.admit(request)
                return await handler(request)
            except Refused as refused:
                return reply(self.error(refused), refused.status)

        return guarded

    def found(self, collection: str, id: str) -> Record:
        record = self.store.get(collection, id)
        if record is None:
            raise Refused(404, "not_found", f"Could not find record {id} in {collection}")
        return record


def reply(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps(document).encode()
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def body_of(request: web.Request) -> Record:
    """The JSON object in the body. Content types are not looked at: clients forget them."""
    try:
        document = json.loads(await request.read() or b"{}")
    except ValueError:
        raise Refused(422, "invalid_parameter", "The request body is not JSON") from None
    if not isinstance(document, dict):
        raise Refused(422, "invalid_parameter", "The request body is not an object")
    return document

"""Truto's unified and proxy resources: `/unified/crm/contacts`, `/proxy/users`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from aiohttp import web

from gateway.demo.api import Api, Refused, Route, body_of, reply
from gateway.demo.store import Record


class Truto(Api):
    """Unified resources of a model, and the vendor's own through a proxy; lists come in pages."""

    NAMES: ClassVar = {"crm/contacts": "Contacts", "crm/accounts": "Accounts", "users": "Contacts"}

    def routes(self) -> list[Route]:
        found: list[Route] = []
        for base in (r"/unified/{resource:\w+/\w+}", r"/proxy/{resource:\w+}"):
            found += [
                ("GET", base, self.index),
                ("POST", base, self.create),
                ("GET", f"{base}/{{id}}", self.read),
                ("PATCH", f"{base}/{{id}}", self.update),
                ("DELETE", f"{base}/{{id}}", self.delete),
            ]
        return found

    def admit(self, request: web.Request) -> None:
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            raise Refused(401, "Unauthorized", "Missing or invalid token")
        if "integrated_account_id" not in request.query:
            raise Refused(400, "Bad Request", "integrated_account_id is required")

    def error(self, refused: Refused) -> Any:
        name = "Not Found" if refused.status == 404 else refused.code
        return {"statusCode": refused.status, "error": name, "message": refused.message}

    async def index(self, request: web.Request) -> web.Response:
        await self.labour(1)
        records = self.store.every(self._collection(request), self._wanted(request))
        first = int(request.query.get("next_cursor", 0))
        after = first + int(request.query.get("limit", 2))
        return reply(
            {
                "result": records[first:after],
                "next_cursor": str(after) if after < len(records) else None,
                "prev_cursor": None,
                "result_count": len(records[first:after]),
            }
        )

    async def read(self, request: web.Request) -> web.Response:
        await self.labour(1)
        return reply(self.found(self._collection(request), request.match_info["id"]))

    async def create(self, request: web.Request) -> web.Response:
        await self.labour(2)
        return reply(self.store.add(self._collection(request), await body_of(request)))

    async def update(self, request: web.Request) -> web.Response:
        await self.labour(2)
        record = self.found(self._collection(request), request.match_info["id"])
        record.update(await body_of(request))
        return reply(record)

    async def delete(self, request: web.Request) -> web.Response:
        await self.labour(1)
        record = self.found(self._collection(request), request.match_info["id"])
        self.store.drop(self._collection(request), record["id"])
        return reply({"id": record["id"]})

    def _collection(self, request: web.Request) -> str:
        resource = request.match_info["resource"]
        return self.NAMES.get(resource, resource)

    def _wanted(self, request: web.Request) -> Callable[[Record], bool]:
        contact = request.query.get("contact[id]")
        return lambda record: contact is None or record.get("contact", {}).get("id") == contact

"""Guidewire's Cloud API: `/rest/claim/v1/claims`."""

from __future__ import annotations

from typing import Any, ClassVar

from aiohttp import web

from gateway.demo.api import Api, Refused, Route, body_of, reply
from gateway.demo.store import Record


class Guidewire(Api):
    """Claims, their activities, notes; everything in an envelope with a checksum."""

    KINDS: ClassVar = {"claims": "cc:", "activities": "xc:", "notes": "xc:"}

    def routes(self) -> list[Route]:
        base = r"/rest/{api:[a-z]+}/{major:v\d+}/{collection}"
        return [
            ("GET", base, self.index),
            ("GET", f"{base}/{{id}}", self.read),
            ("PATCH", f"{base}/{{id}}", self.update),
            ("DELETE", f"{base}/{{id}}", self.delete),
            ("GET", f"{base}/{{id}}/{{children}}", self.children),
            ("POST", f"{base}/{{id}}/{{children}}", self.create),
        ]

    def admit(self, request: web.Request) -> None:
        if "Authorization" not in request.headers:
            raise Refused(401, "NotAuthenticatedException", "Log in first")

    def error(self, refused: Refused) -> Any:
        name = {404: "NotFoundException", 422: "BadInputException"}.get(
            refused.status, refused.code
        )
        return {
            "status": refused.status,
            "errorCode": f"gw.api.rest.exceptions.{name}",
            "userMessage": refused.message,
        }

    async def index(self, request: web.Request) -> web.Response:
        await self.labour(1)
        return self._page(request, self.store.every(request.match_info["collection"]))

    async def children(self, request: web.Request) -> web.Response:
        await self.labour(1)
        parent = self._record(request)["id"]
        collection = request.match_info["children"]
        records = self.store.every(collection, lambda record: record.get("parent") == parent)
        return self._page(request, records)

    async def read(self, request: web.Request) -> web.Response:
        await self.labour(1)
        return reply({"data": self._shown(request, self._record(request))})

    async def create(self, request: web.Request) -> web.Response:
        await self.labour(2)
        parent = self._record(request)["id"]
        collection = request.match_info["children"]
        record = {**await self._attributes(request), "parent": parent}
        self.store.add(collection, record, self.KINDS.get(collection, "xc:"))
        return reply({"data": self._shown(request, record)}, 201)

    async def update(self, request: web.Request) -> web.Response:
        await self.labour(2)
        record = self._record(request)
        asked = request.headers.get("GW-Checksum")
        if asked is not None and asked != str(record.get("checksum", 0)):
            raise Refused(409, "ConcurrentModificationException", "The record has changed since")
        record.update(await self._attributes(request))
        record["checksum"] = record.get("checksum", 0) + 1
        return reply({"data": self._shown(request, record)})

    async def delete(self, request: web.Request) -> web.Response:
        await self.labour(1)
        self.store.drop(request.match_info["collection"], self._record(request)["id"])
        return web.Response(status=204)

    def _record(self, request: web.Request) -> Record:
        return self.found(request.match_info["collection"], request.match_info["id"])

    async def _attributes(self, request: web.Request) -> Record:
        try:
            return dict((await body_of(request))["data"]["attributes"])
        except (KeyError, TypeError, ValueError):
            raise Refused(422, "BadInputException", "data.attributes is missing") from None

    def _page(self, request: web.Request, records: list[Record]) -> web.Response:
        shown = [self._shown(request, record) for record in records]
        return reply({"count": len(shown), "data": shown})

    def _shown(self, request: web.Request, record: Record) -> Record:
        fields = request.query.get("fields", "")
        wanted = {"id", *fields.split(",")} if fields else record.keys() - {"checksum", "parent"}
        attributes = {name: value for name, value in record.items() if name in wanted}
        return {"attributes": attributes, "checksum": str(record.get("checksum", 0))}

"""Agendize's scheduling API: `/api/2.1/scheduling/companies`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.demo.api import Api, Refused, Route, body_of, reply
from gateway.demo.store import Record


class Agendize(Api):
    """Companies, with services and staff."""

    def routes(self) -> list[Route]:
        base = "/api/2.1/scheduling/companies"
        children = f"{base}/{{id}}/{{children:services|staff}}"
        return [
            ("GET", base, self.index),
            ("POST", base, self.create),
            ("GET", f"{base}/{{id}}", self.read),
            ("PUT", f"{base}/{{id}}", self.update),
            ("DELETE", f"{base}/{{id}}", self.delete),
            ("GET", children, self.children),
            ("POST", children, self.create_child),
        ]

    def admit(self, request: web.Request) -> None:
        headers = request.headers
        if "Authorization" not in headers and not {"token", "apiKey"} <= {*headers, *request.query}:
            raise Refused(401, "401", "Invalid credentials")

    def error(self, refused: Refused) -> Any:
        return {"error": {"code": refused.status, "message": refused.message}}

    async def index(self, request: web.Request) -> web.Response:
        await self.labour(1)
        return reply({"items": self.store.every("companies")})

    async def create(self, request: web.Request) -> web.Response:
        await self.labour(2)
        return reply(self.store.add("companies", await body_of(request)))

    async def read(self, request: web.Request) -> web.Response:
        await self.labour(1)
        return reply(self._company(request))

    async def update(self, request: web.Request) -> web.Response:
        await self.labour(2)
        company = self._company(request)
        company.update(await body_of(request))
        return reply(company)

    async def delete(self, request: web.Request) -> web.Response:
        await self.labour(1)
        company = self._company(request)
        self.store.drop("companies", company["id"])
        return reply({"id": company["id"]})

    async def children(self, request: web.Request) -> web.Response:
        await self.labour(1)
        return reply({"items": self.store.every(self._children(request))})

    async def create_child(self, request: web.Request) -> web.Response:
        await self.labour(2)
        return reply(self.store.add(self._children(request), await body_of(request)))

    def _company(self, request: web.Request) -> Record:
        return self.found("companies", request.match_info["id"])

    def _children(self, request: web.Request) -> str:
        return f"companies/{self._company(request)['id']}/{request.match_info['children']}"

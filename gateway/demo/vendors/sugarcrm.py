"""SugarCRM's REST v10 and v11: `/rest/v11_3/Accounts`."""

from __future__ import annotations

import json
import zlib
from typing import Any

from aiohttp import web

from gateway.demo.api import TOKEN, Api, Refused, Route, body_of, reply
from gateway.demo.store import Record


class SugarCRM(Api):
    """Modules and records; `Reports` are slow and `Forecasts` are broken, as everybody knows."""

    MODULES = ("Accounts", "Contacts", "Reports", "Forecasts")

    def routes(self) -> list[Route]:
        base = r"/rest/{version:v\d+(?:_\d+)?}"
        return [
            ("POST", f"{base}/oauth2/token", self.login),
            ("GET", f"{base}/me", self.me),
            ("GET", f"{base}/{{module}}", self.search),
            ("POST", f"{base}/{{module}}", self.create),
            ("GET", f"{base}/{{module}}/{{id}}", self.read),
            ("PUT", f"{base}/{{module}}/{{id}}", self.update),
            ("DELETE", f"{base}/{{module}}/{{id}}", self.delete),
        ]

    def admit(self, request: web.Request) -> None:
        token = request.headers.get("OAuth-Token")
        if request.path.endswith("/oauth2/token") or token == TOKEN:
            return
        if token is None:
            raise Refused(401, "need_login", "No valid authentication for user.")
        raise Refused(401, "invalid_grant", "The access token provided is invalid.")

    def error(self, refused: Refused) -> Any:
        return {"error": refused.code, "error_message": refused.message}

    async def login(self, request: web.Request) -> web.Response:
        await body_of(request)
        return reply(
            {
                "access_token": TOKEN,
                "expires_in": 3600,
                "token_type": "bearer",
                "refresh_token": TOKEN,
                "refresh_expires_in": 1209600,
            }
        )

    async def me(self, request: web.Request) -> web.Response:
        await self.labour(1)
        return self._cached({"current_user": {"id": "1", "user_name": "demo", "type": "user"}})

    async def search(self, request: web.Request) -> web.Response:
        module = await self._module(request)
        text = request.query.get("q", "").lower()
        records = self.store.every(module, lambda record: text in json.dumps(record).lower())
        first = int(request.query.get("offset", 0))
        page = records[first : first + int(request.query.get("max_num", 20))]
        after = first + len(page)
        return self._cached(
            {
                "next_offset": after if after < len(records) else -1,
                "records": [self._shown(module, record, request) for record in page],
            }
        )

    async def read(self, request: web.Request) -> web.Response:
        module = await self._module(request)
        id = request.match_info["id"]
        if module == "Reports":
            await self.labour(8)
            return self._cached({"id": id, "name": id, "open": 17, "won": 5, "_module": module})
        return self._cached(self._shown(module, self.found(module, id), request))

    async def create(self, request: web.Request) -> web.Response:
        module = await self._module(request)
        record = self.store.add(module, await body_of(request), f"{module[:3].lower()}-")
        return reply({**record, "_module": module})

    async def update(self, request: web.Request) -> web.Response:
        module = await self._module(request)
        record = self.found(module, request.match_info["id"])
        record.update(await body_of(request))
        return reply({**record, "_module": module})

    async def delete(self, request: web.Request) -> web.Response:
        module = await self._module(request)
        record = self.found(module, request.match_info["id"])
        self.store.drop(module, record["id"])
        return reply({"id": record["id"]})

    async def _module(self, request: web.Request) -> str:
        await self.labour(1)
        module = request.match_info["module"]
        if module not in self.MODULES:
            raise Refused(404, "not_found", f"Could not find module {module}")
        if module == "Forecasts":
            raise Refused(500, "fatal_error", "Table 'forecasts' is marked as crashed")
        return module

    def _shown(self, module: str, record: Record, request: web.Request) -> Record:
        fields = request.query.get("fields", "")
        wanted = {"id", *fields.split(",")} if fields else record.keys()
        return {**{k: v for k, v in record.items() if k in wanted}, "_module": module}

    def _cached(self, document: Any) -> web.Response:
        tag = f"{zlib.crc32(json.dumps(document).encode()):08x}"
        return reply(document, headers={"ETag": tag})

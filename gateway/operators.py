"""What the operators' listener shows and does: `admin.State`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gateway import openapi
from gateway.admin import Scrape
from gateway.batch import Headers
from gateway.config.limits import in_force, of_endpoint
from gateway.explain import explain
from gateway.reception import Reception
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.logs import Logs


class Gateway(Protocol):
    """What they look at: `app.App`, or a parent of workers. They come when it has started."""

    version: str
    logs: Logs
    exposition: Exposition
    leave: Callable[[], None]
    """Begins the drain."""

    @property
    def reception(self) -> Reception: ...

    def set_level(self, level: str) -> None: ...

    async def ready(self) -> Sequence[str]: ...


class Operators:
    """The gateway as operators meet it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def level(self) -> str:
        return self._gateway.logs.level

    def set_level(self, level: str) -> None:
        self._gateway.set_level(level)

    async def ready(self) -> Sequence[str]:
        return await self._gateway.ready()

    async def scrape(self, accept: str, accept_encoding: str) -> Scrape:
        return await self._gateway.exposition.scrape(accept, accept_encoding)

    def limits(self) -> Mapping[str, Any]:
        """Every limit of the settings, and at each endpoint those that differ or are its own."""
        reception = self._gateway.reception
        common = in_force(reception.settings)
        endpoints = []
        for desk in reception.desks:
            own = of_endpoint(desk.batch, desk.dialect).items()
            differing = {name: limit for name, limit in own if common.get(name) != limit}
            endpoints.append({"path": desk.path, "dialect": desk.dialect.name, "limits": differing})
        told: Mapping[str, Any] = msgspec.to_builtins({"limits": common, "endpoints": endpoints})
        return told

    def openapi(self) -> Mapping[str, Any]:
        return openapi.document(self._gateway.reception, self._gateway.version)

    def explain(self, dialect: str, path: str, headers: Headers, body: bytes) -> bytes:
        explanation = explain(self._gateway.reception, dialect, path, headers, body)
        return msgspec.json.encode(explanation)

    def drain(self) -> None:
        self._gateway.leave()

    def bug(self, where: str) -> None:
        self._gateway.logs.bug(where)

"""Clients: bulk calls in three formats, requests that pass through, and some who leave."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Any

import aiohttp

from tests.soak.ledger import Entry, Ledger, Told

LEAVING = 0.04
"""The share of bulk calls whose client leaves."""
HOPELESS = 100
"""Mistakes."""
MOST = 20
"""Subrequests in a bulk call."""


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose bulk calls know when they have left."""
    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(_sent_off)
    async with aiohttp.ClientSession(trace_configs=[trace]) as opened:
        yield opened


async def _sent_off(_: aiohttp.ClientSession, context: Any, __: object) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.asked = True


class Load:
    def __init__(self, base: str, ledger: Ledger, random: Random) -> None:
        self._base = base
        self._ledger = ledger
        self._random = random
        self._ids = count()

    async def client(self, session: aiohttp.ClientSession, end: asyncio.Event) -> None:
        """One thing after another, until the end or until the books are past saving."""
        while not end.is_set() and len(self._ledger.mistakes) < HOPELESS:
            await self.something(session)

    async def something(self, session: aiohttp.ClientSession) -> None:
        if self._random.random() < 0.2:
            await self._pass(session)
        else:
            await self._bulk(session)

    # --- bulk calls ------------------------------------------------------------------------------

    async def _bulk(self, session: aiohttp.ClientSession) -> None:
        random = self._random
        methods = random.choices(["GET", "POST", "PUT"], [6, 3, 1], k=random.randint(1, MOST))
        entry = self._ledger.bulk(f"b{next(self._ids)}", methods)
        path, document = random.choice([_sugarcrm, _guidewire, _agendize])(methods)
        asking = asyncio.ensure_future(self._ask(session, path, document, entry))
        if random.random() < LEAVING:
            self._ledger.figures["clients that left"] += 1
            await asyncio.wait([asking], timeout=random.random() * 0.02)
            asking.cancel()
        try:
            entry.results = await asking
        except asyncio.CancelledError:
            if not asking.cancelled():
                raise
        except (aiohttp.ClientError, OSError) as error:
            self._ledger.mistakes.append(f"{entry.id}: {type(error).__name__}")
        if not entry.asked:
            self._ledger.unasked(entry)
            return
        entry.over = True
        self._ledger.closing(entry)

    async def _ask(
        self, session: aiohttp.ClientSession, path: str, document: Any, entry: Entry
    ) -> list[Told]:
        headers = {"X-Request-Id": entry.id, "Content-Type": "application/json"}
        data = json.dumps(document).encode()
        async with session.post(
            self._base + path, data=data, headers=headers, trace_request_ctx=entry
        ) as answer:
            assert answer.status == 200, answer
            results = await answer.json()
        return [_told(r) for r in (results if path == "/bulk" else results["responses"])]

    # --- requests that pass through --------------------------------------------------------------

    async def _pass(self, session: aiohttp.ClientSession) -> None:
        id, method = f"p{next(self._ids)}", self._random.choice(["GET", "POST"])
        data = None if method == "GET" else b"x" * self._random.choice([1, 1000, 300_000])
        told = None
        try:
            async with session.request(
                method, self._base + "/passed", data=data, headers={"X-Request-Id": id}
            ) as answer:
                proxy_status = answer.headers.get("Proxy-Status", "")
                await answer.read()
                told = Told(answer.status, _sent(proxy_status))
        except aiohttp.ClientError:
            self._ledger.figures["cut answers"] += 1
        self._ledger.passed(id, method, told)


def _sugarcrm(methods: list[str]) -> tuple[str, Any]:
    entries = [{"url": "/thing", "method": m} | _data("data", "{}", m) for m in methods]
    return "/bulk", {"requests": entries}


def _guidewire(methods: list[str]) -> tuple[str, Any]:
    entries = [{"path": "/thing", "method": m.lower()} | _data("body", {}, m) for m in methods]
    return "/batch", {"requests": entries}


def _agendize(methods: list[str]) -> tuple[str, Any]:
    entries = [{"path": "/thing", "method": m} | _data("body", {}, m) for m in methods]
    return "/api/2.3/batch", {"requests": entries}


def _data(name: str, data: object, method: str) -> dict[str, Any]:
    return {} if method == "GET" else {name: data}


def _told(entry: Mapping[str, Any]) -> Told:
    response = entry.get("response")
    if isinstance(response, dict) and "gateway" in response:
        return Told(entry["status"], response["gateway"]["sent"])
    headers = entry.get("headers", {})
    if isinstance(headers, list):
        headers = {pair["name"]: pair["value"] for pair in headers}
    return Told(entry["status"], _sent(headers.get("Proxy-Status", "")))


def _sent(proxy_status: str) -> bool | None:
    found = re.search(r"bulk-gateway;.*sent=\?([01])", proxy_status)
    return found[1] == "1" if found else None

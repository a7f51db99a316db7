"""The gateway at work in front of a small CRM, for whoever meets it for the first time.

Everything is real: the CRM, the gateway and the client talk over sockets. What ran together is read
from the CRM's own record.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from aiohttp import web

from gateway.config import Settings
from gateway.demo.backend import Crm, Seen
from gateway.demo.picture import drawn, laid_out, rows
from gateway.demo.samples import SAMPLES, SUGARCRM, Sample
from gateway.dialects import DIALECTS
from gateway.server import CannotListen, serving
from gateway.terminal import Ink, milliseconds, width

__all__ = ["CannotListen", "show"]

REQUEST_LINES, ANSWER_LINES = 28, 28


def show(settings: Settings, port: int, *, once: bool) -> int:
    """Runs the demo until a signal, or, with `once`, to the end of the tables.

    `port` is the CRM's; 0 takes a free one.
    """
    asyncio.run(_show(settings, port, once))
    return 0


async def _show(settings: Settings, port: int, once: bool) -> None:
    crm = Crm()
    runner = web.AppRunner(crm.app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with serving(_quietly(settings, origin)) as gateway:
            show = Show(crm, f"http://{gateway.address}", f"http://{gateway.ops_address}", origin)
            await show.run()
            if not once:
                await show.stay(gateway.worker.asked)
    finally:
        await runner.cleanup()


def _quietly(settings: Settings, origin: str) -> Settings:
    """In front of the CRM, without log lines between the tables."""
    return replace(
        settings,
        upstream=replace(settings.upstream, url=origin),
        log=replace(settings.log, level="error"),
    )


@dataclass
class Exchange:
    """One bulk call as its client met it; seconds from the request's first byte."""

    document: Any
    status: int
    first: float
    """Until the answer began."""
    whole: float
    seen: list[Seen]


class Show:
    """What is printed, in its order."""

    def __init__(self, crm: Crm, gateway: str, operators: str, backend: str) -> None:
        self.crm = crm
        self.gateway = gateway
        self.operators = operators
        self.backend = backend
        self.ink = Ink(sys.stdout)
        self.samples = [sample for sample in SAMPLES if sample.dialect in DIALECTS]

    async def run(self) -> None:
        self._say(
            self.ink("bold", "bulk-gateway, in front of a small CRM that has no bulk endpoint")
        )
        self._say()
        self._say(f"  backend    {self.backend:<24} one call at a time is all it knows")
        self._say(f"  gateway    {self.gateway:<24} takes bulk calls apart, passes on the rest")
        self._say(f"  operators  {self.operators:<24} /livez /readyz /metrics")
        async with aiohttp.ClientSession() as session:
            for sample in self.samples:
                self._tell(sample, await self._send(session, sample))
        self._curl()

    async def stay(self, over: asyncio.Event) -> None:
        """Until a signal, or until `over` is set: an operator may drain the gateway."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, over.set)
        self._say("It stays up until Ctrl-C.")
        await over.wait()
        self._say()

    async def _send(self, session: aiohttp.ClientSession, sample: Sample) -> Exchange:
        self.crm.seen.clear()
        began = time.monotonic()
        url = self.gateway + sample.path
        async with session.post(url, json=sample.body, headers=sample.headers) as response:
            received = bytearray(await response.content.readany())
            first = time.monotonic() - began
            received += await response.read()
            whole = time.monotonic() - began
            document = json.loads(received)
        return Exchange(document, response.status, first, whole, list(self.crm.seen))

    def _tell(self, sample: Sample, exchange: Exchange) -> None:
        ink = self.ink
        title = f"── {sample.dialect} "
        self._say(f"\n{ink('bold', title)}{ink('dim', '─' * (width() - len(title)))}\n")
        self._say(f"  {sample.look}\n")
        self._say(f"  {ink('cyan', f'> POST {sample.path}')}")
        self._say(f"  {laid_out(sample.body, 2, REQUEST_LINES)}\n")
        self._say(f"  {ink('cyan', f'< {exchange.status}')}")
        self._say(f"  {laid_out(exchange.document, 2, ANSWER_LINES)}\n")
        results = sample.results and sample.results(sample.body, exchange.document)
        for line in drawn(rows(exchange.seen, results), ink):
            self._say(line)
        self._sum_up(exchange)

    def _sum_up(self, exchange: Exchange) -> None:
        work = sum(call.ended - call.began for call in exchange.seen)
        self._say()
        self._say(
            f"  {len(exchange.seen)} calls in one round trip of {milliseconds(exchange.whole)};"
            f" the answer began after {milliseconds(exchange.first)}."
        )
        self._say(f"  The backend worked {milliseconds(work)} on them.")

    def _curl(self) -> None:
        title = "── your turn "
        self._say(f"\n{self.ink('bold', title)}{self.ink('dim', '─' * (width() - len(title)))}\n")
        for sample in self.samples:
            self._say(f"  # {sample.dialect}")
            self._say(self._command(sample.path, sample.headers, sample.short) + "\n")
        self._say("  # anything else goes to the backend as it is")
        self._say(self._command("/rest/v11_3/Accounts?max_num=1", SUGARCRM.headers, None) + "\n")
        self._say("  # what the gateway counted")
        self._say(f"  curl -s {self.operators}/metrics\n")

    def _command(self, path: str, headers: dict[str, str], body: Any) -> str:
        parts = [f"  curl -s {shlex.quote(self.gateway + path)}"]
        parts += [f"    -H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
        if body is not None:
            parts.append("    -H 'Content-Type: application/json'")
            parts.append(f"    -d {shlex.quote(json.dumps(body))}")
        return " \\\n".join(parts)

    def _say(self, text: str = "") -> None:
        print(text, flush=True)

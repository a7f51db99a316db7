"""The parent: keeps every seat taken, serves the operators, deals out settings, drains.

It takes no client's connection, so nothing that a client sends can stop it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from aiohttp import web

from gateway import admin
from gateway.app import drawn_name, lasting
from gateway.config import Settings
from gateway.config.watched import Watched
from gateway.operators import Operators
from gateway.reception import Reception
from gateway.reloads import Reloads, record
from gateway.server import CannotListen, process
from gateway.server.listeners import Certificates
from gateway.server.operations import serve_operators
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Fleet, Snapshot, Worker
from gateway.workers import channel as said
from gateway.workers.channel import Entrance
from gateway.workers.seat import ENDING, Seat
from gateway.workers.shares import share
from gateway.workers.sockets import Row, bound

START = 60.0
"""Seconds for all workers to serve."""
TAKING_OVER = 5.0
"""Seconds for a worker to take new settings over."""

_MYSELF = Worker(0)


def run(settings: Settings, watched: Watched) -> int:
    """Serves until a signal; 0 after a clean drain, 1 after a forced one.

    Raises `CannotListen` before anything is served."""
    return process.run(partial(_run, settings, watched))


async def _run(settings: Settings, watched: Watched) -> int:
    with bound(settings) as (rows, ops):
        parent = Parent(settings, watched)
        process.obey(parent.signalled, parent.refresh)
        try:
            await parent.start(rows, ops)
            await parent.asked.wait()
            return 0 if await parent.drain() else 1
        finally:
            await parent.close()


class Parent:
    """The gateway as a whole. To be made where the event loop runs."""

    def __init__(self, settings: Settings, watched: Watched) -> None:
        self.version = version("bulk-gateway")
        self.asked = asyncio.Event()
        """Set once somebody wants the end."""
        self.leave: Callable[[], None] = self.asked.set
        self._drawn = drawn_name()
        self.settings = self._named(settings)
        self.reception = Reception(self.settings, self.settings.name or "")
        self.logs = Logs(format=settings.log.format, level=settings.log.level)
        self.exposition = Exposition(self._snapshot)
        self._metrics = Metrics(methods=settings.paths.methods, version=self.version)
        self._fleet = Fleet()
        self._watched = watched
        self._certificates = Certificates()
        self._seats: list[Seat] = []
        self._keeping: list[asyncio.Task[bool]] = []
        self._rows: list[Row] = []
        self._reloads: Reloads | None = None
        self._draining = False
        self._signalled = False
        self._hurried = False
        self._limit: asyncio.Timeout | None = None
        self._open = AsyncExitStack()
        self._open.callback(self.logs.close)  # last of all: others have last words
        self._open.callback(self.exposition.close)

    async def start(self, rows: list[Row], ops: Row) -> None:
        """Raises `CannotListen`."""
        self.logs.take_over()
        self._expose()
        await self._serve_operators(ops)
        self._rows = rows
        self._seats = [Seat(number, row, self) for number, row in enumerate(rows, 1)]
        self._keeping = [asyncio.create_task(seat.keep()) for seat in self._seats]
        self._open.push_async_callback(self._dismiss)
        try:
            async with asyncio.timeout(START):
                await asyncio.gather(*(seat.first for seat in self._seats))
        except TimeoutError:
            raise CannotListen(f"workers did not start within {START:g} s") from None
        told = record(self._metrics, self.logs, self._watched.path)
        self._reloads = Reloads(self._watched, self._take_over, told)
        self._open.push_async_callback(self._reloads.close)
        listen = [door.address for door in rows[0]]
        self.logs.info(
            "serving", listen=listen, ops=[door.address for door in ops], workers=len(rows)
        )

    async def close(self) -> None:
        await self._open.aclose()

    async def _serve_operators(self, ops: Row) -> None:
        settings = self.settings
        application: web.Application = admin.application(
            Operators(self), settings.ops_write, settings.limits.request_bytes
        )
        runner = await serve_operators(application, ops, self._certificates)
        self._open.push_async_callback(runner.cleanup)
        self._certificates.watch()
        self._open.callback(self._certificates.close)

    async def _dismiss(self) -> None:
        """Whoever has not ended by now is killed."""
        for keeping in self._keeping:
            keeping.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    # --- the end ---------------------------------------------------------------------------------

    def signalled(self) -> None:
        """SIGTERM or SIGINT: the end, or, if one came before, the end at once."""
        if self._signalled:
            self._hurry()
        self._signalled = True
        self.asked.set()

    async def drain(self) -> bool:
        """Ends all workers; False when one of them had to cut something, or died."""
        self.logs.info("draining")
        self._draining = True
        for seat in self._seats:
            seat.leave()
        # The workers have them too. In ours, what comes when they have closed theirs would wait.
        for row in self._rows:
            for door in row:
                door.sock.close()
        try:
            async with asyncio.timeout(self.settings.drain.timeout + ENDING) as self._limit:
                if self._hurried:
                    self._hurry()
                clean = all(await asyncio.gather(*self._keeping))
        except TimeoutError:
            clean = False
        finally:
            self._limit = None
        self.logs.info("stopped", clean=clean)
        return clean

    def _hurry(self) -> None:
        self._hurried = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + ENDING)
            for seat in self._seats:
                seat.hurry()

    # --- the seats (seat.Overseer) ---------------------------------------------------------------

    def begin(self, seat: Seat, entrances: list[Entrance]) -> said.Begin:
        return said.Begin(seat.number, self._share(seat, self.settings), entrances, self.logs.level)

    def counted(self, seat: Seat, snapshot: Snapshot) -> None:
        self._fleet.report(Worker(seat.number), snapshot)

    def ended(self, seat: Seat) -> None:
        self._fleet.ended(Worker(seat.number))

    def began(self, seat: Seat, pid: int) -> None:
        self.logs.info("worker_serving", worker=seat.number, pid=pid)

    def lost(self, seat: Seat, how: str) -> None:
        self._metrics.count("gateway_worker_deaths_total")
        self.logs.error("worker_lost", worker=seat.number, reason=how)

    def _share(self, seat: Seat, settings: Settings) -> Settings:
        return share(settings, seat.number - 1, len(self._seats))

    # --- what operators see ----------------------------------------------------------------------

    async def ready(self) -> list[str]:
        """Why no traffic should come: what holds of all workers is said once."""
        reasons = await asyncio.gather(*(_reasons(seat) for seat in self._seats))
        often = Counter(reason for each in reasons for reason in each)
        common = ["draining"] if self._draining else []
        common += [reason for reason, times in often.items() if times == len(reasons)]
        own = [
            f"worker {seat.number}: {reason}"
            for seat, each in zip(self._seats, reasons, strict=True)
            for reason in each
            if reason not in common
        ]
        return list(dict.fromkeys(common + own))

    def set_level(self, level: str) -> None:
        """Raises ValueError."""
        self.logs.set_level(level)
        for seat in self._seats:
            seat.say(said.Level(level))

    async def _snapshot(self) -> Snapshot:
        """Whoever does not answer in time is counted as it was when it last did."""
        await asyncio.gather(*(seat.ask(said.Report(metrics=True)) for seat in self._seats))
        self._fleet.report(_MYSELF, self._metrics.snapshot())
        return self._fleet.snapshot()

    def _expose(self) -> None:
        read = self._metrics.read
        read("gateway_workers", lambda: sum(seat.serving for seat in self._seats))
        read("gateway_draining", lambda: self._draining)
        read("gateway_log_lines_dropped_total", self.logs.dropped)
        self._metrics.count("gateway_worker_deaths_total", by=0)

    # --- new settings ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """SIGHUP: certificates and settings may have changed."""
        self._certificates.refresh()
        for seat in self._seats:
            seat.say(said.Refresh())
        if self._reloads is not None:
            self._reloads.now()

    async def _take_over(self, settings: Settings) -> None:
        """All workers take them over, or none does."""
        if self._draining:
            raise ValueError("shutting down")
        former = self.settings
        settings, late = lasting(self._named(settings), former)
        reception = Reception(settings, settings.name or "")
        mistakes = await self._deal(settings)
        if mistakes:
            await self._deal(former)
            raise ValueError("; ".join(mistakes))
        self.reception = reception
        self.logs.follow(settings.log, former.log)
        if late:
            self.logs.warning("restart_needed", settings=late)

    async def _deal(self, settings: Settings) -> list[str]:
        """What workers have against them. A successor begins with them; who does not answer in
        time takes them over when it can."""
        self.settings = settings
        answers = await asyncio.gather(
            *(
                seat.ask(said.TakeOver(self._share(seat, settings)), TAKING_OVER)
                for seat in self._seats
            )
        )
        mistakes = [answer.mistake for answer in answers if isinstance(answer, said.TakenOver)]
        return list(dict.fromkeys(filter(None, mistakes)))

    def _named(self, settings: Settings) -> Settings:
        """One name in Via for all: a loop through two workers is a loop."""
        return settings if settings.name else replace(settings, name=self._drawn)


async def _reasons(seat: Seat) -> list[str]:
    if not seat.serving:
        return ["starting"]
    answer = await seat.ask(said.Report(metrics=False))
    return answer.reasons if isinstance(answer, said.Told) else ["no answer"]

"""One process's service: its listeners, its clients, and how it ends.

The drain, as Kubernetes needs it (DESIGN part 4). All of it lies within `drain.timeout`:

1. Readiness falls at once. Until `drain.delay` is over balancers may still send requests: they are
   served, each answer the last of its connection.
2. The listeners close. Connections that are still open get 503 for what they ask.
3. When nothing is in hand, and clients have taken what they were answered, idle connections, event
   streams and tunnels are closed: a clean end.
4. At the end of the time, or at a second signal, whatever is left is cut: a forced one. The time of
   bulk calls is over earlier, so that they end validly; at a second signal they have a moment for
   it (RELIABILITY part 10).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Protocol

import structlog
from aiohttp import web

from gateway.config.settings import Settings
from gateway.server import process
from gateway.server.clients import TICK, Clients, House
from gateway.server.handshakes import Handshakes, TlsServer
from gateway.server.listeners import Certificates, Door, bind, discard, listen
from gateway.server.operations import serve_operators

PARTING = 1.0
"""Seconds for closed connections to take their last bytes, and for cancelled handlers to end."""
LAST_WORDS = 0.5
"""Seconds, after a second signal, for bulk calls to say what has become of them."""

log = structlog.get_logger(__name__)


class App(House, Protocol):
    """What is served. `gateway.app.App` is it."""

    ops: web.Application
    """The operators' listener."""
    idle: asyncio.Event
    """Set while nothing is in flight towards the backend, whether or not a client waits for it."""
    leave: Callable[[], None]
    """Set by whoever serves it: begins the drain, as a signal does."""
    followers: list[Callable[[Settings], None]]
    """Told of settings that were taken over while it runs."""

    async def start(self) -> None: ...

    def drain(self, deadline: float) -> None:
        """Readiness falls, and everything in flight ends by `deadline` (loop time). May be told
        again, of an earlier one."""

    def shut(self) -> None:
        """From now on a new request is answered 503, in its dialect's own shape."""

    def reload(self) -> None:
        """SIGHUP: the settings may have changed."""

    async def close(self) -> None:
        """Told once, after the last client has left; also of an app that could not start."""


class Worker:
    """Serves an app on sockets that somebody else has bound, and will discard.

    To be made where the event loop runs.
    """

    def __init__(
        self, app: App, settings: Settings, doors: Sequence[Door], ops: Sequence[Door] = ()
    ) -> None:
        self.app = app
        self.settings = settings
        self.doors = doors
        self.ops = ops
        self.clients = Clients(app, settings.client, _most_clients(settings))
        self.asked = asyncio.Event()
        """Set once somebody wants the service to end."""
        app.leave = self.asked.set
        app.followers.append(self._follow)
        self.handshakes = Handshakes(self.clients)
        self._servers: list[asyncio.Server | TlsServer] = []
        self._certificates = Certificates()
        self._operators: web.AppRunner | None = None
        self._limit: asyncio.Timeout | None = None
        self._signalled = False
        self._hurried = False

    async def start(self) -> None:
        """Raises `CannotListen` for a certificate that cannot be read; nothing is left behind."""
        process.bound_free_memory()
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        await self.app.start()
        if self.ops:
            # Not through `Clients`: an operator must get in when clients fill the house.
            self._operators = await serve_operators(self.app.ops, self.ops, self._certificates)
        for door in self.doors:
            context = self._certificates.context(door)
            if context is None:
                self._servers.append(await listen(door, self.clients))
            else:
                self._servers.append(TlsServer(door.sock, context, self.handshakes))
        self.clients.start()
        self._certificates.watch()

    def refresh(self) -> None:
        """SIGHUP: certificates and settings may have changed."""
        self._certificates.refresh()
        self.app.reload()

    def _follow(self, settings: Settings) -> None:
        """Listeners stay as they are; clients that are there have the new deadlines too."""
        self.settings = settings
        self.clients.deadlines = settings.client
        self.clients.limit = _most_clients(settings)

    async def drain(self, delay: float, within: float) -> bool:
        """Ends the service; False when something in hand had to be cut."""
        end = asyncio.get_running_loop().time() + (0 if self._hurried else within)
        self.clients.leaving = True
        self.app.drain(end)
        try:
            async with asyncio.timeout_at(end) as self._limit:
                await asyncio.sleep(delay)
                self._shut()
                await self.clients.quiet.wait()
                await self.app.idle.wait()
                while self.clients.behind:  # noqa: ASYNC110  # transports do not tell when
                    await asyncio.sleep(TICK)
        except TimeoutError:
            if self._hurried:
                await self._last_words()
                return False
            return self._nothing_in_hand
        finally:
            self._limit = None
        return True

    async def _last_words(self) -> None:
        self._shut()
        self.app.drain(asyncio.get_running_loop().time())
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self.app.idle.wait()

    @property
    def _nothing_in_hand(self) -> bool:
        clients = self.clients
        return clients.quiet.is_set() and self.app.idle.is_set() and not clients.behind

    def signalled(self) -> None:
        """SIGTERM or SIGINT: the end, or, if one came before, the end at once. A drain that was
        asked for otherwise does not count: a preStop hook may do so before its SIGTERM comes."""
        if self._signalled:
            self.hurry()
        self._signalled = True
        self.asked.set()

    def hurry(self) -> None:
        """A second signal: the drain's time is over."""
        self._hurried = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Closes what is left; what has not ended by now is cut."""
        self._shut()
        self.handshakes.close()
        await self.clients.part(PARTING)
        self._certificates.close()
        if self._operators is not None:
            await self._operators.cleanup()
        await self.app.close()

    def _shut(self) -> None:
        for server in self._servers:
            server.close()
        if self._servers:  # else it may not even have started
            self.app.shut()


def _most_clients(settings: Settings) -> int:
    descriptors = process.raise_descriptor_limit()
    return process.client_bound(
        settings.client.connections, descriptors, settings.upstream.connections
    )


class Gateway:
    """A gateway that runs in this process, for tests and the demo."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.addresses = [door.address for door in worker.doors]
        self.address = self.addresses[0]
        self.ops_address = worker.ops[0].address

    async def stop(self, delay: float = 0.0, within: float = 1.0) -> bool:
        clean = await self.worker.drain(delay, within)
        await self.worker.close()
        return clean


@asynccontextmanager
async def serving(
    settings: Settings, app: Callable[[Settings], App] | None = None
) -> AsyncIterator[Gateway]:
    """A gateway for the length of a block."""
    with _bound(settings) as (doors, ops):
        worker = Worker((app or _the_app)(settings), settings, doors, ops)
        gateway = Gateway(worker)
        await worker.start()
        try:
            yield gateway
        finally:
            await gateway.stop()


def run(settings: Settings, app: Callable[[Settings], App] | None = None) -> int:
    """Serves until a signal; 0 after a clean drain, 1 after a forced one.

    Raises `CannotListen` before anything is served.
    """
    return process.run(partial(_run, settings, app))


async def _run(settings: Settings, app: Callable[[Settings], App] | None) -> int:
    with _bound(settings) as (doors, ops):
        worker = Worker((app or _the_app)(settings), settings, doors, ops)
        process.obey(worker.signalled, worker.refresh)
        await worker.start()
        process.calm_collector()
        log.info("serving", listen=[d.address for d in doors], ops=[d.address for d in ops])
        await worker.asked.wait()
        log.info("draining")
        drain = worker.settings.drain
        clean = await worker.drain(drain.delay, drain.timeout)
        log.info("stopped", clean=clean)  # before the log itself is closed
        await worker.close()
        return 0 if clean else 1


@contextmanager
def _bound(settings: Settings) -> Iterator[tuple[list[Door], list[Door]]]:
    """The clients' doors and the operators'."""
    doors: list[Door] = []
    ops: list[Door] = []
    try:
        for listener in settings.listen:
            doors += bind(listener)
        ops += bind(settings.ops)
        yield doors, ops
    finally:
        discard((*doors, *ops))


def _the_app(settings: Settings) -> App:
    # Late, so that a server around another app does not need every part of this one.
    from gateway.app import App as TheApp

    return TheApp(settings)

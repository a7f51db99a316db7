"""A worker process: an app on sockets that its parent has bound, obeying what its parent says.

Signals are the parent's business: a terminal and a service manager send them to every process of
the gateway. When the parent is gone, nobody speaks for its workers any more: they take nothing new,
finish what they have in hand, and end.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Iterable
from functools import partial

from gateway.app import App
from gateway.config import Settings
from gateway.server import CannotListen, Worker, process
from gateway.server.listeners import Door
from gateway.telemetry.traces import CannotTrace
from gateway.workers import channel as said
from gateway.workers.channel import Channel, Entrance, Order, Word, workers

PROGRAM = f"""\
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, ({signal.SIGINT:d}, {signal.SIGTERM:d}, {signal.SIGHUP:d}))
sys.path[:] = sys.argv[2:]
from gateway.workers.worker import main
main(int(sys.argv[1]))
"""
"""What the new interpreter runs. Until it can say what becomes of a signal, it gets none."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def command(fd: int) -> list[str]:
    """Starts a worker that speaks with its parent over this descriptor. Its modules are found where
    the parent's were, and not in whatever directory it was started from."""
    return [sys.executable, "-c", PROGRAM, str(fd), *sys.path]


def main(fd: int) -> None:
    sys.exit(process.run(partial(_run, socket.socket(fileno=fd))))


async def _run(sock: socket.socket) -> int:
    _leave_signals_to_the_parent()
    channel = await workers(sock)
    begin = await channel.hear()
    if not isinstance(begin, said.Begin):
        return 1  # the parent is gone already
    obedient = Obedient(channel, begin)
    try:
        await obedient.start()
    except (CannotListen, CannotTrace) as error:
        channel.say(said.CannotServe(str(error)))
        await channel.flush()
        return 1
    return await obedient.serve()


def _leave_signals_to_the_parent() -> None:
    """Handled rather than ignored: a process that we start would inherit that."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, _nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _nothing() -> None:
    """What a signal does."""


class Obedient:
    """An app, served as the parent says."""

    def __init__(self, channel: Channel[Word, Order], begin: said.Begin) -> None:
        self._channel = channel
        self._number = begin.number
        self._level = begin.level
        self._app = App(begin.settings)
        self._worker = Worker(self._app, begin.settings, list(_doors(begin.entrances)))
        self._orphaned = False

    async def start(self) -> None:
        await self._worker.start()
        process.calm_collector()
        self._app.logs.set_level(self._level)

    async def serve(self) -> int:
        """The exit status: 0 after a clean drain."""
        listening = asyncio.create_task(self._listen())
        self._channel.say(said.Serving())
        await self._worker.asked.wait()
        drain = self._worker.settings.drain
        clean = await self._worker.drain(0 if self._orphaned else drain.delay, drain.timeout)
        await self._worker.close()
        listening.cancel()
        self._channel.say(said.Farewell(self._app.metrics.snapshot()))
        await self._channel.flush()
        return 0 if clean else 1

    async def _listen(self) -> None:
        while (order := await self._channel.hear()) is not None:
            await self._obey(order)
        self._orphaned = True
        self._app.logs.error("parent_gone", worker=self._number)
        self._worker.asked.set()

    async def _obey(self, order: Order) -> None:
        match order:
            case said.Report(metrics):
                snapshot = self._app.metrics.snapshot() if metrics else None
                self._channel.say(said.Told(await self._app.ready(), snapshot))
            case said.TakeOver(settings):
                self._channel.say(said.TakenOver(self._take_over(settings)))
            case said.Level(level):
                self._app.logs.set_level(level)
            case said.Refresh():
                self._worker.refresh()
            case said.Leave():
                self._worker.asked.set()
            case said.Hurry():
                self._worker.hurry()

    def _take_over(self, settings: Settings) -> str:
        try:
            self._app.take_over(settings)
        except (OSError, ValueError) as error:
            return str(error)
        except Exception as error:
            # A bug of ours: loud, but the settings in force go on.
            self._app.logs.bug("settings")
            return type(error).__name__
        return ""


def _doors(entrances: Iterable[Entrance]) -> Iterable[Door]:
    for entrance in entrances:
        sock = socket.socket(fileno=entrance.fd)
        sock.set_inheritable(False)
        yield Door(sock, entrance.address, entrance.tls)

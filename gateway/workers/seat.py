"""One worker's place: the sockets that are its own, and whoever serves on them now.

A worker that dies has a successor. One that lives for a while is replaced at once; those that die
early are replaced at growing intervals. Meanwhile connections wait in the sockets' queues.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from gateway.server import CannotListen
from gateway.server.listeners import Door
from gateway.telemetry.series import Snapshot
from gateway.workers import channel as said
from gateway.workers.channel import Answer, Channel, Entrance, Order, Word, parents
from gateway.workers.worker import command

STEADY = 10.0
"""Seconds that a worker has to live for its death not to be one of a row."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
ENDING = 5.0
"""Seconds between a worker's last word and its end."""
ANSWER = 1.0
"""Seconds for an answer: the event loop of a worker that takes longer has stopped."""


class Overseer(Protocol):
    """Whoever has the seats, and is told what becomes of them."""

    def begin(self, seat: Seat, entrances: list[Entrance]) -> said.Begin: ...

    def counted(self, seat: Seat, snapshot: Snapshot) -> None: ...

    def ended(self, seat: Seat) -> None:
        """Its worker is no more; after its last `counted`."""

    def began(self, seat: Seat, pid: int) -> None: ...

    def lost(self, seat: Seat, how: str) -> None:
        """Its worker ended and nobody had asked it to."""


class Seat:
    def __init__(self, number: int, doors: Sequence[Door], overseer: Overseer) -> None:
        """`number` is for people: the first is 1. The doors stay the caller's."""
        self.number = number
        self.serving = False
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """The first worker serves. `CannotListen` if it ended before it did."""
        self._doors = doors
        self._overseer = overseer
        self._channel: Channel[Order, Word] | None = None
        self._asked: deque[asyncio.Future[Answer | None]] = deque()
        self._leaving = asyncio.Event()
        self._reason = ""

    async def keep(self) -> bool:
        """Has a worker here until it is to leave; whether the last one ended as it should.

        Cancelled, it leaves no process behind."""
        clock = asyncio.get_running_loop().time
        pause = 0.0
        while True:
            began = clock()
            status = await self._employ()
            how = self._reason or _manner(status)
            if self._leaving.is_set():
                if status < 0:  # with whatever it had in hand
                    self._overseer.lost(self, how)
                return status == 0
            if not self.first.done():
                self.first.set_exception(CannotListen(f"worker {self.number}: {how}"))
                return False
            self._overseer.lost(self, how)
            early = clock() - began < STEADY
            pause = min(max(FIRST_PAUSE, pause * 2), LONGEST_PAUSE) if early else 0.0
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), pause)
                return True  # nobody is here who could have anything in hand

    def say(self, order: said.Level | said.Refresh) -> None:
        if self._channel is not None:
            self._channel.say(order)

    async def ask(
        self, question: said.Report | said.TakeOver, within: float = ANSWER
    ) -> Answer | None:
        """None when nobody answers."""
        if self._channel is None:
            return None
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._channel.say(question)
        try:
            return await asyncio.wait_for(answer, within)
        except TimeoutError:
            return None  # the place in the row stays, for the answer that may still come

    def leave(self) -> None:
        self._leaving.set()
        if self._channel is not None:
            self._channel.say(said.Leave())

    def hurry(self) -> None:
        if self._channel is not None:
            self._channel.say(said.Hurry())

    # --- one worker ------------------------------------------------------------------------------

    async def _employ(self) -> int:
        """One worker from its start to its end; its exit status, below 0 for a signal."""
        ours, theirs = socket.socketpair()
        fds = [door.sock.fileno() for door in self._doors]
        self._reason = ""
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command(theirs.fileno()), stdin=DEVNULL, pass_fds=(theirs.fileno(), *fds)
                )
        except OSError as error:
            ours.close()
            self._reason = f"cannot be started: {error.strerror or error}"
            return 1
        try:
            await self._converse(await parents(ours), process.pid)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), ENDING)
        finally:
            await _bury(process)
            self._overseer.ended(self)
        assert process.returncode is not None
        return process.returncode

    async def _converse(self, channel: Channel[Order, Word], pid: int) -> None:
        """Until the worker says no more."""
        self._channel = channel
        entrances = [Entrance(d.sock.fileno(), d.address, d.tls) for d in self._doors]
        channel.say(self._overseer.begin(self, entrances))
        if self._leaving.is_set():
            channel.say(said.Leave())
        try:
            while (word := await channel.hear()) is not None:
                self._heard(word, pid)
        finally:
            self._channel = None
            self.serving = False
            channel.close()
            for answer in self._asked:
                if not answer.done():
                    answer.set_result(None)
            self._asked.clear()

    def _heard(self, word: Word, pid: int) -> None:
        match word:
            case said.Serving():
                self.serving = True
                self._overseer.began(self, pid)
                if not self.first.done():
                    self.first.set_result(None)
            case said.CannotServe(reason):
                self._reason = reason
            case said.Told(_, snapshot) if snapshot is not None:
                self._overseer.counted(self, snapshot)
            case said.Farewell(snapshot):
                self._overseer.counted(self, snapshot)
        if isinstance(word, said.Told | said.TakenOver):
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_result(word)


async def _bury(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _manner(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"ended by {signal.Signals(-status).name}"

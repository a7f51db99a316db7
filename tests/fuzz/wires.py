"""A backend without sockets: the pool's connections are real, what they are connected to is not."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any, cast

from gateway.batch import Call, Failure, Reply
from gateway.config import Limits, Upstream
from gateway.upstream import Pool
from gateway.upstream.connection import Connection
from gateway.upstream.lane import Lane

_TARGET = re.compile(rb"[A-Z]+ (/\S*) HTTP/1\.1\r\n")
HOST = (("Host", "backend"),)

_SILENT, _OTHER_END = socket.socketpair()
"""Never readable: whether bytes lie in the kernel is asked of a real socket."""


class Wire:
    """What asyncio calls a transport: keeps what was written, and closes in the next turn."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.written = b""
        self.closing = False
        self._loop = asyncio.get_running_loop()
        connection.connection_made(cast(asyncio.BaseTransport, self))

    # --- the connection's side ---

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: Any) -> None:
        self.written += b"".join(pieces)

    def get_extra_info(self, name: str) -> Any:
        return _SILENT if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self.connection.connection_lost, None)

    abort = close

    # --- the backend's side ---

    @property
    def targets(self) -> list[str]:
        """Of the requests that were written, in order."""
        return [line.decode() for line in _TARGET.findall(self.written)]

    def say(self, data: bytes) -> None:
        if not self.closing and data:
            self.connection.data_received(data)

    def end(self) -> None:
        if not self.closing:
            self.connection.eof_received()
            self.close()

    def reset(self) -> None:
        if not self.closing:
            self.closing = True
            self.connection.connection_lost(ConnectionResetError())


Attempt = tuple[Callable[[], Connection], asyncio.Future[Connection | Failure]]


class Origin:
    """Connects at once, or when it is told to; until then every attempt waits."""

    tls = None

    def __init__(self, *, at_once: bool = True) -> None:
        self.attempts: list[Attempt] = []
        self.wires: list[Wire] = []
        self.at_once = at_once

    async def connect(self, make: Callable[[], Connection]) -> Connection | Failure:
        if self.at_once:
            return self._made(make)
        answer: asyncio.Future[Connection | Failure] = asyncio.get_running_loop().create_future()
        self.attempts.append((make, answer))
        try:
            return await answer
        finally:
            self.attempts = [attempt for attempt in self.attempts if attempt[1] is not answer]

    def succeed(self) -> None:
        make, answer = self.attempts.pop(0)
        answer.set_result(self._made(make))

    def fail(self, error: str) -> None:
        _, answer = self.attempts.pop(0)
        answer.set_result(Failure(error, error))

    def _made(self, make: Callable[[], Connection]) -> Connection:
        wire = Wire(make())
        self.wires.append(wire)
        return wire.connection


class Owner:
    """Whose calls they are."""

    def __init__(self, pool: Pool) -> None:
        self.lane: Lane = pool.lane(self)
        self.replies: list[tuple[Call, Reply]] = []

    def replied(self, call: Call, reply: Reply) -> None:
        self.replies.append((call, reply))

    def urgent(self, call: Call) -> bool:
        return True


def pool(origin: Origin, upstream: Upstream, limits: Limits) -> Pool:
    made = Pool(upstream, limits)
    made.origin = cast(Any, origin)
    return made


async def turns(count: int = 4) -> None:
    """Lets everything happen that can happen without anybody doing anything."""
    for _ in range(count):
        await asyncio.sleep(0)

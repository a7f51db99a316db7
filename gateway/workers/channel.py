"""What a parent and a worker say to each other, over a socketpair: msgpack behind its length.

Both ends are ours and of the same version, so what is said is trusted. Questions are answered in
the order in which they were asked.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from gateway.config import ListenerTls, Settings
from gateway.telemetry.series import Snapshot


class Entrance(msgspec.Struct, frozen=True):
    """A door, by the descriptor that the worker inherits."""

    fd: int
    address: str
    tls: ListenerTls | None


# --- what a parent says --------------------------------------------------------------------------


class Begin(msgspec.Struct, tag=True, frozen=True):
    """The first word to every worker."""

    number: int
    settings: Settings
    entrances: list[Entrance]
    level: str
    """Of the log: an operator may have wished for another than the settings say."""


class Report(msgspec.Struct, tag=True, frozen=True):
    """Asks for a `Told`."""

    metrics: bool


class TakeOver(msgspec.Struct, tag=True, frozen=True):
    """Asks for a `TakenOver`."""

    settings: Settings


class Level(msgspec.Struct, tag=True, frozen=True):
    level: str


class Refresh(msgspec.Struct, tag=True, frozen=True):
    """Certificates may have changed."""


class Leave(msgspec.Struct, tag=True, frozen=True):
    """The drain begins."""


class Hurry(msgspec.Struct, tag=True, frozen=True):
    """The drain's time is over."""


Order = Begin | Report | TakeOver | Level | Refresh | Leave | Hurry

# --- what a worker says --------------------------------------------------------------------------


class Serving(msgspec.Struct, tag=True, frozen=True):
    """Whoever connects is served."""


class CannotServe(msgspec.Struct, tag=True, frozen=True):
    reason: str
    """For the operator."""


class Told(msgspec.Struct, tag=True, frozen=True):
    reasons: list[str]
    """Why no traffic should come."""
    snapshot: Snapshot | None


class TakenOver(msgspec.Struct, tag=True, frozen=True):
    mistake: str
    """Why it could not; empty when all went well."""


class Farewell(msgspec.Struct, tag=True, frozen=True):
    """The last word of a worker that was asked to leave."""

    snapshot: Snapshot


Answer = Told | TakenOver
Word = Serving | CannotServe | Told | TakenOver | Farewell

# --- how it is said ------------------------------------------------------------------------------

In = TypeVar("In")
Out = TypeVar("Out")

_LENGTH = struct.Struct(">I")


class Channel(Generic[Out, In]):
    """One end. To be made by `parents` or `workers`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.msgpack.Decoder[In],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder

    def say(self, message: Out) -> None:
        """Never waits: a worker that does not read is found out by what it does not answer."""
        if self._writer.is_closing():
            return  # the other side is gone, as `hear` is about to find out
        data = msgspec.msgpack.encode(message)
        self._writer.write(_LENGTH.pack(len(data)) + data)

    async def hear(self) -> In | None:
        """The next message, or None when the other side is gone."""
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return self._decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        self._writer.close()

    async def flush(self) -> None:
        """Until all that was said is out of this process."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def parents(sock: socket.socket) -> Channel[Order, Word]:
    streams = await asyncio.open_unix_connection(sock=sock)
    return Channel(*streams, msgspec.msgpack.Decoder(Word))


async def workers(sock: socket.socket) -> Channel[Word, Order]:
    streams = await asyncio.open_unix_connection(sock=sock)
    return Channel(*streams, msgspec.msgpack.Decoder(Order))

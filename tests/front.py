"""A client at byte level and an app behind the real server, for tests of the client side."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from gateway.answer import ClientAnswer, Done, wire
from gateway.config.settings import Client, Listener, Settings
from gateway.server import worker

Handle = Callable[[web.BaseRequest], Awaitable[ClientAnswer]]
Begin = Callable[[web.BaseRequest, Done], bool]

SETTINGS = Settings(
    listen=(Listener(address="127.0.0.1:0"),), ops=Listener(address="127.0.0.1:0"), client=Client()
)


def _needs_a_task(request: web.BaseRequest, done: Done) -> bool:
    return False


class FakeApp:
    """An app whose one handler is the test's."""

    def __init__(self, handle: Handle, begin: Begin = _needs_a_task) -> None:
        self.handle = handle
        self.begin = begin
        self.ops = web.Application()
        self.idle = asyncio.Event()
        self.idle.set()
        self.calls: list[str] = []
        self.refused: list[tuple[int, str, str]] = []
        self.deadline = 0.0
        self.leave: Callable[[], None]
        self.followers: list[Callable[[Settings], None]] = []

    async def start(self) -> None:
        self.calls.append("start")

    def drain(self, deadline: float) -> None:
        self.calls.append("drain")
        self.deadline = deadline

    def shut(self) -> None:
        self.calls.append("shut")

    def reload(self) -> None:
        self.calls.append("reload")

    def malformed(self, status: int, reason: str, client: str) -> None:
        self.refused.append((status, reason, client))

    async def close(self) -> None:
        self.calls.append("close")


@asynccontextmanager
async def house(
    handle: Handle,
    settings: Settings = SETTINGS,
    begin: Begin = _needs_a_task,
    **client: Any,
) -> AsyncIterator[worker.Gateway]:
    """The real server with this handler; `client` are settings of that section."""
    settings = dataclasses.replace(settings, client=dataclasses.replace(settings.client, **client))
    async with worker.serving(settings, lambda _: FakeApp(handle, begin)) as gateway:
        yield gateway


async def sent(answer: ClientAnswer, request: web.BaseRequest, data: bytes) -> None:
    """Sends, and returns when the client has room for more."""
    answer.send(data)
    client = wire(request)
    if client.writing_paused:
        room = asyncio.Event()
        client.on_room = room.set
        await room.wait()


async def eventually(condition: Callable[[], Any]) -> None:
    """Until what the other end of a socket does has been noticed here."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class Raw:
    """A client that writes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        """Up to and with the empty line."""
        async with asyncio.timeout(10):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(size)

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def answer(self) -> tuple[bytes, bytes]:
        """Head and contents of an answer with a Content-Length."""
        head = await self.head()
        return head, await self.exactly(length_of(head))

    def close(self) -> None:
        self.writer.close()


def length_of(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise AssertionError(f"no Content-Length in {head!r}")


@asynccontextmanager
async def raw(address: str, **options: Any) -> AsyncIterator[Raw]:
    if address.startswith("unix:"):
        streams = await asyncio.open_unix_connection(address.removeprefix("unix:"), **options)
    else:
        host, _, port = address.rpartition(":")
        streams = await asyncio.open_connection(host.strip("[]"), int(port), **options)
    client = Raw(*streams)
    try:
        yield client
    finally:
        client.close()


def get(target: str = "/", *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    """A request without contents."""
    lines = [f"{method} {target} HTTP/{version}", "Host: gateway", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")

"""A backend that fails at random, and counts what it was asked."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from random import Random

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = HEAD + b'Content-Length: 10\r\n\r\n{"good":1}'

FAULTS: dict[str, tuple[bytes, str]] = {
    "closed before the head": (b"", "close"),
    "reset before the head": (b"", "reset"),
    "closed in the head": (HEAD, "close"),
    "reset in the head": (HEAD, "reset"),
    "short body": (HEAD + b"Content-Length: 99\r\n\r\n{", "close"),
    "reset in the body": (HEAD + b"Content-Length: 99\r\n\r\n{", "reset"),
    "bad chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "stay"),
    "garbage": (b"\x16\x03\x01 what?\r\n\r\n", "stay"),
    "an unknown coding": (HEAD + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", "stay"),
    "no JSON": (HEAD + b"Content-Length: 2\r\n\r\n{]", "stay"),
    "more than announced": (GOOD + b"more", "stay"),
    "closed after the answer": (GOOD, "close"),
    "an error": (GOOD.replace(b"200 OK", b"503 No", 1), "stay"),
    "late": (GOOD, "late"),
    "too late": (GOOD, "too late"),
}
DELAYS = {"late": 0.05, "too late": 1.5}
"""Seconds. The gateway waits for one."""

_LINE = re.compile(r"(GET|POST|PUT|PATCH|DELETE) /(thing|passed) HTTP/1\.1")


class FaultyBackend:
    def __init__(self, random: Random, share: float) -> None:
        """`share` of the requests meet a fault."""
        self.seen: Counter[str] = Counter()
        """By X-Request-Id: whole requests."""
        self.faults: Counter[str] = Counter()
        self.garbled: list[str] = []
        """What came and was no request."""
        self.url = ""
        self._random = random
        self._share = share
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultyBackend:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=512)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        line, fields = await _request(reader)
        if not _LINE.fullmatch(line):
            self.garbled.append(line[:80])
            return False
        self.seen[fields.get("x-request-id", "")] += 1
        if self._random.random() >= self._share:
            writer.write(GOOD)
            return True
        fault = self._random.choice([*FAULTS])
        self.faults[fault] += 1
        answer, end = FAULTS[fault]
        await asyncio.sleep(DELAYS.get(end, 0))
        writer.write(answer)
        await writer.drain()
        if end == "reset":
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return end not in ("close", "reset")


async def _request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """Reads a whole one: its first line, its fields."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return "no head", {}
    line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    await reader.readexactly(int(fields.get("content-length", 0)))
    return line, fields

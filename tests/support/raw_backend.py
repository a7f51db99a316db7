"""A backend that does exactly what a test says, byte for byte, and keeps what it received.

Each accepted connection runs the next script, the last one over again:

    async def resets(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        peer.reset()

    async with RawBackend(resets, answering(ok(b"{}"))) as backend:
        ... backend.url, backend.requests, backend.peers[0].received

A script that returns closes its connection. Nothing here checks what it is sent, except to find a
request's end.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

Script = Callable[["Peer"], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """One request as it was received."""

    head: bytes
    """Up to and with the empty line."""
    body: bytes
    """Its contents; chunks undone."""

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def method(self) -> str:
        return self.line.split(b" ")[0].decode()

    @property
    def target(self) -> str:
        return self.line.split(b" ")[1].decode("latin-1")

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Fields in order, in the sender's spelling."""
        lines = self.head.split(b"\r\n")[1:-2]
        return [(name, value.strip()) for name, _, value in (x.partition(b":") for x in lines)]

    def all(self, name: str) -> list[bytes]:
        """The values of all fields of this name."""
        return [value for key, value in self.headers if key.lower() == name.lower().encode()]

    def header(self, name: str) -> bytes | None:
        return next(iter(self.all(name)), None)


class Peer:
    """The backend's end of one connection."""

    def __init__(
        self, backend: RawBackend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.received = bytearray()
        """Every byte that was read."""
        self.requests: list[Request] = []
        self.closed = asyncio.Event()
        """The connection has ended, whoever ended it; set when the script has returned."""
        self._backend = backend
        self._reader = reader
        self._writer = writer

    async def head(self) -> bytes:
        """Reads a request's head and nothing more. Empty lines before it are none of it."""
        head = b""
        while not head:
            data = await self._reader.readuntil(b"\r\n\r\n")
            self.received += data
            head = data.lstrip(b"\r\n")
        return head

    async def request(self) -> Request:
        """Reads one whole request."""
        head = await self.head()
        request = Request(head, b"")
        if (request.header("transfer-encoding") or b"").lower() == b"chunked":
            body = await self._chunks()
        else:
            body = await self.read(int(request.header("content-length") or 0))
        request = Request(head, body)
        self.requests.append(request)
        self._backend._recorded(request)
        return request

    async def read(self, size: int) -> bytes:
        data = await self._reader.readexactly(size)
        self.received += data
        return data

    async def read_some(self) -> bytes:
        """What there is; empty at the end."""
        data = await self._reader.read(65536)
        self.received += data
        return data

    async def _chunks(self) -> bytes:
        """Contents without their framing: sizes, extensions, trailers."""
        body = b""
        while size := int((await self._line()).partition(b";")[0], 16):
            body += (await self.read(size + 2))[:-2]
        while await self._line() != b"\r\n":
            pass
        return body

    async def _line(self) -> bytes:
        line = await self._reader.readuntil(b"\r\n")
        self.received += line
        return line

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a write of its own, given time to leave alone."""
        for piece in pieces:
            if self._writer.is_closing():
                raise ConnectionResetError  # uvloop's own would be a RuntimeError
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    @property
    def certificate(self) -> Any:
        """The other side's, as `SSLObject.getpeercert` has it."""
        return self._writer.get_extra_info("peercert")

    @property
    def backed_up(self) -> bool:
        """The kernel takes no more of what was sent: nobody reads."""
        return self._writer.transport.get_write_buffer_size() > 0

    def half_close(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        """Closes without a goodbye: with TLS no close_notify."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """The kernel drops what was not delivered and sends RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def fileno(self) -> int:
        """Of its socket, for what must not wait for the event loop."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        return sock.fileno()

    async def gone(self) -> None:
        """Waits until the other side has closed, reading what it still sends."""
        try:
            while await self.read_some():
                pass
        except ConnectionError:
            pass


class RawBackend:
    """Listens on a free port of loopback, or at a unix path, until the `async with` ends."""

    def __init__(
        self,
        *scripts: Script,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.scripts = list(scripts)
        self.requests: list[Request] = []
        """All requests in the order in which they were complete."""
        self.peers: list[Peer] = []
        """All connections in the order in which they came."""
        self.url = ""
        self.port = port
        self._host = host
        self._path = path
        self._tls = tls
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> RawBackend:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._accepted, self._path)
            self.url = f"unix:{self._path}"
            return self
        self._server = await asyncio.start_server(
            self._accepted, self._host, self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        name = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'https' if self._tls else 'http'}://{name}:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer._writer.transport.abort()
        await asyncio.sleep(0)
        if error is None and self._errors:
            raise self._errors[0]

    def stop_listening(self) -> None:
        """New connections are refused; those that were accepted go on."""
        self._server.close()

    @property
    def open(self) -> int:
        """Connections that have not ended."""
        return sum(not peer.closed.is_set() for peer in self.peers)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; asked whenever something was accepted, received, ended."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _recorded(self, request: Request) -> None:
        self.requests.append(request)
        self._changed.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, reader, writer)
        script = self.scripts[min(len(self.peers), len(self.scripts) - 1)]
        self.peers.append(peer)
        self._changed.set()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side left, or the test is over
        except Exception as error:
            self._errors.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()
            peer.closed.set()
            self._changed.set()


# --- scripts that many tests share ---------------------------------------------------------------


def ok(body: bytes = b"{}", *fields: str, status: str = "200 OK") -> bytes:
    """An answer with a length."""
    lines = "".join(f"{field}\r\n" for field in fields)
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{lines}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def answering(*answers: bytes) -> Script:
    """Reads a request before each answer, the last answer over again; stays open."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        while True:
            await peer.request()
            await peer.send(answers[-1])

    return script


def gated(gate: asyncio.Event, answer: bytes = b"") -> Script:
    """Answers each request once the gate is open."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await gate.wait()
            await peer.send(answer or ok())

    return script


def after_request(*pieces: bytes, end: str = "wait") -> Script:
    """Reads one request, writes the pieces, then `close`s, `reset`s, `half_close`s or waits."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        if end == "reset":
            peer.reset()
        elif end == "half_close":
            peer.half_close()
            await peer.gone()
        elif end == "wait":
            await peer.gone()

    return script


async def silent(peer: Peer) -> None:
    """Accepts, reads, never answers."""
    await peer.gone()

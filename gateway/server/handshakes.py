"""TLS handshakes that are not finished, which have places among the clients like everybody else.

asyncio's own server tells nobody of a connection before its handshake is over: any number could be
begun, at 50 kB each, and left so.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress

from gateway.server import door
from gateway.server.client import TURNED_AWAY
from gateway.server.clients import Clients
from gateway.server.listeners import BACKLOG

GOODBYE = 2.0
"""Seconds for the client's close_notify; asyncio would wait half a minute."""
AT_ONCE = 16
"""Handshakes that are begun in one go."""
BREATH = 1.0
"""Seconds in which nobody is let in when there are no descriptors left, as at asyncio's server."""


class Handshakes:
    """Of all of a worker's doors."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self.going_on: dict[asyncio.Task[None], tuple[socket.socket, str]] = {}
        """Each with its client's socket and address; oldest first."""

    def begin(self, sock: socket.socket, peer: str, context: ssl.SSLContext) -> None:
        """It has as much time as a head."""
        clients = self._clients
        if len(clients.open) + len(self.going_on) >= clients.limit + TURNED_AWAY:
            self.make_room()
        task = asyncio.create_task(self._shake(sock, context))
        self.going_on[task] = sock, peer
        task.add_done_callback(self._over)

    async def _shake(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        client = self._clients()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: client,
                sock,
                ssl=context,
                ssl_handshake_timeout=self._clients.deadlines.header,
                ssl_shutdown_timeout=GOODBYE,
            )
        except OSError:  # it came to nothing, and the socket is closed
            client.never_served()

    def _over(self, task: asyncio.Task[None]) -> None:
        self.going_on.pop(task, None)

    def make_room(self) -> bool:
        """The oldest gives way, if there is one: an honest client needs but a moment."""
        if not self.going_on:
            return False
        sock, peer = self.going_on.pop(next(iter(self.going_on)))
        self._clients.refused(door.FULL, peer)
        _end(sock)
        return True

    def close(self) -> None:
        for sock, _ in self.going_on.values():
            _end(sock)


class TlsServer:
    """Lets clients in by one door, where they begin with a handshake."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, handshakes: Handshakes
    ) -> None:
        """The socket is bound. Accepts from now on."""
        self._sock = sock
        self._context = context
        self._handshakes = handshakes
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._open()

    def close(self) -> None:
        """Nobody is let in any more; handshakes go on."""
        if self._pause is not None:
            self._pause.cancel()
        if self._sock.fileno() != -1:  # it may have been closed before
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _open(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._fall_short(exc)
                return
            sock.setblocking(False)
            peer = str(address[0]) if address else "unix"
            self._handshakes.begin(sock, peer, self._context)

    def _fall_short(self, exc: OSError) -> None:
        """No descriptor is left for the client who waits, of whom the event loop would go on
        telling."""
        context = {"message": "socket.accept() out of system resource", "exception": exc}
        self._loop.call_exception_handler(context)
        if not self._handshakes.make_room():
            self._loop.remove_reader(self._sock)
            self._pause = self._loop.call_later(BREATH, self._open)


def _end(sock: socket.socket) -> None:
    """Its transport, which closes it, hears of it as if the client had left."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)

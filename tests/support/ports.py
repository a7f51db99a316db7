"""Ports of loopback for programs that cannot choose one themselves, and for nobody at all."""

from __future__ import annotations

import socket

_held: list[socket.socket] = []


def free_port() -> int:
    """One that is nobody's while this process lives, until a program listens on it.

    It stays bound here, so that the system gives it to no connection and to no other server
    meanwhile: a slow start is time enough for that. Whoever sets SO_REUSEADDR, as servers do, can
    listen on it all the same; until then it refuses connections."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.append(sock)
    port: int = sock.getsockname()[1]
    return port

"""Where clients and operators reach us: sockets bound from settings, TLS that follows its files."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from gateway.config.settings import Listener, ListenerTls

BACKLOG = 1024
RECHECK = 5.0
"""Seconds between two looks at a certificate's files."""

log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """An address cannot be bound or a certificate cannot be read. The text is for the operator."""


@dataclass(frozen=True, slots=True)
class Door:
    """A bound socket and what is spoken there."""

    sock: socket.socket
    address: str
    """As it was bound: `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/gateway.sock`."""
    tls: ListenerTls | None = None
    file: tuple[int, int] | None = None
    """Marks of a Unix socket's own file; another gateway may have put its own in that place."""


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def bind(listener: Listener, *, shared: bool = False) -> list[Door]:
    """The listener's sockets, bound but not listening; a name may have several addresses.

    `shared`: other processes bind the same port, and the kernel deals connections out to them.
    """
    try:
        if listener.unix is not None:
            sockets = [_bind_unix(listener.unix)]
        else:
            sockets = _bind_tcp(listener.host, listener.port, shared)
        file = None if listener.unix is None else _marks(listener.unix)
        return [Door(sock, _address(sock), listener.tls, file) for sock in sockets]
    except OSError as exc:
        raise CannotListen(f"{listener.address}: {exc.strerror or exc}") from exc


def _bind_tcp(host: str, port: int, shared: bool) -> list[socket.socket]:
    found = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    )
    sockets: list[socket.socket] = []
    for family, kind, proto, _, address in dict.fromkeys(found):
        sock = socket.socket(family, kind, proto)
        sockets.append(sock)
        if port:
            # A port that the kernel draws is left alone: with this it might be drawn once more, by
            # somebody who does not listen yet either.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and len(found) > 1:
            # The IPv4 addresses of this name have sockets of their own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            # With port 0 every address gets the port that the first one was given.
            sock.bind((address[0], port or _port(sockets[0]), *address[2:]))
        except OSError:
            for each in sockets:
                each.close()
            raise
    return sockets


def _port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def _bind_unix(path: str) -> socket.socket:
    """A socket file whose owner is gone is in the way; one that somebody answers on is not ours."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
                os.unlink(path)
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def _marks(path: str) -> tuple[int, int]:
    """Of a file. The inode alone may be given out again as soon as nobody listens."""
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns


def discard(doors: Iterable[Door]) -> None:
    """Closes sockets and removes the files of Unix ones. A gateway that ends may have a successor
    at the same path, whose file stays."""
    for door in doors:
        door.sock.close()
        path = door.address.removeprefix("unix:")
        with suppress(OSError):
            if door.file is not None and _marks(path) == door.file:
                os.unlink(path)


async def listen(door: Door, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Starts accepting, where clients begin without TLS."""
    loop = asyncio.get_running_loop()
    create = loop.create_unix_server if door.sock.family == socket.AF_UNIX else loop.create_server
    return await create(protocol, sock=door.sock, backlog=BACKLOG)


class Certificate:
    """A TLS context whose certificate can change under it: connections there are keep what they
    have, new ones get the new one. Files that do not fit together leave the old one in place."""

    def __init__(self, files: ListenerTls) -> None:
        self._files = files
        self._stamp = self._stamps()
        self.context = self._load()

    def refresh(self) -> None:
        """Reads the files again if they have changed; to be called now and then."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load()
            self.context.load_cert_chain(self._files.cert, self._files.key, password="")
        except CannotListen as exc:
            log.error("certificate_not_reloaded", reason=str(exc))
        else:
            log.info("certificate_reloaded", cert=self._files.cert)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._files.cert, self._files.key, password="")
        except (OSError, ssl.SSLError) as exc:
            # The text of an SSLError names OpenSSL's reason and no contents.
            reason = getattr(exc, "strerror", None) or str(exc)
            raise CannotListen(f"{self._files.cert}: {reason}") from exc
        return context

    def _stamps(self) -> tuple[object, ...]:
        """Kubernetes swaps a symlink on the way to the files: the inode changes at least."""
        stamps: list[object] = []
        for path in (self._files.cert, self._files.key):
            with suppress(OSError):
                found = os.stat(path)
                stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(stamps)


class Certificates:
    """All of a process's certificates, looked at now and then."""

    def __init__(self) -> None:
        self._all: list[Certificate] = []
        self._recheck: asyncio.TimerHandle | None = None

    def context(self, door: Door) -> ssl.SSLContext | None:
        """What is spoken at this door. Raises `CannotListen`."""
        if door.tls is None:
            return None
        self._all.append(Certificate(door.tls))
        return self._all[-1].context

    def refresh(self) -> None:
        for certificate in self._all:
            certificate.refresh()

    def watch(self) -> None:
        """To be called once, when all are there."""
        self.refresh()
        if self._all:
            self._recheck = asyncio.get_running_loop().call_later(RECHECK, self.watch)

    def close(self) -> None:
        if self._recheck is not None:
            self._recheck.cancel()

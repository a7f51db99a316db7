"""Where the backend is, and how one connection to it is made.

Everything that can go wrong on the way to a connection becomes a `Failure` here, so nobody else
needs to know what a resolver, a kernel or a TLS library can complain about.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from gateway.batch import Failure
from gateway.config import Upstream, UpstreamTls

RESOLVED_SECONDS: Final = 1.0
"""How long addresses are believed, whatever their TTL, which the resolver does not tell. A crowd of
new connections asks once, and those after a change go to the new address (RELIABILITY part 9)."""
HAPPY_EYEBALLS: Final = 0.25
"""RFC 8305 5: the head start of one address over the next."""
TLS_GOODBYE: Final = 1.0
"""Seconds for the other side's close_notify; asyncio would wait half a minute."""

Address = AddrInfoType
P = TypeVar("P", bound=asyncio.Protocol)


class Origin:
    """Scheme, host and port of `upstream.url`, or its socket's path."""

    def __init__(self, upstream: Upstream) -> None:
        self._connect_seconds = upstream.timeouts.connect
        if upstream.url.startswith("unix:"):
            self.path: str | None = upstream.url.removeprefix("unix:")
            self.host, self.port, self.tls = "localhost", 80, None
        else:
            url = urlsplit(upstream.url)
            self.path = None
            self.host = url.hostname or ""
            self.port = url.port or (443 if url.scheme == "https" else 80)
            self.tls = _Tls(upstream.tls, self.host) if url.scheme == "https" else None
        self.authority = upstream.authority
        """What `Host` says when `upstream.host` is `upstream`."""
        self._addresses = _Addresses(self.host, self.port)

    async def connect(self, make: Callable[[], P]) -> P | Failure:
        """A new connection with `make`'s protocol on it, or why there is none."""
        attempt = _Attempt(self, make)
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await attempt.run()
        except TimeoutError:
            return Failure("connection_timeout", f"{attempt.stage}_timeout")
        except (OSError, RuntimeError, ValueError) as error:
            # uvloop says some of it as RuntimeError; a name that cannot be one is a ValueError.
            return attempt.failure(error)

    async def addresses(self) -> Sequence[Address]:
        return await self._addresses.get()

    def distrust(self) -> None:
        """The addresses did not answer: ask for them again."""
        self._addresses.forget()


class _Attempt(Generic[P]):
    """One way to a connection, which knows how far it came."""

    def __init__(self, origin: Origin, make: Callable[[], P]) -> None:
        self.stage = "connect"
        self._origin = origin
        self._make = make

    async def run(self) -> P:
        loop = asyncio.get_running_loop()
        origin = self._origin
        if origin.path is not None:
            return (await loop.create_unix_connection(self._make, origin.path))[1]
        self.stage = "dns"
        addresses = await origin.addresses()
        self.stage = "connect"
        sock = await start_connection(
            addresses, happy_eyeballs_delay=HAPPY_EYEBALLS, interleave=1, loop=loop
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.tls is None:
                return (await loop.create_connection(self._make, sock=sock))[1]
            self.stage = "tls"
            return await self._secure(loop, sock, origin.tls)
        except BaseException:
            sock.close()
            raise

    async def _secure(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, tls: _Tls) -> P:
        _, protocol = await loop.create_connection(
            self._make,
            sock=sock,
            ssl=tls.context(),
            server_hostname=tls.server_name,
            ssl_handshake_timeout=self._origin._connect_seconds,
            ssl_shutdown_timeout=TLS_GOODBYE,
        )
        return protocol

    def failure(self, error: Exception) -> Failure:
        """What this error means to the client. Never its text."""
        if self.stage == "dns":
            return Failure("dns_error", "unresolved")
        if isinstance(error, ssl.SSLCertVerificationError):
            return Failure("tls_certificate_error", "certificate_refused")
        if isinstance(error, ssl.SSLError):
            return Failure("tls_protocol_error", "handshake")
        if self.stage == "tls":
            return Failure("tls_protocol_error", "handshake_closed")
        self._origin.distrust()
        number = error.errno if isinstance(error, OSError) else 0
        return _CONNECT_FAILURES.get(number or 0, _UNREACHABLE)


_UNREACHABLE = Failure("destination_unavailable", "unreachable")
_OUT_OF_DESCRIPTORS = Failure("connection_limit_reached", "descriptors")
_CONNECT_FAILURES = {
    errno.ECONNREFUSED: Failure("connection_refused", "refused"),
    errno.ECONNRESET: Failure("connection_terminated", "reset"),
    errno.ENOENT: Failure("destination_unavailable", "no_socket"),
    errno.EACCES: Failure("destination_unavailable", "not_allowed"),
    errno.ETIMEDOUT: Failure("connection_timeout", "connect_timeout"),
    errno.EMFILE: _OUT_OF_DESCRIPTORS,
    errno.ENFILE: _OUT_OF_DESCRIPTORS,
}


class _Addresses:
    """The name's addresses. One question at a time, whoever asks: a resolver that hangs holds one
    thread, not all."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._known: list[Address] = []
        self._preferred: int = socket.AF_UNSPEC
        self._until = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def get(self) -> Sequence[Address]:
        if monotonic() >= self._until:
            if self._asking is None:
                self._asking = asyncio.create_task(self._learn())
            await asyncio.shield(self._asking)
        self._known.append(self._known.pop(0))
        # Each in its turn, but the family that the system prefers goes first (RFC 6724).
        return sorted(self._known, key=lambda address: address[0] != self._preferred)

    def forget(self) -> None:
        self._until = 0.0

    async def _learn(self) -> None:
        # In the task, not in a callback of it: whoever comes between the two would find a question
        # that has been answered and no answer.
        try:
            self._known = await self._ask()
            self._preferred = self._known[0][0]
            self._until = monotonic() + RESOLVED_SECONDS
        finally:
            self._asking = None

    async def _ask(self) -> list[Address]:
        loop = asyncio.get_running_loop()
        return [*await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)]


class _Tls:
    """The client's side of TLS, read again when one of its files changes."""

    def __init__(self, settings: UpstreamTls, host: str) -> None:
        self.server_name = settings.server_name or host
        self._settings = settings
        self._files = [f for f in (settings.ca, settings.cert, settings.key) if f is not None]
        self._seen = self._stamps()
        self._context = self._read()

    def context(self) -> ssl.SSLContext:
        """For the next connection. Files that do not fit together, as in the middle of a renewal,
        leave the old ones in force."""
        try:
            stamps = self._stamps()
            if stamps != self._seen:
                self._context = self._read()
                self._seen = stamps
        except (OSError, ssl.SSLError):
            pass
        return self._context

    def _stamps(self) -> list[tuple[int, int, int]]:
        """Through symbolic links, which is how Kubernetes swaps a mounted secret."""
        return [(s.st_mtime_ns, s.st_ino, s.st_size) for s in map(os.stat, self._files)]

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._settings.ca)
        context.set_alpn_protocols(["http/1.1"])
        if self._settings.cert is not None:
            context.load_cert_chain(self._settings.cert, self._settings.key)
        if not self._settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

"""Asks a running gateway whether it is ready: for container health checks, without a client."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from gateway.config import Listener

PATIENCE = 2.0
"""Seconds; a gateway that takes longer is not ready."""

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to ask one that listens on all addresses."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


def ready(connection: http.client.HTTPConnection) -> tuple[bool, str]:
    """Whether `/readyz` says yes, and what to tell a person."""
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}"
    finally:
        connection.close()
    return answer.status == 200, f"{answer.status} {answer.reason}"


def of_listener(ops: Listener) -> http.client.HTTPConnection:
    if ops.unix:
        return _UnixConnection(ops.unix)
    host = ANYWHERE.get(ops.host, ops.host)
    return _tcp(host, ops.port, secure=ops.tls is not None)


def of_url(url: str) -> http.client.HTTPConnection:
    """Raises ValueError for what is no URL of http or https."""
    parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected http://host:port")
    return _tcp(parts.hostname, parts.port, secure=parts.scheme == "https")


def _tcp(host: str, port: int | None, *, secure: bool) -> http.client.HTTPConnection:
    if not secure:
        return http.client.HTTPConnection(host, port, timeout=PATIENCE)
    # Whether it is ready is no secret, and its certificate is made out to another name than this.
    context = ssl._create_unverified_context()
    return http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=context)

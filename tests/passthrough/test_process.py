"""Every shape of the table again, through the gateway as it is delivered: a process of its own on
its own event loop, over each kind of socket."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.passthrough.scripts import telling
from tests.passthrough.shapes import OK, SHAPES, Shape, ask
from tests.passthrough.test_shapes import NAME, arrivals, both, converse, expected_of, talk
from tests.support.program import program
from tests.support.raw_backend import RawBackend, Request, Script

TESTS = Path(__file__).parents[1]
KEYS = TESTS / "upstream" / "tls"
CERTIFICATE = {"cert": str(TESTS / "tls" / "first.crt"), "key": str(TESTS / "tls" / "first.key")}


@pytest.mark.parametrize("kind", ["TCP", "unix", "TLS"])
async def test_as_it_is_delivered_both_ends_get_what_they_would_get_without_it(
    kind: str, tmp_path: Path
) -> None:
    different = {}
    async with listening(kind, tmp_path) as backend:
        settings, options = settings_for(kind, tmp_path, backend.url)
        async with program(tmp_path, settings) as gateway:
            for name, shape in SHAPES.items():
                hear(backend, shape.script())
                straight, received = await talk(shape, through=False)
                async with asyncio.timeout(20):
                    through = await converse(gateway.address, shape, **options)
                expected, got = both(shape, straight, through)
                arrived = arrivals(backend.requests)
                if (got, arrived) != (expected, expected_of(shape, received)):
                    different[name] = (expected, got, arrived)
            hear(backend, telling(OK))
            async with asyncio.timeout(20):
                await converse(gateway.address, Shape((ask("GET /"),), (), ("GET",)), **options)
            assert came(backend.requests[0]) == CAME[kind]
    assert different == {}


CAME = {
    "TCP": {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"},
    "unix": {"x-forwarded-proto": "http"},
    "TLS": {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https"},
}


def came(request: Request) -> dict[str, str]:
    """How the client came, as the backend is told."""
    told = {name.decode().lower(): value.decode() for name, value in request.headers}
    return {name: told[name] for name in CAME["TCP"] if name in told}


def hear(backend: RawBackend, script: Script) -> None:
    """From now on its connections follow this one; those that followed another end."""
    for peer in backend.peers:
        peer.abort()
    backend.peers.clear()
    backend.requests.clear()
    backend.scripts[:] = [script]


def listening(kind: str, folder: Path) -> RawBackend:
    if kind == "unix":
        return RawBackend(path=f"{folder}/backend")
    context = None
    if kind == "TLS":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(KEYS / "server.pem")
    return RawBackend(tls=context)


def settings_for(kind: str, folder: Path, url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gateway's, and what its client needs to connect."""
    upstream: dict[str, Any] = {"url": url}
    listen: Any = "127.0.0.1:0"
    options: dict[str, Any] = {}
    if kind == "unix":
        listen = f"unix:{folder}/gateway"
    if kind == "TLS":
        listen = {"address": listen, "tls": CERTIFICATE}
        upstream["tls"] = {"ca": str(KEYS / "ca.pem")}
        options["ssl"] = ssl.create_default_context(cafile=CERTIFICATE["cert"])
        options["ssl"].check_hostname = False
    return {"name": NAME, "listen": listen, "upstream": upstream}, options

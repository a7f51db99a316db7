"""A backend that cannot be had: every subrequest says so, no write was sent, and when the backend
is back the next batch works."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.config.settings import Timeouts, UpstreamTls
from gateway.upstream.connection import Connection
from gateway.upstream.origin import Origin, _Addresses
from tests.faults.conftest import SetStage
from tests.faults.stage import Stage, committing, errors, statuses
from tests.support.ports import free_port
from tests.support.raw_backend import Peer, RawBackend, Script, ok, silent
from tests.upstream.test_origin import CA, Resolver, server

Place = AbstractAsyncContextManager[int]
"""The port that the gateway knows, for as long as nobody serves there."""


@asynccontextmanager
async def nobody() -> AsyncIterator[int]:
    yield free_port()


@asynccontextmanager
async def full() -> AsyncIterator[int]:
    """A listener with a full queue drops what comes."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def serving(script: Script, context: Callable[[], ssl.SSLContext] | None = None) -> Place:
    @asynccontextmanager
    async def place() -> AsyncIterator[int]:
        async with RawBackend(script, tls=context() if context else None) as backend:
            yield backend.port

    return place()


async def resets(peer: Peer) -> None:
    peer.reset()


async def hangs_up(peer: Peer) -> None:
    await peer.read_some()


async def speaks_plainly(peer: Peer) -> None:
    await peer.read_some()
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await peer.gone()


def wants_a_certificate() -> ssl.SSLContext:
    """Ours, which we have not; with TLS 1.3 that would show after the handshake alone."""
    context = server(clients=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


class Away(NamedTuple):
    place: Callable[[], Place]
    status: int
    error: str
    tls: bool = False
    sent: bool | None = False
    """None: whether a byte of it left before is the kernel's to decide."""


CERTIFICATE = "tls_certificate_error"
HANDSHAKE = "tls_protocol_error"

FAULTS = {
    "refused": Away(nobody, 502, "connection_refused"),
    "connect timeout": Away(full, 504, "connection_timeout"),
    "TLS: a stranger's certificate": Away(
        lambda: serving(silent, lambda: server("stranger")), 502, CERTIFICATE, tls=True
    ),
    "TLS: an expired certificate": Away(
        lambda: serving(silent, lambda: server("expired")), 502, CERTIFICATE, tls=True
    ),
    "TLS: another's certificate": Away(
        lambda: serving(silent, lambda: server("elsewhere")), 502, CERTIFICATE, tls=True
    ),
    "TLS: our certificate is missing": Away(
        lambda: serving(silent, wants_a_certificate), 502, HANDSHAKE, tls=True
    ),
    "TLS: plain HTTP instead": Away(lambda: serving(speaks_plainly), 502, HANDSHAKE, tls=True),
    "TLS: closed in the handshake": Away(lambda: serving(hangs_up), 502, HANDSHAKE, tls=True),
    "TLS: reset in the handshake": Away(lambda: serving(resets), 502, HANDSHAKE, tls=True),
    "TLS: silence in the handshake": Away(
        lambda: serving(silent), 504, "connection_timeout", tls=True
    ),
}


def settings(away: Away) -> dict[str, Any]:
    return {
        "timeouts": Timeouts(connect=0.3 if away.status == 504 else 2.0),
        "tls": UpstreamTls(ca=CA),
    }


@pytest.mark.parametrize("name", FAULTS)
async def test_a_backend_that_cannot_be_had_fails_every_subrequest_and_nothing_was_sent(
    name: str, stage: SetStage
) -> None:
    away = FAULTS[name]
    async with AsyncExitStack() as fault:
        port = await fault.enter_async_context(away.place())
        url = f"http{'s' if away.tls else ''}://127.0.0.1:{port}"
        async with stage(url, upstream=settings(away)) as it:
            results = await it.results("GET x", "POST x", "GET x")
            assert statuses(results) == [away.status] * 3
            assert errors(results) == [away.error] * 3
            assert [r.sent for r in results] == [False] * 3
            await fault.aclose()
            await back(it, port, away)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_backend_that_cannot_be_had_is_an_error_for_what_passes_through(
    name: str, stage: SetStage
) -> None:
    away = FAULTS[name]
    async with AsyncExitStack() as fault:
        port = await fault.enter_async_context(away.place())
        url = f"http{'s' if away.tls else ''}://127.0.0.1:{port}"
        async with stage(url, upstream=settings(away)) as it:
            for method in ("GET", "POST"):
                passed = await it.passed(method, "x")
                assert (passed.status, passed.error) == (away.status, away.error)
                assert b'"sent":false' in passed.body
            await fault.aclose()
            await back(it, port, away)


async def back(it: Stage, port: int, away: Away) -> None:
    """Somebody serves there again."""
    context = server() if away.tls else None
    async with RawBackend(committing(hangs_up), port=port, tls=context) as backend:
        it.watch(backend)
        await it.works()


async def test_a_connection_that_is_reset_as_soon_as_it_is_there(stage: SetStage) -> None:
    """Whether a byte left before is the kernel's to decide: each result says what is known."""
    async with RawBackend(resets) as backend, stage(backend.url) as it:
        it.watch(backend)
        results = await it.results("GET x", "POST x", "GET x")
        assert statuses(results) == [502] * 3
        assert all(result.error and result.sent is not None for result in results)
        assert (await it.passed("POST", "x", b"{}")).status == 502
        backend.scripts = [committing(hangs_up)]
        await it.works()


async def test_a_socket_file_that_is_not_there_yet(stage: SetStage, tmp_path: Path) -> None:
    path = str(tmp_path / "crm.sock")
    async with stage(f"unix:{path}") as it:
        await had_nothing(it, 502, "destination_unavailable")
        async with RawBackend(committing(hangs_up), path=path) as backend:
            it.watch(backend)
            await it.works()


async def had_nothing(it: Stage, status: int, error: str) -> None:
    """No subrequest and no passed request reaches a backend."""
    results = await it.results("GET x", "POST x")
    assert [(r.status, r.error, r.sent) for r in results] == [(status, error, False)] * 2
    passed = await it.passed("POST", "x")
    assert (passed.status, passed.error) == (status, error)
    assert b'"sent":false' in passed.body


def when_connected(
    patch: pytest.MonkeyPatch, then: Callable[[Connection], Awaitable[None]]
) -> None:
    """Has something happen to each new connection before the gateway has it."""
    connect = Origin.connect

    async def connected(origin: Origin, make: Callable[[], Connection]) -> Any:
        connection = await connect(origin, make)
        assert isinstance(connection, Connection)
        await then(connection)
        return connection

    patch.setattr(Origin, "connect", connected)


@pytest.mark.parametrize("heard", [True, False])
async def test_what_a_backend_says_before_it_is_asked_is_no_answer(
    heard: bool, stage: SetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the event loop has read it by then, or it still lies in the kernel."""

    async def greeted(connection: Connection) -> None:
        await backend.until(lambda: backend.open == 1)
        os.write(backend.peers[-1].fileno(), ok(b"forged"))
        while heard and connection.alive:
            await asyncio.sleep(0)

    async with RawBackend(silent) as backend, stage(backend.url) as it:
        it.watch(backend)
        with monkeypatch.context() as patch:
            when_connected(patch, greeted)
            for method in ("GET", "POST"):
                (result,) = await it.results(f"{method} x")
                assert (result.error, result.sent) == ("http_protocol_error", False)
                passed = await it.passed(method, "x")
                assert (passed.status, passed.error) == (502, "http_protocol_error")
        backend.scripts = [committing(hangs_up)]
        await it.works()


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("heard", [True, False])
async def test_a_connection_that_ends_before_anything_was_sent(
    heard: bool, end: str, stage: SetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was never there, so also a write may be tried again on another one, and nothing of it is
    called an answer."""
    over: list[Peer] = []

    async def ended(connection: Connection) -> None:
        await backend.until(lambda: len(backend.peers) > len(over))
        over.append(backend.peers[-1])
        getattr(over[-1], end)()
        while connection.alive and (heard or not connection.readable()):
            await asyncio.sleep(0)

    async with RawBackend(silent) as backend, stage(backend.url) as it:
        it.watch(backend)
        with monkeypatch.context() as patch:
            when_connected(patch, ended)
            (result,) = await it.results("POST x")
            assert (result.error, result.sent) == ("connection_terminated", False)
            assert len(backend.peers) == 2
            passed = await it.passed("POST", "x")
            assert (passed.status, passed.error) == (502, "connection_terminated")
        backend.scripts = [committing(hangs_up)]
        await it.works()


# --- names ---------------------------------------------------------------------------------------


async def test_a_name_that_does_not_resolve_and_then_does(
    stage: SetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = RawBackend(committing(hangs_up))
    async with backend:
        resolver = Resolver(socket.gaierror(-2, "unknown"))
        monkeypatch.setattr(_Addresses, "_ask", lambda self: resolver.ask())
        async with stage("http://crm.test") as it:
            it.watch(backend)
            await had_nothing(it, 502, "dns_error")
            resolver.answers = [[("127.0.0.1", backend.port)]]
            await it.works()


async def test_a_resolver_that_hangs_and_then_answers(
    stage: SetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawBackend(committing(hangs_up)) as backend:
        resolver = Resolver([("127.0.0.1", backend.port)])
        resolver.gate.clear()
        monkeypatch.setattr(_Addresses, "_ask", lambda self: resolver.ask())
        async with stage("http://crm.test", upstream={"timeouts": Timeouts(connect=0.3)}) as it:
            it.watch(backend)
            await had_nothing(it, 504, "connection_timeout")
            resolver.gate.set()
            await it.works()


async def test_a_name_that_moves_to_another_address(
    stage: SetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is left at the old one: the new one is asked for, and no subrequest is lost."""
    async with RawBackend(committing(hangs_up)) as old, RawBackend(committing(hangs_up)) as new:
        resolver = Resolver([("127.0.0.1", old.port)])
        monkeypatch.setattr(_Addresses, "_ask", lambda self: resolver.ask())
        async with stage("http://crm.test") as it:
            it.watch(old)
            it.watch(new)
            await it.works()
            resolver.answers = [[("127.0.0.1", new.port)]]
            await old.__aexit__(None, None, None)
            await it.results("GET well")  # the old address is found to be refusing
            await it.works()
            assert new.requests

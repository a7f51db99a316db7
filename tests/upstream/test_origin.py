"""The ways to the backend: TCP, TLS, unix sockets, names with several addresses; and how each of
them can fail."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from gateway.upstream import CHUNKED, Origin
from gateway.upstream.origin import Address, _Addresses
from tests.support.ports import free_port
from tests.support.raw_backend import (
    Peer,
    RawBackend,
    after_request,
    answering,
    ok,
    silent,
)
from tests.upstream.conftest import MakePool, Owner, configured, failure, until
from tests.upstream.test_exchange import Client, upload

TLS = Path(__file__).parent / "tls"
CA = str(TLS / "ca.pem")


def server(certificate: str = "server", *, clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / f"{certificate}.pem")
    if clients:
        context.load_verify_locations(CA)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def named(url: str, name: str = "localhost") -> str:
    return url.replace("127.0.0.1", name)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://crm.example", "crm.example"),
        ("http://crm.example:80", "crm.example"),
        ("http://crm.example:8080", "crm.example:8080"),
        ("http://crm.example:443", "crm.example:443"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("unix:/run/crm.sock", "localhost"),
    ],
)
def test_an_origin_knows_how_it_is_called(url: str, authority: str) -> None:
    assert Origin(configured(url)[0]).authority == authority


# --- sockets -------------------------------------------------------------------------------------


async def test_a_unix_socket(pool_for: MakePool, tmp_path: Path) -> None:
    async with (
        RawBackend(answering(ok(b"hello")), path=str(tmp_path / "crm.sock")) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        assert (await owner.get()).body == b"hello"
        assert (await owner.get(method="POST")).body == b"hello"
    assert len(backend.peers) == 1


async def test_a_unix_socket_that_is_not_there(pool_for: MakePool, tmp_path: Path) -> None:
    async with pool_for(f"unix:{tmp_path}/none.sock") as pool:
        reply = await Owner(pool).get()
        assert failure(reply) == ("destination_unavailable", "no_socket")
        assert pool.retries == {"connect": 1}


async def test_ipv6(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok(b"hello")), host="::1") as backend,
        pool_for(backend.url) as pool,
    ):
        assert (await Owner(pool).get()).body == b"hello"


async def test_no_descriptors_left_is_a_503(
    pool_for: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*args: Any, **kwargs: Any) -> Any:
        raise OSError(24, "Too many open files")

    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        with monkeypatch.context() as patch:
            patch.setattr("gateway.upstream.origin.start_connection", exhausted)
            reply = await Owner(pool).get()
        assert failure(reply) == ("connection_limit_reached", "descriptors")
        assert reply.status == 503


# --- names ---------------------------------------------------------------------------------------


class Resolver:
    """Answers what a test says, and counts questions."""

    def __init__(self, *answers: list[tuple[str, int]] | Exception) -> None:
        self.answers = list(answers)
        self.questions = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self) -> list[Address]:
        self.questions += 1
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [
            (
                socket.AF_INET6 if ":" in host else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (host, port, 0, 0) if ":" in host else (host, port),
            )
            for host, port in answer
        ]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(*answers: list[tuple[str, int]] | Exception) -> Resolver:
        resolver = Resolver(*answers)
        monkeypatch.setattr(_Addresses, "_ask", lambda self: resolver.ask())
        return resolver

    return use


async def test_a_name_that_does_not_resolve(pool_for: MakePool, resolve: Any) -> None:
    resolve(socket.gaierror(-2, "Name or service not known"))
    async with pool_for("http://crm.test") as pool:
        reply = await Owner(pool).get()
        assert failure(reply) == ("dns_error", "unresolved")
        assert reply.status == 502
        assert not pool.retries


async def test_a_resolver_that_hangs_is_asked_once_and_given_up(
    pool_for: MakePool, resolve: Any
) -> None:
    resolver = resolve([("127.0.0.1", 1)])
    resolver.gate.clear()
    async with pool_for("http://crm.test", connect=0.1) as pool:
        owner = Owner(pool)
        for _ in range(3):
            owner.send()
        replies = await owner.count(3)
        assert {failure(reply) for reply in replies} == {("connection_timeout", "dns_timeout")}
        assert resolver.questions == 1
        resolver.gate.set()
        await until(lambda: pool.origin._addresses._asking is None)


async def test_who_asks_as_the_answer_comes_has_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    comes = asyncio.Event()
    found = await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)

    async def ask(_: _Addresses) -> Any:
        comes.set()
        return found[:1]

    async def late() -> Any:
        await comes.wait()
        return await addresses.get()

    monkeypatch.setattr(_Addresses, "_ask", ask)
    addresses = _Addresses("crm.test", 80)
    task = asyncio.ensure_future(late())
    await asyncio.sleep(0)
    assert await addresses.get() == await task == found[:1]


async def test_an_address_is_remembered_for_a_second(pool_for: MakePool, resolve: Any) -> None:
    async with RawBackend(answering(ok())) as backend:
        resolver = resolve([("127.0.0.1", backend.port)])
        async with pool_for("http://crm.test") as pool:
            owner = Owner(pool)
            for _ in range(5):
                owner.send()
            await owner.count(5)
            assert resolver.questions == 1
            assert pool.origin._addresses._until <= monotonic() + 1
            pool.origin._addresses._until = 0.0  # a second later
            for _ in range(6):
                owner.send()
            await owner.count(11)
    assert resolver.questions == 2


async def test_an_address_that_no_longer_answers_is_asked_for_again(
    pool_for: MakePool, resolve: Any
) -> None:
    async with RawBackend(answering(ok())) as backend:
        resolver = resolve([("127.0.0.1", free_port())], [("127.0.0.1", backend.port)])
        async with pool_for("http://crm.test") as pool:
            assert (await Owner(pool).get()).status == 200
            assert pool.retries == {"connect": 1}
    assert resolver.questions == 2


# Addresses take turns: the second of a list goes first.


async def test_the_next_address_is_tried_when_one_refuses(pool_for: MakePool, resolve: Any) -> None:
    async with RawBackend(answering(ok())) as backend:
        resolve([("127.0.0.1", backend.port), ("127.0.0.1", free_port()), ("::1", free_port())])
        async with pool_for("http://crm.test") as pool:
            assert (await Owner(pool).get()).status == 200
            assert not pool.retries


async def test_an_address_that_hangs_holds_nobody_up_for_long(
    pool_for: MakePool, resolve: Any
) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        async with RawBackend(answering(ok())) as backend:
            resolve([("127.0.0.1", backend.port), full.getsockname()])
            async with pool_for("http://crm.test", connect=60.0) as pool:
                assert (await Owner(pool).get()).status == 200


async def test_connections_spread_over_the_addresses(pool_for: MakePool, resolve: Any) -> None:
    async with RawBackend(silent) as one, RawBackend(silent) as two:
        resolve([("127.0.0.1", one.port), ("127.0.0.1", two.port)])
        async with pool_for("http://crm.test") as pool:
            owner = Owner(pool)
            for _ in range(4):
                owner.send()
            await until(lambda: pool.busy == 4)
            assert (len(one.peers), len(two.peers)) == (2, 2)
            owner.lane.close()


# --- TLS -----------------------------------------------------------------------------------------


async def test_tls_keeps_its_connections_as_plain_ones_do(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok(b"hello")), tls=server()) as backend,
        pool_for(backend.url, ca=CA) as pool,
    ):
        owner = Owner(pool)
        for method in ("GET", "POST", "GET", "POST", "POST"):
            assert (await owner.get(method=method)).body == b"hello"
    assert len(backend.peers) == 1


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_the_urls_name_is_asked_for_and_verified(pool_for: MakePool, name: str) -> None:
    asked: list[str | None] = []
    context = server()
    context.sni_callback = lambda sock, sni, ctx: asked.append(sni)
    async with (
        RawBackend(answering(ok()), tls=context) as backend,
        pool_for(named(backend.url, name), ca=CA) as pool,
    ):
        assert (await Owner(pool).get()).status == 200
    assert asked == [None if name == "127.0.0.1" else name]


async def test_another_name_can_be_asked_for(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok()), tls=server("elsewhere")) as backend,
        pool_for(backend.url, ca=CA, server_name="elsewhere.test") as pool,
    ):
        assert (await Owner(pool).get()).status == 200


@pytest.mark.parametrize("certificate", ["stranger", "expired", "elsewhere"])
async def test_a_certificate_that_does_not_hold_is_refused(
    pool_for: MakePool, certificate: str
) -> None:
    async with (
        RawBackend(answering(ok()), tls=server(certificate)) as backend,
        pool_for(backend.url, ca=CA) as pool,
    ):
        reply = await Owner(pool).get()
        assert failure(reply) == ("tls_certificate_error", "certificate_refused")
        assert reply.status == 502
        assert reply.failure
        assert not reply.failure.sent
        assert not pool.retries


async def test_the_systems_authorities_do_not_know_ours(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok()), tls=server()) as backend,
        pool_for(backend.url) as pool,
    ):
        assert failure(await Owner(pool).get())[0] == "tls_certificate_error"


async def test_verification_can_be_switched_off(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok()), tls=server("expired")) as backend,
        pool_for(backend.url, verify=False) as pool,
    ):
        assert (await Owner(pool).get()).status == 200


async def test_a_backend_that_does_not_speak_tls(pool_for: MakePool) -> None:
    async def plain(peer: Peer) -> None:
        await peer.read_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with (
        RawBackend(plain) as backend,
        pool_for(backend.url.replace("http", "https"), ca=CA) as pool,
    ):
        assert failure(await Owner(pool).get()) == ("tls_protocol_error", "handshake")


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_handshake_that_breaks_off(pool_for: MakePool, end: str) -> None:
    async def leaves(peer: Peer) -> None:
        await peer.read_some()
        if end == "reset":
            peer.reset()

    async with (
        RawBackend(leaves) as backend,
        pool_for(backend.url.replace("http", "https"), ca=CA) as pool,
    ):
        assert failure(await Owner(pool).get())[0] == "tls_protocol_error"


async def test_a_handshake_that_hangs(pool_for: MakePool) -> None:
    async with (
        RawBackend(silent) as backend,
        pool_for(backend.url.replace("http", "https"), ca=CA, connect=0.2) as pool,
    ):
        reply = await Owner(pool).get()
        assert failure(reply) == ("connection_timeout", "tls_timeout")
        assert reply.status == 504
        assert pool.retries == {"connect": 1}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_missing_client_certificate_is_a_tls_failure(
    pool_for: MakePool, version: ssl.TLSVersion
) -> None:
    """With TLS 1.3 it shows after the handshake, when the call was sent. asyncio's own server ends
    such a connection without saying why, hence the thread."""
    context = server(clients=True)
    context.minimum_version = context.maximum_version = version

    def refuse(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with context.wrap_socket(peer, server_side=True, do_handshake_on_connect=False) as tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            while os.read(tls.fileno(), 4096):
                pass  # closed with bytes unread, the reset would overtake the alert

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=[listener])
        thread.start()
        async with pool_for(f"https://127.0.0.1:{listener.getsockname()[1]}", ca=CA) as pool:
            reply = await Owner(pool).get()
        thread.join()
    assert failure(reply)[0] == "tls_protocol_error"
    assert reply.failure
    assert reply.failure.sent == (version is ssl.TLSVersion.TLSv1_3)


async def test_a_client_certificate_is_shown_and_read_again_when_it_changes(
    pool_for: MakePool, tmp_path: Path
) -> None:
    pem = tmp_path / "client.pem"

    def install(source: Path) -> None:
        """As Kubernetes does: another file under the same name."""
        shutil.copy(source, tmp_path / "new")
        os.replace(tmp_path / "new", pem)

    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN CERTIFICATE-----\n")
    install(TLS / "client.pem")
    subjects: list[str] = []

    async def script(peer: Peer) -> None:
        subjects.append(peer.certificate["subject"][0][0][1])
        await peer.request()
        await peer.send(ok(b"", "Connection: close"))

    async with (
        RawBackend(script, tls=server(clients=True)) as backend,
        pool_for(backend.url, ca=CA, cert=str(pem), key=str(pem)) as pool,
    ):
        owner = Owner(pool)
        for source in (TLS / "client.pem", broken, TLS / "client2.pem"):
            install(source)
            assert (await owner.get()).status == 200
        pem.unlink()
        assert (await owner.get()).status == 200
    assert subjects == ["first", "first", "second", "second"]


async def test_tls_cut_without_a_goodbye_is_no_end_of_an_answer(pool_for: MakePool) -> None:
    """Anybody on the way can cut a TCP connection; only the backend can say goodbye."""

    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n", b"half of")
        peer.abort()

    async with (
        RawBackend(cut, tls=server()) as backend,
        pool_for(backend.url, ca=CA) as pool,
    ):
        assert failure(await Owner(pool).get())[0] == "http_response_incomplete"


async def test_tls_with_a_goodbye_ends_an_answer_without_a_length(pool_for: MakePool) -> None:
    script = after_request(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it", end="close")
    async with (
        RawBackend(script, tls=server()) as backend,
        pool_for(backend.url, ca=CA) as pool,
    ):
        assert (await Owner(pool).get()).body == b"all of it"


async def test_megabytes_go_both_ways_through_tls(pool_for: MakePool) -> None:
    size = 5_000_000

    async def echo(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(ok(request.body))
        await peer.gone()

    async with (
        RawBackend(echo, tls=server()) as backend,
        pool_for(backend.url, ca=CA) as pool,
    ):
        client = Client(pool, "PUT", upload=CHUNKED)
        await upload(client, *[bytes(100_000)] * (size // 100_000))
        await client.over()
        assert len(client.body) == size


async def test_a_tunnel_through_tls_ends_when_the_client_ends_it(pool_for: MakePool) -> None:
    async def echo(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        while data := await peer.read_some():
            await peer.send(data)

    async with (
        RawBackend(echo, tls=server()) as backend,
        pool_for(backend.url, ca=CA) as pool,
    ):
        client = Client(pool, upgrade=True)
        await client.until(lambda: client.head)
        client.exchange.write(b"hello")
        await client.until(lambda: client.body == b"hello")
        client.exchange.write_eof()
        await backend.peers[0].closed.wait()
        await client.over()

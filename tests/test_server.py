"""The server's promises to clients and operators, over real sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.answer import BodyStalled, ClientAnswer, invite, problem, wire
from gateway.batch import Failure
from gateway.config.settings import Listener, ListenerTls
from gateway.server import CannotListen, door, listeners, process
from gateway.server.client import HEAD, LINGER
from gateway.server.clients import AT_ONCE
from gateway.server.worker import Gateway, serving
from tests.front import SETTINGS, FakeApp, eventually, get, house, raw, sent

TLS = Path(__file__).parent / "tls"
PROJECT = Path(__file__).parent.parent


async def plain(request: web.BaseRequest) -> ClientAnswer:
    """Says what it got."""
    invite(request)
    body = await request.content.read()
    text = f"{request.method} {request.raw_path} {body.decode('latin-1')}"
    return ClientAnswer(request, 200).finish(text.encode("latin-1"))


def later(gateway: Gateway, seconds: float) -> None:
    """The sweeper's look at all connections, as if it were that much later."""
    clients = gateway.worker.clients
    for client in list(clients.open):
        client.sweep(asyncio.get_running_loop().time() + seconds, clients.deadlines)


def only(gateway: Gateway) -> Any:
    (client,) = gateway.worker.clients.open
    return client


# --- the door ------------------------------------------------------------------------------------

SECRET = "hunter2"
POST = "POST / HTTP/1.1\r\nHost: a\r\n"

REFUSED = {
    "no host": ("GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
    "two hosts": ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "bad_host"),
    "empty host": ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400, "bad_host"),
    "host list": ("GET / HTTP/1.1\r\nHost: a, evil\r\n\r\n", 400, "bad_host"),
    "host with user": ("GET / HTTP/1.1\r\nHost: a@evil\r\n\r\n", 400, "bad_host"),
    "host with path": ("GET / HTTP/1.1\r\nHost: evil/x\r\n\r\n", 400, "bad_host"),
    "host on 1.0": ("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400, "bad_host"),
    "not http": ("\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", 400, "bad_request"),
    "nonsense": ("hello\r\n\r\n", 400, "bad_request"),
    "secret": (f"GET / HTTP/1.1\r\nHost: a\r\nAuth: {SECRET}\x01\r\n\r\n", 400, "bad_request"),
    "fold": ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, "bad_request"),
    "bare lf": ("GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
    "space": ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "bad_request"),
    "nul": ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, "bad_request"),
    "fragment": ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    "star": ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
    "cl and te": (
        f"{POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_request",
    ),
    "two cl": (f"{POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400, "bad_request"),
    "cl list": (f"{POST}Content-Length: 1, 1\r\n\r\nx", 400, "bad_request"),
    "cl sign": (f"{POST}Content-Length: +1\r\n\r\nx", 400, "bad_request"),
    "te gzip": (
        f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
        "bad_transfer_coding",
    ),
    "te twice": (f"{POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"),
    "te on 1.0": (
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_transfer_coding",
    ),
    "bad chunk": (f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
    "trace": ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "bad_method"),
    "connect": ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405, "bad_method"),
    "expect": (f"{POST}Expect: miracles\r\nContent-Length: 3\r\n\r\nabc", 417, "bad_expectation"),
    "unknown method": ("SUMMON / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "unknown_method"),
    "version 2": ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "bad_version"),
    "version 3": ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "bad_version"),
    "version 0.9": ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "bad_version"),
    "preface": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_version"),
    "long target": (f"GET /{'a' * door.LINE} HTTP/1.1\r\nHost: a\r\n\r\n", 414, "target_too_long"),
    "long field": (
        f"GET / HTTP/1.1\r\nHost: a\r\nX: {'a' * door.LINE}\r\n\r\n",
        431,
        "head_too_large",
    ),
    "many fields": (
        "GET / HTTP/1.1\r\nHost: a\r\n" + "X: a\r\n" * door.FIELDS + "\r\n",
        431,
        "head_too_large",
    ),
}


@pytest.mark.parametrize("request_", [row[0] for row in REFUSED.values()], ids=REFUSED)
async def test_a_bad_request_is_refused_by_its_own_status_and_the_connection_ends(
    request_: str, request: pytest.FixtureRequest
) -> None:
    _, status, reason = REFUSED[request.node.callspec.id]
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(request_.encode("latin-1"))
        answer = (await client.rest()).decode()
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert f'"reason":"{reason}"' in answer
        assert "\r\nConnection: close\r\n" in answer
        assert SECRET not in answer
        assert gateway.worker.clients.refusals == {reason: 1}
        if status == 405:
            assert "\r\nAllow: GET, " in answer


@pytest.mark.parametrize("rest", [b"zz\r\n", b"3\r\nabcd", b"3;\n"])
async def test_a_body_that_breaks_its_framing_is_told_to_its_reader_and_gets_400(
    rest: bytes,
) -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
        await eventually(lambda: gateway.worker.clients.busy)
        client.send(rest)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"reason":"bad_body"' in answer


@pytest.mark.parametrize(
    "target", ["/", "//a//b", "/a?", "/%2F%7e;x=1?a=/?&b#"[:-1], "/" + "a" * 8000, "*"]
)
async def test_a_target_arrives_as_it_was_sent(target: str) -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(get(target, method="OPTIONS"))
        assert await client.answer() == (
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(target) + 9),
            f"OPTIONS {target} ".encode(),
        )


async def test_methods_of_webdav_are_served() -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        for method in ("PROPFIND", "MKCOL", "REPORT", "LOCK", "SEARCH"):
            client.send(get(method=method))
            assert (await client.answer())[1] == f"{method} / ".encode()


async def test_a_head_in_many_pieces_is_bounded_as_a_whole() -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        field = b"X: " + b"a" * 8000 + b"\r\n"
        for _ in range(HEAD // len(field) + 2):
            client.send(field)
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_compressed_body_reaches_the_handler_as_it_is() -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(get("/", "Content-Encoding: gzip", "Content-Length: 3", method="POST") + b"abc")
        assert (await client.answer())[1] == b"POST / abc"


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_trailer_never_becomes_a_field_of_the_next_request(at_once: bool) -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        await request.content.read()
        return ClientAnswer(request, 200).finish(request.headers.get("X-Admin", "none").encode())

    first = get("/", "Transfer-Encoding: chunked", method="POST") + b"0\r\nX-Admin: yes\r\n\r\n"
    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(first + get() if at_once else first)
        head, admin = await client.answer()
        assert admin == b"none"
        if at_once:
            assert b"\r\nConnection: close\r\n" in head, "the next request was not even read"
            assert await client.rest() == b""
        else:
            client.send(get())
            assert (await client.answer())[1] == b"none"


async def test_aiohttp_runs_on_its_c_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    door.require_c_parser()
    monkeypatch.setattr(door.aiohttp.http, "HttpRequestParser", type("Slow", (), {}))
    with pytest.raises(RuntimeError):
        door.require_c_parser()


# --- deadlines -----------------------------------------------------------------------------------


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        await eventually(lambda: gateway.worker.clients.open)
        later(gateway, SETTINGS.client.header - 1)
        assert not client.reader.at_eof()
        later(gateway, SETTINGS.client.header)
        assert await client.rest() == b""


async def test_no_client_waits_long_for_the_sweeper_however_many_there_are() -> None:
    """A deadline is met within a quarter of a second, of which the event loop needs some itself."""
    async with house(plain) as gateway, AsyncExitStack() as stack:
        clients = gateway.worker.clients
        for count in (1, AT_ONCE, 3 * AT_ONCE + 1):
            while len(clients.open) < count:
                await stack.enter_async_context(raw(gateway.address))
            clients._unseen.clear()
            waited = 0.0
            while not waited or clients._unseen:
                clients._stop()
                clients._sweep()
                waited += clients._pause
            assert waited <= 0.2


async def test_a_slow_head_gets_408() -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: ")
        await eventually(lambda: gateway.worker.clients.open and only(gateway)._began)
        later(gateway, SETTINGS.client.header - 1)
        client.send(b"slow")
        later(gateway, SETTINGS.client.header)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"reason":"head_timeout"' in answer


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(get())
        await client.answer()
        later(gateway, SETTINGS.client.idle - 1)
        client.send(get())
        await client.answer()
        later(gateway, SETTINGS.client.idle)
        assert await client.rest() == b""


async def test_a_body_that_stops_is_told_to_its_reader_and_gets_408() -> None:
    seen: list[BaseException] = []

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        try:
            return await plain(request)
        except BodyStalled as exc:
            seen.append(exc)
            raise

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get("/", "Content-Length: 5", method="POST") + b"abc")
        await eventually(lambda: gateway.worker.clients.busy)
        later(gateway, SETTINGS.client.body_stall - 1)
        assert not seen
        later(gateway, SETTINGS.client.body_stall)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        assert len(seen) == 1


async def test_a_client_that_takes_nothing_is_cut() -> None:
    gone: list[BaseException] = []

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200)
        try:
            while True:
                await sent(answer, request, b"x" * 100_000)
        except asyncio.CancelledError as exc:
            gone.append(exc)
            raise

    async with house(handle) as gateway, raw(gateway.address, limit=1000) as client:
        client.send(get())
        await eventually(lambda: gateway.worker.clients.open and only(gateway).writing_paused)
        later(gateway, 0)
        later(gateway, SETTINGS.client.write_stall - 1)
        assert not gone
        later(gateway, SETTINGS.client.write_stall + 1)
        await eventually(lambda: gone)
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_client_that_takes_something_now_and_then_is_not_cut() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200, ((b"Content-Length", b"30000000"),), declared=True)
        for _ in range(300):
            await sent(answer, request, b"x" * 100_000)
        return answer.finish()

    async with house(handle) as gateway, raw(gateway.address, limit=1000) as client:
        client.send(get())
        await client.head()
        for _ in range(300):
            await eventually(
                lambda: only(gateway).writing_paused or not only(gateway)._current_request
            )
            later(gateway, SETTINGS.client.write_stall - 1)
            await client.exactly(100_000)


# --- bodies that are held back -------------------------------------------------------------------


async def test_a_client_that_expects_100_is_asked_for_its_body_when_it_is_first_read() -> None:
    go = asyncio.Event()

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        await go.wait()
        return await plain(request)

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get("/", "Content-Length: 3", "Expect: 100-continue", method="PUT"))
        await eventually(lambda: gateway.worker.clients.busy)
        later(gateway, SETTINGS.client.body_stall)
        go.set()
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert (await client.answer())[1] == b"PUT / abc"


async def test_a_client_that_was_not_asked_for_its_body_gets_the_answer_and_the_end() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        return ClientAnswer(request, 403).finish()

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get("/", "Content-Length: 3", "Expect: 100-continue", method="PUT"))
        assert await client.rest() == (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )


async def test_an_early_answer_reaches_a_client_that_is_still_sending() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        return problem(request, Failure("http_request_error", "x", status=413), close=True)

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get("/", "Content-Length: 50000000", method="POST") + b"x" * 5_000_000)
        assert (await client.rest()).startswith(b"HTTP/1.1 413 ")
        client.close()
        await eventually(lambda: not gateway.worker.clients.open)


async def test_what_comes_after_the_last_answer_is_thrown_away_for_a_while() -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(b"hello\r\n\r\n")
        await client.rest()
        client.send(b"x" * 1000)
        later(gateway, LINGER - 1)
        assert gateway.worker.clients.open
        later(gateway, LINGER + 1)
        await eventually(lambda: not gateway.worker.clients.open)


# --- clients that leave, and too many of them ----------------------------------------------------


async def test_a_client_that_leaves_ends_its_handler() -> None:
    ended: list[str] = []

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request.method)
        raise AssertionError

    async with house(handle) as gateway:
        async with raw(gateway.address) as client:
            client.send(get())
            await eventually(lambda: gateway.worker.clients.busy)
        await eventually(lambda: ended)
        await eventually(lambda: gateway.worker.clients.quiet.is_set())


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with house(plain) as gateway, raw(gateway.address) as client:
        client.send(b"".join(get(f"/{number}") for number in range(100)))
        for number in range(100):
            assert (await client.answer())[1] == f"GET /{number} ".encode()


async def test_a_client_too_many_is_told_so() -> None:
    async with house(plain, connections=1) as gateway, raw(gateway.address) as first:
        first.send(get())
        await first.answer()
        async with raw(gateway.address) as second:
            second.send(get())
            answer = await second.rest()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        first.send(get())
        await first.answer()
        first.close()
        await eventually(lambda: not gateway.worker.clients.open)
        async with raw(gateway.address) as third:
            third.send(get())
            assert (await third.head()).startswith(b"HTTP/1.1 200 ")


async def test_a_bug_in_the_app_is_500_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        raise RuntimeError(SECRET)

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get())
        answer = (await client.rest()).decode()
    assert answer.startswith("HTTP/1.1 500 ")
    logged = capsys.readouterr()
    assert "request_failed" in logged.out + logged.err
    assert SECRET not in answer + logged.out + logged.err


# --- listeners -----------------------------------------------------------------------------------


def listening_on(*listen: Listener) -> Any:
    settings = dataclasses.replace(SETTINGS, listen=listen)
    return serving(settings, lambda _: FakeApp(plain))


async def test_several_listeners_serve_the_same_app(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    addresses = ("127.0.0.1:0", "[::1]:0", f"unix:{path}")
    async with listening_on(*(Listener(address=address) for address in addresses)) as gateway:
        assert len(gateway.addresses) == 3
        for address in gateway.addresses:
            async with raw(address) as client:
                client.send(get())
                assert (await client.answer())[1] == b"GET / "
    assert not path.exists()


async def test_the_operators_have_a_door_of_their_own() -> None:
    async with house(plain) as gateway, raw(gateway.ops_address) as client:
        client.send(get("/nothing-here"))
        assert (await client.head()).startswith(b"HTTP/1.1 404 ")


async def test_the_operators_door_may_be_a_socket_file(tmp_path: Path) -> None:
    ops = Listener(address=f"unix:{tmp_path}/ops.sock")
    async with house(plain, dataclasses.replace(SETTINGS, ops=ops)) as gateway:
        async with raw(gateway.ops_address) as client:
            client.send(get("/nothing-here"))
            assert (await client.head()).startswith(b"HTTP/1.1 404 ")


def test_a_port_that_the_kernel_draws_is_drawn_for_nobody_else() -> None:
    """Between bind and listen a port with SO_REUSEADDR may be given to two."""

    def reusable(address: str) -> int:
        (door,) = listeners.bind(Listener(address=address))
        with door.sock as sock:
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)

    assert not reusable("127.0.0.1:0")
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        assert reusable(f"127.0.0.1:{kept.getsockname()[1]}")


async def test_a_socket_file_that_nobody_answers_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    async with listening_on(Listener(address=f"unix:{path}")) as gateway:
        async with raw(gateway.address) as client:
            client.send(get())
            await client.answer()
        with pytest.raises(CannotListen, match=r"Address already in use"):
            listeners.bind(Listener(address=f"unix:{path}"))


def test_a_socket_file_is_removed_by_its_owner_alone(tmp_path: Path) -> None:
    """One that drains may have a successor at the same path already."""
    path = tmp_path / "gateway.sock"
    leaving = listeners.bind(Listener(address=f"unix:{path}"))
    path.unlink()
    successor = listeners.bind(Listener(address=f"unix:{path}"))
    listeners.discard(leaving)
    assert path.exists()
    listeners.discard(successor)
    assert not path.exists()


WITHOUT_STREAMS = """
import os, socket
os.closerange(0, 3)
from gateway.server.process import occupy_standard_streams
occupy_standard_streams()
os._exit(socket.socket().fileno() <= 2)
"""


def test_no_socket_of_a_process_started_without_standard_streams_gets_its_log() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_STREAMS], cwd=PROJECT, check=False)
    assert done.returncode == 0


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match=rf"^{address}: Address already in use$"):
            listeners.bind(Listener(address=address))


async def test_a_certificate_is_renewed_without_a_restart(tmp_path: Path) -> None:
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    install(cert, key, "first")
    tls = ListenerTls(cert=str(cert), key=str(key))
    async with listening_on(Listener(address="127.0.0.1:0", tls=tls)) as gateway:
        trust = trusting("first")
        async with raw(gateway.address, ssl=trust) as kept:
            kept.send(get())
            assert (await kept.answer())[1] == b"GET / "
            shutil.copy(TLS / "second.crt", cert)
            gateway.worker.refresh()  # it does not fit the key yet
            async with raw(gateway.address, ssl=trusting("first")):
                pass
            install(cert, key, "second")
            gateway.worker.refresh()
            async with raw(gateway.address, ssl=trusting("second")) as renewed:
                renewed.send(get())
                await renewed.answer()
            kept.send(get())
            await kept.answer()


async def test_an_answer_over_tls_that_cannot_be_finished_is_cut(tmp_path: Path) -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200)
        answer.send(b"first")
        return answer

    tls = ListenerTls(cert=str(TLS / "first.crt"), key=str(TLS / "first.key"))
    settings = dataclasses.replace(SETTINGS, listen=(Listener(address="127.0.0.1:0", tls=tls),))
    async with house(handle, settings) as gateway:
        trust = trusting("first")
        async with raw(gateway.address, ssl=trust) as client:
            client.send(get(version="1.0"))
            with pytest.raises(ConnectionResetError):
                await client.rest()


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    tls = ListenerTls(cert=str(tmp_path / "none.crt"), key=str(tmp_path / "none.key"))
    with pytest.raises(CannotListen, match=r"none.crt: No such file"):
        async with listening_on(Listener(address="127.0.0.1:0", tls=tls)):
            pass


def install(cert: Path, key: Path, name: str) -> None:
    shutil.copy(TLS / f"{name}.crt", cert)
    shutil.copy(TLS / f"{name}.key", key)


def trusting(name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(TLS / f"{name}.crt"))
    context.check_hostname = False
    return context


# --- the drain -----------------------------------------------------------------------------------


async def test_while_balancers_may_not_know_yet_every_answer_is_the_last_of_its_connection() -> (
    None
):
    async with house(plain) as gateway, raw(gateway.address) as kept:
        kept.send(get())
        assert b"close" not in (await kept.answer())[0]
        drain = asyncio.create_task(gateway.worker.drain(3600, 7200))
        await eventually(lambda: gateway.worker.clients.leaving)
        async with raw(gateway.address) as late:
            for client in (kept, late):
                client.send(get())
                assert b"\r\nConnection: close\r\n" in await client.rest()
        gateway.worker.hurry()
        assert not await drain, "a second signal makes it a forced one"


async def test_a_drain_finishes_what_was_accepted_and_takes_nothing_new() -> None:
    go = asyncio.Event()

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        if "shut" in app.calls:
            return problem(request, Failure("proxy_internal_response", "shutdown", status=503))
        await go.wait()
        return await plain(request)

    async with (
        house(handle) as gateway,
        raw(gateway.address) as first,
        raw(gateway.address) as kept,
    ):
        app = gateway.worker.app
        first.send(get("/first"))
        await eventually(lambda: gateway.worker.clients.busy)
        drain = asyncio.create_task(gateway.worker.drain(0, 3600))
        await eventually(lambda: "shut" in app.calls)
        with pytest.raises(ConnectionRefusedError):
            async with raw(gateway.address):
                pass
        kept.send(get())
        assert (await kept.rest()).startswith(b"HTTP/1.1 503 ")
        app.idle.clear()
        go.set()
        assert (await first.rest()).endswith(b"GET /first ")
        assert not drain.done(), "a write whose client has left may still be in flight"
        app.idle.set()
        assert await drain


async def test_a_drain_waits_for_a_client_to_take_the_last_of_its_answer() -> None:
    large = bytes(16 * 2**20)

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        return ClientAnswer(request, 200).finish(large)

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get("/", "Connection: close"))
        await eventually(lambda: gateway.worker.clients.behind)
        assert not await gateway.worker.drain(0, 0), "it would be cut"
        drain = asyncio.create_task(gateway.worker.drain(0, 3600))
        assert (await client.rest()).endswith(large)
        assert await drain


async def test_a_drain_that_takes_all_its_time_is_clean_when_nothing_is_in_hand() -> None:
    async with house(plain) as gateway:
        assert await gateway.worker.drain(3600, 0)


async def test_what_has_no_end_of_its_own_does_not_hold_a_drain() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200)
        wire(request).endless()
        answer.send(b"event")
        await asyncio.Event().wait()
        return answer

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get())
        await client.until(b"event")
        assert await gateway.worker.drain(0, 3600)
        await gateway.worker.close()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_forced_end_cuts_what_is_left() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200)
        answer.send(b"begun")
        await asyncio.Event().wait()
        return answer

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get())
        await client.until(b"begun")
        assert not await gateway.worker.drain(0, 0)
        await gateway.worker.close()
        with pytest.raises(ConnectionResetError):
            await client.rest()


PROGRAM = """
import resource, sys
from gateway.server import run
from tests.front import SETTINGS, FakeApp, dataclasses
from tests.test_server import hanging
from gateway.config.settings import Drain, Listener, ListenerTls

class Loud(FakeApp):
    def reload(self): print("reload", flush=True)

if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), int(sys.argv[3])))
tls = ListenerTls(cert=sys.argv[4] + ".crt", key=sys.argv[4] + ".key") if sys.argv[4:] else None
settings = dataclasses.replace(
    SETTINGS,
    listen=(Listener(address="unix:" + sys.argv[1], tls=tls),),
    drain=Drain(delay=0, timeout=float(sys.argv[2])),
)
sys.exit(run(settings, lambda _: Loud(hanging)))
"""


@asynccontextmanager
async def process_of(path: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`run()` in a process of its own, serving; its lines are on stdout."""
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(path), "3600", *arguments),
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            while b"serving" not in await lines(gateway).readline():
                pass
            yield gateway
    finally:
        if gateway.returncode is None:
            gateway.kill()
        await gateway.wait()
        lines(gateway)._transport.close()  # type: ignore[attr-defined]  # else it warns


def lines(gateway: asyncio.subprocess.Process) -> asyncio.StreamReader:
    assert gateway.stdout is not None
    return gateway.stdout


async def hanging(request: web.BaseRequest) -> ClientAnswer:
    answer = ClientAnswer(request, 200)
    answer.send(b"begun")
    if request.raw_path == "/hang":
        await asyncio.Event().wait()
    return answer.finish()


@pytest.mark.parametrize(
    ("target", "signals", "status"),
    [
        ("/", [signal.SIGTERM], 0),
        ("/", [signal.SIGINT], 0),
        ("/", [signal.SIGHUP, signal.SIGTERM], 0),
        ("/hang", [signal.SIGTERM, signal.SIGTERM], 1),
    ],
    ids=["term", "int", "hup", "twice"],
)
async def test_signals_end_the_process_with_the_status_that_tells_how(
    tmp_path: Path, target: str, signals: list[signal.Signals], status: int
) -> None:
    path = tmp_path / "gateway.sock"
    async with process_of(path) as gateway, raw(f"unix:{path}") as client:
        client.send(get(target))
        await client.until(b"begun\r\n")
        for number in signals:
            gateway.send_signal(number)
            # Two signals sent at once may arrive as one.
            assert await lines(gateway).readline()
        assert await gateway.wait() == status


async def served_again(address: str, **tls: Any) -> None:
    """Until the server has noticed that others have left."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with raw(address, **tls) as client:
                    client.send(get())
                    if (await client.head()).startswith(b"HTTP/1.1 200 "):
                        return
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("secret", [False, True], ids=["plain", "TLS"])
async def test_a_process_that_runs_out_of_descriptors_serves_on_when_it_has_some_again(
    tmp_path: Path, secret: bool
) -> None:
    """Of those who come with TLS, whoever does not get on with it gives way meanwhile."""
    path = tmp_path / "gateway.sock"
    options = ("64", str(TLS / "first")) if secret else ("64",)
    tls = {"ssl": trusting("first"), "server_hostname": "gw"} if secret else {}
    async with process_of(path, *options) as gateway:
        async with AsyncExitStack() as crowd:
            first = await crowd.enter_async_context(raw(f"unix:{path}", **tls))
            for _ in range(100):
                await crowd.enter_async_context(raw(f"unix:{path}"))
            first.send(get())
            assert (await first.head()).startswith(b"HTTP/1.1 200 ")
            if secret:
                await served_again(f"unix:{path}", **tls)
        await served_again(f"unix:{path}", **tls)
        gateway.send_signal(signal.SIGTERM)
        said = await lines(gateway).read()
        assert await gateway.wait() == 0
        assert said.count(b"\n") < 20


# --- the process ---------------------------------------------------------------------------------


def test_clients_are_bounded_by_what_the_process_may_open() -> None:
    assert process.client_bound(1024, descriptors=65536, upstream=64) == 1024
    room = 1024 - 3 * 64 - process.SPARE
    assert process.client_bound(1024, descriptors=1024, upstream=64) == room // 2
    assert process.client_bound(1024, descriptors=64, upstream=64) == 16
    assert process.raise_descriptor_limit() > 0


async def test_running_out_of_descriptors_is_said_once_a_second(
    capsys: pytest.CaptureFixture[str],
) -> None:
    loop = asyncio.get_running_loop()
    complaints = process.Complaints()
    for _ in range(1000):
        complaints(loop, {"exception": OSError(errno.EMFILE, os.strerror(errno.EMFILE))})
    complaints(loop, {"message": "odd", "exception": RuntimeError(SECRET)})
    logged = capsys.readouterr().out
    assert logged.count("descriptors_used_up") == 1
    assert "RuntimeError" in logged
    assert SECRET not in logged

"""The operators' listener, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.admin import Scrape, Writers, _local, application
from gateway.batch import Headers
from gateway.errors import Refused
from tests.front import raw

SECRET = "s3cr3t"


class Gateway:
    """Stands for the rest of the gateway."""

    def __init__(self) -> None:
        self.level = "info"
        self.reasons: list[str] = []
        self.drained = 0
        self.bugs: list[str] = []
        self.explained: list[tuple[str, str, Headers, bytes]] = []
        self.explaining = threading.Event()
        """Lets a plan be made."""
        self.explaining.set()

    def set_level(self, level: str) -> None:
        if level not in ("debug", "info"):
            raise ValueError("expected one of debug, info")
        self.level = level

    async def ready(self) -> Sequence[str]:
        return self.reasons

    async def scrape(self, accept: str, accept_encoding: str) -> Scrape:
        gzipped = "gzip" in accept_encoding
        return SimpleNamespace(
            body=b"metrics\n", content_type=accept or "text/plain", gzipped=gzipped
        )

    def limits(self) -> Mapping[str, Any]:
        return {"subrequests": 100}

    def openapi(self) -> Mapping[str, Any]:
        raise RuntimeError(SECRET)

    def explain(self, dialect: str, path: str, headers: Headers, body: bytes) -> bytes:
        if dialect != "sugarcrm":
            raise KeyError(dialect)
        if body == b"{":
            raise Refused("bad_json", "line 1, column 2: end of text")
        self.explained.append((dialect, path, headers, body))
        self.explaining.wait()
        return b'{"steps":[]}'

    def drain(self) -> None:
        self.drained += 1

    def bug(self, where: str) -> None:
        self.bugs.append(where)


Serve = Callable[..., Awaitable[aiohttp.ClientSession]]


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def serve(gateway: Gateway) -> AsyncIterator[Serve]:
    """Starts the listener and gives a client of it."""
    async with AsyncExitStack() as stack:

        async def start(
            write: Writers = "all", unix: Path | None = None, body_time: float = 15.0
        ) -> aiohttp.ClientSession:
            app = application(gateway, write, body_bytes=1000, body_time=body_time)
            runner = web.AppRunner(app, auto_decompress=False, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            if unix:
                await web.UnixSite(runner, unix).start()
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(str(unix))
                base = "http://ops"
            else:
                await web.SockSite(runner, socket.create_server(("127.0.0.1", 0))).start()
                connector = aiohttp.TCPConnector()
                base = f"http://127.0.0.1:{runner.addresses[0][1]}"
            session = aiohttp.ClientSession(base, connector=connector, auto_decompress=False)
            return await stack.enter_async_context(session)

        yield start


# --- reading -------------------------------------------------------------------------------------


async def test_it_lives_while_it_answers(serve: Serve) -> None:
    client = await serve()
    async with client.get("/livez") as answer:
        assert (answer.status, await answer.json()) == (200, {"live": True})
    async with client.head("/livez") as answer:
        assert answer.status == 200


async def test_readiness_falls_with_its_reasons(serve: Serve, gateway: Gateway) -> None:
    client = await serve()
    async with client.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"ready": True, "reasons": []})
    gateway.reasons = ["draining"]
    async with client.get("/readyz") as answer:
        assert answer.status == 503
        assert await answer.json() == {"ready": False, "reasons": ["draining"]}


async def test_metrics_come_as_the_scraper_asks(serve: Serve) -> None:
    client = await serve()
    asked = {"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"}
    async with client.get("/metrics", headers=asked) as answer:
        assert answer.headers["Content-Type"] == "application/openmetrics-text"
        assert answer.headers["Content-Encoding"] == "gzip"
        assert await answer.read() == b"metrics\n"


async def test_no_answer_is_kept_by_a_cache_or_names_the_servers_version(serve: Serve) -> None:
    client = await serve()
    for path in ("/livez", "/nowhere"):
        async with client.get(path) as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Server"] == "bulk-gateway"


async def test_limits_and_level_can_be_read(serve: Serve) -> None:
    client = await serve("off")
    async with client.get("/limits") as answer:
        assert await answer.json() == {"subrequests": 100}
    async with client.get("/loglevel") as answer:
        assert await answer.json() == {"level": "info"}


# --- changing ------------------------------------------------------------------------------------


async def test_the_log_level_can_be_changed(serve: Serve, gateway: Gateway) -> None:
    client = await serve()
    async with client.put("/loglevel", json={"level": "debug"}) as answer:
        assert (answer.status, await answer.json()) == (200, {"level": "debug"})
    assert gateway.level == "debug"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"level":"loud"}', "not a log level: expected one of debug, info"),
        (b"", 'not a log level: {"level": "info"}'),
        (b"{}", 'not a log level: {"level": "info"}'),
        (b"[]", 'not a log level: {"level": "info"}'),
    ],
)
async def test_a_wrong_log_level_is_refused(
    serve: Serve, gateway: Gateway, body: bytes, detail: str
) -> None:
    client = await serve()
    async with client.put("/loglevel", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json(content_type="application/problem+json"))["detail"] == detail
    assert gateway.level == "info"


async def test_a_drain_can_be_asked_for(serve: Serve, gateway: Gateway) -> None:
    client = await serve()
    async with client.post("/drain") as answer:
        assert answer.status == 202
    assert gateway.drained == 1


async def test_a_plan_is_explained_with_the_calls_own_headers(
    serve: Serve, gateway: Gateway
) -> None:
    client = await serve()
    ask = client.post(
        "/explain/sugarcrm", params={"path": "/v10/bulk"}, data=b"{}", headers={"X-A": "b"}
    )
    async with ask as answer:
        assert await answer.read() == b'{"steps":[]}'
    ((dialect, path, headers, body),) = gateway.explained
    assert (dialect, path, body) == ("sugarcrm", "/v10/bulk", b"{}")
    assert ("X-A", "b") in headers


async def test_a_plan_that_cannot_be_made_says_why(serve: Serve) -> None:
    client = await serve()
    async with client.post("/explain/sugarcrm", data=b"{") as answer:
        assert answer.status == 400
        told = await answer.json(content_type="application/problem+json")
        assert told["reason"] == "bad_json"
        assert told["detail"] == "line 1, column 2: end of text"
    async with client.post("/explain/soap", data=b"{}") as answer:
        assert answer.status == 404
    async with client.post("/explain/sugarcrm", data=b"x" * 1001) as answer:
        assert answer.status == 413


WRITES = (("PUT", "/loglevel"), ("POST", "/drain"), ("POST", "/explain/sugarcrm"))


async def test_a_plan_is_made_beside_the_event_loop(serve: Serve, gateway: Gateway) -> None:
    client = await serve()
    gateway.explaining.clear()
    explained = asyncio.ensure_future(client.post("/explain/sugarcrm", data=b"{}"))
    while not gateway.explained:
        async with client.get("/livez") as answer:
            assert answer.status == 200
    gateway.explaining.set()
    async with await explained as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("announced", "status"), [("1000", 408), ("1001", 413)], ids=["stuck", "too large"]
)
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_nobody_waits_for_a_body_that_does_not_come_or_is_not_taken(
    serve: Serve, gateway: Gateway, method: str, path: str, announced: str, status: int
) -> None:
    client = await serve(body_time=0.01)
    listener = client._base_url
    assert listener is not None
    async with raw(f"{listener.host}:{listener.port}") as stranger:
        fields = f"Host: ops\r\nContent-Length: {announced}\r\n\r\n"
        stranger.send(f"{method} {path} HTTP/1.1\r\n{fields}{{".encode())
        assert (await stranger.head()).startswith(b"HTTP/1.1 %d " % status)
    assert (gateway.level, gateway.drained, gateway.explained) == ("info", 0, [])


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_nothing_can_be_changed_when_that_is_off(
    serve: Serve, gateway: Gateway, method: str, path: str
) -> None:
    client = await serve("off")
    async with client.request(method, path, data=b'{"level":"debug"}') as answer:
        assert answer.status == 403
        assert answer.content_type == "application/problem+json"
    assert (gateway.level, gateway.drained, gateway.explained) == ("info", 0, [])


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_page_in_a_browser_can_change_nothing(
    serve: Serve, gateway: Gateway, method: str, path: str
) -> None:
    client = await serve("loopback")
    origin = {"Origin": "http://evil.example"}
    async with client.request(method, path, data=b"{}", headers=origin) as answer:
        assert answer.status == 403
    assert (gateway.drained, gateway.explained) == (0, [])


async def test_loopback_and_unix_sockets_are_local(
    serve: Serve, gateway: Gateway, tmp_path: Path
) -> None:
    for client in (await serve("loopback"), await serve("loopback", tmp_path / "ops")):
        async with client.post("/drain") as answer:
            assert answer.status == 202
    assert gateway.drained == 2


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", True),
        (None, False),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("fe80::1%eth0", False),
    ],
)
def test_who_is_local(peer: str | None, local: bool) -> None:
    assert _local(SimpleNamespace(remote=peer)) is local  # type: ignore[arg-type]


async def test_compressed_input_is_not_taken(serve: Serve, gateway: Gateway) -> None:
    client = await serve()
    coded = {"Content-Encoding": "gzip"}
    async with client.post("/explain/sugarcrm", data=b"x", headers=coded) as answer:
        assert answer.status == 415
    assert not gateway.explained


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "title"),
    [
        ("GET", "/nowhere", 404, "Not Found"),
        ("POST", "/nowhere", 404, "Not Found"),
        ("POST", "/livez", 405, "Method Not Allowed"),
        ("GET", "/drain", 405, "Method Not Allowed"),
    ],
)
async def test_errors_are_problem_details(
    serve: Serve, method: str, path: str, status: int, title: str
) -> None:
    client = await serve()
    async with client.request(method, path) as answer:
        assert answer.status == status
        told = await answer.json(content_type="application/problem+json")
        assert (told["type"], told["title"], told["status"]) == ("about:blank", title, status)
        assert ("Allow" in answer.headers) == (status == 405)


async def test_a_fault_of_ours_is_told_to_the_log_and_not_to_the_client(
    serve: Serve, gateway: Gateway
) -> None:
    client = await serve()
    async with client.get("/openapi.json") as answer:
        assert answer.status == 500
        assert SECRET not in await answer.text()
    assert gateway.bugs == ["ops"]

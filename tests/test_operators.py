"""What operators see and do, at the whole gateway over real sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.config.settings import Batch, Endpoint, Limits, Listener, Settings, Upstream
from gateway.dialects import DIALECTS
from gateway.server import serving
from gateway.server.worker import Gateway
from tests.front import raw
from tests.support.raw_backend import RawBackend, answering, ok

ROOT = Path(__file__).parent.parent
LOOPBACK = Listener(address="127.0.0.1:0")


class Ops:
    """The operators' listener of a gateway, and the gateway."""

    def __init__(self, gateway: Gateway, client: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.client = client

    async def get(self, path: str) -> Any:
        async with self.client.get(path) as answer:
            return await answer.json()

    async def explain(self, dialect: str, body: Any, **more: Any) -> tuple[int, Any]:
        async with self.client.post(f"/explain/{dialect}", json=body, **more) as answer:
            return answer.status, await answer.json(content_type=None)


@asynccontextmanager
async def ops(backend: RawBackend | None = None, **sections: Any) -> AsyncIterator[Ops]:
    settings = dataclasses.replace(Settings(), listen=(LOOPBACK,), ops=LOOPBACK, **sections)
    if backend is not None:
        settings = dataclasses.replace(settings, upstream=Upstream(url=backend.url))
    async with serving(settings) as gateway:
        base = f"http://{gateway.ops_address}"
        async with aiohttp.ClientSession(base) as client:
            yield Ops(gateway, client)


# --- reading -------------------------------------------------------------------------------------


async def test_every_limit_in_force_can_be_read() -> None:
    endpoints = (Endpoint(path="/a", dialect="sugarcrm", width=3),)
    async with ops(endpoints=endpoints, limits=Limits(subrequests=7)) as gateway:
        told = await gateway.get("/limits")
    assert told["limits"]["limits.subrequests"] == {
        "value": 7,
        "unit": "count",
        "written": "7",
        "help": "entries of one bulk call; loops and pages have their own bounds",
    }
    assert told["limits"]["upstream.timeouts.response"]["value"] == 15.0
    assert not any(name.startswith(("rate_limit", "shed")) for name in told["limits"])
    (endpoint,) = told["endpoints"]
    assert (endpoint["path"], endpoint["dialect"]) == ("/a", "sugarcrm")
    assert {name: limit["value"] for name, limit in endpoint["limits"].items()} == {
        "batch.width": 3
    }


async def test_the_bulk_endpoints_describe_themselves() -> None:
    async with ops() as gateway:
        told = await gateway.get("/openapi.json")
    assert told["openapi"] == "3.1.0"
    assert {item["post"]["tags"][0] for item in told["paths"].values()} == set(DIALECTS)


async def test_the_log_level_can_be_changed() -> None:
    async with ops() as gateway:
        async with gateway.client.put("/loglevel", json={"level": "error"}) as answer:
            assert answer.status == 200
        assert await gateway.get("/loglevel") == {"level": "error"}
        async with gateway.client.put("/loglevel", json={"level": "loud"}) as answer:
            assert answer.status == 400


async def test_metrics_can_be_scraped() -> None:
    async with ops() as gateway, gateway.client.get("/metrics") as answer:
        assert "gateway_build_info" in await answer.text()


async def test_a_compressed_body_is_neither_taken_nor_decoded() -> None:
    async with ops() as gateway:
        bomb: Any = {"data": b"\x1f\x8b nonsense", "headers": {"Content-Encoding": "gzip"}}
        async with gateway.client.post("/explain/sugarcrm", **bomb) as answer:
            assert answer.status == 415


# --- explain -------------------------------------------------------------------------------------


async def test_a_plan_can_be_asked_for_and_nothing_is_sent() -> None:
    body = {"requests": [{"url": "v10/me"}, {"url": "v10/a", "method": "POST", "data": "{}"}]}
    async with (
        RawBackend(answering(ok())) as backend,
        ops(backend, batch=Batch(width=2)) as gateway,
    ):
        status, told = await gateway.explain(
            "sugarcrm",
            body,
            params={"path": "/rest/v10/bulk?x=1"},
            headers={"OAuth-Token": "secret-token", "Host": "crm.example"},
        )
        assert not backend.requests
    assert status == 200
    assert told["endpoint"] == "{prefix}/{version}/bulk"
    assert told["waves"] == [[0], [1]]
    assert [each["target"] for each in told["subrequests"]] == ["/rest/v10/me", "/rest/v10/a"]
    assert ["OAuth-Token", "***"] in told["headers"]
    assert ["Host", "crm.example"] in told["headers"]
    assert "secret-token" not in json.dumps(told)
    assert told["limits"]["batch.width"]["value"] == 2


async def test_what_is_sent_is_what_the_plan_said() -> None:
    own = {"X-Own": "1", "OAuth-Token": "theirs", "Host": "evil"}
    entries = [
        {"url": "v10/%7Ea?x=1"},
        {"url": "/v10/b", "method": "post", "data": {"n": 1}, "headers": own},
        {"url": "v10/c", "method": "DELETE"},
    ]
    fields = {"OAuth-Token": "mine", "X-Keep": "k", "Idempotency-Key": "i", "If-None-Match": "e"}
    body, path = {"requests": entries}, "/rest/v10/bulk"
    async with RawBackend(answering(ok())) as backend, ops(backend) as gateway:
        _, told = await gateway.explain("sugarcrm", body, params={"path": path}, headers=fields)
        async with aiohttp.ClientSession(f"http://{gateway.gateway.address}") as client:
            async with client.post(path, json=body, headers=fields) as answer:
                await answer.read()
        planned = [
            (each["method"], each["target"], sorted(name.lower() for name, _ in each["headers"]))
            for each in told["subrequests"]
        ]
        sent = [
            (
                request.method,
                request.target,
                sorted(name.decode().lower() for name, _ in request.headers),
            )
            for request in backend.requests
        ]
    assert planned == [
        (method, target, [name for name in names if name != "content-length"])
        for method, target, names in sent
    ]


@pytest.mark.parametrize(
    ("dialect", "body", "path", "status", "detail"),
    [
        ("soap", {}, "", 404, "no such dialect"),
        ("guidewire", {"requests": [{"method": "get", "path": "x"}]}, "", 400, "requests[0].path"),
        ("guidewire", {"requests": []}, "/elsewhere", 400, "path: no endpoint of this dialect"),
    ],
)
async def test_a_plan_that_cannot_be_made_says_why(
    dialect: str, body: Any, path: str, status: int, detail: str
) -> None:
    async with ops() as gateway:
        answered, told = await gateway.explain(dialect, body, params={"path": path})
    assert answered == status
    assert told["detail"].startswith(detail)


# --- the drain -----------------------------------------------------------------------------------


async def test_a_drain_that_was_asked_for_is_no_first_signal() -> None:
    async with ops() as gateway:
        worker = gateway.gateway.worker
        async with gateway.client.post("/drain") as answer:
            assert answer.status == 202
        assert worker.asked.is_set()
        worker.signalled()
        assert await worker.drain(0, 3600), "one signal after it does not force the end"


PROGRAM = """
import sys
from gateway.config import load
from gateway.server import run

flags = {
    "listen": ["unix:" + sys.argv[1]],
    "ops": "unix:" + sys.argv[2],
    "drain.delay": "0s",
}
sys.exit(run(load(None, {}, flags)))
"""


async def started(tmp_path: Path, **environ: str) -> asyncio.subprocess.Process:
    sockets = (str(tmp_path / "main"), str(tmp_path / "ops"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *sockets),
        cwd=ROOT,
        env={**os.environ, **environ},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b'"serving"' in await process.stderr.readline()
    return process


@pytest.mark.parametrize("how", ["drain", "signal"])
async def test_a_drain_ends_the_process_as_a_signal_does_and_the_log_says_so(
    how: str, tmp_path: Path
) -> None:
    process = await started(tmp_path)
    if how == "drain":
        async with raw(f"unix:{tmp_path / 'ops'}") as client:
            client.send(b"POST /drain HTTP/1.1\r\nHost: ops\r\nContent-Length: 0\r\n\r\n")
            assert (await client.head()).startswith(b"HTTP/1.1 202 ")
            _, err = await process.communicate()
    else:
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events] == ["draining", "stopped"]
    assert events[-1]["clean"] is True
    assert process.returncode == 0


# --- what the log is told ------------------------------------------------------------------------


async def test_what_is_no_request_is_told_to_the_log_without_its_bytes(tmp_path: Path) -> None:
    process = await started(tmp_path)
    async with raw(f"unix:{tmp_path / 'main'}") as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01secret\r\n\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 400 ")
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    first = json.loads(err.splitlines()[0])
    assert first["event"] == "malformed"
    assert (first["status"], first["reason"], first["client"]) == (400, "bad_request", "unix")
    assert b"secret" not in err


# --- traces --------------------------------------------------------------------------------------


async def test_where_the_gateway_traces_its_own_trace_stands_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A collector that is not there: what is looked at is what the backend gets.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    fields = {"traceparent": f"00-{trace}-{parent}-00", "tracestate": "a=b"}
    async with RawBackend(answering(ok())) as backend, ops(backend) as gateway:
        async with aiohttp.ClientSession(f"http://{gateway.gateway.address}") as client:
            for path in ("/bulk", "/elsewhere"):
                body = {"requests": [{"url": "x"}]}
                async with client.post(path, json=body, headers=fields) as answer:
                    await answer.read()
        sent = [request.headers for request in backend.requests]
    assert len(sent) == 2
    for headers in sent:
        (told,) = [value.decode() for name, value in headers if name.lower() == b"traceparent"]
        assert told.startswith(f"00-{trace}-")
        assert parent not in told
        assert not [name for name, _ in headers if name.lower() == b"tracestate"]


async def test_without_traces_the_callers_fields_go_through() -> None:
    fields = {"traceparent": "00-a-b-00", "tracestate": "a=b"}
    async with RawBackend(answering(ok())) as backend, ops(backend) as gateway:
        async with aiohttp.ClientSession(f"http://{gateway.gateway.address}") as client:
            body = {"requests": [{"url": "x"}]}
            async with client.post("/bulk", json=body, headers=fields) as answer:
                await answer.read()
        (request,) = backend.requests
    assert request.header("traceparent") == b"00-a-b-00"
    assert request.header("tracestate") == b"a=b"

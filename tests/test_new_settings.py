"""New settings while requests are on their way: none is lost, and none sees half of a change."""

from __future__ import annotations

import asyncio
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

from gateway.app import App
from gateway.config.watched import Watched
from gateway.server import serving
from tests.front import Raw, get, raw
from tests.support.raw_backend import Peer, RawBackend, Script, answering, gated, ok, silent
from tests.test_endpoint import House, batch, echo

ROOT = Path(__file__).parent.parent


class Running(House):
    """A gateway whose settings are in a file."""

    app: App
    file: Path

    async def reload(self, **settings: Any) -> None:
        """Writes other settings and has them taken over."""
        before = await self.reloads()
        write(self.file, **settings)
        self.app.reload()
        while await self.reloads() == before:
            pass

    async def reloads(self) -> float:
        return await self.metric("gateway_config_reloads_total")

    @property
    def address(self) -> str:
        return self.base.removeprefix("http://")


def write(file: Path, **settings: Any) -> None:
    """Overwritten in one step, as `mv` does; JSON is YAML."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(settings))
    new.replace(file)


@asynccontextmanager
async def running(file: Path, **settings: Any) -> AsyncIterator[Running]:
    write(file, **settings)
    flags = {"listen": ("127.0.0.1:0",), "ops": "127.0.0.1:0"}
    watched = Watched(str(file), {}, flags)
    apps: list[App] = []

    def made(settings: Any) -> App:
        apps.append(App(settings, watched))
        return apps[0]

    async with serving(watched.load(), made) as gateway, aiohttp.ClientSession() as client:
        it = Running(gateway, client)
        it.app, it.file = apps[0], file
        async with asyncio.timeout(30):
            yield it


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


def named(name: str) -> Script:
    """A backend that says who it is."""
    return answering(ok(json.dumps(name).encode()))


def upstream(backend: RawBackend, **more: Any) -> dict[str, Any]:
    """Idleness closes no connection here: new settings do."""
    return {"url": backend.url, "timeouts": {"idle": "60s"}, **more}


# --- what is taken over --------------------------------------------------------------------------


async def test_the_next_request_has_the_new_settings(file: Path) -> None:
    async with RawBackend(echo) as backend:
        async with running(file, upstream=upstream(backend)) as gateway:
            settings = {
                "upstream": upstream(backend),
                "endpoints": [{"path": "/other", "dialect": "sugarcrm"}],
                "limits": {"subrequests": 2},
                "paths": {"deny": ["/things/1"]},
                "cors": {"origins": ["https://app.example"]},
                "rate_limit": {"per_second": 0.001, "burst": 3},
                "name": "renamed",
            }
            await gateway.reload(**settings)
            async with gateway.client.post(gateway.base + "/bulk", json=batch(1)) as answer:
                assert (await answer.json())["url"] == "/bulk"  # no endpoint any more
            fields = {"Origin": "https://app.example"}
            async with gateway.post("/other", batch(2), headers=fields) as answer:
                assert [r["status"] for r in await answer.json()] == [200, 403]
                assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
            async with gateway.post("/other", batch(3)) as answer:
                assert answer.status == 413
            assert backend.requests[-1].header("via") == b"1.1 renamed"
            async with gateway.client.get(gateway.ops + "/limits") as answer:
                limits = (await answer.json())["limits"]
                assert limits["limits.subrequests"]["value"] == 2
            assert await gateway.metric('gateway_config_reloads_total{result="ok"}') == 1


async def test_a_request_keeps_the_settings_that_it_began_with(file: Path) -> None:
    """Its body comes after the change: old limits, old rules, old backend."""
    async with RawBackend(named("old")) as old, RawBackend(named("new")) as new:
        async with running(file, upstream=upstream(old, host="upstream")) as gateway:
            async with raw(gateway.address) as client:
                body = json.dumps(batch(3)).encode()
                client.send(
                    b"POST /bulk HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
                    b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                assert b" 100 " in await client.head()
                await gateway.reload(
                    upstream=upstream(new, host="upstream"), limits={"subrequests": 1}
                )
                client.send(body)
                head, said = await client.answer()
                assert head.startswith(b"HTTP/1.1 200 ")
                assert said.count(b'"old"') == 3
                assert {r.header("host") for r in old.requests} == {old.url[7:].encode()}
                assert new.requests == []
                connects = await gateway.metric("gateway_upstream_connects_total")
                client.send(get("/x"))
                assert (await client.answer())[1] == b'"new"'
                assert await gateway.metric("gateway_upstream_connects_total") > connects


async def test_a_batch_ends_where_it_began_and_its_backend_is_left_when_it_has(file: Path) -> None:
    gate = asyncio.Event()
    async with RawBackend(gated(gate, ok(b'"old"'))) as old, RawBackend(named("new")) as new:
        async with running(file, upstream=upstream(old), batch={"width": 2}) as gateway:
            task = asyncio.ensure_future(gateway.post("/bulk", batch(6)).__aenter__())
            await old.until(lambda: len(old.requests) == 2)
            await gateway.reload(upstream=upstream(new))
            async with gateway.post("/bulk", batch(2)) as answer:
                assert [r["contents"] for r in await answer.json()] == ["new"] * 2
            assert await gateway.metric("gateway_subrequests_in_flight") == 2
            gate.set()
            async with await task as answer:
                assert [r["contents"] for r in await answer.json()] == ["old"] * 6
            await old.until(lambda: not old.open)
            assert len(new.requests) == 2
            assert await gateway.metric("gateway_subrequests_total") == 8
            assert await gateway.metric("gateway_buffered_bytes") == 0


async def test_an_upload_and_a_tunnel_go_on(file: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\n")
        while said := await peer.read_some():
            await peer.send(said.upper())

    async with RawBackend(script, echo_body) as old, RawBackend(named("new")) as new:
        async with running(file, upstream=upstream(old)) as gateway:
            async with raw(gateway.address) as tunnel, raw(gateway.address) as upload:
                tunnel.send(get("/", "Connection: upgrade", "Upgrade: odd"))
                assert b" 101 " in await tunnel.head()
                upload.send(
                    b"PUT / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
                )
                await old.until(lambda: len(old.peers) == 2)
                await gateway.reload(upstream=upstream(new))
                await ends(upload, b"3\r\ntwo\r\n0\r\n\r\n", b"onetwo")
                tunnel.send(b"still here")
                assert await tunnel.exactly(10) == b"STILL HERE"
                assert new.requests == []


async def echo_body(peer: Peer) -> None:
    request = await peer.request()
    await peer.send(ok(request.body.replace(b"\r\n", b"")))


async def ends(client: Raw, rest: bytes, said: bytes) -> None:
    client.send(rest)
    assert (await client.answer())[1] == said


async def test_connections_stay_warm_where_nothing_is_new_about_the_backend(file: Path) -> None:
    async with RawBackend(echo) as backend:
        async with running(file, upstream=upstream(backend)) as gateway:
            for width in (1, 2, 3):
                async with gateway.post("/bulk", batch(1)) as answer:
                    assert answer.status == 200
                await gateway.reload(upstream=upstream(backend), batch={"width": width})
            assert len(backend.peers) == 1


async def test_nobody_gets_a_full_bucket_by_a_change_of_something_else(file: Path) -> None:
    limit = {"per_second": 0.001, "burst": 2}
    async with RawBackend(echo) as backend:
        settings = {"upstream": upstream(backend), "rate_limit": limit}
        async with running(file, **settings) as gateway:
            async with gateway.post("/bulk", batch(2)) as answer:
                assert answer.status == 200
            await gateway.reload(**settings, batch={"width": 3})
            async with gateway.post("/bulk", batch(1)) as answer:
                assert [r["status"] for r in await answer.json()] == [429]
            await gateway.reload(**{**settings, "rate_limit": {**limit, "burst": 3}})
            async with gateway.post("/bulk", batch(1)) as answer:
                assert [r["status"] for r in await answer.json()] == [200]


async def test_a_new_probe_does_not_make_a_ready_gateway_unready(file: Path) -> None:
    async with RawBackend(silent) as backend:
        async with running(file, upstream=upstream(backend)) as gateway:
            probe = {"path": "/health", "interval": "60s", "timeout": "30s"}
            await gateway.reload(upstream=upstream(backend, probe=probe))
            await backend.until(lambda: bool(backend.peers))
            assert await gateway.app.ready() == []
            assert await gateway.metric("gateway_upstream_up") == 1
            await gateway.reload(upstream=upstream(backend))
            await backend.until(lambda: not backend.open)
            assert await gateway.metric("gateway_upstream_up") == 0  # there is none


async def test_an_operators_log_level_outlives_a_change_of_something_else(file: Path) -> None:
    async with running(file) as gateway:
        gateway.app.logs.set_level("error")
        await gateway.reload(batch={"width": 3}, log={"subrequests": "all", "sample": "50%"})
        assert gateway.app.logs.level == "error"
        assert (gateway.app.logs.listed_from, gateway.app.logs.sample) == (0, 0.5)
        await gateway.reload(log={"level": "debug", "format": "console"})
        assert gateway.app.logs.level == "debug"


async def test_deadlines_of_clients_hold_for_those_that_are_there(file: Path) -> None:
    async with RawBackend(echo) as backend:
        async with running(file, upstream=upstream(backend)) as gateway:
            async with raw(gateway.address) as client:
                client.send(get("/x"))
                await client.answer()
                await gateway.reload(upstream=upstream(backend), client={"idle": "1ms"})
                assert await client.rest() == b""


async def test_a_bound_of_clients_holds_for_those_that_come(file: Path) -> None:
    async with RawBackend(echo) as backend:
        async with running(file, upstream=upstream(backend)) as gateway:
            await gateway.reload(upstream=upstream(backend), client={"connections": 1})
            async with raw(gateway.address) as first, raw(gateway.address) as second:
                assert b" 503 " in await second.head()
                first.send(get("/x"))
                assert b" 200 " in (await first.answer())[0]


# --- what is not ---------------------------------------------------------------------------------


async def test_settings_with_mistakes_leave_the_old_ones_in_force(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with RawBackend(echo) as backend:
        async with running(file, upstream=upstream(backend)) as gateway:
            await gateway.reload(upstream=upstream(backend), limits={"subrequests": -1})
            async with gateway.post("/bulk", batch(3)) as answer:
                assert len(await answer.json()) == 3
            assert await gateway.metric('gateway_config_reloads_total{result="failed"}') == 1
            assert await gateway.metric("gateway_config_last_reload_successful") == 0
            await gateway.reload(upstream=upstream(backend), limits={"subrequests": 2})
            assert await gateway.metric("gateway_config_last_reload_successful") == 1
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (told,) = [line for line in lines if line["event"] == "settings_not_reloaded"]
    assert told["mistakes"] == [f"{file}:1: limits.subrequests: must be at least 1"]
    assert told["file"] == str(file)


@pytest.mark.parametrize("missing", ["ca", "cert"])
async def test_files_that_cannot_be_read_are_a_mistake_too(file: Path, missing: str) -> None:
    async with RawBackend(echo) as backend:
        async with running(file, upstream=upstream(backend)) as gateway:
            tls = {"ca": "/none.pem"} if missing == "ca" else {"cert": "/none", "key": "/none"}
            probe = {"path": "/health"}
            await gateway.reload(upstream={"url": "https://b", "tls": tls, "probe": probe})
            assert await gateway.metric('gateway_config_reloads_total{result="failed"}') == 1
            async with gateway.post("/bulk", batch(3)) as answer:
                assert [r["status"] for r in await answer.json()] == [200] * 3


async def test_what_needs_a_restart_is_named_and_all_else_holds(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with RawBackend(echo) as backend:
        async with running(file, upstream=upstream(backend)) as gateway:
            settings = {"workers": 2, "ops_write": "off", "limits": {"subrequests": 1}}
            await gateway.reload(upstream=upstream(backend), **settings)
            async with gateway.post("/bulk", batch(2)) as answer:
                assert answer.status == 413
            assert gateway.app.settings.workers == 1
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (told,) = [line for line in lines if line["event"] == "restart_needed"]
    assert told["settings"] == ["ops_write", "workers"]


async def test_a_process_that_drains_ends_with_the_settings_that_it_has(file: Path) -> None:
    async with running(file) as gateway:
        gateway.app.drain(asyncio.get_running_loop().time() + 5)
        await gateway.reload(limits={"subrequests": 1})
        assert gateway.app.settings.limits.subrequests == 100
        assert await gateway.metric('gateway_config_reloads_total{result="failed"}') == 1


# --- a process -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGHUP", "file"])
async def test_a_process_takes_new_settings_over_under_load(file: Path, how: str) -> None:
    """Requests go on without a pause while the backend is another one from some moment on."""
    async with RawBackend(named("old")) as old, RawBackend(named("new")) as new:
        write(file, upstream=upstream(old), log={"sample": 0}, drain={"delay": "0s"})
        command = [sys.executable, "-m", "gateway", "run", "-c", str(file)]
        process = await asyncio.create_subprocess_exec(
            *command, "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0",
            cwd=ROOT, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert process.stderr is not None
        try:
            async with asyncio.timeout(60):
                line = json.loads(await process.stderr.readline())
                base = f"http://{line['listen'][0]}"
                drained = asyncio.ensure_future(process.stderr.read())
                async with aiohttp.ClientSession() as client:
                    seen = set[str]()
                    while "new" not in seen:
                        async with client.post(base + "/bulk", json=batch(5)) as answer:
                            contents = {r["contents"] for r in await answer.json()}
                        assert len(contents) == 1
                        if not seen:
                            write(file, upstream=upstream(new), drain={"delay": "0s"})
                            if how == "SIGHUP":
                                process.send_signal(signal.SIGHUP)
                        seen |= contents
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
                assert b'"settings_reloaded"' in await drained
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

"""The operators' listener is theirs: out of reach for clients, and always there for operators."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import AsyncExitStack

import pytest

from gateway.config.settings import Client, Paths
from gateway.server import operations
from tests.front import eventually, raw
from tests.security.siege import FORMATS, GUIDEWIRE, Format, Siege, echo, got, head, posted, siege
from tests.support.raw_backend import RawBackend, gated

PAGES = [
    "/livez", "/readyz", "/metrics", "/limits", "/loglevel", "/openapi.json", "/drain",
    "/explain/sugarcrm", "/explain/guidewire",
]  # fmt: skip


async def test_no_page_is_on_the_traffic_port_however_it_is_asked_for() -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for page in PAGES:
            for target in (page, f"http://{gate.ops}{page}", f"/{page}", f"{page}?x", f"/.{page}"):
                for method in ("GET", "POST", "PUT", "OPTIONS"):
                    answer = await gate.ask(got(target, [("Content-Length", "0")], method))
                    assert answer.json == {"method": method, "target": backend.requests[-1].target}
            answer = await gate.ask(head(f"GET {page} HTTP/1.1", host=gate.ops))
            assert answer.json["target"] == page
        assert (await gate.ask(got("/readyz"), to=gate.ops)).json["ready"] is True


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_no_page_is_reached_by_a_subrequest(form: Format) -> None:
    """What looks like one is the backend's path; what names the listener is another host."""
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.bulk(form, [form.entry(page, "POST", body={}) for page in PAGES])
        assert form.statuses(answer) == [200] * len(PAGES)
        assert [request.target for request in backend.requests] == PAGES
        port = gate.ops.rpartition(":")[2]
        for host in (gate.ops, f"localhost:{port}", f"[::1]:{port}", f"0:{port}", f"gw:{port}"):
            for page in PAGES:
                answer = await gate.bulk(form, [form.entry(f"http://{host}{page}", "POST")])
                assert answer.status == 400 or form.statuses(answer) == [404]
        assert len(backend.requests) == len(PAGES)
        assert (await gate.ask(got("/readyz"), to=gate.ops)).json["ready"] is True


async def test_no_bulk_call_and_nothing_else_is_taken_on_the_operators_port() -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for form in FORMATS:
            document = form.document([form.entry("/x")])
            answer = await gate.ask(posted(form.path, document), to=gate.ops)
            assert answer.status in (404, 405)
        for target in ("/", "/x", "http://gw/x", "//metrics", "/metrics/../x", "/explain/../drain"):
            assert (await gate.ask(got(target), to=gate.ops)).status == 404
        assert not backend.peers


@pytest.mark.parametrize("write", ["off", "loopback", "all"])
async def test_only_who_may_write_writes_and_no_page_in_a_browser_does(write: str) -> None:
    level = b'{"level":"error"}'
    origin = [("Origin", "http://evil.example")]
    forged = [("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("Host", "localhost")]
    async with RawBackend(echo) as backend, siege(backend, ops_write=write) as gate:
        body = posted("/loglevel", level).replace(b"POST", b"PUT", 1)
        assert (await gate.ask(body, to=gate.ops)).status == (403 if write == "off" else 200)
        from_page = posted("/loglevel", level, origin).replace(b"POST", b"PUT", 1)
        assert (await gate.ask(from_page, to=gate.ops)).status == 403
        if write == "off":
            claimed = posted("/loglevel", level, forged[:2]).replace(b"POST", b"PUT", 1)
            assert (await gate.ask(claimed, to=gate.ops)).status == 403
        assert (await gate.ask(posted("/drain", b"", origin), to=gate.ops)).status == 403
        assert (await gate.ask(got("/readyz"), to=gate.ops)).json["ready"] is True


async def test_an_error_of_a_page_quotes_nothing() -> None:
    mark = "S3CRET"
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for request in (
            got("/metrics", [("Authorization", f"{mark}\x01")]),
            head(f"GET /{mark} x HTTP/1.1"),
            head(f"{mark} / HTTP/1.1"),
            head("GET / HTTP/1.1", [(mark, "a" * 20_000)]),
            got(f"/{mark}"),
            posted("/explain/sugarcrm", f'{{"requests":[{{"{mark}":}}]}}'.encode()),
            posted(f"/explain/{mark}", b"{}"),
            posted("/loglevel", mark.encode()).replace(b"POST", b"PUT", 1),
            posted("/loglevel", b'{"level":"%b"}' % mark.encode()).replace(b"POST", b"PUT", 1),
        ):
            (answer,) = await gate.talk(request, answers=1, to=gate.ops)
            assert answer.status >= 400
            assert answer.all("content-type") == ["application/problem+json"]
            assert mark not in str(answer.headers) + answer.body.decode()


async def test_compressed_input_is_refused_and_never_decoded() -> None:
    bomb = gzip.compress(b"[" * 20_000_000, 9)
    coded = [("Content-Encoding", "gzip")]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.ask(posted("/explain/sugarcrm", bomb, coded), to=gate.ops)
        assert answer.status == 415
        request = posted("/metrics", bomb, coded).replace(b"POST", b"GET", 1)
        assert (await gate.ask(request, to=gate.ops)).status == 200
        assert (await gate.ask(posted("/x", bomb, coded), to=gate.ops)).status == 404


async def test_whoever_fills_the_operators_port_keeps_no_operator_out() -> None:
    """Silent, slow and idle connections go, the oldest first, when another one comes."""
    opened = (
        b"",
        b"GET /metr",
        got("/livez"),
        b"PUT /loglevel HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
    )
    async with RawBackend(echo) as backend, siege(backend) as gate, AsyncExitStack() as stack:
        for number in range(2 * operations.MOST):
            client = await stack.enter_async_context(raw(gate.ops))
            client.send(opened[number % len(opened)])
            assert (await gate.ask(got("/readyz"), to=gate.ops)).status == 200
        served = gate.gateway.worker._operators.server.connections  # type: ignore[union-attr]
        assert len(served) <= operations.MOST
        assert "gateway_build_info" in await gate.metrics()


async def unfinished(gate: Siege, stack: AsyncExitStack, count: int) -> None:
    for _ in range(count):
        client = await stack.enter_async_context(raw(gate.address))
        client.send(posted("/bulk", b" " * 1000)[:-1])


async def test_operators_get_in_when_clients_fill_the_house() -> None:
    """Every connection taken, every connection to the backend busy, batches at their bound."""
    gate_open = asyncio.Event()
    async with RawBackend(gated(gate_open)) as backend:
        async with siege(backend, client=Client(connections=20)) as gate, AsyncExitStack() as stack:
            document = GUIDEWIRE.document([GUIDEWIRE.entry("/x")] * 8)
            tasks = [asyncio.create_task(gate.ask(posted("/batch", document))) for _ in range(10)]
            await backend.until(lambda: len(backend.requests) == 64)
            await unfinished(gate, stack, 10)
            await eventually(lambda: len(gate.gateway.worker.clients.open) == 20)
            assert (await gate.talk(got("/x")))[0].status == 503
            for page in ("/livez", "/readyz", "/limits"):
                assert (await gate.ask(got(page), to=gate.ops)).status in (200, 503)
            assert "gateway_batches_in_flight 10.0" in await gate.metrics()
            gate_open.set()
            assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}


async def test_what_operators_are_shown_does_not_depend_on_who_has_called() -> None:
    """There is nothing on these pages to be guessed byte by byte, and nothing of one client: what
    they show are sums, and what they compare is no secret."""
    async with RawBackend(echo) as backend, siege(backend, paths=Paths(deny=("/x/**",))) as gate:
        pages = {
            page: await gate.ask(got(page), to=gate.ops)
            for page in ("/limits", "/openapi.json", "/loglevel")
        }
        for form in FORMATS:
            fields = [("Authorization", "Bearer S3CRET"), ("X-Tenant", "acme")]
            await gate.bulk(form, [form.entry("/acme")], fields)
        for page, before in pages.items():
            after = await gate.ask(got(page, [("Authorization", "Bearer x")]), to=gate.ops)
            assert (after.status, after.body) == (before.status, before.body)
        shown = (
            json.dumps([answer.body.decode() for answer in pages.values()]) + await gate.metrics()
        )
        assert "acme" not in shown
        assert "S3CRET" not in shown

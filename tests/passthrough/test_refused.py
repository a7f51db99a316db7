"""Requests that go nowhere: each gets its own status, and the connection ends where it is in doubt
what comes next. What is no HTTP is in test_server.py, what pretends to be in test_smuggling.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.config.settings import PassThrough, Paths
from tests.front import get, raw
from tests.passthrough.messages import Answer, read_answer, turns
from tests.passthrough.shapes import CHUNKED, JSON, ask, chunks, give
from tests.security.siege import siege
from tests.support.ports import free_port
from tests.support.raw_backend import RawBackend, answering, ok
from tests.test_server import REFUSED

AFTER = get("/after")
DATED = {b"content-type", b"date", b"proxy-status", b"content-length", b"connection"}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_request_reaches_nobody_and_takes_what_follows_with_it(name: str) -> None:
    request, status, reason = REFUSED[name]
    async with RawBackend(answering(ok())) as backend, siege(backend) as gateway:
        async with raw(gateway.address) as client:
            client.send(request.encode("latin-1"))
            await turns()
            client.send(AFTER)
            answer = await read_answer(client, "GET")
            assert await client.rest() == b""
        assert answer.status == status
        assert json.loads(answer.body)["reason"] == reason
        assert {field.lower() for field, _ in answer.fields} - {b"allow"} == DATED
        assert answer.value(b"connection") == b"close"
        assert backend.requests == []


# --- bounds --------------------------------------------------------------------------------------


def target(size: int) -> bytes:
    return ask("GET /" + "t" * (size - 1))


def field(size: int) -> bytes:
    return ask("GET /", "X:" + "f" * size)


def fields(number: int) -> bytes:
    return ask("GET /", *["X: f"] * (number - 1))


BOUNDS: dict[str, tuple[Callable[[int], bytes], int, int, int]] = {
    "a target": (target, 16_384, 16_385, 414),
    "a field": (field, 16_382, 16_390, 431),
    "fields": (fields, 128, 129, 431),
}
"""How it is made, the largest that passes, one that does not, and what that gets."""


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_head_passes_up_to_its_bounds_and_no_further(name: str, at_once: bool) -> None:
    made, most, more, status = BOUNDS[name]
    async with RawBackend(answering(ok())) as backend, siege(backend) as gateway:
        assert (await said(gateway.address, made(most), at_once)).status == 200
        assert len(backend.requests) == 1
        refused = await said(gateway.address, made(more), at_once)
        assert refused.status == status
        assert refused.value(b"connection") == b"close"
        assert len(backend.requests) == 1


async def said(address: str, request: bytes, at_once: bool) -> Answer:
    size = len(request) if at_once else 999
    async with raw(address) as client:
        for start in range(0, len(request), size):
            client.send(request[start : start + size])
            await turns(2)
        return await read_answer(client, "GET")


# --- the connection ------------------------------------------------------------------------------

LARGE = b"[" + b" " * 5_000_000 + b"]"
NOWHERE = {"passthrough": PassThrough(enabled=False)}
RULES = {"passthrough": PassThrough(enforce_paths=True), "paths": Paths(deny=("/no/**",))}
VIA = "Via: 1.1 " + ", 1.1 ".join(f"bulk-gateway-{n}" for n in range(6))

WHOLE: dict[str, tuple[bytes, int, dict[str, Any]]] = {
    "no pass-through": (ask("GET /a"), 404, NOWHERE),
    "no pass-through, with contents": (give("POST /a", body=b"a"), 404, NOWHERE),
    "no pass-through, in chunks": (ask("POST /a", CHUNKED, body=chunks(b"a")), 404, NOWHERE),
    "a path that is denied": (give("PUT /no/a", body=b"a"), 403, RULES),
    "a path that is none": (ask("GET /a/../b"), 400, RULES),
    "a loop": (ask("GET /a", VIA), 508, {}),
    "a bulk call of another type": (give("POST /bulk", "Content-Type: a/b", body=b"{}"), 415, {}),
    "a bulk call of nothing": (ask("POST /bulk", JSON), 422, {}),
    "a bulk call too large": (give("POST /bulk", JSON, body=LARGE), 413, {}),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_request_that_was_understood_and_refused_is_not_the_last(name: str) -> None:
    request, status, sections = WHOLE[name]
    async with RawBackend(answering(ok())) as backend, siege(backend, **sections) as gateway:
        async with raw(gateway.address) as client:
            for _ in range(2):
                client.send(request)
                assert (await read_answer(client, "POST")).status == status
        assert backend.requests == []


async def test_a_backend_that_is_not_there_costs_no_connection_to_the_client() -> None:
    async with siege(f"http://127.0.0.1:{free_port()}") as gateway, raw(gateway.address) as client:
        for request in (ask("GET /a"), give("POST /a", body=b"a"), ask("GET /b")):
            client.send(request)
            assert (await read_answer(client, "GET")).status == 502


INCOMPLETE: dict[str, tuple[bytes, int, dict[str, Any]]] = {
    "no pass-through": (ask("PUT /a", "Content-Length: 1000000", body=b"a" * 1000), 404, NOWHERE),
    "no pass-through, in chunks": (ask("PUT /a", CHUNKED, body=b"1\r\na\r\n"), 404, NOWHERE),
    "a bulk call too large": (
        ask("POST /bulk", JSON, CHUNKED, body=chunks(LARGE).removesuffix(b"0\r\n\r\n")), 413, {}
    ),
    "a bulk call of another type": (ask("POST /bulk", "Content-Type: a/b", CHUNKED), 415, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", INCOMPLETE)
async def test_a_request_that_is_refused_before_it_is_complete_is_the_last(name: str) -> None:
    """With the end of its contents something may come that nobody would read."""
    request, status, sections = INCOMPLETE[name]
    async with RawBackend(answering(ok())) as backend, siege(backend, **sections) as gateway:
        async with raw(gateway.address) as client:
            client.send(request)
            answer = await read_answer(client, "PUT")
            assert answer.status == status
            assert answer.value(b"connection") == b"close"
            assert await client.rest() == b""
        assert backend.requests == []

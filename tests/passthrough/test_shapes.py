"""Every shape of the table, straight at a backend and through the gateway: both ends get the same.

What may differ is in `messages`; everything else is compared byte for byte.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.front import raw
from tests.passthrough.messages import (
    Answer,
    Arrived,
    expected_and_got,
    final_answer,
    read_answer,
    turns,
)
from tests.passthrough.shapes import OK, REQUESTS, SHAPES, WAIT, Shape
from tests.security.siege import siege
from tests.support.raw_backend import RawBackend, Request

NAME = "bulk-gateway-test"


@pytest.mark.parametrize("name", SHAPES)
async def test_both_ends_get_what_they_would_get_without_the_gateway(name: str) -> None:
    await compare(SHAPES[name])


KEEPING = [
    said
    for said in REQUESTS.values()
    if b"/1.0\r\n" not in said and b"Connection: close" not in said
]


@pytest.mark.parametrize("at_once", [False, True])
async def test_what_was_asked_before_on_a_connection_changes_nothing(at_once: bool) -> None:
    # Nothing is read on behind chunks that came at once with what follows (RELIABILITY part 1).
    said = [one for one in KEEPING if not at_once or b"hunked" not in one]
    methods = tuple(one.split()[0].decode() for one in said)
    says = (b"".join(said),) if at_once else tuple(piece for one in said for piece in (one, WAIT))
    await compare(Shape(says, (OK,), methods))


async def compare(shape: Shape) -> None:
    straight, received = await talk(shape, through=False)
    through, arrived = await talk(shape, through=True)
    expected, got = both(shape, straight, through)
    assert got == expected
    assert arrivals(arrived) == expected_of(shape, received)


def both(
    shape: Shape, straight: list[Answer], through: list[Answer]
) -> tuple[list[Answer], list[Answer]]:
    """The answers that a client has to get, and those it got."""
    legacy = b" HTTP/1.0\r\n" in b"".join(shape.says)
    pairs = [
        expected_and_got(plain, passed, via=NAME, legacy=legacy)
        for plain, passed in zip(straight, through, strict=True)
    ]
    return [expected for expected, _ in pairs], [got for _, got in pairs]


def arrivals(requests: list[Request]) -> list[Arrived]:
    return [Arrived.of(request) for request in requests]


def expected_of(shape: Shape, received: list[Request]) -> list[Arrived]:
    """The requests that the backend has to get."""
    return arrivals(received if shape.arrives is None else [Request(shape.arrives, b"")])


async def talk(shape: Shape, *, through: bool) -> tuple[list[Answer], list[Request]]:
    """What the client reads, and what the backend gets."""
    async with RawBackend(shape.script()) as backend, asyncio.timeout(20):
        if not through:
            return await converse(f"127.0.0.1:{backend.port}", shape), backend.requests
        async with siege(backend, name=NAME) as gateway:
            return await converse(gateway.address, shape), backend.requests


async def converse(address: str, shape: Shape, **options: Any) -> list[Answer]:
    """The answers that a shape's client reads; interim ones if it waits for them."""
    answers: list[Answer] = []
    methods = list(shape.methods)
    async with raw(address, **options) as client:
        for piece in shape.says:
            if piece != WAIT:
                client.send(piece)
                await client.writer.drain()
                await turns()
                continue
            answers.append(await read_answer(client, methods[0]))
            if answers[-1].status >= 200:
                methods.pop(0)
        return answers + [await final_answer(client, method) for method in methods]

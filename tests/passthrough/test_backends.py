"""Real backends answer through the gateway as they answer straight."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.front import raw
from tests.passthrough.backends import BACKENDS
from tests.passthrough.messages import Answer, expected_and_got, read_answer
from tests.passthrough.sites import SITES
from tests.security.siege import siege

NAME = "bulk-gateway-test"


@pytest.mark.parametrize("name", BACKENDS)
async def test_a_backend_answers_as_if_nothing_stood_in_front(name: str, tmp_path: Path) -> None:
    requests = SITES[name]
    async with BACKENDS[name](tmp_path) as address, siege(f"http://{address}", name=NAME) as front:
        straight = await asked(address, requests)
        through = await asked(front.address, requests)
    different = {}
    for request, plain, passed in zip(requests, straight, through, strict=True):
        legacy = b" HTTP/1.0\r\n" in request
        expected, got = expected_and_got(plain, passed, via=NAME, legacy=legacy)
        if got != expected:
            different[request.partition(b"\r\n")[0]] = (expected, got)
    assert different == {}


async def asked(address: str, requests: Iterable[bytes]) -> list[Answer]:
    """The answers, each on a connection of its own, as if all had been given at one time."""
    answers = []
    for request in requests:
        async with raw(address) as client, asyncio.timeout(20):
            client.send(request)
            answer = await read_answer(client, request.split(b" ")[0].decode())
        answers.append(replace(answer, fields=tuple(map(timeless, answer.fields))))
    return answers


def timeless(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = field
    moving = name.lower() in (b"date", b"expires", b"last-modified")
    return name, b"now" if moving else value

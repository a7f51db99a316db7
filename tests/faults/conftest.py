"""Every test here runs on the event loop of production, and reads what the gateway logged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvloop

from tests.faults.stage import Stage, at_rest, staged

SetStage = Callable[..., AbstractAsyncContextManager[Stage]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def stage(capfd: pytest.CaptureFixture[str]) -> SetStage:
    """`async with stage(url) as it`. At its end the books are balanced and nothing is left."""

    @asynccontextmanager
    async def set_stage(url: str, **sections: Any) -> AsyncIterator[Stage]:
        async with at_rest():
            async with staged(url, **sections) as it:
                yield it
                await it.settled()
        it.balance([json.loads(line) for line in capfd.readouterr().err.splitlines()])

    return set_stage

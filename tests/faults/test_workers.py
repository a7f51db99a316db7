"""A worker that is killed: its own clients are cut, all others served, and it has a successor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.workers.channel import Refresh, parents
from tests.faults.stage import WELL, Bulk, committing
from tests.faults.test_process import settings, well, whole
from tests.front import Raw, raw
from tests.security.siege import got
from tests.support.program import program
from tests.support.raw_backend import Peer, RawBackend, ok

CLIENTS = 32
"""The kernel deals connections out; with so many, each worker has some."""


async def test_a_killed_worker_costs_its_own_clients_their_connections_and_nobody_else_anything(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()

    async def held(peer: Peer) -> None:
        await gate.wait()
        await peer.send(ok(WELL))

    async with (
        asyncio.timeout(60),
        RawBackend(committing(held)) as backend,
        program(tmp_path, settings(backend, workers=2)) as gateway,
        AsyncExitStack() as crowd,
    ):
        clients = [await crowd.enter_async_context(raw(gateway.address)) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            if number % 2:
                client.send(Bulk([("POST", f"/fault/{number}"), ("POST", "/well/0")]).request)
            else:
                client.send(got(f"/fault/{number}"))
        await backend.until(lambda: len(backend.requests) == CLIENTS)
        started = await gateway.said("worker_serving")
        os.kill(started["pid"], signal.SIGKILL)
        await gateway.said("worker_serving", times=3)
        gate.set()
        ends = [await _end(client) for client in clients]
        assert set(ends) <= {"cut", "whole"}
        assert "whole" in ends
        await well(gateway)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    held_targets = [r.target for r in backend.requests if r.target.startswith("/fault/")]
    assert len(held_targets) == len(set(held_targets)) == CLIENTS, "nothing was sent twice"


async def _end(client: Raw) -> str:
    try:
        answer = await whole(client)
    except (AssertionError, ConnectionError):
        return "cut"
    return "whole" if answer.status == 200 else str(answer.status)


async def test_who_speaks_to_a_worker_that_has_just_died_gets_no_answer_and_no_error() -> None:
    """Operators' questions and signals come at any time, also before its death is known."""
    ours, theirs = socket.socketpair()
    channel = await parents(ours)
    theirs.close()
    for _ in range(3):
        channel.say(Refresh())
        await asyncio.sleep(0)
    assert await channel.hear() is None

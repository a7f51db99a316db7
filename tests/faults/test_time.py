"""What befalls time: the wall clock jumps, the process stands still."""

from __future__ import annotations

import ast
import asyncio
import signal
import time
from pathlib import Path

import pytest

import gateway
from tests.faults.conftest import SetStage
from tests.faults.stage import WELL, Bulk, committing, statuses
from tests.faults.test_process import settings, well, whole
from tests.front import eventually, raw
from tests.security.siege import got, posted
from tests.support.program import program
from tests.support.raw_backend import Peer, RawBackend, ok

DAY = 86_400.0


@pytest.mark.parametrize("jump", [-365 * DAY, 365 * DAY], ids=["back", "on"])
async def test_a_jump_of_the_clock_ends_nothing_early_or_late(
    jump: float, stage: SetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def held(peer: Peer) -> None:
        begun.set()
        await gate.wait()
        await peer.send(ok(WELL))

    true = time.time
    async with RawBackend(committing(held)) as backend, stage(backend.url) as it:
        it.watch(backend)
        results = asyncio.ensure_future(it.results("GET well", "POST fault", "GET well"))
        await begun.wait()
        monkeypatch.setattr(time, "time", lambda: true() + jump)
        await it.works()
        gate.set()
        assert statuses(await results) == [200] * 3
        it.bulks.append(it.bulks.pop(0))  # it ended last
        passed = await it.passed("POST", "fault", b"{}")
        assert (passed.status, passed.cut) == (200, False)


def test_no_deadline_is_measured_by_the_wall_clock() -> None:
    """Nobody asks what time it is but those who write it down: the answer's Date, the records."""
    asked = {
        path.relative_to(folder).as_posix()
        for folder in [Path(gateway.__file__).parent]
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if _asks_the_time(node)
    }
    assert {path for path in asked if not path.startswith(("telemetry/", "demo/"))} == {"answer.py"}


def _asks_the_time(node: ast.AST) -> bool:
    match node:
        case ast.ImportFrom(module="time", names=names):
            return any(alias.name.startswith("time") for alias in names)
        case ast.Attribute(value=ast.Name("time"), attr="time" | "time_ns"):
            return True
        case ast.Attribute(value=ast.Name("datetime"), attr="now" | "utcnow" | "today"):
            return True
    return False


async def test_what_came_while_the_process_stood_still_came_in_time(tmp_path: Path) -> None:
    """Stopped for longer than any deadline, as a blocked event loop would be: answers to a bulk
    call and to a passed request, the rest of a body and of a head."""
    begun, gate = asyncio.Event(), asyncio.Event()
    answered = asyncio.Event()

    async def held(peer: Peer) -> None:
        begun.set()
        await gate.wait()
        await peer.send(ok(WELL))
        answered.set()

    short = {"client": {"body_stall": "1s", "header": "1s"}, "limits": {"batch_time": "1s"}}
    timeouts = {"response": "1s"}
    request = posted("/well", b"{}")
    async with asyncio.timeout(60), RawBackend(committing(held)) as backend:
        url = {"url": backend.url, "timeouts": timeouts}
        async with (
            program(tmp_path, settings(backend, upstream=url, **short)) as it,
            raw(it.address) as client,
            raw(it.address) as other,
            raw(it.address) as body,
            raw(it.address) as head,
        ):
            body.send(request[:-1])
            head.send(request[:9])
            client.send(Bulk([("POST", "/fault/1")]).request)
            await begun.wait()
            begun.clear()
            other.send(got("/fault/2"))
            await begun.wait()
            await eventually(lambda: it.asleep)  # else it would read before it looks at clocks
            it.signal(signal.SIGSTOP)
            gate.set()
            body.send(request[-1:])
            head.send(request[9:])
            await answered.wait()
            await asyncio.sleep(1.5)  # this is the fault
            it.signal(signal.SIGCONT)
            assert [entry["status"] for entry in (await whole(client)).json] == [200]
            for one in (other, body, head):
                assert (await whole(one)).status == 200
            await well(it)

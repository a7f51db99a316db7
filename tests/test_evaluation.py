"""JSONata in its helper process: values, mistakes, and expressions that must be ended."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import evaluation
from gateway.batch import Evaluate, Reply
from gateway.evaluation import Evaluator

pytest.importorskip("jsonata")


@pytest.fixture
async def evaluator() -> AsyncIterator[Evaluator]:
    made = Evaluator()
    yield made
    await made.close()


def work(expression: str, context: Any = None) -> Evaluate:
    return Evaluate(expression, json.dumps(context or {}).encode())


def slug(reply: Reply) -> str:
    return reply.failure.details if reply.failure else ""


ENDLESS = "($f := function($n) { $f($n + 1) }; $f(0))"
GROWING = "$reduce([1..100], function($a, $b) { $a & $a }, 'xxxxxxxx')"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("resources.contacts.id", [1, 2**64]),
        ("{'n': $count(resources.contacts), 'who': args.who}", {"n": 2, "who": "é"}),
        ("resources.contacts[id = 1].price", 1.5),
        ("missing", None),
        ("null", None),
        ("$formatNumber(1234.5, '#,##0.00')", "1,234.50"),
        ("$replace(args.who, /é/, 'e')", "e"),
    ],
)
async def test_an_expression_gives_json(evaluator: Evaluator, expression: str, value: Any) -> None:
    contacts = [{"id": 1, "price": 1.5}, {"id": 2**64}]
    reply = await evaluator.run(
        work(expression, {"args": {"who": "é"}, "resources": {"contacts": contacts}})
    )
    assert reply.status == 200
    assert json.loads(reply.body) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(", "an expression fails (S0203)"),
        ("$nobody()", "an expression fails (T1006)"),
        ("$error('a secret')", "an expression fails (D3137)"),
        ("1/0", "an expression fails"),
        ("function($x) { $x }", "an expression fails"),
        ('"\\ud800"', "an expression fails"),
    ],
)
async def test_a_mistake_is_told_by_its_code_alone(
    evaluator: Evaluator, expression: str, message: str
) -> None:
    """What an expression says itself might be anybody's data."""
    reply = await evaluator.run(work(expression))
    assert slug(reply) == "expression_failed"
    assert reply.failure is not None
    assert reply.failure.message == message
    assert reply.status == 400


async def test_an_expression_that_never_ends_is_ended(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next one finds a new helper."""
    monkeypatch.setattr(evaluation, "SECONDS", 0.3)
    assert slug(await evaluator.run(work("$match($pad('', 40, 'a') & 'b', /(a*)*c/)"))) == (
        "expression_time"
    )
    assert (await evaluator.run(work("1 + 1"))).body == b"2"


async def test_an_expression_that_recurses_for_ever_ends(evaluator: Evaluator) -> None:
    assert slug(await evaluator.run(work(ENDLESS))) in {"expression_failed", "expression_time"}
    assert (await evaluator.run(work("1 + 1"))).body == b"2"


async def test_an_expression_that_never_stops_growing_is_stopped(evaluator: Evaluator) -> None:
    assert slug(await evaluator.run(work(GROWING))) == "expression_memory"
    assert (await evaluator.run(work("1 + 1"))).body == b"2"


async def test_one_process_serves_many_expressions_in_turn(evaluator: Evaluator) -> None:
    replies = await asyncio.gather(*(evaluator.run(work(f"{n} * {n}")) for n in range(20)))
    assert [json.loads(reply.body) for reply in replies] == [n * n for n in range(20)]
    process = evaluator._process
    assert process is not None
    await evaluator.run(work("1"))
    assert evaluator._process is process


async def test_the_process_is_started_when_first_needed_and_gone_when_closed() -> None:
    evaluator = Evaluator()
    assert evaluator._process is None
    await evaluator.run(work("1"))
    process = evaluator._process
    assert process is not None
    await evaluator.close()
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_who_no_longer_waits_ends_the_work(evaluator: Evaluator) -> None:
    """The helper is killed rather than left with an answer that nobody reads."""
    await evaluator.run(work("1"))
    process = evaluator._process
    assert process is not None
    written = asyncio.Event()
    assert process.stdin is not None
    drain = process.stdin.drain

    async def told() -> None:
        await drain()
        written.set()

    process.stdin.drain = told  # type: ignore[method-assign]
    task = asyncio.create_task(evaluator.run(work("$match($pad('', 40, 'a') & 'b', /(a*)*c/)")))
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process.returncode is not None
    assert (await evaluator.run(work("2"))).body == b"2"


async def test_a_helper_that_dies_costs_one_expression(evaluator: Evaluator) -> None:
    await evaluator.run(work("1"))
    assert evaluator._process is not None
    evaluator._process.kill()
    await evaluator._process.wait()
    assert (await evaluator.run(work("1"))).failure is not None
    assert (await evaluator.run(work("1"))).body == b"1"


async def test_a_helper_that_cannot_start_is_a_fault_of_ours(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_HELPER", evaluation._HELPER.with_name("nobody.py"))
    reply = await evaluator.run(work("1"))
    assert reply.status == 500
    assert slug(reply) == "helper"


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="looks at Linux's own record")
async def test_the_helper_opens_nothing_and_starts_nothing(evaluator: Evaluator) -> None:
    """Not even the system's files: its limits say so."""
    await evaluator.run(work("1"))
    assert evaluator._process is not None
    about = Path(f"/proc/{evaluator._process.pid}")
    lines = (about / "limits").read_text().splitlines()
    soft = {line[:26].strip(): line[26:].split()[0] for line in lines}
    assert soft["Max open files"] == "0"
    assert soft["Max processes"] == "0"
    assert soft["Max file size"] == "0"
    assert soft["Max address space"] == str(evaluation.MEMORY)
    assert (about / "environ").read_bytes() == b""

"""What clients may compute has an end, and is no code of ours."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway import evaluation, execution
from tests.security.siege import AGENDIZE, TRUTO, echo, got, siege, truto
from tests.security.test_amplification import answers, node
from tests.support.raw_backend import RawBackend

DEEP: Any = []
for _ in range(24):
    DEEP = [DEEP, DEEP] if len(str(DEEP)) < 20_000 else [DEEP]

COSTLY = [
    "$..*..*",
    "$..[*]..[*]",
    "$..a..b..c",
    "$[?(@.a =~ /(a+)+$/)]",
    "$[?match(@.a, '(a|a)*b')]",
    "$[?search(@, '(x+x+)+y')]",
    "$[?length(@) > 1]",
    "$[?@..*]",
    "$" + "[0]" * 500,
    "$[" + ",".join(["*"] * 600) + "]",
    "$" + "." * 5 + "a",
]


@pytest.mark.parametrize("path", COSTLY, ids=lambda path: path[:30])
async def test_a_jsonpath_without_a_useful_bound_is_refused_with_nothing_sent(path: str) -> None:
    first = AGENDIZE.entry("/a") | {"name": "a"}
    async with RawBackend(answers(DEEP)) as backend, siege(backend) as gate:
        for entry in (
            AGENDIZE.entry(f"/b/${{result=a:{path}}}"),
            AGENDIZE.entry("/b", "POST", body={"x": f"${{result=a:{path}}}"}),
        ):
            answer = await gate.bulk(AGENDIZE, [first, entry])
            if answer.status == 200:  # what is no JSONPath at all is that entry's mistake
                assert AGENDIZE.statuses(answer)[1] == 424
        assert not [request for request in backend.requests if request.target.startswith("/b")]


@pytest.mark.parametrize("path", ["$..*", "$[*][*]", "$..[0]", "$[*].a", "$[0:20000]", "$..a"])
async def test_a_jsonpath_over_a_large_answer_gives_up(path: str) -> None:
    """It then finds nothing, so that nothing is sent that reads it; everybody else is served."""
    first = AGENDIZE.entry("/a") | {"name": "a"}
    payload = [[i, {"a": i}] for i in range(30_000)]
    async with RawBackend(answers(payload)) as backend, siege(backend) as gate:
        readers = [AGENDIZE.entry(f"/b/${{result=a:{path}}}") for _ in range(20)]
        answer = await gate.bulk(AGENDIZE, [first, *readers])
        assert AGENDIZE.statuses(answer) == [200, *[424] * 20]
        assert [request.target for request in backend.requests] == ["/a"]


async def test_a_thousand_jsonpaths_share_one_budget() -> None:
    first = AGENDIZE.entry("/a") | {"name": "a"}
    body = [f"${{result=a:$[0:{9000 - i}]}}" for i in range(900)]
    async with RawBackend(answers([{}] * 9000)) as backend, siege(backend) as gate:
        answer = await gate.bulk(AGENDIZE, [first, AGENDIZE.entry("/b", "POST", body=body)])
        assert AGENDIZE.statuses(answer) == [200, 424]
        await gate.alive()


ATTRIBUTES = [
    "{{args.__class__}}", "{{args.__class__.__mro__}}", "{{args.x.__init__.__globals__}}",
    "{{__import__}}", "{{args.constructor}}", "{{args.__proto__}}",
    "{{args.x.length.constructor}}", "{{resources.__dict__}}", "{{self}}", "{{config}}",
    "{{nothing|attr}}", "{{7*7}}", "{{''.join}}", "${7*7}", "#{7*7}", "{args.x}", "%(x)s",
    "{0.__class__}", "{{args.x.toString}}",
]  # fmt: skip
"""What a template engine, a format string or JavaScript would make something of."""


async def test_placeholders_look_up_keys_of_data_and_nothing_else() -> None:
    body = {str(number): text for number, text in enumerate(ATTRIBUTES)}
    async with RawBackend(echo) as backend, siege(backend) as gate:
        document = truto(node(method="create", body=body), args={"x": "y"})
        assert (await gate.post(TRUTO, document)).status in (200, 400)
        for text in ATTRIBUTES:
            await gate.post(TRUTO, truto(node(method="create", body={"x": text}), args={"x": "y"}))
        assert backend.requests
        for request in backend.requests:
            sent = json.loads(request.body)
            assert set(sent.values()) <= set(ATTRIBUTES)


async def test_what_was_put_in_is_not_looked_at_again() -> None:
    """Not by the grammar that put it in, nor by the other one."""
    again = {
        "x": "{{args.y}}",
        "y": "SECRET",
        "z": "${result=a:$.id}",
        "w": "$&",
        "v": "{{args.v}}",
    }
    wish = node(
        method="create", body={"a": ["{{args.x}}", "{{args.z}}", "{{args.w}}", "{{args.v}}"]}
    )
    async with RawBackend(answers({"id": "${result=a:$.secret}", "secret": "SECRET"})) as backend:
        async with siege(backend) as gate:
            await gate.post(TRUTO, truto(wish, args=again))
            first = AGENDIZE.entry("/a") | {"name": "a"}
            second = AGENDIZE.entry("/b", "POST", body={"x": "${result=a:$.id}{{args.y}}"})
            await gate.bulk(AGENDIZE, [first, second])
    for request in backend.requests:
        assert b"SECRET" not in request.body
    assert json.loads(backend.requests[-1].body) == {"x": "${result=a:$.secret}{{args.y}}"}


async def test_a_text_of_braces_costs_no_more_than_its_length() -> None:
    """Expressions for placeholders have been cubic: 8,000 bytes took minutes."""
    texts = [
        "{{" + " " * 200_000, "{{" * 100_000, "{{" * 50_000 + "}}" * 50_000,
        "{{a" + "|a" * 9000 + "}}", "${result=" * 20_000, "${result=a:" + "$" * 200_000,
        "{{{" * 60_000 + "a}}",
    ]  # fmt: skip
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for text in texts:
            document = truto(node(method="create", body={"x": text}))
            assert (await gate.post(TRUTO, document)).status in (200, 400)
            entry = AGENDIZE.entry("/b", "POST", body={"x": text})
            assert (await gate.bulk(AGENDIZE, [entry])).status in (200, 400)


# --- JSONata -------------------------------------------------------------------------------------

ENDLESS = "($f := function($n) { $f($n + 1) }; $f(0))"
GREEDY = "($f := function($s) { $f($s & $s) }; $f('xxxxxxxxxxxxxxxx'))"


def transform(expression: str, name: str = "t") -> dict[str, Any]:
    return {"type": "transform", "name": name, "depends_on": "a", "persist": True,
            "config": {"expression": expression}}  # fmt: skip


async def evaluated(expression: str, count: int = 1) -> Any:
    async with RawBackend(answers({"result": [{"id": 1}]})) as backend, siege(backend) as gate:
        transforms = [transform(expression, f"t{i}") for i in range(count)]
        answer = await gate.post(TRUTO, truto(node(), *transforms))
        assert answer.status == 200
        await gate.alive()
        return answer.json


@pytest.mark.parametrize("expression", [ENDLESS, GREEDY], ids=["endless", "greedy"])
async def test_an_expression_without_an_end_is_ended_and_the_rest_is_served(
    expression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches share the helper, so fifty of them in one batch cost its time three times."""
    monkeypatch.setattr(evaluation, "SECONDS", 0.3)
    answer = await evaluated(expression, 50)
    assert answer["result"]["a"] == [{"id": 1}]
    assert [len(answer["errors"][f"t{i}"]) for i in range(50)] == [1] * 50


@pytest.mark.parametrize(
    ("bound", "expression", "what"),
    [("MOST_SECONDS", "1", "take more"), ("MOST_MADE", "'twenty bytes of text'", "give more")],
)
async def test_all_expressions_of_a_batch_have_a_bound_together(
    bound: str, expression: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take a second and give megabytes, and a batch may have a hundred in every loop."""
    monkeypatch.setattr(execution, bound, 0)
    answer = await evaluated(expression, 5)
    assert len(answer["result"]["t0"]) == 1
    for further in ("t1", "t2", "t3", "t4"):
        (why,) = answer["errors"][further]
        assert f"all expressions together {what} than" in why["message"]


async def test_while_an_expression_runs_everybody_else_is_served() -> None:
    async with RawBackend(answers({"result": [{"id": 1}]})) as backend, siege(backend) as gate:
        task = asyncio.create_task(gate.post(TRUTO, truto(node(), transform(ENDLESS))))
        await backend.until(lambda: bool(backend.requests))
        for number in range(20):
            assert (await gate.ask(got(f"/{number}"))).status == 200
        assert not task.done()
        assert (await task).json["errors"]["t"]
        fine = await gate.post(TRUTO, truto(node(), transform("[{'id': 2}]")))
        assert fine.json["result"]["t"] == [{"id": 2}]


@pytest.mark.parametrize(
    "expression",
    ["$eval('1+1')", "$readFile('/etc/passwd')", "__import__('os')", "$env", "$$.__class__",
     "$import('os')", "resources.a.__class__", "$.constructor.constructor('return this')()",
     "$fetch('http://127.0.0.1')", "$$.__globals__"],
)  # fmt: skip
async def test_an_expression_sees_its_context_and_nothing_else(expression: str) -> None:
    answer = await evaluated(expression)
    assert answer["errors"]["t0"] or answer["result"]["t0"] in ([], [2])
    assert "root:" not in json.dumps(answer)
    assert "class" not in json.dumps(answer["result"])


async def test_a_targets_query_made_by_an_expression_is_checked_like_any_other() -> None:
    nodes = [
        node(resource="b", query='{"x\\r\\ny": "a b#c&d=e", "integrated_account_id": "other"}')
    ]
    nodes += [node(resource="c", query="'not an object'"), node(resource="d", query="$f()")]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.post(TRUTO, truto(*nodes))
        assert answer.status in (200, 400)
        for request in backend.requests:
            assert request.target.isascii()
            assert request.target.isprintable()
            assert " " not in request.target
            assert request.target.endswith("integrated_account_id=a")

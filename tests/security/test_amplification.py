"""One request is worth a bounded number of calls, and a bounded amount of work to say no."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway import execution
from gateway.config.settings import Batch, Endpoint, Limits, RateLimit, Upstream
from tests.security.hostile import LISTED, templates
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    SUGARCRM,
    TRUTO,
    Format,
    echo,
    got,
    posted,
    siege,
    truto,
)
from tests.support.raw_backend import Peer, RawBackend, gated, ok


def answers(payload: object) -> Any:
    body = json.dumps(payload).encode()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(ok(body))

    return script


def node(**members: Any) -> dict[str, Any]:
    return {"resource": "a", "method": "list", "persist": True} | members


# --- subrequests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_one_subrequest_too_many_is_refused_before_any_is_sent(form: Format) -> None:
    refusal = 400 if form.name == "guidewire" else 413
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for count in (101, 1000, 10_001):
            answer = await gate.bulk(form, [form.entry("/a")] * count)
            assert answer.status == refusal
            assert "more than 100" in answer.body.decode()
        assert not backend.peers
        assert len(form.statuses(await gate.bulk(form, [form.entry("/a")] * 100))) == 100


async def test_nested_subrequests_are_counted_with_all_others() -> None:
    inside = AGENDIZE.entry("/a")
    for _ in range(50):
        inside = AGENDIZE.entry("/a") | {"requests": [inside, AGENDIZE.entry("/b")]}
    group = SUGARCRM.entry("/bulk", "POST", body={"requests": [SUGARCRM.entry("/a")] * 60})
    wide = AGENDIZE.entry("/a") | {"requests": [AGENDIZE.entry("/b")] * 60}
    async with RawBackend(echo) as backend, siege(backend) as gate:
        assert (await gate.bulk(AGENDIZE, [inside])).status in (400, 413)
        assert (await gate.bulk(AGENDIZE, [wide] * 2)).status == 413
        assert (await gate.bulk(SUGARCRM, [group] * 2)).status == 413
        keyed = {f"k{i}": SUGARCRM.entry("/a") for i in range(101)}
        assert (await gate.post("/bulk", {"requests": keyed})).status == 413
        assert (await gate.post(TRUTO, truto(*[node()] * 101))).status == 413
        assert not backend.peers


async def test_a_million_entries_are_refused_without_being_made() -> None:
    """Three bytes each; see tests/security/test_memory.py for what that would cost."""
    many = b",".join([b"{}"] * 1_000_000)
    keys = b",".join([b'"%d":0' % i for i in range(300_000)])
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for path, body in (
            ("/bulk", b'{"requests":[%b]}' % many),
            ("/bulk", b'{"requests":{%b}}' % keys),
            (TRUTO, b'{"integrated_account_id":"a","resources":[%b]}' % many),
        ):
            assert (await gate.post(path, body)).status == 413
        headers = b'{"requests":[{"url":"/a","headers":{%b}}]}' % keys
        assert (await gate.post("/bulk", headers)).status == 422
        assert not backend.peers


# --- what runs at a time -------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*(form.path for form in FORMATS), TRUTO])
async def test_a_batch_asks_for_no_more_at_a_time_than_its_width(path: str) -> None:
    gate_open = asyncio.Event()
    loop = node(method="get", id="{{args.ids}}", loop_on="args.ids")
    documents = {form.path: form.document([form.entry("/a")] * 50) for form in FORMATS}
    documents[TRUTO] = truto(loop, args={"ids": list(range(50))})
    async with RawBackend(gated(gate_open)) as backend:
        async with siege(backend, batch=Batch(width=3)) as gate:
            task = asyncio.create_task(gate.ask(posted(path, documents[path])))
            await backend.until(lambda: len(backend.requests) == 3)
            assert "gateway_subrequests_in_flight 3.0" in await gate.metrics()
            assert len(backend.requests) == 3
            gate_open.set()
            assert (await task).status == 200
            assert len(backend.requests) == 50
            assert len(backend.peers) == 3


async def test_all_clients_together_have_no_more_connections_than_the_settings_say() -> None:
    gate_open = asyncio.Event()
    async with RawBackend(gated(gate_open)) as backend:
        upstream = Upstream(url=backend.url, connections=5)
        async with siege(backend, upstream=upstream) as gate:
            document = GUIDEWIRE.document([GUIDEWIRE.entry("/a")] * 20)
            tasks = [asyncio.create_task(gate.ask(posted("/batch", document))) for _ in range(10)]
            await backend.until(lambda: len(backend.requests) == 5)
            assert len(backend.peers) == 5
            gate_open.set()
            assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
            assert len(backend.requests) == 200
            assert len(backend.peers) == 5


async def test_batches_beyond_the_bound_are_told_to_come_back() -> None:
    gate_open = asyncio.Event()
    async with RawBackend(gated(gate_open)) as backend:
        async with siege(backend, limits=Limits(batches=2)) as gate:
            document = GUIDEWIRE.document([GUIDEWIRE.entry("/a")])
            tasks = [asyncio.create_task(gate.ask(posted("/batch", document))) for _ in range(2)]
            await backend.until(lambda: len(backend.requests) == 2)
            for path in (*(form.path for form in FORMATS), TRUTO):
                answer = await gate.post(path, {"requests": []})
                assert (answer.status, answer.all("retry-after")) == (503, ["1"])
            gate_open.set()
            await asyncio.gather(*tasks)
            assert len(backend.requests) == 2


# --- quotas --------------------------------------------------------------------------------------

SLOW = RateLimit(per_second=0.001, burst=7)


@pytest.mark.parametrize("path", [*(form.path for form in FORMATS), TRUTO])
async def test_a_bulk_call_costs_what_its_subrequests_cost(path: str) -> None:
    """A hundred logins in one request are a hundred logins (GHSA-775h-3xrc-c228)."""
    logins = {form.path: form.document([form.entry("/login")] * 20) for form in FORMATS}
    loop = node(method="get", id="{{args.ids}}", loop_on="args.ids")
    logins[TRUTO] = truto(loop, args={"ids": list(range(20))})
    async with RawBackend(echo) as backend, siege(backend, rate_limit=SLOW) as gate:
        answer = await gate.post(path, logins[path])
        assert answer.status == 200
        assert len(backend.requests) == 7
        assert answer.body.count(b"too many subrequests") == 13
        again = await gate.post(path, logins[path])
        assert b"429" in again.body
        assert len(backend.requests) == 7


async def test_a_nested_bulk_call_costs_what_stands_in_it() -> None:
    group = SUGARCRM.entry("/bulk", "POST", body={"requests": [SUGARCRM.entry("/login")] * 20})
    async with RawBackend(echo) as backend, siege(backend, rate_limit=SLOW) as gate:
        (result,) = (await gate.bulk(SUGARCRM, [group])).json
        statuses = [entry["status"] for entry in result["contents"]]
        assert statuses.count(429) == 13
        assert result["contents"][-1]["headers"]["Retry-After"].isdigit()
        assert len(backend.requests) == 7


async def test_a_quota_belongs_to_a_peer_and_not_to_who_it_says_it_is() -> None:
    forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Real-IP", "7.7.7.7"),
        ("Forwarded", "for=8.8.8.8"),
    ]
    document = GUIDEWIRE.document([GUIDEWIRE.entry("/a")])
    async with RawBackend(echo) as backend, siege(backend, rate_limit=SLOW) as gate:
        for number in range(14):
            fields = forged if number % 2 else []
            await gate.ask(posted("/batch", document, fields))
        assert len(backend.requests) == 7


# --- loops, pages, recursion ---------------------------------------------------------------------


def bounded(**options: int) -> tuple[Endpoint, ...]:
    return (Endpoint(path=TRUTO, dialect="truto", options=options),)


async def test_a_loop_is_counted_before_its_first_call() -> None:
    ids = {"ids": list(range(1001)), "big": [0] * 100_000}
    nodes = [
        node(method="get", id="{{args.ids}}", loop_on="args.ids"),
        node(resource="b", method="get", id="{{args.big}}", loop_on="args.big"),
    ]  # fmt: skip
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.post(TRUTO, truto(*nodes, args=ids))
        assert [len(answer.json["errors"][name]) for name in ("a", "b")] == [1, 1]
        assert not backend.peers


async def test_products_of_loops_are_bounded_node_by_node_and_together() -> None:
    """Ten records each with a child for each record, whose children ... to the power of four."""
    records = {"result": [{"id": i} for i in range(10)]}
    nodes = [node(resource="n0")]
    nodes += [
        node(
            resource=f"n{i}", depends_on=f"n{i - 1}", query={"of": f"{{{{resources.n{i - 1}.id}}}}"}
        )
        for i in range(1, 5)
    ]
    async with RawBackend(answers(records)) as backend:
        async with siege(backend, endpoints=bounded(max_runs=50)) as gate:
            answer = await gate.post(TRUTO, truto(*nodes))
            counts = [sum(f"/n{i}?" in r.target for r in backend.requests) for i in range(5)]
            assert counts == [1, 10, 0, 0, 0]
            assert answer.json["errors"]["n2"][0]["statusCode"] == 413
            assert [bool(answer.json["errors"][f"n{i}"]) for i in range(5)] == [False] * 2 + [
                True
            ] * 3


async def test_one_batch_makes_no_more_calls_than_the_ceiling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "MOST_CALLS", 40)
    nodes = [node(resource=f"n{i}", method="get", id="{{args.ids}}", loop_on="args.ids")
             for i in range(5)]  # fmt: skip
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.post(TRUTO, truto(*nodes, args={"ids": list(range(30))}))
        assert len(backend.requests) == 30  # the first loop's; another would be more than 40
        assert len(answer.json["result"]["n0"]) == 30
        for further in ("n1", "n2", "n3", "n4"):
            (why,) = answer.json["errors"][further]
            assert why["statusCode"] == 413


async def test_a_list_without_an_end_has_one() -> None:
    count = 0

    async def endless(peer: Peer) -> None:
        nonlocal count
        while True:
            await peer.request()
            count += 1
            await peer.send(ok(json.dumps({"result": [{}], "next_cursor": f"c{count}"}).encode()))

    async with RawBackend(endless) as backend:
        async with siege(backend, endpoints=bounded(max_pages=20)) as gate:
            answer = await gate.post(TRUTO, truto(node()))
            assert len(answer.json["result"]["a"]) == len(backend.requests) == 20
            assert answer.json["errors"]["a"][0]["statusCode"] == 413
    records = {"result": [{}] * 10, "next_cursor": "same"}
    async with RawBackend(answers(records)) as backend:
        async with siege(backend, endpoints=bounded(max_records=35)) as gate:
            answer = await gate.post(TRUTO, truto(node()))
            assert len(backend.requests) == 2  # a page that names itself as the next one
            assert answer.json["errors"]["a"]


async def test_a_recursion_without_an_end_has_one() -> None:
    records = {"result": [{"id": "1", "more": True}, {"id": "2", "more": True}]}
    wish = node(recurse={"if": "{{resources.a.more:bool}}",
                         "config": {"query": {"parent": "{{resources.a.id}}"}}})  # fmt: skip
    async with RawBackend(answers(records)) as backend:
        async with siege(backend, endpoints=bounded(max_runs=20)) as gate:
            answer = await gate.post(TRUTO, truto(wish))
            assert len(backend.requests) <= 20
            assert answer.json["errors"]["a"]


# --- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entries",
    [
        [{"path": "/${result=b:$.id}", "name": "a"}, {"path": "/${result=a:$.id}", "name": "b"}],
        [{"path": "/${result=a:$.id}", "name": "a"}],
        [{"path": "/a", "name": "a", "requests": [{"path": "/${result=c:$.id}", "name": "b"}]},
         {"path": "/${result=b:$.id}", "name": "c"}],
    ],
    ids=["two", "itself", "through a child"],
)  # fmt: skip
async def test_a_ring_of_references_sends_nothing_of_itself(entries: list[dict[str, Any]]) -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.bulk(AGENDIZE, entries)
        assert answer.status == 200
        assert b"424" in answer.body
        assert {request.target for request in backend.requests} <= {"/a"}


@pytest.mark.parametrize(
    "names",
    [[("a", "a")], [("a", "b"), ("b", "a")], [(f"n{i}", f"n{(i + 1) % 90}") for i in range(90)]],
    ids=["itself", "two", "ninety"],
)
async def test_a_ring_of_dependencies_is_refused_with_nothing_sent(
    names: list[tuple[str, str]],
) -> None:
    nodes = [node(resource=name, depends_on=other) for name, other in names]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        assert (await gate.post(TRUTO, truto(*nodes))).status == 400
        assert not backend.peers


async def test_a_long_chain_is_no_recursion_and_a_name_used_twice_is_refused() -> None:
    nodes = [node(resource=f"n{i}", depends_on=f"n{i - 1}" if i else []) for i in range(100)]
    async with RawBackend(answers({"result": []})) as backend, siege(backend) as gate:
        assert (await gate.post(TRUTO, truto(*reversed(nodes)))).status == 200
        assert len(backend.requests) == 100
        twice = [node(name="x"), node(name="x")]
        assert (await gate.post(TRUTO, truto(*twice))).status == 400
        entries = [AGENDIZE.entry("/a") | {"name": "x"}] * 2
        assert (await gate.bulk(AGENDIZE, entries)).status == 400
        assert len(backend.requests) == 100


async def test_references_and_placeholders_are_counted() -> None:
    first = AGENDIZE.entry("/a") | {"name": "a"}
    many = AGENDIZE.entry("/b", "POST", body=["${result=a:$.id}"] * 1001)
    holes = node(method="create", body={"x": ["{{args.x}}"] * 20_001})
    async with RawBackend(echo) as backend, siege(backend) as gate:
        assert (await gate.bulk(AGENDIZE, [first, many])).status == 400
        assert (await gate.post(TRUTO, truto(holes, args={"x": "y" * 1000}))).status == 400
        assert not backend.peers


@pytest.mark.parametrize(
    ("path", "document"), [wish[1:] for wish in templates()], ids=[wish[0] for wish in templates()]
)
async def test_what_is_made_of_a_template_has_a_bound(path: str, document: bytes) -> None:
    """What would be longer, or takes too many steps, is an error of that entry, with nothing sent
    of it; of a loop, those runs are sent that there is room for."""

    async def listing(peer: Peer) -> None:
        while True:
            big = (await peer.request()).target.startswith(("/big", "/proxy/big"))
            await peer.send(ok(json.dumps(LISTED if big else {}).encode()))

    async with RawBackend(listing) as backend, siege(backend) as gate:
        answer = await gate.post(path, document)
        assert answer.status == 200
        told = answer.body.decode()
        assert (
            "filled in, it has more than" in told
            or "too many steps" in told
            or ("more than may be kept" in told)
        )
        writes = [request for request in backend.requests if request.method != "GET"]
        assert len(writes) < (100 if b"loop_on" in document else 3)
        assert sum(len(request.body) for request in writes) < 48 * 2**20
        assert (await gate.bulk(SUGARCRM, [SUGARCRM.entry("/a")])).status == 200


async def test_the_answers_of_pass_through_wait_for_a_connection_and_not_for_ever() -> None:
    """A request more than there are connections gets its turn, or in time a 503."""
    gate_open = asyncio.Event()
    async with RawBackend(gated(gate_open)) as backend:
        upstream = Upstream(url=backend.url, connections=1, waiting=2)
        async with siege(backend, upstream=upstream) as gate:
            tasks = [asyncio.create_task(gate.ask(got(f"/{i}"))) for i in range(6)]
            await backend.until(lambda: len(backend.requests) == 1)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result().status for task in done} == {503}
            assert all(task.result().all("retry-after") for task in done)
            gate_open.set()
            statuses = [answer.status for answer in await asyncio.gather(*tasks)]
            assert set(statuses) == {200, 503}
            assert statuses.count(200) == len(backend.requests) <= 3

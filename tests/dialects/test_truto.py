"""Truto's rules where a table says them better than a case folder."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Batch, BulkCall, Failure, Outcome, Reply, Step, Subrequest, failed
from gateway.dialects.truto import Truto, opened
from gateway.dialects.truto.holes import Records
from gateway.errors import Refused, TooMany
from gateway.planning.graph import plan
from gateway.planning.nouns import Plan

TRUTO = Truto()


def parse(*resources: dict[str, Any], args: Any = None, dialect: Truto = TRUTO) -> Batch:
    document = {"integrated_account_id": "A", "args": args, "resources": resources}
    body = json.dumps(document).encode()
    return dialect.parse(BulkCall("/batch-request", "", (), body, params={"prefix": "/crm"}))


def planned(*resources: dict[str, Any]) -> Plan:
    return plan(parse(*resources))


def only(*resources: dict[str, Any], **more: Any) -> Subrequest:
    return parse(*resources, **more).subrequests[-1]


def lists(resource: str, **members: Any) -> dict[str, Any]:
    return {"resource": resource, "method": "list", **members}


# --- what a node becomes --------------------------------------------------------------------------


def test_a_node_that_is_one_call_is_plain() -> None:
    """Placeholders of `args` are filled in when the batch is read: nothing is left to decide."""
    made = only(
        {"resource": "crm/a", "method": "update", "id": "{{args.id}}", "body": {"x": "{{args.x}}"}},
        args={"id": 2**64, "x": "y"},
    )
    assert made.plain
    assert made.target == "/unified/crm/a/18446744073709551616?integrated_account_id=A"
    assert made.body == b'{"x":"y"}'


@pytest.mark.parametrize(
    ("options", "resource", "path"),
    [
        ({}, "contacts", "/proxy/contacts"),
        ({}, "crm/contacts", "/unified/crm/contacts"),
        ({}, "crm/contacts/notes", "/unified/crm/contacts/notes"),
        ({}, "{resource}/{prefix}", "/unified/%7Bresource%7D/%7Bprefix%7D"),
        ({"proxy": "{prefix}/rest/v10/{resource}"}, "Contacts", "/crm/rest/v10/Contacts"),
        ({"unified": "/api/{resource}"}, "crm/contacts", "/api/contacts"),
    ],
)
def test_a_resource_turns_into_the_path_the_options_say(
    options: dict[str, Any], resource: str, path: str
) -> None:
    dialect = Truto(**options, account_parameter="")
    assert only({"resource": resource, "method": "get"}, dialect=dialect).target == path


@pytest.mark.parametrize("path", ["/proxy", "proxy/{resource}", "/{model}/{resource}", "/{x}"])
def test_a_path_template_that_cannot_work_is_refused_with_the_settings(path: str) -> None:
    with pytest.raises(ValueError, match="path template"):
        Truto(proxy=path)


def test_jsonata_without_its_extra_is_refused_with_a_word_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opened, "find_spec", lambda name: None)
    for wish in (
        {"type": "transform", "name": "t", "config": {"expression": "1"}},
        lists("a", query="{}"),
        {"resource": "a", "method": "create", "body": "{}"},
    ):
        with pytest.raises(Refused, match=r"JSONata needs the extra bulk-gateway\[truto\]"):
            parse(wish)
    assert parse({"type": "spool", "name": "s"}).subrequests


# --- whose records a node runs over ---------------------------------------------------------------


def runs_over(child: dict[str, Any], *parents: dict[str, Any]) -> list[str]:
    """The places of the parents that the child reads."""
    steps = planned(*parents, child).steps
    return [name for name, _ in steps[-1].sources]


@pytest.mark.parametrize(
    ("members", "reads"),
    [
        ({}, []),
        ({"query": {"x": "{{args.id}}"}}, []),
        ({"query": {"x": "{{resources.crm.contacts.id}}"}}, ["resources[0]"]),
        (
            {"query": {"x": {"y": ["a {{args.a|resources.crm.contacts.b.c:int}}"]}}},
            ["resources[0]"],
        ),
        ({"query": {"x": "{{resources.people.id}}"}}, ["resources[0]"]),
        ({"query": {"x": "{{resources.crm.contacts}}"}}, ["resources[0]"]),
        ({"query": {"x": "{{resources.crm.contactsid}}"}}, []),
        ({"query": {"x": "{{resources.crm}}"}}, []),
        ({"loop_on": "resources.crm.contacts"}, ["resources[0]"]),
        ({"loop_on": "{{resources.crm.contacts.tags}}"}, ["resources[0]"]),
    ],
)
def test_a_child_that_mentions_its_parent_runs_once_per_record(
    members: dict[str, Any], reads: list[str]
) -> None:
    """D-T3: otherwise it comes after it, once."""
    parent = lists("crm/contacts", name="people")
    assert runs_over(lists("crm/notes", depends_on="people", **members), parent) == reads


def test_a_parent_that_is_not_depended_on_is_not_read() -> None:
    child = lists("crm/notes", query={"x": "{{resources.crm.contacts.id}}"})
    assert runs_over(child, lists("crm/contacts")) == []


def kept(*children: dict[str, Any]) -> Records | None:
    """What is kept of a parent for these children."""
    recipe = parse(lists("crm/a"), *(dict(c, depends_on="crm/a") for c in children)).subrequests[0]
    keep = recipe.recipe.keep if recipe.recipe else None
    assert keep is None or isinstance(keep, Records)
    return keep


def test_of_a_record_only_what_is_mentioned_is_kept() -> None:
    """D-T15."""
    one = lists("crm/b", query={"x": "{{resources.crm.a.id}} {{resources.crm.a.owner.id}}"})
    two = {"resource": "crm/c", "method": "get", "id": "{{resources.crm.a.number}}"}
    whole = lists("crm/d", query={"x": "{{resources.crm.a:json}}"})
    assert kept(lists("crm/b")) is None
    page = Reply(200, body=b'{"result":[{"id":1.0,"owner":{"id":2},"big":"x","number":3}, 4]}')
    keep = kept(one, two)
    assert keep is not None
    assert keep.pick(page) == [b'{"id":1.0,"owner":{"id":2},"number":3}', b"4"]
    keep = kept(one, whole)
    assert keep is not None
    assert keep.pick(page)[0] == b'{"id":1.0,"owner":{"id":2},"big":"x","number":3}'


def test_records_beyond_any_number_of_runs_are_not_gone_through_one_by_one() -> None:
    keep = kept(lists("crm/b", query={"x": "{{resources.crm.a.id}}"}))
    assert keep is not None
    assert len(keep.pick(Reply(200, body=b"[" + b"{}," * 19_999 + b"{}]"))) == 20_000
    with pytest.raises(TooMany):
        keep.pick(Reply(200, body=b"[" + b"{}," * 20_000 + b"{}]"))


def test_an_element_is_copied_once_however_many_runs_read_it() -> None:
    child = {"resource": "c", "method": "create", "depends_on": "crm/a", "loop_on": "args.l"}
    body = {"x": "{{resources.crm.a.id}}"}
    recipe = only(lists("crm/a"), child | {"body": body}, args={"l": ["long"]}).recipe
    assert recipe is not None
    outer, inner = recipe.loops
    runs = [
        run
        for record in outer.scopes({"resources[0]": (b'{"id":1}', b'{"id":2}')})
        for run in inner.scopes(record)
    ]
    assert len(runs) == 2
    assert runs[0][".args.l"][0] is runs[1][".args.l"][0]


def test_nothing_is_kept_of_a_failed_answer() -> None:
    keep = kept(lists("crm/b", query={"x": "{{resources.crm.a.id}}"}))
    assert keep is not None
    assert not keep.pick(Reply(500, body=b'{"result":[{"id":1}]}'))
    assert not keep.pick(Reply(200, body=b"<p>"))


# --- order ----------------------------------------------------------------------------------------


def test_keys_leave_in_topological_order_with_ties_in_client_order() -> None:
    """D-T15: and the nodes of one key stand together."""
    tree = planned(
        lists("crm/z", depends_on="first"),
        lists("crm/m", name="first"),
        lists("proxied"),
        lists("crm/a", depends_on="crm/z"),
        lists("crm/m", name="again", depends_on="crm/a"),
    )
    keys = [tree.steps[index].subrequest.key for index in tree.delivery]
    assert keys == ["crm/m", "crm/m", "crm/z", None, "crm/a"]


# --- the answer -----------------------------------------------------------------------------------


def answer(batch: Batch, *replies: Reply, most_errors: int = 100) -> Any:
    renderer = Truto(max_errors=most_errors).renderer(batch)
    steps = plan(batch).steps
    body = renderer.head()
    for step, reply in zip(steps, replies, strict=True):
        body += renderer.whole(step, reply)
    return json.loads(body + renderer.tail())


def test_an_error_of_the_backends_keeps_what_it_said() -> None:
    """And the rest is told in the vendor's shape."""
    batch = parse(lists("crm/a"), lists("crm/b"), lists("crm/c"), lists("crm/d"))
    said = b'{"error":"Nope","message":"why","details":{"failures":[1.0]},"more":1}'
    told = answer(
        batch,
        Reply(400, body=said),
        Reply(418, b"I'm a teapot", body=b"<p>"),
        Reply(429, headers=((b"Retry-After", b"Fri, 31 Dec 1999"),), body=b"[]"),
        failed(Failure("http_response_timeout", "response_timeout", sent=True)),
    )["errors"]
    assert told["crm/a"] == [
        {"statusCode": 400, "error": "Nope", "message": "why", "details": {"failures": [1.0]}}
    ]
    assert told["crm/b"][0]["error"] == "I'm a teapot"
    assert told["crm/c"][0]["retryAfter"] == "Fri, 31 Dec 1999"
    assert told["crm/d"][0]["gateway"] == {"error": "http_response_timeout", "sent": True}


def test_errors_of_one_resource_beyond_a_number_are_counted() -> None:
    batch = parse(lists("crm/a"))
    step = plan(batch).steps[0]
    renderer = Truto(max_errors=2).renderer(batch)
    renderer.open(step)
    for _ in range(5):
        assert (
            renderer.part(step, failed(Failure("connection_refused", "connection_refused"))) == b""
        )
    entries = json.loads(b"{" + renderer.tail().partition(b",")[2])["errors"]["crm/a"]
    assert [entry["statusCode"] for entry in entries] == [502, 502, 413]
    assert entries[-1]["message"] == "and 3 further errors"


def test_what_the_backend_says_of_many_errors_has_a_bound_and_their_statuses_have_none() -> None:
    said = json.dumps({"error": "\x01" * 4096, "message": "\x01" * 4096}).encode()
    batch = parse(*[{"resource": f"crm/r{i}", "method": "get"} for i in range(60)])
    told = answer(batch, *[Reply(409, body=said)] * 60)["errors"]
    lengths = [len(told[f"crm/r{i}"][0]["message"]) for i in range(60)]
    assert lengths[:20] == [4096] * 20
    assert lengths[40:] == [len("status 409")] * 20
    assert {entry["statusCode"] for (entry,) in told.values()} == {409}


def test_an_error_of_any_length_is_not_looked_into() -> None:
    said = json.dumps({"message": "why", "more": "m" * 300_000}).encode()
    wait = ((b"Retry-After", b"9" * 16_000),)
    (entry,) = answer(parse(lists("crm/a")), Reply(500, headers=wait, body=said))["errors"]["crm/a"]
    assert entry["message"] == "status 500"
    assert "retryAfter" not in entry


def test_details_of_any_length_are_not_carried_along() -> None:
    said = json.dumps({"message": "m" * 10_000, "details": "d" * 10_000}).encode()
    entry = answer(parse(lists("crm/a")), Reply(500, body=said))["errors"]["crm/a"][0]
    assert len(entry["message"]) == 4096
    assert "details" not in entry


def test_pages_are_appended_as_they_come() -> None:
    batch = parse(lists("crm/a"), lists("crm/a", query={"x": 1}))
    first, second = plan(batch).steps
    renderer = TRUTO.renderer(batch)
    written = [
        renderer.head(),
        renderer.open(first),
        renderer.part(first, Reply(200, body=b'{"result":[1,2],"next_cursor":"c"}')),
        renderer.part(first, Reply(200, body=b'{"result":[ ]}')),
        renderer.part(first, Reply(200, body=b'{"result":[3]}')),
        renderer.close(first, Outcome()),
        renderer.whole(second, Reply(200, body=b"[4]")),
    ]
    assert written == [b'{"result":{', b'"crm/a":[', b"1,2", b"", b",3", b"", b",4]"]


@pytest.mark.parametrize(
    ("method", "body", "records"),
    [
        ("get", b'{"id":1}', [{"id": 1}]),
        ("get", b'{"result":{"id":1}}', [{"id": 1}]),
        ("get", b'{ "\\u0072esult" : {"id":1}}', [{"id": 1}]),
        ("get", b'{"result":1,"id":2}', [{"result": 1, "id": 2}]),
        ("get", b'{"id":2,"result":1}', [{"id": 2, "result": 1}]),
        ("get", b'{"results":1}', [{"results": 1}]),
        ("get", b"[1,2]", [[1, 2]]),
        ("search", b'{"result":[1]}', [[1]]),
        ("create", b"", []),
        ("list", b'{"result":[1,2],"next_cursor":"x"}', [1, 2]),
        ("list", b"[1,2]", [1, 2]),
        ("list", b'{"result":{"id":1}}', [{"id": 1}]),
        ("list", b'{"data":[1]}', [{"data": [1]}]),
        ("list", b'{"result":[]}', []),
    ],
)
def test_whatever_a_call_gives_becomes_a_list(method: str, body: bytes, records: list[Any]) -> None:
    """D-T1."""
    batch = parse({"resource": "crm/a", "method": method})
    assert answer(batch, Reply(200, body=body))["result"] == {"crm/a": records}


# --- any body -------------------------------------------------------------------------------------

words = st.sampled_from(
    ["a", "crm/b", "n", "list", "get", "DELETE", "{{args.x}}", "{{", "", "..", "/"]
)
texts = words | st.sampled_from(
    ["{{resources.a.id:int}}", "{{resources.n}}", "args.x", "resources.a"]
)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["request", "transform", "spool"]),
        "name": words,
        "resource": words,
        "method": words,
        "id": texts | st.integers(),
        "query": st.dictionaries(words, texts | st.integers(), max_size=2) | texts,
        "body": st.dictionaries(words, texts, max_size=2) | st.none() | st.lists(texts, max_size=2),
        "depends_on": words | st.lists(words, max_size=2),
        "loop_on": texts,
        "persist": st.booleans(),
        "recurse": st.fixed_dictionaries({"if": texts}),
        "config": st.fixed_dictionaries({}, optional={"expression": texts}),
    },
)


@given(st.lists(wishes, max_size=4), st.dictionaries(words, texts, max_size=2))
def test_any_nodes_are_a_plan_or_a_refusal_and_never_a_fault(
    nodes: list[dict[str, Any]], args: dict[str, Any]
) -> None:
    try:
        tree = plan(parse(*nodes, args=args))
    except Refused:
        return
    assert sorted(tree.delivery) == list(range(len(nodes)))
    skipped = [failed(Failure("proxy_internal_response", "x"))] * len(nodes)
    told = answer(tree.batch, *skipped)
    assert set(told["result"]) == {step.subrequest.key for step in tree.steps} - {None}
    assert sum(map(len, told["errors"].values())) == len(nodes)


def test_a_step_of_no_key_writes_nothing() -> None:
    step: Step = planned(lists("proxied")).steps[0]
    renderer = TRUTO.renderer(parse(lists("proxied")))
    assert renderer.whole(step, Reply(200, body=b'{"result":[1]}')) == b""


# --- what a document may cost --------------------------------------------------------------------

LONG = ["x"] * 21_000


@pytest.mark.parametrize(
    ("node", "args", "message"),
    [
        ({"query": {"a": LONG}}, None, "resources[0].query: longer than 65536 bytes"),
        (
            {"recurse": {"if": "{{x}}", "config": {"query": {"a": LONG}}}},
            None,
            "resources[0].recurse: longer than 65536 bytes",
        ),
        ({}, {"a": ["x" * 2**20]}, "args: longer than 1048576 bytes"),
        ({"depends_on": ["a"] * 20_000}, None, "resources[0].depends_on: longer than 65536 bytes"),
        (
            {"depends_on": ["a", 5]},
            None,
            "resources[0].depends_on[1]: expected string, got integer",
        ),
        (
            {"method": "create", "body": {"a": "{{args.a}}", "b": ["{{args.b}}", *LONG]}},
            None,
            "resources[0].body.b: in a placeholder, more than 20000 values around it",
        ),
        (
            {"method": "create", "body": ["{{args.a}}", [1] * 110_000]},
            None,
            "resources[0].body: in a placeholder, more than 20000 values around it",
        ),
    ],
)
def test_what_would_be_taken_apart_for_long_is_refused(
    node: dict[str, Any], args: Any, message: str
) -> None:
    with pytest.raises(Refused) as caught:
        parse({"resource": "a", "method": "list", **node}, args=args)
    assert caught.value.message == message


def test_a_long_body_without_placeholders_goes_up_as_it_is() -> None:
    made = only({"resource": "a", "method": "create", "body": [1] * 110_000})
    assert isinstance(made.body, bytes)


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({"body": {"a": [1, {"b": "{{args.x:shout}}"}]}}, "body.a[1].b"),
        ({"body": {"x": 1, "no word": ["{{args.x:shout}}"]}}, "body[1][0]"),
        ({"query": {"a": "{{args.x:shout}}"}}, "query.a"),
        ({"id": "{{args.x:shout}}"}, "id"),
    ],
)
def test_a_mistake_in_a_placeholder_is_named_with_its_place(
    node: dict[str, Any], place: str
) -> None:
    with pytest.raises(Refused) as refused:
        parse({"resource": "crm/a", "method": "create", **node})
    assert refused.value.message == f"resources[0].{place}: in a placeholder, an unknown cast"

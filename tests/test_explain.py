"""A plan that is looked at is the plan that would run, with its secrets masked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.settings import Batch, Endpoint, HeaderLists, Paths, Settings
from gateway.demo.samples import SAMPLES
from gateway.errors import Refused
from gateway.explain import Explanation, explain
from gateway.explain.masks import masked_fields, masked_json, masked_target
from gateway.reception import Reception
from tests.dialects.cases import Case, folders


def reception(**sections: Any) -> Reception:
    return Reception(dataclasses.replace(Settings(), **sections), "bulk-gateway-test")


def explained(
    dialect: str, body: Any, target: str = "", *fields: tuple[str, str], **sections: Any
) -> Explanation:
    document = body if isinstance(body, bytes) else json.dumps(body).encode()
    return explain(reception(**sections), dialect, target, fields, document)


def sugar(*entries: dict[str, Any], **sections: Any) -> Explanation:
    return explained("sugarcrm", {"requests": list(entries)}, **sections)


def guidewire(*entries: dict[str, Any], **sections: Any) -> Explanation:
    return explained("guidewire", {"requests": list(entries)}, **sections)


# --- order ---------------------------------------------------------------------------------------


def test_reads_run_together_and_a_write_keeps_its_place() -> None:
    found = sugar({"url": "a"}, {"url": "b"}, {"url": "c", "method": "POST"}, {"url": "d"})
    assert found.waves == ((0, 1), (2,), (3,))
    assert [each.wave for each in found.subrequests] == [1, 1, 2, 3]
    assert found.subrequests[2].follows == (0, 1)


def test_no_wave_is_wider_than_the_endpoint_allows() -> None:
    found = sugar(*({"url": f"{n}"} for n in range(5)), batch=Batch(width=2))
    assert found.waves == ((0, 1), (2, 3), (4,))
    assert found.limits["batch.width"].value == 2


def test_what_reads_a_result_comes_after_it_and_names_it() -> None:
    first = {"path": "/things", "method": "POST", "name": "made"}
    second = {"path": "/things/${result=made:$.id}", "method": "GET"}
    found = explained("agendize", {"requests": [{**first, "requests": [second]}]})
    parent, child = found.subrequests
    assert found.waves == ((0,), (1,))
    assert (child.parent, child.reads, child.filled_in) == (0, {"made": 0}, ("target",))
    assert child.target == "/things/${result=made:$.id}"
    assert parent.name == "made"


def test_loops_pages_and_what_depends_on_records_are_told() -> None:
    nodes = [
        {"resource": "crm/contacts", "method": "list"},
        {
            "resource": "crm/notes",
            "method": "list",
            "depends_on": "crm/contacts",
            "query": {"contact": "{{resources.crm.contacts.id}}"},
        },
        {"resource": "users", "method": "get", "id": "{{args.ids}}", "loop_on": "{{args.ids}}"},
    ]
    body = {"integrated_account_id": "a", "args": {"ids": ["u1"]}, "resources": nodes}
    contacts, notes, users = explained("truto", body).subrequests
    assert contacts.paging is not None
    assert contacts.paging.parameter == "next_cursor"
    assert (notes.needs, len(notes.loops)) == ((0,), 1)
    assert users.loops == ("{{args.ids}}",)
    assert users.most_runs == 1000
    assert users.quiet


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.dialect)
def test_every_dialects_calls_can_be_explained_and_written_as_json(sample: Any) -> None:
    fields = tuple(sample.headers.items())
    found = explained(sample.dialect, sample.body, sample.path, *fields)
    told = json.loads(msgspec.json.encode(found))
    assert told["dialect"] == sample.dialect
    assert [each["index"] for each in told["subrequests"]] == list(range(len(found.subrequests)))
    sent = [index for wave in found.waves for index in wave]
    assert sorted(sent) == [each.index for each in found.subrequests if each.wave]
    for value in sample.headers.values():
        assert value not in json.dumps(told)


@pytest.mark.parametrize("folder", folders(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_golden_call_can_be_explained_or_is_refused_as_it_would_be(folder: Path) -> None:
    case = Case(folder)
    options = folder / "options.json"
    endpoint = Endpoint(
        path=case.bulk.path,
        dialect=folder.parent.name,
        options=json.loads(options.read_bytes()) if options.exists() else {},
    )
    target = f"{case.bulk.path}?{case.bulk.query}"
    own = reception(endpoints=(endpoint,))
    if isinstance(case.tree, Refused):
        with pytest.raises(Refused) as refused:
            explain(own, endpoint.dialect, target, case.bulk.headers, case.bulk.body)
        assert refused.value.message == case.tree.message
        return
    found = explain(own, endpoint.dialect, target, case.bulk.headers, case.bulk.body)
    assert len(found.subrequests) == len(case.tree.steps)
    decided = {index for wave in found.waves for index in wave}
    decided |= {each.index for each in found.subrequests if each.unsent}
    groups = {each.index for each in found.subrequests if not each.target and not each.expressions}
    assert decided | groups == set(range(len(case.tree.steps))), "every step is decided"


# --- what is not sent ----------------------------------------------------------------------------


def test_what_the_operators_rules_refuse_has_the_result_it_would_have() -> None:
    rules = Paths(deny=("/admin/**",), methods=("GET",))
    found = sugar({"url": "admin/x"}, {"url": "a", "method": "PUT"}, {"url": "b"}, paths=rules)
    denied, method, fine = found.subrequests
    assert denied.unsent is not None
    assert (denied.unsent.status, denied.unsent.by) == (403, "rules")
    assert denied.unsent.reason == "path_denied"
    assert method.unsent is not None
    assert method.unsent.reason == "method_denied"
    assert fine.unsent is None
    assert found.waves == ((2,),)


def test_a_bulk_call_inside_a_bulk_call_is_508() -> None:
    (only,) = guidewire({"method": "post", "path": "/batch"}).subrequests
    assert only.unsent is not None
    assert (only.unsent.status, only.unsent.by) == (508, "rules")


def test_an_entry_that_is_wrong_in_itself_is_told_beside_those_that_run() -> None:
    found = sugar({"url": "../x"}, {"url": "a"})
    assert found.subrequests[0].unsent is not None
    assert found.subrequests[0].unsent.by == "format"
    assert found.waves == ((1,),)


def test_what_a_refusal_forbids_is_skipped_as_it_would_be() -> None:
    rules = Paths(deny=("/no",))
    found = guidewire(
        {"method": "get", "path": "/no", "onFail": "abort"},
        {"method": "get", "path": "/a"},
        paths=rules,
    )
    after = found.subrequests[1]
    assert after.unsent is not None
    assert (after.unsent.status, after.unsent.by) == (424, "plan")
    assert after.unsent.message == "requests[0] fails, so this is skipped"
    assert found.waves == ()


def test_of_an_open_address_the_method_is_judged_at_once() -> None:
    entries = [
        {"path": "/a", "name": "a"},
        {"path": "/${result=a:$.id}", "method": "DELETE"},
    ]
    rules = Paths(methods=("GET",), allow=("/a",))
    found = explained("agendize", {"requests": entries}, paths=rules)
    assert found.subrequests[1].unsent is not None
    assert found.subrequests[1].unsent.reason == "method_denied"


def test_what_would_be_refused_as_a_whole_is_refused_here_too() -> None:
    with pytest.raises(Refused, match=r"requests\[0\]"):
        guidewire({"method": "get", "path": "/../x"})


def test_a_dialect_that_no_endpoint_speaks_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        explained("guidewire", {}, endpoints=())


def test_a_path_that_another_dialect_takes_is_refused() -> None:
    with pytest.raises(Refused, match="path: no endpoint of this dialect takes it"):
        explained("guidewire", {"requests": []}, "/bulk")


# --- headers -------------------------------------------------------------------------------------


def test_fields_are_merged_as_they_would_be_sent() -> None:
    entry = {
        "path": "/a",
        "method": "post",
        "body": {"n": 1},
        "headers": [{"name": "X-Own", "value": "1"}],
    }
    fields = (("Host", "crm.example"), ("X-Out", "2"), ("X-Drop", "3"), ("Connection", "close"))
    lists = HeaderLists(never_inherit=("x-drop",))
    body = {"requests": [entry]}
    (only,) = explained("guidewire", body, "/batch", *fields, headers=lists).subrequests
    assert only.headers == (
        ("X-Own", "1"),
        ("Content-Type", "application/json"),
        ("X-Out", "2"),
        ("Host", "crm.example"),
        ("X-Forwarded-For", "<client>"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "crm.example"),
        ("Via", "1.1 bulk-gateway-test"),
        ("Accept-Encoding", "identity"),
        ("X-Request-Id", "<id>.0"),
    )
    assert only.body is not None
    assert only.body.bytes == len(json.dumps({"n": 1}))


def test_without_a_path_the_plainest_endpoint_is_taken() -> None:
    assert sugar({"url": "v10/me"}).target == "/bulk"
    only_prefixed = tuple(e for e in Settings().endpoints if "{version}" in e.path)
    assert sugar({"url": "v10/me"}, endpoints=only_prefixed).target == "/v10/bulk"


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", "Bearer abc", "Bearer ***"),
        ("Authorization", "abc", "***"),
        ("OAuth-Token", "abc", "***"),
        ("X_Api.Key", "abc", "***"),
        ("Cookie", "a=b", "***"),
        ("own-credential", "abc", "***"),
        ("Accept", "text/plain", "text/plain"),
        ("Idempotency-Key", "abc", "abc"),
    ],
)
def test_a_field_that_lets_its_holder_in_is_masked(name: str, value: str, shown: str) -> None:
    assert masked_fields(((name, value),), frozenset({"own-credential"})) == ((name, shown),)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a?apiKey=K&x=1", "/a?apiKey=***&x=1"),
        ("/a?api%4Bey=K", "/a?api%4Bey=***"),
        ("/a?x=1&token=${result=a:$.t}", "/a?x=1&token=${result=a:$.t}"),
        ("/a?token={{args.t}}", "/a?token={{args.t}}"),
        ("/a?token=a{b", "/a?token=***"),
        ("/token=1", "/token=1"),
        ("/a?to=/b?token=T&x=1", "/a?to=/b?token=***&x=1"),
        ("/a?token=T?x=1&y=2", "/a?token=***&y=2"),
        ("/a?sig=S&design=D&pwd=P&OTP=O", "/a?sig=***&design=D&pwd=***&OTP=***"),
    ],
)
def test_a_secret_in_a_query_is_masked_and_a_reference_is_not(target: str, shown: str) -> None:
    assert masked_target(target) == shown


def test_a_secret_in_a_body_is_masked_and_the_rest_stays_byte_for_byte() -> None:
    text = (
        r'{"a": 1.10, "my\"password" : "q\"x","token":"${result=a:$.t}", "n":["key",{"key":"z"}]}'
    )
    assert masked_json(text) == (
        r'{"a": 1.10, "my\"password" : "***","token":"${result=a:$.t}", "n":["key",{"key":"***"}]}'
    )


def test_masking_a_text_costs_no_more_than_its_length() -> None:
    """If it cost its square, this would take minutes and hold up all that the process does."""
    for piece in ("?", "?token", "?a={", "?token={}", "&%"):
        assert masked_target("/" + piece * 200_000) == "/" + piece * 200_000
    for piece in (r"\"", " ", '"a" : "', '"token"'):
        text = '{"a":"' + piece * 200_000
        assert masked_json(text) == text

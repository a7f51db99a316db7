"""Guidewire's format, decision by decision; whole calls are golden cases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import (
    Batch,
    BulkCall,
    Failure,
    Outcome,
    RawHeaders,
    Reply,
    Step,
    Subrequest,
    failed,
)
from gateway.dialects.guidewire import Guidewire
from gateway.errors import Refused

GUIDEWIRE = Guidewire()
BAD_INPUT = "gw.api.rest.exceptions.BadInputException"
FIELDS: RawHeaders = (
    (b"ETag", b'"1"'),
    (b"Set-Cookie", b"a=b"),
    (b"Set-Cookie", b"c=d"),
    (b"content-type", b"application/json"),
    (b"Content-Length", b"2"),
    (b"Connection", b"keep-alive"),
)


def bulk(body: bytes | Any, query: str = "", **more: Any) -> BulkCall:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return BulkCall(more.pop("path", "/cc/rest/claim/v1/batch"), query, (), body, **more)


def entry(dialect: Guidewire = GUIDEWIRE, **members: Any) -> Subrequest:
    """What one entry becomes."""
    members = {"method": "get", "path": "/claims/cc:22", **members}
    return dialect.parse(bulk({"requests": [members]})).subrequests[0]


def step(index: int = 0, *, barrier: bool = False) -> Step:
    subrequest = Subrequest(where=f"requests[{index}]", target="/x", barrier=barrier)
    return Step(index=index, subrequest=subrequest)


def written(reply: Reply, query: str = "") -> dict[str, Any]:
    """What one reply becomes."""
    batch = GUIDEWIRE.parse(bulk({"requests": []}, query))
    parsed: dict[str, Any] = json.loads(GUIDEWIRE.renderer(batch).whole(step(), reply))
    return parsed


# --- the whole call refused ----------------------------------------------------------------------


def one(**members: Any) -> dict[str, Any]:
    return {
        "requests": [{"method": "get", "path": "/a"}, {"method": "get", "path": "/b", **members}]
    }


def field(name: str, value: Any) -> dict[str, Any]:
    return one(headers=[{"name": name, "value": value}])


REFUSED: list[tuple[bytes | Any, str]] = [
    (b"", "line 1, column 1: unexpected end"),
    ([], "expected object, got array"),
    ({}, "requests: missing"),
    ({"requests": {}}, "requests: expected array, got object"),
    ({"requests": [1]}, "requests[0]: expected object, got integer"),
    ({"requests": [{"path": "/a"}]}, "requests[0].method: missing"),
    ({"requests": [{"method": "get"}]}, "requests[0].path: missing"),
    (one(path=None), "requests[1].path: expected string, got null"),
    (one(method="get\r\n"), "requests[1].method: not a method"),
    (one(method=7), "requests[1].method: expected string, got integer"),
    (one(query=7), "requests[1].query: expected string or null, got integer"),
    (one(onFail="stop"), "requests[1].onFail: not one of the known values"),
    (one(onFail=True), "requests[1].onFail: expected string or null, got boolean"),
    (one(data=[1]), "requests[1].data: expected object"),
    (one(body="{}"), "requests[1].body: expected object"),
    (one(data={}, body={}), "requests[1]: has both data and body"),
    (one(headers={"X": "1"}), "requests[1].headers: expected array, got object"),
    (one(headers=["X: 1"]), "requests[1].headers[0]: expected object, got string"),
    (one(headers=[{"name": "X"}]), "requests[1].headers[0].value: missing"),
    (field("X", []), "requests[1].headers[0].value: expected string or number"),
    (field("X Y", "1"), "requests[1].headers: a header name is no token"),
    (one(path="claims"), "requests[1].path: the path does not start with a slash"),
    (one(path=""), "requests[1].path: the path is empty"),
    (one(path="http://crm.example/a"), "requests[1].path: another host is not allowed"),
    (one(path="//evil.example/a"), "requests[1].path: an empty path segment is not allowed"),
    (one(path="/../policy/v1/x"), "requests[1].path: a dot segment is not allowed"),
    (one(path="/%2e%2E/x"), "requests[1].path: a dot segment is not allowed"),
    (one(path="/%252e%252e/x"), "requests[1].path: a dot segment is not allowed"),
    (one(path="/a\r\nX: y"), "requests[1].path: a control character is not allowed"),
    (one(path="/a\\b"), "requests[1].path: a backslash is not allowed"),
    (one(path="/a#b"), "requests[1].path: a fragment is not allowed"),
    (one(path="/a?b=c"), "requests[1].path: what follows the question mark is `query`"),
    (one(query="a b"), "requests[1].query: a space is not allowed"),
    (one(query="a#b"), "requests[1].query: a fragment is not allowed"),
    (one(query="a\x00"), "requests[1].query: a control character is not allowed"),
    (b'{"requests":[{"method":"get","path":"/a","path":"/b"}]}', "requests[0]: a key stands twice"),
    (b'{"requests":[{"method":"get",}]}', "line 1, column 30: trailing comma in object"),
]


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=[row[1] for row in REFUSED])
def test_a_wrong_body_is_a_400_of_bad_input_that_names_the_place(body: Any, message: str) -> None:
    with pytest.raises(Refused) as caught:
        GUIDEWIRE.parse(bulk(body))
    answer = GUIDEWIRE.refusal(caught.value.status, caught.value.reason, caught.value.message)
    assert answer.status == 400
    assert json.loads(answer.body) == {
        "status": 400,
        "errorCode": BAD_INPUT,
        "userMessage": message,
    }


def test_a_hundred_pass_and_one_more_is_bad_input() -> None:
    get = {"method": "get", "path": "/a"}
    assert len(GUIDEWIRE.parse(bulk({"requests": [get] * 100})).subrequests) == 100
    with pytest.raises(Refused) as caught:
        GUIDEWIRE.parse(bulk({"requests": [get] * 101}))
    answer = GUIDEWIRE.refusal(caught.value.status, caught.value.reason, caught.value.message)
    assert (answer.status, json.loads(answer.body)["errorCode"]) == (400, BAD_INPUT)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (408, "request_timeout"),
        (413, "body_too_large"),
        (415, "unsupported_media_type"),
        (503, "overloaded"),
        (508, "loop_detected"),
    ],
)
def test_what_guidewire_knows_nothing_of_is_refused_under_the_gateways_name(
    status: int, reason: str
) -> None:
    answer = GUIDEWIRE.refusal(status, reason, "why")
    assert answer.status == status
    assert json.loads(answer.body) == {
        "status": status,
        "errorCode": f"bulk-gateway.{reason}",
        "userMessage": "why",
    }


# --- entries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/cc/rest/claim/v1/batch", "/cc/rest/claim/v1/claims/cc:22"),
        ("/rest/common/v1/batch", "/rest/common/v1/claims/cc:22"),
        ("/batch", "/claims/cc:22"),
    ],
)
def test_a_path_begins_where_the_api_ends(path: str, expected: str) -> None:
    body = {"requests": [{"method": "get", "path": "/claims/cc:22"}]}
    assert GUIDEWIRE.parse(bulk(body, path=path)).subrequests[0].target == expected


def test_the_query_is_kept_as_it_is() -> None:
    query = "sort=subject&fields=*all&filter=a:b%20c,d&q=?"
    assert entry(query=query).target == f"/cc/rest/claim/v1/claims/cc:22?{query}"


@pytest.mark.parametrize("empty", [None, ""])
def test_no_query_is_no_question_mark(empty: str | None) -> None:
    assert entry(query=empty).target == "/cc/rest/claim/v1/claims/cc:22"


@pytest.mark.parametrize("spelling", ["patch", "PATCH", "Patch"])
def test_methods_come_in_any_case(spelling: str) -> None:
    assert entry(method=spelling).method == "PATCH"


def test_data_and_body_say_the_same_in_the_same_bytes() -> None:
    short = b'{"requests":[{"method":"post","path":"/a","data":{ "n" : 1.10 }}]}'
    long = b'{"requests":[{"method":"post","path":"/a","body":{"data":{ "n" : 1.10 }}}]}'
    bodies = {GUIDEWIRE.parse(bulk(body)).subrequests[0].body for body in (short, long)}
    assert bodies == {b'{"data":{ "n" : 1.10 }}'}


@pytest.mark.parametrize(
    ("value", "barrier"), [("abort", True), ("continue", False), (None, False)]
)
def test_on_fail_abort_is_a_barrier(value: str | None, barrier: bool) -> None:
    assert entry(onFail=value).barrier is barrier


def test_a_field_may_repeat_in_one_spelling() -> None:
    twice = [{"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]
    assert entry(headers=twice).headers == (("X-A", "1"), ("X-A", "2"))


def test_the_checksum_is_never_inherited_and_the_option_restores_the_rest() -> None:
    assert GUIDEWIRE.rules.never_inherited == {"gw-checksum", "gw-dbtransaction-id", "prefer"}
    literal = Guidewire(inherit_all=True).rules
    assert (literal.never_inherited, literal.also_inherited) == ({"gw-checksum"}, {"prefer"})


# --- the answer ----------------------------------------------------------------------------------

ALL = ["ETag", "Set-Cookie", "Set-Cookie", "content-type"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ALL),
        ("includeResponseHeaders=all", ALL),
        ("includeResponseHeaders=none", []),
        ("includeResponseHeaders=", []),
        ("includeResponseHeaders=etag", ["ETag"]),
        ("a=b&includeResponseHeaders=Set-Cookie%2CContent-Type", ALL[1:]),
        ("includeResponseHeaders=x&includeResponseHeaders=Content-Type", ALL[3:]),
        ("includeResponseHeaders=Content-Length,Connection", []),
        ("includeresponseheaders=none", ALL),
    ],
)
def test_response_fields_are_those_that_were_asked_for(query: str, names: list[str]) -> None:
    shown = written(Reply(200, headers=FIELDS, body=b"{}"), query)
    assert [field["name"] for field in shown["headers"]] == names


def test_a_result_without_contents_has_no_body_and_keeps_its_length() -> None:
    shown = written(Reply(200, headers=((b"Content-Length", b"512"),)))
    assert shown == {"status": 200, "headers": [{"name": "Content-Length", "value": "512"}]}


@given(st.binary(min_size=1), st.sampled_from([b"text/plain", b"application/json", b"image/png"]))
def test_whatever_the_backend_sends_the_entry_is_json(body: bytes, content_type: bytes) -> None:
    shown = written(Reply(200, headers=((b"Content-Type", content_type),), body=body))
    assert set(shown) == {"status", "headers", "body"}


@pytest.mark.parametrize(
    "query", ["", "includeResponseHeaders=none", "includeResponseHeaders=ETag"]
)
def test_a_result_of_the_gateways_is_marked_whatever_was_asked_for(query: str) -> None:
    shown = written(failed(Failure("connection_refused", "refused")), query)
    marks = {field["name"]: field["value"] for field in shown["headers"]}
    assert marks["Proxy-Status"] == (
        'bulk-gateway; error=connection_refused; details="refused"; sent=?0'
    )
    assert shown["body"] == {
        "status": 502,
        "errorCode": "bulk-gateway.refused",
        "userMessage": "the backend refuses connections",
    }


def test_a_skipped_one_is_no_success_to_clients_that_look_at_the_status() -> None:
    renderer = GUIDEWIRE.renderer(Batch("guidewire", ()))
    skip = failed(Failure("proxy_internal_response", "onfail_abort"))
    renderer.whole(step(0), Reply(404))
    renderer.whole(step(1, barrier=True), Reply(409))
    shown = json.loads(renderer.whole(step(2, barrier=True), skip).lstrip(b","))
    assert (shown["status"], shown["skipped"]) == (424, True)
    assert shown["body"]["userMessage"] == "Skipped: subrequest 1 failed with onFail=abort"


def test_the_option_leaves_skipped_ones_out() -> None:
    renderer = Guidewire(skipped="omit").renderer(Batch("guidewire", ()))
    skip = failed(Failure("proxy_internal_response", "onfail_abort"))
    late = failed(Failure("proxy_internal_response", "batch_deadline", status=504))
    pieces = [renderer.head()]
    pieces += [renderer.whole(step(i), reply) for i, reply in enumerate([skip, late, skip, late])]
    answer = json.loads(b"".join([*pieces, renderer.tail()]))
    assert [shown["status"] for shown in answer["responses"]] == [504, 504]


def test_a_result_in_one_go_is_the_same_as_in_three() -> None:
    at_once, in_parts = (GUIDEWIRE.renderer(Batch("guidewire", ())) for _ in range(2))
    replies = [Reply(200, b"OK", FIELDS, b"{}"), failed(Failure("dns_error", "x")), Reply(204)]
    for index, reply in enumerate(replies):
        this = step(index)
        parts = (in_parts.open(this), in_parts.part(this, reply), in_parts.close(this, Outcome()))
        assert at_once.whole(this, reply) == b"".join(parts)


def test_no_answer_is_everyones() -> None:
    unauthorized = Reply(401, body=b'{"error":"invalid_grant"}')
    assert GUIDEWIRE.gate(Batch("guidewire", ()), unauthorized) is None
    assert not GUIDEWIRE.parse(bulk({"requests": []})).gated

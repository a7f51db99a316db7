"""SugarCRM's format, decision by decision; whole calls are golden cases."""

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
    Headers,
    Outcome,
    RawHeaders,
    Reply,
    Step,
    Subrequest,
    failed,
)
from gateway.dialects.sugarcrm import SugarCRM
from gateway.errors import Refused

SUGAR = SugarCRM()
JSON: RawHeaders = ((b"Content-Type", b"application/json"),)


def bulk(body: bytes | Any, path: str = "/rest/v10/bulk", **more: Any) -> BulkCall:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return BulkCall(path, "", more.pop("headers", ()), body, **more)


def entry(dialect: SugarCRM = SUGAR, path: str = "/rest/v10/bulk", **members: Any) -> Subrequest:
    """What one entry becomes."""
    batch = dialect.parse(bulk({"requests": [{"url": "v10/me", **members}]}, path))
    return batch.subrequests[0]


def written(reply: Reply) -> dict[str, Any]:
    """What one reply becomes."""
    renderer = SUGAR.renderer(Batch("sugarcrm", ()))
    step = Step(index=0, subrequest=Subrequest(where="requests[0]", target="/x"))
    parsed: dict[str, Any] = json.loads(renderer.whole(step, reply))
    return parsed


# --- the whole call refused ----------------------------------------------------------------------

REFUSED = [
    # body, label, message
    (b"", "invalid_parameter", "line 1, column 1: unexpected end"),
    (b"{", "invalid_parameter", "line 1, column 2: unexpected end"),
    (b"[]", "invalid_parameter", "expected object, got array"),
    (b"null", "invalid_parameter", "expected object, got null"),
    (b"{}", "missing_parameter", "requests: missing"),
    (b'{"requests":null}', "invalid_parameter", "requests: expected object or array, got null"),
    (b'{"requests":"x"}', "invalid_parameter", "requests: expected object or array, got string"),
    (b'{"requests":[5]}', "invalid_parameter", "requests[0]: expected object, got integer"),
    (
        b'{"requests":[{"url":5}]}',
        "invalid_parameter",
        "requests[0].url: expected string, got integer",
    ),
    (
        b'{"requests":[{}]}',
        "missing_parameter",
        "requests[0].url: Invalid request - URL is missing",
    ),
    (
        b'{"requests":[{"url":"v10/a"},{"url":""}]}',
        "missing_parameter",
        "requests[1].url: Invalid request - URL is missing",
    ),
    (
        b'{"requests":[{"url":"v10/a","method":5}]}',
        "invalid_parameter",
        "requests[0].method: expected string or null, got integer",
    ),
    (
        b'{"requests":[{"url":"v10/a","method":"GET\\r\\nX: y"}]}',
        "invalid_parameter",
        "requests[0].method: not a method",
    ),
    (
        b'{"requests":[{"url":"v10/a","headers":"X: y"}]}',
        "invalid_parameter",
        "requests[0].headers: expected object or array, got string",
    ),
    (
        b'{"requests":[{"url":"v10/a","headers":{"X":true}}]}',
        "invalid_parameter",
        "requests[0].headers.X: expected string or number",
    ),
    (
        b'{"requests":[{"url":"v10/a","headers":["no colon"]}]}',
        "invalid_parameter",
        "requests[0].headers[0]: expected a name, a colon and a value",
    ),
    (
        b'{"requests":[{"url":"v10/a","headers":[[1]]}]}',
        "invalid_parameter",
        "requests[0].headers[0]: expected string or object, got array",
    ),
    (
        b'{"requests":[{"url":"v10/a","headers":[{"name":"X"}]}]}',
        "invalid_parameter",
        "requests[0].headers[0].value: missing",
    ),
    (
        b'{"requests":[{"url":"v10/a","headers":{"X":"1","X":"2"}}]}',
        "invalid_parameter",
        "requests[0].headers: a key stands twice",
    ),
    (
        b'{"requests":{"a":{"url":"v10/a"},"\\u0061":{"url":"v10/b"}}}',
        "invalid_parameter",
        "requests: a key stands twice",
    ),
    (
        b'{"requests":[],"requests":[]}',
        "invalid_parameter",
        "a key stands twice",
    ),
    (
        b'{"requests":[{"url":"v10/a","\\u0075rl":"v10/b"}]}',
        "invalid_parameter",
        "requests[0]: a key stands twice",
    ),
    (
        b'{"requests":{"good":{"url":"v10/a"},"bad":{"url":[]}}}',
        "invalid_parameter",
        "requests.bad.url: expected string, got array",
    ),
    (
        b'{"requests":{"<script>":{"url":""}}}',
        "missing_parameter",
        "requests[0].url: Invalid request - URL is missing",
    ),
    (
        b'{"requests":[{"url":"v10/\xff"}]}',
        "invalid_parameter",
        "line 1, column 26: invalid UTF-8",
    ),
    (b'{"requests":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "invalid_parameter", None),
]


@pytest.mark.parametrize(
    ("body", "label", "message"), REFUSED, ids=[row[0][:60] for row in REFUSED]
)
def test_a_wrong_body_is_a_422_that_names_the_place(
    body: bytes, label: str, message: str | None
) -> None:
    with pytest.raises(Refused) as caught:
        SUGAR.parse(bulk(body))
    answer = SUGAR.refusal(caught.value.status, caught.value.reason, caught.value.message)
    told = json.loads(answer.body)
    assert (answer.status, told["error"]) == (422, label)
    assert message in (None, told["error_message"])


def test_one_subrequest_too_many_is_a_413() -> None:
    body = {"requests": [{"url": "v10/me"}] * 101}
    with pytest.raises(Refused) as caught:
        SUGAR.parse(bulk(body))
    assert caught.value.message == "requests: more than 100 subrequests"
    answer = SUGAR.refusal(caught.value.status, caught.value.reason, caught.value.message)
    assert (answer.status, json.loads(answer.body)["error"]) == (413, "request_too_large")


def test_entries_of_a_nested_call_count_against_the_same_limit() -> None:
    nested = {"url": "v10/bulk", "method": "POST", "data": {"requests": [{"url": "v10/me"}] * 9}}
    assert SUGAR.parse(bulk({"requests": [nested]}, max_subrequests=10))
    with pytest.raises(Refused, match=r"requests\[1\]\.data\.requests: more than 10 subrequests"):
        SUGAR.parse(bulk({"requests": [{"url": "v10/me"}, nested]}, max_subrequests=10))


@pytest.mark.parametrize(
    ("status", "reason", "expected", "label"),
    [
        (400, "bad_json", 422, "invalid_parameter"),
        (400, "missing_parameter", 422, "missing_parameter"),
        (408, "request_timeout", 408, "request_failure"),
        (413, "body_too_large", 413, "request_too_large"),
        (415, "unsupported_media_type", 415, "request_failure"),
        (500, "internal", 500, "fatal_error"),
        (503, "overloaded", 503, "service_unavailable"),
        (508, "loop_detected", 508, "fatal_error"),
    ],
)
def test_every_refusal_has_a_label_of_the_vendors(
    status: int, reason: str, expected: int, label: str
) -> None:
    answer = SUGAR.refusal(status, reason, "why")
    assert answer.status == expected
    assert json.loads(answer.body) == {"error": label, "error_message": "why"}


# --- entries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["POST", "post", "Post", "pOsT"])
def test_methods_are_folded_to_upper_case(spelling: str) -> None:
    assert entry(method=spelling).method == "POST"


@pytest.mark.parametrize("absent", [{}, {"method": None}, {"method": ""}, {"type": "POST"}])
def test_an_entry_without_a_method_is_a_get(absent: dict[str, Any]) -> None:
    assert entry(**absent).method == "GET"


def test_type_is_the_method_where_the_option_says_so() -> None:
    lenient = SugarCRM(type_is_method=True)
    assert entry(lenient, type="delete").method == "DELETE"
    assert entry(lenient, type="delete", method="put").method == "PUT"
    with pytest.raises(Refused, match=r"requests\[0\]\.type: expected string, got integer"):
        entry(lenient, type=5)


@pytest.mark.parametrize(
    ("path", "url", "expected"),
    [
        ("/rest/v10/bulk", "/v10/Accounts", "/rest/v10/Accounts"),
        ("/rest/v10/bulk", "v11_3/Accounts?max_num=2", "/rest/v11_3/Accounts?max_num=2"),
        ("/a/b/rest/v11_3/bulk", "v10/me", "/a/b/rest/v10/me"),
        ("/v10/bulk", "v10/me", "/v10/me"),
        ("/site/api/rest.php/v10/bulk", "v10/me", "/site/api/rest.php/v10/me"),
        ("/bulk", "get?x=1", "/get?x=1"),
        ("/bulk", "/get", "/get"),
        ("/crm/rest/bulk", "Accounts", "/crm/rest/Accounts"),
        ("/everything", "anything", "/anything"),
    ],
)
def test_the_version_and_the_last_segment_give_way_to_the_url(
    path: str, url: str, expected: str
) -> None:
    assert entry(path=path, url=url).target == expected


def test_an_outer_accept_with_a_version_holds_unless_the_entry_brings_another() -> None:
    accept: Headers = (("Accept", "application/vnd.sugarcrm.core+json; version=11.3"),)
    urls = [{"url": "Accounts"}, {"url": "Accounts", "headers": {"Accept": "text/plain"}}]
    first, second = SUGAR.parse(bulk({"requests": urls}, headers=accept)).subrequests
    assert first.target == "/rest/Accounts"
    assert second.refusal is not None
    assert second.refusal.code == 301


@pytest.mark.parametrize(
    "data", ['{"a": 1.10}', "[]", "null", "5", ' {"n":18446744073709551616}\n']
)
def test_json_text_is_sent_byte_for_byte(data: str) -> None:
    assert entry(method="POST", data=data).body == data.encode()


@pytest.mark.parametrize("absent", [{}, {"data": None}, {"data": ""}])
def test_no_data_is_no_body(absent: dict[str, Any]) -> None:
    assert entry(method="POST", **absent).body is None


@pytest.mark.parametrize("data", ["{", "{'a':1}", "\u00e9", "  ", '{"a":1}x', "[" * 99 + "]" * 99])
def test_text_that_is_not_json_fails_its_entry_alone(data: str) -> None:
    refusal = entry(method="POST", data=data).refusal
    assert refusal is not None
    assert (refusal.code, refusal.label) == (422, "invalid_parameter")
    assert refusal.message.startswith("requests[0].data: ")


@pytest.mark.parametrize(
    "headers",
    [{"X-A": "1", "Host": "evil"}, [{"name": "X-A", "value": 1}], ["X-A: 1", "Host: evil"]],
)
def test_own_fields_come_in_three_forms(headers: Any) -> None:
    assert entry(headers=headers).headers == (("X-A", "1"),)


@pytest.mark.parametrize("name", ["X-Metadata-Hash", "x-userpref-hash"])
def test_hashes_of_the_outer_call_reach_no_entry(name: str) -> None:
    assert name.lower() in SUGAR.rules.never_inherited
    assert entry(headers={name: "1"}).headers == ()


def test_a_nested_call_is_a_group_whose_entries_inherit_its_fields() -> None:
    nested = entry(
        url="v10/bulk",
        method="POST",
        headers={"X-A": "outer", "X-B": "outer", "Content-Type": "application/json"},
        data={"requests": [{"url": "v10/me", "headers": {"X-A": "own"}}]},
    )
    assert nested.target == ""
    assert nested.refusal is None
    (child,) = nested.children
    assert child.headers == (("X-A", "own"), ("X-B", "outer"))


@pytest.mark.parametrize("url", ["v10/bulk", "/v11_3/bulk?x=1", "v10/%62ulk"])
def test_a_nested_call_is_known_by_its_normal_address(url: str) -> None:
    assert entry(url=url, method="POST", data={"requests": [{"url": "v10/me"}]}).children


@pytest.mark.parametrize("members", [{"url": "v10/bulk"}, {"url": "v10/x/bulk", "method": "POST"}])
def test_other_calls_with_that_name_are_calls(members: dict[str, Any]) -> None:
    assert str(entry(**members).target).endswith("/bulk")


@pytest.mark.parametrize("prefix", ["rest", "/rest/", "/a/../b", "/a?b", "http://x/", "/%7e"])
def test_a_prefix_that_is_no_plain_path_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix: expected a path"):
        SugarCRM(prefix=prefix)


# --- the gate ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "gated"), [("/rest/v10/bulk", True), ("/bulk", False)])
def test_the_gate_stands_where_the_path_has_a_version(path: str, gated: bool) -> None:
    assert SUGAR.parse(bulk({"requests": [{"url": "v10/me"}]}, path)).gated is gated


@pytest.mark.parametrize("label", ["invalid_grant", "need_login"])
def test_a_token_that_does_not_hold_is_an_outer_401_in_the_backends_words(label: str) -> None:
    body = b'{"error": "%b", "more": 1}' % label.encode()
    answer = SUGAR.gate(Batch("sugarcrm", ()), Reply(401, headers=JSON, body=body))
    assert answer is not None
    assert (answer.status, answer.body) == (401, body)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(401, body=b'{"error":"not_authorized"}'),
        Reply(401, body=b"<html>"),
        Reply(401, body=b'{"error":["invalid_grant"]}'),
        Reply(401, body=b"\xff"),
        Reply(401, body=b'{"error":"need_login","more":"\xff"}'),
        Reply(401, body=b"[" * 100_000),
        Reply(403, body=b'{"error":"need_login"}'),
        Reply(200, body=b'{"error":"need_login"}'),
    ],
)
def test_any_other_first_answer_opens_the_gate(reply: Reply) -> None:
    assert SUGAR.gate(Batch("sugarcrm", ()), reply) is None


# --- the answer ----------------------------------------------------------------------------------


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists, max_leaves=5))
def test_json_contents_are_the_backends_bytes(value: object) -> None:
    body = json.dumps(value, ensure_ascii=False, indent=2).encode()
    renderer = SUGAR.renderer(Batch("sugarcrm", ()))
    step = Step(index=0, subrequest=Subrequest(where="requests[0]", target="/x"))
    end = b',"headers":{"Content-Type":"application/json"},"status":200,"status_text":"OK"}'
    assert renderer.whole(step, Reply(200, b"OK", JSON, body)) == b'{"contents":' + body + end


@given(st.binary(), st.sampled_from([b"text/plain", b"application/json", b"image/png"]))
def test_whatever_the_backend_sends_the_entry_is_json(body: bytes, content_type: bytes) -> None:
    shown = written(Reply(200, headers=((b"Content-Type", content_type),), body=body))
    assert set(shown) == {"contents", "headers", "status", "status_text"}


@given(
    st.lists(
        st.tuples(st.sampled_from([b"etag", b"ETag", b"X-A", b"x-a"]), st.binary()), max_size=4
    )
)
def test_no_name_stands_twice_among_the_headers(headers: list[tuple[bytes, bytes]]) -> None:
    renderer = SUGAR.renderer(Batch("sugarcrm", ()))
    step = Step(index=0, subrequest=Subrequest(where="requests[0]", target="/x"))
    text = renderer.whole(step, Reply(200, headers=tuple(headers)))
    shown = json.loads(text, object_pairs_hook=list)
    names = [name for name, _ in dict(shown)["headers"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("code", [400, 403, 404, 413, 424, 429, 500, 502, 503, 504, 508])
def test_a_result_of_the_gateways_is_always_an_error_to_the_js_client(code: int) -> None:
    shown = written(failed(Failure("http_request_error", "any_reason", status=code)))
    assert shown["status"] == code
    assert shown["contents"]["error"]
    assert shown["contents"]["error_message"] == "any reason"
    assert shown["headers"]["Content-Type"] == "application/json"


def test_a_result_of_the_gateways_says_so_and_whether_it_was_sent() -> None:
    failure = Failure("http_response_timeout", "batch_deadline", sent=True, retry_after=7)
    fields = written(failed(failure))["headers"]
    assert fields["Proxy-Status"] == (
        'bulk-gateway; error=http_response_timeout; details="batch_deadline"; sent=?1'
    )
    assert fields["Retry-After"] == "7"


@pytest.mark.parametrize(("reason", "text"), [(b"Fine", "Fine"), (b"", "OK")])
def test_the_backends_reason_is_kept_and_a_missing_one_filled_in(reason: bytes, text: str) -> None:
    assert written(Reply(200, reason))["status_text"] == text


@pytest.mark.parametrize("keyed", [False, True])
def test_a_result_in_one_go_is_the_same_as_in_three(keyed: bool) -> None:
    steps = [
        Step(
            index=i,
            subrequest=Subrequest(
                where=f"requests[{i}]", target="/x", key=f"k{i}" if keyed else None
            ),
        )
        for i in range(3)
    ]
    replies = [Reply(200, b"OK", JSON, b"1"), failed(Failure("dns_error", "x")), Reply(404)]
    at_once, in_parts = (SUGAR.renderer(Batch("sugarcrm", (), keyed=keyed)) for _ in range(2))
    for step, reply in zip(steps, replies, strict=True):
        parts = (in_parts.open(step), in_parts.part(step, reply), in_parts.close(step, Outcome()))
        assert at_once.whole(step, reply) == b"".join(parts)


def test_a_group_that_was_stopped_still_closes_its_brackets() -> None:
    renderer = SUGAR.renderer(Batch("sugarcrm", ()))
    child = Subrequest(where="requests[0].data.requests[0]", target="/x")
    group = Step(index=0, subrequest=Subrequest(where="requests[0]", children=(child,)), size=2)
    stopped = failed(Failure("proxy_internal_response", "shutting_down", status=503))
    pieces = [
        renderer.head(),
        renderer.open(group),
        renderer.part(group, stopped),
        renderer.whole(Step(index=1, subrequest=child, parent=0), stopped),
        renderer.close(group, Outcome(failed=True)),
        renderer.tail(),
    ]
    (shown,) = json.loads(b"".join(pieces))
    assert shown["status"] == 200
    assert [inner["status"] for inner in shown["contents"]] == [503]

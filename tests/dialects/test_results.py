"""The pieces that renderers share."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import STATUS_OF, Failure, Reply
from gateway.dialects import _results


@given(st.binary())
def test_any_bytes_of_a_field_become_a_json_string(value: bytes) -> None:
    assert isinstance(json.loads(_results.string(value)), str)


@pytest.mark.parametrize(
    ("value", "text"),
    [(b'a"b\\c', 'a"b\\c'), ("Zürich".encode(), "Zürich"), (b"Z\xfcrich", "Zürich"), (b"\t", "\t")],
)
def test_a_field_is_utf8_if_it_can_be_and_else_latin1(value: bytes, text: str) -> None:
    assert json.loads(_results.string(value)) == text


def test_a_memo_renders_once_keeps_short_things_and_never_grows_without_end() -> None:
    rendered: list[int] = []

    def render(length: int) -> bytes:
        rendered.append(length)
        return b"x" * length

    memo = _results.Memo(render)
    assert memo[5] == memo[5] == b"xxxxx"
    assert memo[300] == memo[300]
    assert rendered == [5, 300, 300]
    assert all(memo[length % 250 + 1] and len(memo) <= 512 for length in range(1000))


def test_fields_that_connection_names_do_not_travel_on() -> None:
    fields = ((b"Connection", b"close, X-Hop"), (b"X-Hop", b"1"), (b"X-End", b"2"))
    kept, layout = _results.received(Reply(200, headers=fields))
    assert kept == ((b"X-End", b"2"),)
    assert layout.connection < 0


def test_a_second_connection_field_is_heard_as_well() -> None:
    fields = ((b"connection", b"keep-alive"), (b"Connection", b"X-Hop"), (b"X-Hop", b"1"))
    assert _results.received(Reply(200, headers=fields))[0] == ()


@pytest.mark.parametrize(
    ("names", "content_type", "repeats"),
    [
        ((), -1, False),
        ((b"Server", b"content-type"), 1, False),
        ((b"Content-Type", b"content-type"), 0, True),
        ((b"ETag", b"X", b"etag"), -1, True),
    ],
)
def test_a_layout_knows_where_the_type_stands_and_whether_a_name_repeats(
    names: tuple[bytes, ...], content_type: int, repeats: bool
) -> None:
    fields = tuple((name, b"v") for name in names)
    for _ in range(2):  # worked out, then looked up
        layout = _results.received(Reply(200, headers=fields))[1]
        assert (layout.content_type, layout.repeats) == (content_type, repeats)


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [(200, b"", "OK"), (200, b"Fine", "Fine"), (433, b"", ""), (508, b"", "Loop Detected")],
)
def test_a_missing_reason_is_the_registered_one(status: int, reason: bytes, text: str) -> None:
    assert _results.phrase(status, reason) == text


@pytest.mark.parametrize("error", list(STATUS_OF))
def test_every_failure_has_words_for_a_person(error: str) -> None:
    assert Failure(error, "a_slug").words
    assert Failure(error, "a_slug", message="why").words == "why"


def test_a_result_of_ours_is_marked_by_rfc_9209() -> None:
    failure = Failure("http_request_denied", "rate_limit", sent=False, retry_after=3)
    assert _results.gateway_fields(failure) == (
        (
            b"Proxy-Status",
            b'bulk-gateway; error=http_request_denied; details="rate_limit"; sent=?0',
        ),
        (b"Retry-After", b"3"),
    )

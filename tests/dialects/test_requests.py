"""The pieces that parsers share."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET, Raw, UnsetType

from gateway.dialects import _requests
from gateway.errors import Refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [("get", "GET"), ("POST", "POST"), ("Delete", "DELETE"), ("propfind", "PROPFIND")],
)
def test_a_method_is_folded_to_upper_case(text: str, expected: str) -> None:
    assert _requests.method(text, "requests[0]") == expected


@pytest.mark.parametrize("text", ["", " ", "GET ", "GE T", "GET\r\n", "GËT", "\u212aET", "X" * 33])
def test_what_is_no_token_is_no_method(text: str) -> None:
    with pytest.raises(Refused, match=r"^requests\[0\]\.method: not a method$"):
        _requests.method(text, "requests[0]")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(UNSET, None), (Raw(b"null"), None), (Raw(b"0"), b"0"), (Raw(b'""'), b'""')],
)
def test_null_means_absent(raw: object, expected: bytes | None) -> None:
    assert _requests.given(raw) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("acc", "requests.acc"),
        ("a-1_B", "requests.a-1_B"),
        ("a b", "requests[4]"),
        ("", "requests[4]"),
        ("x" * 65, "requests[4]"),
    ],
)
def test_a_place_never_quotes_a_key_that_could_be_anything(key: str, place: str) -> None:
    assert _requests.member("requests", key, 4) == place


class Entry(msgspec.Struct, rename={"on_fail": "onFail"}):
    path: str
    on_fail: str | None = None
    data: Raw | UnsetType = UNSET


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"[]", {"requests": 1}),
        (b'[{"path":"a"}]', {"requests": 1, "path": 1}),
        (
            b'[{"path":"a","data":1},{"path":"b","onFail":"x"}]',
            {"requests": 1, "path": 2, "data": 1, "onFail": 1},
        ),
        (b'[{"path":"a","onFail":null}]', {"requests": 1, "path": 1, "onFail": 0}),
        (b'[{"path":"a","path":"b"}]', {"requests": 1, "path": 1}),
    ],
)
def test_members_are_counted_as_often_as_the_decoder_found_them(
    body: bytes, found: dict[str, int]
) -> None:
    entries = msgspec.json.decode(body, type=list[Entry])
    assert _requests.seen(body, entries) == found

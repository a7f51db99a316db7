"""Nothing leaves that could be read as another field, another line or another length."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Call, Headers
from gateway.upstream import wire


def test_fields_are_written_in_order_and_as_spelled() -> None:
    headers = (("Host", "a"), ("X-a", "1"), ("x-A", "\tcaf\xe9 "), ("Empty", ""))
    assert wire.encode(headers) == "Host: a\r\nX-a: 1\r\nx-A: \tcaf\xe9 \r\nEmpty: \r\n"
    assert wire.encode(()) == ""


@pytest.mark.parametrize(
    "field",
    [
        ("X", "a\r\nY: b"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "a\0"),
        ("X", "a\x7f"),
        ("X", "\x1b[31m"),
        ("X", "\u2028"),
        ("X", "\ud800"),
        ("", "a"),
        ("X ", "a"),
        (" X", "a"),
        ("X:", "a"),
        ("X: a\r\nY", "b"),
        ("X\u00e9", "a"),
        ("Content-Length", "5"),
        ("content-length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("TRANSFER-encoding", "chunked"),
    ],
)
def test_a_field_that_could_be_read_otherwise_is_refused(field: tuple[str, str]) -> None:
    for headers in ((field,), (("A", "1"), field), (field, ("A", "1"))):
        with pytest.raises(ValueError, match="must not be sent"):
            wire.encode(headers)


def test_names_that_only_begin_like_framing_are_fields_like_any() -> None:
    assert wire.encode((("Content-Length-Hint", "5"), ("X-Transfer-Encoding", "x")))


NOTHING = "Content-Length: 0\r\n"


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        ("GET", None, ""),
        ("HEAD", None, ""),
        ("DELETE", None, ""),
        ("OPTIONS", None, ""),
        ("POST", None, NOTHING),
        ("PUT", None, NOTHING),
        ("PATCH", None, NOTHING),
        ("GET", 0, NOTHING),
        ("POST", 5, "Content-Length: 5\r\n"),
        ("DELETE", 5, "Content-Length: 5\r\n"),
        ("POST", wire.CHUNKED, "Transfer-Encoding: chunked\r\n"),
    ],
)
def test_a_body_is_framed_once_and_its_absence_said_where_it_means_something(
    method: str, length: int | None, framing: str
) -> None:
    head = wire.head(Call(method, "/", ()), "A: 1\r\n", length)
    assert head == f"{method} / HTTP/1.1\r\nA: 1\r\n{framing}\r\n".encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "GET "},
        {"method": "GET /admin"},
        {"method": ""},
        {"method": "G\u00c9T"},
        {"target": ""},
        {"target": "/a b"},
        {"target": "/a\r\nX: y"},
        {"target": "/a\tb"},
        {"target": "/a\x7f"},
        {"target": "/\u2028"},
        {"target": "/\u00e9 x"},
        {"request_id": "a\r\nX: y"},
        {"request_id": "\u00e9"},
        {"extra": (("X", "a\nb"),)},
        {"extra": (("Content-Length", "0"),)},
    ],
)
def test_a_head_that_could_be_read_otherwise_is_refused(fields: dict[str, Any]) -> None:
    call = Call(**{"method": "GET", "target": "/", "headers": (), **fields})
    with pytest.raises(ValueError, match=r"must not be sent|codec"):
        wire.head(call, "", None)


@pytest.mark.parametrize(
    ("method", "target"),
    [("M-SEARCH", "*"), ("GET", "/?"), ("GET", "/a//b;c=1?%2F&&"), ("GET", "/\xc3\xa9")],
)
def test_methods_and_targets_go_as_they_are(method: str, target: str) -> None:
    head = wire.head(Call(method, target, ()), "", None)
    assert head == f"{method} {target} HTTP/1.1\r\n\r\n".encode("latin-1")


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4).map(tuple))
def test_what_is_encoded_is_read_back_as_it_was(headers: Headers) -> None:
    try:
        encoded = wire.encode(headers).encode("latin-1")
    except ValueError:
        return
    lines = encoded.decode("latin-1").split("\r\n")
    assert lines.pop() == ""
    assert tuple(tuple(line.split(": ", 1)) for line in lines) == headers


def test_a_chunk_says_how_long_it_is() -> None:
    assert b"".join(wire.chunk(bytes(300))) == b"12c\r\n" + bytes(300) + b"\r\n"

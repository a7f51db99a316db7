"""JSON looked into level by level, as it was written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.templates import values

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(documents)
def test_walking_down_finds_what_a_parse_finds(document: object) -> None:
    waiting = [(values.Node(json.dumps(document).encode()), document)]
    while waiting:
        node, expected = waiting.pop()
        assert json.loads(bytes(node.value)) == expected
        if isinstance(expected, dict):
            found = [node.member(name) for name in expected]
            waiting += zip(found, expected.values(), strict=True)  # type: ignore[arg-type]
        elif isinstance(expected, list):
            waiting += zip(node.children(), expected, strict=True)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1,]", b"nope", b'"\xff"', b"\xef\xbb\xbf1", b"[" * 100_000, b'"\\ud800"']
)
def test_what_cannot_be_looked_into_is_no_document(body: bytes) -> None:
    assert values.document(body) is None


def test_a_document_of_more_values_than_anybody_can_look_into_is_none() -> None:
    assert values.document(b"[" + b"0," * 400_000 + b"0]") is not None
    assert values.document(b"[" + b"0," * 500_000 + b"0]") is None


def test_a_document_is_without_the_blanks_around_it() -> None:
    assert values.document(b' \n{"a": 1}\r\n') == b'{"a": 1}'


def test_a_member_of_a_member_is_found_by_its_names() -> None:
    document = b'{"meta": {"next": "c2"}, "list": [1]}'
    assert values.at(document, ()) == document
    assert bytes(values.at(document, ("meta", "next")) or b"") == b'"c2"'
    assert values.at(document, ("meta", "none")) is None
    assert values.at(document, ("list", "0")) is None
    assert values.at(document, ("none", "next")) is None


@given(st.lists(documents, max_size=12), st.integers(1, 12))
def test_elements_are_counted_without_making_them(array: list[object], most: int) -> None:
    assert values.more_than(json.dumps(array).encode(), most) == (len(array) > most)


def test_a_million_elements_are_not_counted_to_the_end() -> None:
    array = b"[" + b"1," * 1_000_000
    assert values.more_than(array, 1000)  # no bracket closes it: nobody has looked

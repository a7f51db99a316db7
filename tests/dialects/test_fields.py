"""Own header fields in the forms clients write them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.batch import BulkCall
from gateway.dialects import _fields
from gateway.errors import Refused
from gateway.headers import HeaderPolicy

PLAIN = BulkCall("/bulk", "", (), b"")


@pytest.mark.parametrize(
    ("spelling", "pairs"),
    [
        (b"null", ()),
        (b"[]", ()),
        (b"{}", ()),
        (b'{"X-A": "1", "X-B": "2"}', (("X-A", "1"), ("X-B", "2"))),
        (b'[{"name": "X-A", "value": "1", "more": 0}]', (("X-A", "1"),)),
        (b'["X-A: 1", "X-A:2", "X-B:  a: b "]', (("X-A", "1"), ("X-A", "2"), ("X-B", "a: b"))),
        (b'[{"name": "X-A", "value": null}, "X-B: "]', (("X-B", ""),)),
        (
            b'{"X-N": 18446744073709551616, "X-F": 1.10}',
            (("X-N", "18446744073709551616"), ("X-F", "1.10")),
        ),
        (b'{"X-U": "caf\\u00e9"}', (("X-U", "café"),)),
    ],
)
def test_all_forms_become_pairs(spelling: bytes, pairs: tuple[tuple[str, str], ...]) -> None:
    assert _fields.OwnFields(_fields.any_form, PLAIN)(Raw(spelling), "requests[0]") == pairs


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        (b'"X: 1"', "requests[0].headers: expected object or array, got string"),
        (b"5", "requests[0].headers: expected object or array, got integer"),
        (b'{"X": true}', "requests[0].headers.X: expected string or number"),
        (b'{"X": {}}', "requests[0].headers.X: expected string or number"),
        (b'{"X": "1", "X": "1"}', "requests[0].headers: a key stands twice"),
        (b'["X 1"]', "requests[0].headers[0]: expected a name, a colon and a value"),
        (b"[5]", "requests[0].headers[0]: expected string or object, got integer"),
        (
            b'[{"name": 5, "value": ""}]',
            "requests[0].headers[0].name: expected string, got integer",
        ),
        (
            b'[{"name": "X", "value": []}]',
            "requests[0].headers[0].value: expected string or number",
        ),
        (b'{"X Y": "1"}', "requests[0].headers: a header name is no token"),
        (b'{"X-A": "1", "x-a": "2"}', "requests[0].headers: two spellings of one header name"),
        (
            b'{"X":"1"%b}' % b"".join(b',"X%d":"1"' % i for i in range(64)),
            "requests[0].headers: more than 64 header fields",
        ),
        (b"[%b]" % (b" " * 2**20), "requests[0].headers: longer than 1048576 bytes"),
    ],
)
def test_what_is_no_form_is_refused_with_its_place(spelling: bytes, message: str) -> None:
    with pytest.raises(Refused) as caught:
        _fields.OwnFields(_fields.any_form, PLAIN)(Raw(spelling), "requests[0]")
    assert (caught.value.reason, caught.value.message) == ("bad_shape", message)


@pytest.mark.parametrize("spelling", [b'{"X": "1"}', b'["X: 1"]'])
def test_a_list_of_items_is_the_only_form_where_a_format_has_one(spelling: bytes) -> None:
    with pytest.raises(Refused):
        _fields.OwnFields(_fields.items, PLAIN)(Raw(spelling), "requests[0]")


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (_fields.any_form, b'"%d":""'),
        (_fields.any_form, b'"%d":0'),
        (_fields.items, b'{"name":"%d","value":""}'),
        (_fields.items, b'{"name":"%d","value":0}'),
    ],
)
def test_too_many_fields_are_refused_before_they_are_made(form: _fields.Form, field: bytes) -> None:
    fields = b",".join(field % number for number in range(2**20 // (len(field) + 5)))
    spelling = b"{%b}" % fields if form is _fields.any_form else b"[%b]" % fields
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="here: more than 64 header fields"):
            tuple(form(spelling, "here"))
        assert tracemalloc.get_traced_memory()[1] < 2 * len(spelling)
    finally:
        tracemalloc.stop()


def test_one_spelling_is_read_once_per_batch() -> None:
    spellings: list[bytes] = []

    def form(spelling: bytes, where: str) -> object:
        spellings.append(spelling)
        return _fields.any_form(spelling, where)

    own = _fields.OwnFields(form, PLAIN)  # type: ignore[arg-type]
    assert own(Raw(b'{"A": "1"}'), "requests[0]") is own(Raw(b'{"A": "1"}'), "requests[1]")
    assert spellings == [b'{"A": "1"}']


def test_what_the_operator_keeps_from_subrequests_is_left_out() -> None:
    policy = HeaderPolicy(never_from_subrequest=frozenset({"x-tenant"}))
    own = _fields.OwnFields(_fields.any_form, BulkCall("/bulk", "", (), b"", header_policy=policy))
    assert own(Raw(b'{"X-Tenant": "1", "X-A": "2"}'), "requests[0]") == (("X-A", "2"),)


NAMES = st.sampled_from(["X-A", "X-B", 'X"', "name", "value", "\u00e9"])
VALUES: st.SearchStrategy[object] = st.text(max_size=4) | st.integers() | st.none() | st.just([])


def written(value: object, escaped: bool) -> str:
    return json.dumps(value, ensure_ascii=escaped)


@st.composite
def maps(draw: st.DrawFn) -> bytes:
    """Maps as clients write them, some with a name twice."""
    pairs = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    texts = (written(n, draw(st.booleans())) + ":" + written(v, True) for n, v in pairs)
    return ("{" + ",".join(texts) + "}").encode()


@st.composite
def lists(draw: st.DrawFn) -> bytes:
    """Lists of items, some with a member twice or one too many."""
    members = st.sampled_from(["name", "value", "more"])
    item = st.lists(st.tuples(members, VALUES), max_size=4)
    items = draw(
        st.lists(item.map(lambda more: [("name", "X"), ("value", "1"), *more]), max_size=3)
    )
    texts = (",".join(f"{written(n, True)}:{written(v, True)}" for n, v in item) for item in items)
    return ("[" + ",".join("{" + text + "}" for text in texts) + "]").encode()


def outcome(form: Callable[[bytes, str], object], spelling: bytes) -> object:
    try:
        return tuple(form(spelling, "here"))  # type: ignore[arg-type]
    except Refused as refused:
        return refused.message


@given(maps() | lists())
def test_fields_that_are_read_at_once_are_those_that_are_read_piece_by_piece(
    spelling: bytes,
) -> None:
    assert outcome(_fields.any_form, spelling) == outcome(_fields._any_form, spelling)
    assert outcome(_fields.items, spelling) == outcome(_fields._any_items, spelling)

"""Own header fields in the forms clients write them."""

from __future__ import annotations

import pytest
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

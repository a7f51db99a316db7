"""The map of dialects, and what every one of them promises."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import BulkCall
from gateway.dialects import DIALECTS, create
from gateway.errors import REASONS, Refused
from tests.dialects.cases import DATA

every_dialect = pytest.mark.parametrize("name", list(DIALECTS))


@every_dialect
def test_a_dialect_is_a_frozen_dataclass_whose_options_have_defaults_and_help(name: str) -> None:
    dialect = create(name, {})
    assert is_dataclass(dialect)
    assert dialect.name == name
    assert all(option.metadata["help"] for option in fields(dialect))


@every_dialect
def test_every_reason_to_refuse_a_call_has_an_answer_in_json(name: str) -> None:
    for reason, status in REASONS.items():
        answer = create(name, {}).refusal(status, reason, 'requests[0]: "why"')
        assert answer.status >= 400
        assert 'requests[0]: \\"why\\"' in json.dumps(json.loads(answer.body))


@every_dialect
def test_the_published_schema_is_the_one_on_record(name: str, update_golden: bool) -> None:
    record = Path(DATA / f"{name}.schema.json")
    published = json.dumps(create(name, {}).schema(), indent=1) + "\n"
    if update_golden:
        record.write_text(published)
    assert published == record.read_text()


ADDRESSES = ["v10/a", "/a", "/v10/bulk", "bulk", "//x", "http://x/", "/../x", "%2e%2e", "a\0", ""]
WORDS = ["GET", "post", "abort", '{"requests":[]}', "[", "null", "X: y", "\u00e9\u2602", *ADDRESSES]
names = st.sampled_from(
    ["url", "path", "method", "data", "body", "headers", "name", "value", "requests", "query"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "url": st.sampled_from(ADDRESSES),
        "path": st.sampled_from(ADDRESSES),
        "method": st.sampled_from(["GET", "post", "PATCH", "G T"]),
        **dict.fromkeys(("data", "body", "headers", "requests", "query", "onFail"), values),
    },
)
documents = st.fixed_dictionaries(
    {"requests": st.lists(entries, max_size=4) | st.dictionaries(st.text(), entries, max_size=4)}
)


@every_dialect
@given(
    body=st.binary(max_size=40) | (values | documents).map(lambda tree: json.dumps(tree).encode())
)
def test_any_body_is_a_batch_or_a_refusal_and_never_a_fault(name: str, body: bytes) -> None:
    dialect = create(name, {})
    try:
        batch = dialect.parse(BulkCall("/rest/v10/bulk", "", (), body))
    except Refused as refused:
        answer = dialect.refusal(refused.status, refused.reason, refused.message).body
    else:
        answer = dialect.renderer(batch).head() + dialect.renderer(batch).tail()
    json.loads(answer)

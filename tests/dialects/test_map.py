"""The map of dialects, and what every one of them promises."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from gateway.dialects import DIALECTS, create
from gateway.errors import REASONS
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

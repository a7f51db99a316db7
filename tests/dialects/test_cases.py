"""Every golden case: what would be sent, and what comes back, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.errors import Refused
from tests.dialects.cases import DATA, Case, folders

FOLDERS = folders()
each_case = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(DATA)))

ENTRIES: dict[str, Callable[[Any], int]] = {
    "sugarcrm": len,
    "guidewire": lambda a: len(a["responses"]),
    "agendize": lambda a: len(a["responses"]),
}
"""How many entries an answer has, in the dialects that give one to each subrequest."""


@each_case
def test_what_would_be_sent_is_what_the_case_says(folder: Path, update_golden: bool) -> None:
    compare(folder / "plan.json", Case(folder).plan(), update_golden)


@each_case
def test_the_answer_is_the_cases_byte_for_byte(folder: Path, update_golden: bool) -> None:
    compare(folder / "response.http", Case(folder).response(), update_golden)


def compare(expected: Path, actual: bytes, update: bool) -> None:
    if update:
        expected.write_bytes(actual)
    assert actual == expected.read_bytes()


@each_case
def test_every_answer_is_json_with_one_entry_for_each_subrequest(folder: Path) -> None:
    case = Case(folder)
    head, _, body = case.response().partition(b"\n\n")
    answer = json.loads(body)
    if isinstance(case.tree, Refused) or b" 200 " not in head.partition(b"\n")[0]:
        return
    count = ENTRIES.get(case.dialect.name)
    if count is not None and folder.name != "abort-omit":
        assert count(answer) == len(case.tree.batch.subrequests)


def test_there_are_cases_of_every_dialect() -> None:
    assert {folder.parent.name for folder in FOLDERS} == set(DIALECTS)

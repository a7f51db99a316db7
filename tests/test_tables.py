"""The tables of faults and of threats, and their tests: each names the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench.cases import CASES
from tests.support.tables import Table

HERE = Path(__file__).parent
FOLDERS = {"faults": 4, "security": 3}
"""How many cells a row of the folder's table has."""
TABLES = {folder: Table(HERE / folder) for folder in FOLDERS}
NAMED = [(folder, name) for folder, table in TABLES.items() for name in table.named]
FILES = [(folder, file.name) for folder in TABLES for file in sorted(HERE.glob(f"{folder}/test_*"))]


@pytest.mark.parametrize(("folder", "name"), NAMED)
def test_what_a_table_names_is_a_test(folder: str, name: str) -> None:
    assert TABLES[folder].exists(name)


@pytest.mark.parametrize(("folder", "file"), FILES)
def test_every_test_is_in_its_folders_table_as_a_whole_or_case_by_case(
    folder: str, file: str
) -> None:
    assert not TABLES[folder].unnamed(file)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_row_says_what_is_required(folder: str) -> None:
    rows = TABLES[folder].rows
    assert len(rows) > 60
    for row in rows:
        assert len(row) == FOLDERS[folder], row
        assert all(row), row


def test_what_measures_a_number_is_there() -> None:
    text = (HERE / "faults/README.md").read_text().partition("<!-- numbers -->")[2]
    rows = text.partition("<!-- /numbers -->")[0].strip().splitlines()[2:]
    assert len(rows) > 15
    for row in rows:
        cases = re.findall(r'make bench ARGS="--only ([^"]+)"', row)
        tests = re.findall(r"`([\w/]+\.py::\w+)`", row)
        assert cases or tests or "make soak" in row, row
        assert set(cases) <= CASES.keys()
        assert all(TABLES["faults"].exists(test) for test in tests), row

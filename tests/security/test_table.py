"""The table and the tests: each names the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tables import Table

HERE = Path(__file__).parent
TABLE = Table(HERE)
OTHERS = sorted(path.name for path in HERE.glob("test_*.py") if path != Path(__file__))


@pytest.mark.parametrize("name", TABLE.named)
def test_what_the_table_names_is_a_test(name: str) -> None:
    assert TABLE.exists(name)


@pytest.mark.parametrize("file", OTHERS)
def test_every_test_of_this_folder_is_in_the_table_as_a_whole_or_case_by_case(file: str) -> None:
    assert not TABLE.unnamed(file)


def test_every_row_says_what_is_required() -> None:
    assert len(TABLE.rows) > 60
    for row in TABLE.rows:
        assert len(row) == 3, row
        assert all(row), row

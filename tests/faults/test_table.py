"""The table and the tests: each names the other."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = (HERE / "README.md").read_text().partition("<!-- table -->")[2].partition("<!-- /table")[0]
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in TABLE.splitlines()
    if "::" in line
]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py::\w+(?:\[[^`]*\])?)`", TABLE)))


def module_of(file: str) -> ModuleType:
    path = ROOT / file if "/" in file else HERE / file
    return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def cases_of(test: Any) -> set[str]:
    """Every id that a test's parameters have."""
    return {
        id
        for mark in getattr(test, "pytestmark", ())
        if mark.name == "parametrize"
        for id in _ids(*mark.args, **mark.kwargs)
    }


def _ids(names: object, values: Any, ids: Any = None) -> Iterator[str]:
    for value in values if ids is None else ids:
        yield str(value)


@pytest.mark.parametrize("name", NAMED)
def test_what_the_table_names_is_a_test(name: str) -> None:
    file, _, rest = name.partition("::")
    test, _, case = rest.partition("[")
    found = getattr(module_of(file), test)
    assert not case or case.removesuffix("]") in cases_of(found)


OTHERS = sorted(path.name for path in HERE.glob("test_*.py") if path != Path(__file__))


@pytest.mark.parametrize("file", OTHERS)
def test_every_test_of_this_folder_is_in_the_table_as_a_whole_or_case_by_case(file: str) -> None:
    module = module_of(file)
    for name, test in vars(module).items():
        if name.startswith("test_") and test.__module__ == module.__name__:
            cases = {f"{file}::{name}[{case}]" for case in cases_of(test)}
            assert f"{file}::{name}" in NAMED or (cases and cases <= {*NAMED}), name


def test_every_row_says_what_comes_of_it_for_both() -> None:
    assert len(ROWS) > 60
    for row in ROWS:
        assert len(row) == 4, row
        assert all(row), row

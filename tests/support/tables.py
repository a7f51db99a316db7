"""A table of a README and the tests of its folder, which have to name each other."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


class Table:
    """What stands between `<!-- table -->` and `<!-- /table -->`.

    A test is named `file.py::test` or `file.py::test[case]`; a file without a path is in the
    folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        text = (folder / "README.md").read_text().partition("<!-- table -->")[2]
        text = text.partition("<!-- /table")[0]
        self.rows = [
            [cell.strip() for cell in line.strip("| ").split(" | ")]
            for line in text.splitlines()
            if "::" in line
        ]
        self.named = sorted(set(re.findall(r"`([\w/]+\.py::\w+(?:\[[^`]*\])?)`", text)))

    def exists(self, name: str) -> bool:
        file, _, rest = name.partition("::")
        test, _, case = rest.partition("[")
        found = getattr(self._module(file), test, None)
        return found is not None and (not case or case.removesuffix("]") in _cases(found))

    def unnamed(self, file: str) -> list[str]:
        """Tests of a file in the folder that no row names, neither whole nor case by case."""
        module = self._module(file)
        return [
            name
            for name, test in vars(module).items()
            if name.startswith("test_") and test.__module__ == module.__name__
            if f"{file}::{name}" not in self.named and not self._case_by_case(file, name, test)
        ]

    def _case_by_case(self, file: str, name: str, test: Any) -> bool:
        cases = {f"{file}::{name}[{case}]" for case in _cases(test)}
        return bool(cases) and cases <= {*self.named}

    def _module(self, file: str) -> ModuleType:
        path = ROOT / file if "/" in file else self._folder / file
        return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def _cases(test: Any) -> set[str]:
    """Every id that a test's parameters have."""
    return {
        id
        for mark in getattr(test, "pytestmark", ())
        if mark.name == "parametrize"
        for id in _ids(*mark.args, **mark.kwargs)
    }


def _ids(names: object, values: Any, ids: Any = None) -> Iterator[str]:
    for value in values if ids is None or callable(ids) else ids:
        yield str(ids(value) if callable(ids) else value)

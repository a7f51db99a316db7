"""The compiled gateway is all of what pyproject.toml has compiled, and says what it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.engine import ROOT, compiled, is_compiled, to_compile


@pytest.mark.parametrize("source", to_compile(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_to_be_compiled_is_there_and_runs_as_what_it_is(source: Path) -> None:
    assert source.exists()
    name = ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = import_module(name)
    assert str(module.__file__).endswith(".py") is not is_compiled()


def test_nothing_else_is_compiled() -> None:
    """What has left the list, or lost its source, would be found all the same."""
    extensions = {compiled(source) for source in to_compile()}
    assert set((ROOT / "gateway").rglob("*.so")) <= extensions


def test_what_is_compiled_caches_no_property() -> None:
    """Compiled, `functools.cached_property` is a property: worked out at every look."""
    assert not [source for source in to_compile() if "cached_property" in source.read_text()]


def test_the_program_runs_wherever_it_is_called(tmp_path: Path) -> None:
    """What is compiled looks for its neighbours where it lies itself."""
    program = shutil.which("bulk-gateway", path=Path(sys.executable).parent)
    assert program is not None
    (tmp_path / "gateway.json").write_text('{"upstream": {"url": "http://127.0.0.1:1"}}')
    subprocess.run((program, "check", "gateway.json"), cwd=tmp_path, check=True, timeout=30)


def test_the_program_tells_which_engine_it_has() -> None:
    command = (sys.executable, "-m", "gateway", "--version")
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"({'compiled' if is_compiled() else 'interpreted'})" in told

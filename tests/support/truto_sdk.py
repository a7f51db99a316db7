"""PyPI's truto-python-sdk, in an environment of its own: it wants Python 3.12.

CI makes it where there is such a Python; elsewhere `python -m tests.support.truto_sdk` does.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import outside

ROOT = Path(__file__).parents[2]
HOME = ROOT / "tests/truto-sdk"
PYTHON = HOME / ".venv/bin/python"
SHARED = (
    *("aiohappyeyeballs", "aiohttp", "aiosignal", "attrs", "frozenlist", "idna", "multidict"),
    *("propcache", "typing-extensions", "yarl"),
)
"""What it needs of what we have: in the versions that we have, by their hashes."""


def python() -> Path:
    """An interpreter that can import it."""
    if outside.CI and not PYTHON.exists():
        install()
    if not PYTHON.exists():
        pytest.skip("not installed: python -m tests.support.truto_sdk, with a Python 3.12")
    return PYTHON


def install() -> None:
    newer = next(_newer(), None)
    if newer is None:
        return
    subprocess.run([newer, "-m", "venv", HOME / ".venv"], check=True)
    shared = HOME / ".venv/shared.lock"
    shared.write_text("".join(_pinned(SHARED)))
    locks = ("-r", HOME / "requirements.lock", "-r", shared)
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--require-hashes", *locks], check=True)


def _newer() -> Iterator[str]:
    """Pythons that are new enough: found by running, since a name may stand for one that is not
    there."""
    kept = (Path.home() / ".pyenv/versions").glob("3.1*/bin/python")
    for name in (sys.executable, "python3.12", "python3.13", "python3.14", *map(str, kept)):
        try:
            command = [name, "-c", "import sys; sys.exit(sys.version_info < (3, 12))"]
            if subprocess.run(command, capture_output=True).returncode == 0:
                yield name
        except OSError:
            continue


def _pinned(names: tuple[str, ...]) -> Iterator[str]:
    for block in re.split(r"(?m)^(?=\w)", (ROOT / "requirements-dev.lock").read_text()):
        if block.partition("==")[0] in names:
            yield block


if __name__ == "__main__":
    install()

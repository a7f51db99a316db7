"""The machine: what it is, for the report, and which of its processors is whose.

Contestants get a processor of their own; backend, load and all else share the rest. So a
contestant's caches are not swept by the load, and its CPU time means the same in every sample.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.support.engine import is_compiled

ALL = frozenset(os.sched_getaffinity(0))
CONTESTANTS = frozenset({max(ALL)})
OTHERS = ALL - CONTESTANTS or ALL

PACKAGES = ("aiohttp", "uvloop", "httptools", "msgspec", "orjson")


def describe() -> dict[str, str]:
    return {
        "processor": f"{_processor()}, {os.cpu_count()} processors",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{_system()}, Linux {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, "
        + ", ".join(filter(None, map(_package, PACKAGES))),
        "gateway": "compiled" if is_compiled() else "interpreted",
        "nginx": _first_line("nginx", "-v").partition("nginx/")[2] or "none",
        "node": _first_line("node", "--version") or "none",
        "command": " ".join(["python -m tests.bench", *sys.argv[1:]]),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def _first_line(*command: str) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return (ended.stdout + ended.stderr).partition("\n")[0]

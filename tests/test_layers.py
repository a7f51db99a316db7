"""The rooms and the stairs between them: who may import whom (DESIGN part 3)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

GATEWAY = Path(__file__).parent.parent / "gateway"

LAYERS = [
    "statuses",
    "batch",
    "errors",
    "headers",
    "target",
    "templates",
    "bodies",
    "dialects",
    "planning",
    "standstill",
    "config",
    "upstream",
    "evaluation",
    "execution",
    "answer",
    "reception",
    "cors",
    "quotas",
    "admission",
    "endpoint",
    "explain",
    "openapi",
    "proxy",
    "admin",
    "telemetry",
    "operators",
    "reloads",
    "service",
    "app",
    "server",
    "workers",
    "terminal",
    "demo",
    "cli",
    "__main__",
]
"""Top to bottom. A file imports only from rooms above its own, and from its own."""

STRANGERS = {("planning", "dialects"), ("dialects", "planning")}
"""Rooms that do not know each other although one stands above the other."""

PURE = {*LAYERS[: LAYERS.index("config")]}
"""No event loop, no clock, no process: these are plain functions over plain data."""

IMPURE = {"asyncio", "aiohttp", "time", "os", "socket", "threading", "subprocess"}


def room(path: Path) -> str:
    return path.relative_to(GATEWAY).with_suffix("").parts[0]


FILES = sorted(path for path in GATEWAY.rglob("*.py") if path != GATEWAY / "__init__.py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(GATEWAY)))
def test_a_file_imports_only_from_rooms_above_its_own(path: Path) -> None:
    here = room(path)
    assert here in LAYERS, f"{here} has no place in the table"
    for name in imports(path):
        if not name.startswith("gateway."):
            continue
        there = name.split(".")[1]
        if there not in LAYERS:
            continue
        assert LAYERS.index(there) <= LAYERS.index(here), f"{here} imports {name}"
        assert (here, there) not in STRANGERS, f"{here} imports {name}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if room(p) in PURE], ids=lambda path: str(path.relative_to(GATEWAY))
)
def test_a_pure_file_knows_no_loop_no_clock_and_no_system(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))
    assert not IMPURE & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(GATEWAY)))
def test_only_upstream_opens_connections(path: Path) -> None:
    if room(path) in {"upstream", "demo", "cli"}:
        return
    opening = {"create_connection", "create_unix_connection", "open_connection", "ClientSession"}
    used = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    assert not opening & used

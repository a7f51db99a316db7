"""Inputs worth keeping: `corpus/<subject>.txt`, a bytes literal in each line.

An input is kept because it shows something that none before it shows, or because it once broke a
promise; then a comment stands above it. What is in golden cases is read from there.
"""

from __future__ import annotations

from ast import literal_eval
from pathlib import Path

LONGEST = 1000
"""Bytes; of what broke nothing."""

FOLDER = Path(__file__).with_name("corpus")


def kept(subject: str) -> list[bytes]:
    path = FOLDER / f"{subject}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [literal_eval(line) for line in lines if line.startswith("b")]


def keep(subject: str, data: bytes, why: str = "") -> Path:
    path = FOLDER / f"{subject}.txt"
    if data not in kept(subject):
        with path.open("a") as file:
            file.write(f"# {why}\n{data!r}\n" if why else f"{data!r}\n")
    return path

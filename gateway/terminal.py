"""What a person sees in a terminal: tables and bars in plain text, colour only where it is one."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TextIO

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Ink:
    """Colours for one stream: none where it is no terminal, or where NO_COLOR asks for none."""

    def __init__(self, stream: TextIO) -> None:
        self.on = stream.isatty() and "NO_COLOR" not in os.environ

    def __call__(self, code: str, text: str) -> str:
        return f"\x1b[{CODES[code]}m{text}\x1b[0m" if self.on and text else text


def width(most: int = 100) -> int:
    return min(shutil.get_terminal_size((most, 24)).columns, most)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], ink: Ink, right: str = "") -> str:
    """Rows under a head. `right` names the columns that are aligned to the right."""
    numbers = {n for n, name in enumerate(head) if name in right.split()}
    first, *rest = columns([head, *rows], right=numbers)
    return "\n".join([ink("bold", first), *rest])


def columns(
    rows: Iterable[Sequence[str]], *, indent: int = 0, right: Collection[int] = ()
) -> list[str]:
    """Columns as wide as their contents; the last is wrapped where the terminal ends."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    margin = " " * indent
    return [margin + line for row in cells for line in _lines(row, widths, right, indent)]


def _lines(
    row: Sequence[str], widths: Sequence[int], right: Collection[int], indent: int
) -> Iterator[str]:
    padded = [
        cell.rjust(wide) if n in right else cell.ljust(wide)
        for n, (cell, wide) in enumerate(zip(row, widths, strict=True))
    ]
    start = "  ".join([*padded[:-1], ""])
    if len(row) - 1 in right:
        yield start + padded[-1]
        return
    room = max(width() - indent - len(start), 24)
    for n, line in enumerate(textwrap.wrap(row[-1], room) or [""]):
        yield ((" " * len(start) if n else start) + line).rstrip()


def printable(text: str) -> str:
    """Text from elsewhere: what it would tell the terminal to do is not done."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shortened(text: str, most: int) -> str:
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


# --- waterfalls ----------------------------------------------------------------------------------


class Row(NamedTuple):
    """One line of a waterfall."""

    cells: tuple[str, ...]
    span: tuple[float, float] | None
    """From when to when, in seconds; None: it never was."""
    colour: str


def waterfall(
    head: Sequence[str], rows: Sequence[Row], ink: Ink, right: Collection[int]
) -> Iterator[str]:
    """A table, and beside each line a bar from its begin to its end."""
    spans = [row.span for row in rows if row.span]
    start = min((begin for begin, _ in spans), default=0.0)
    whole = max((end for _, end in spans), default=0.0) - start
    title, *lines = columns([head, *(row.cells for row in rows)], indent=2, right=right)
    edge = max(map(len, [title, *lines])) + 2
    room = min(max(width() - edge, 10), 40)
    yield ink("bold", f"{title:<{edge}}0{milliseconds(whole):>{room - 1}}")
    for row, line in zip(rows, lines, strict=True):
        span = bar(row.span[0] - start, row.span[1] - start, whole, room) if row.span else ""
        yield ink(row.colour, f"{line:<{edge}}{span}".rstrip())


def bar(begin: float, end: float, whole: float, columns: int) -> str:
    """A bar from `begin` to `end` on a line of `columns` that stands for `whole`."""
    scale = columns / whole if whole else 0.0
    first = min(round(begin * scale), columns - 1)
    last = max(round(end * scale), first + 1)
    return " " * first + "█" * (last - first)

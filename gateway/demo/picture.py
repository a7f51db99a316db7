"""What a bulk call looked like: its request and answer laid out, and who ran when."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from gateway import terminal
from gateway.demo.backend import Seen
from gateway.demo.samples import Result
from gateway.terminal import Ink, milliseconds, shortened, width

HEAD = ("#", "call", "status", "took", "ran")
CALL = 46
"""Columns of a call's method and target."""


class Row(NamedTuple):
    """One call of the table."""

    number: int
    method: str
    target: str
    status: int
    seen: Seen | None
    """What the backend knows of it; None when it was never sent."""


def rows(seen: Sequence[Seen], results: Iterable[Result] | None) -> list[Row]:
    """The results in client order, each with the backend's record of it; without results, the
    backend's record alone."""
    if results is None:
        return [
            Row(_index(call), call.method, call.target, call.status, call)
            for call in sorted(seen, key=lambda call: (_index(call), call.began))
        ]
    met = {_index(call): call for call in seen}
    return [
        Row(n, method, target, status, met.get(n))
        for n, (method, target, status) in enumerate(results)
    ]


def _index(call: Seen) -> int:
    """The gateway names each call `<batch>.<index>`."""
    found = re.search(r"\.(\d+)(?:\.\d+)*$", call.request_id)
    return int(found[1]) if found else 0


def drawn(rows: Sequence[Row], ink: Ink) -> Iterator[str]:
    """The table: a line per call, and beside it a bar from its begin to its end."""
    lines = [terminal.Row(_cells(row, rows), _span(row.seen), _colour(row)) for row in rows]
    return terminal.waterfall(HEAD, lines, ink, right={0, 3})


def _span(seen: Seen | None) -> tuple[float, float] | None:
    return (seen.began, seen.ended) if seen else None


def _colour(row: Row) -> str:
    if row.seen is None:
        return "dim"
    return "green" if row.status < 400 else "yellow"


def _cells(row: Row, rows: Sequence[Row]) -> tuple[str, str, str, str, str]:
    name = shortened(f"{row.method:<6} {row.target}", CALL)
    number, status = str(row.number), str(row.status)
    if row.seen is None:
        return number, name, status, "", "not sent"
    took = milliseconds(row.seen.ended - row.seen.began)
    return number, name, status, took, _company(row.seen, rows)


def _company(call: Seen, rows: Sequence[Row]) -> str:
    """Which others the backend was at work on meanwhile."""
    numbers = {
        row.number
        for row in rows
        if row.seen
        and row.seen is not call
        and row.seen.began < call.ended
        and call.began < row.seen.ended
    }
    return f"with {', '.join(map(str, sorted(numbers)))}" if numbers else "alone"


def laid_out(document: Any, indent: int, most: int) -> str:
    """JSON for reading: what fits on a line stays on it; the middle of a long document is left
    out."""
    lines = _laid_out(document, indent).splitlines()
    if len(lines) > most:
        head = most * 2 // 3
        tail = most - head - 1
        lines[head:-tail] = [f"{' ' * indent}… {len(lines) - head - tail} lines"]
    return "\n".join(lines)


def _laid_out(value: Any, indent: int, taken: int = 0) -> str:
    """`taken` columns of the first line are in use."""
    text = json.dumps(value, ensure_ascii=False)
    room = width() - indent
    if len(text) + taken < room or not isinstance(value, dict | list) or not value:
        return shortened(text, room - taken)
    if isinstance(value, dict):
        items = [(f"{json.dumps(key)}: ", item) for key, item in value.items()]
    else:
        items = [("", item) for item in value]
    inner = ",\n".join(
        " " * (indent + 2) + key + _laid_out(item, indent + 2, len(key)) for key, item in items
    )
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}\n{' ' * indent}{closing}"

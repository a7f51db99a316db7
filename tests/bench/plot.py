"""Latency against load as an SVG: one line per contestant, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 60
COLOURS = ("#0b6e4f", "#c1440e", "#e0a030", "#5b5ea6", "#8a8d91", "#b7b9bc", "#222222")


class Axis:
    """A logarithmic scale from values to places on the paper."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low = math.log10(min(values))
        self._high = math.log10(max(values))
        if self._high - self._low < 0.1:
            self._high = self._low + 0.1
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """1, 2, 5, 10, 20, ... as far as they fall inside."""
        decades = range(math.floor(self._low), math.ceil(self._high) + 1)
        marks = (step * 10.0**decade for decade in decades for step in (1, 2, 5))
        return [mark for mark in marks if self._low <= math.log10(mark) <= self._high]


def svg(title: str, x: str, y: str, lines: Mapping[str, Sequence[Point]]) -> str:
    points = [point for line in lines.values() for point in line]
    across = Axis([point[0] for point in points], LEFT, WIDTH - RIGHT)
    up = Axis([point[1] for point in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="system-ui, sans-serif" font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 22, title, size=15),
        *_grid(across, up),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, x, anchor="middle"),
        f'<g transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
        + _text(0, 0, y, anchor="middle")
        + "</g>",
    ]
    for place, (name, line) in enumerate(lines.items()):
        parts += _line(name, line, across, up, COLOURS[place % len(COLOURS)], place)
    return "\n".join([*parts, "</svg>", ""])


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    for mark in across.ticks():
        place = across.at(mark)
        yield _rule(place, TOP, place, HEIGHT - BOTTOM)
        yield _text(place, HEIGHT - BOTTOM + 18, f"{mark:,.10g}", anchor="middle")
    for mark in up.ticks():
        place = up.at(mark)
        yield _rule(LEFT, place, WIDTH - RIGHT, place)
        yield _text(LEFT - 8, place + 4, f"{mark:,.10g}", anchor="end")


def _line(
    name: str, line: Sequence[Point], across: Axis, up: Axis, colour: str, place: int
) -> Iterator[str]:
    path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in line)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in line:
        yield f'<circle cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="3" fill="{colour}"/>'
    legend = TOP + 12 + place * 20
    yield f'<circle cx="{WIDTH - RIGHT + 20}" cy="{legend - 4}" r="4" fill="{colour}"/>'
    yield _text(WIDTH - RIGHT + 30, legend, name)


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e4e4e4"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(words)}</text>"
    )

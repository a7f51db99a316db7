"""The arithmetic of a benchmark, pure: what is tested of it is tested here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

__all__ = ["geometric_mean", "median", "percentile", "spread"]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, interpolated between neighbours."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def geometric_mean(values: Iterable[float]) -> float:
    """The mean for ratios: twice as fast here and half as fast there come out even."""
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, as a share of the median: how noisy it was."""
    if len(values) < 2:
        return math.nan
    return (percentile(values, 0.75) - percentile(values, 0.25)) / 2 / median(values)

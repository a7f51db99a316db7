"""The cases, by the name with which `--only` asks for them, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from tests.bench.cases import (
    delays,
    dialects,
    engine,
    fairness,
    first_byte,
    goals,
    headline,
    hostile,
    linear,
    load_curve,
    memory,
    passthrough,
    scrape,
    shapes,
    traces,
    transfer,
    workers,
)
from tests.bench.run import Run

CASES: Mapping[str, Callable[[Run], Awaitable[None]]] = {
    "headline": headline.run,
    "shapes": shapes.run,
    "dialects": dialects.run,
    "delays": delays.run,
    "engine": engine.run,
    "first-byte": first_byte.run,
    "linear": linear.run,
    "fairness": fairness.run,
    "memory": memory.run,
    "hostile": hostile.run,
    "goals": goals.run,
    "scrape": scrape.run,
    "traces": traces.run,
    "pass-through": passthrough.run,
    "transfer": transfer.run,
    "workers": workers.run,
    "load": load_curve.run,
}

QUICK = ("headline",)
"""What `--quick` runs."""

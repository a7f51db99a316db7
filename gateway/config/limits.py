"""The limits in force: every setting that is a number, by its dotted name.

They are read off the declaration, so that a new one is never forgotten where limits are shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from gateway.batch import Dialect
from gateway.config.notations import Count, Duration, Notation, Rate, Share, Size
from gateway.config.reader import fields_of, is_union
from gateway.config.settings import Batch, Settings

SECTIONS = ("batch", "limits", "upstream", "client", "rate_limit", "shed", "drain")
"""Where limits stand; the numbers elsewhere (processes, a share of log lines) bound nothing."""

PER_CALL = ("batch.", "limits.", "rate_limit.", "upstream.connections", "upstream.timeouts.")
"""What one bulk call can run into."""

UNITS = {Duration: "seconds", Size: "bytes", Share: "fraction", Count: "count", Rate: "per second"}


class Limit(msgspec.Struct, frozen=True):
    """One bound: its value in the unit, as it is written in a settings file, and what it is of."""

    value: int | float  # compiled, whoever reads a float gets one: 7 would be told as 7.0
    unit: str
    """One of `UNITS`."""
    written: str
    help: str


def in_force(settings: Settings) -> dict[str, Limit]:
    """Whatever is null is no limit and is left out."""
    return dict(found for name in SECTIONS for found in _limits(getattr(settings, name), name))


def of_endpoint(batch: Batch, dialect: Dialect) -> dict[str, Limit]:
    """What is one endpoint's own: its `batch`, and the options of its dialect."""
    return {**dict(_limits(batch, "batch")), **dict(_options(dialect))}


def of_call(settings: Settings, batch: Batch, dialect: Dialect) -> dict[str, Limit]:
    """What one bulk call can run into at an endpoint."""
    common = {n: limit for n, limit in in_force(settings).items() if n.startswith(PER_CALL)}
    return common | of_endpoint(batch, dialect)


def _limits(section: Any, prefix: str) -> Iterator[tuple[str, Limit]]:
    if section is None:
        return
    hints = get_type_hints(type(section), include_extras=True)
    for name, field in fields_of(type(section)).items():
        value = getattr(section, name)
        if dataclasses.is_dataclass(value):
            yield from _limits(value, f"{prefix}.{name}")
            continue
        notation = _notation(hints[name])
        if notation is not None and type(notation) in UNITS and value is not None:
            written, help = str(notation.write(value)), field.metadata["help"]
            yield f"{prefix}.{name}", Limit(value, UNITS[type(notation)], written, help)


def _notation(hint: Any) -> Notation | None:
    if is_union(hint):
        hint = get_args(hint)[0]
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def _options(dialect: Any) -> Iterator[tuple[str, Limit]]:
    for name, field in fields_of(type(dialect)).items():
        value = getattr(dialect, name)
        if type(value) is int:
            unit = "bytes" if name.endswith("_bytes") else "count"
            yield name, Limit(value, unit, str(value), field.metadata["help"])

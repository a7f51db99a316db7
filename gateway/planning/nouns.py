"""What is planned, and what its calls have in common: plain values.

They stand in a file of their own because the files that work with them are compiled, and a Struct
is not.
"""

from __future__ import annotations

import msgspec

from gateway.batch import Batch, HeaderRules, Headers, Step, Trace


class Plan(msgspec.Struct, frozen=True):
    """The batch as steps, depth first in client order."""

    batch: Batch
    steps: tuple[Step, ...]
    delivery: tuple[int, ...]
    """Steps in the order in which results are written; a step's children come right after it."""
    free: bool = False
    """No step waits for another, and each is one call with nothing left to fill in."""


class Context(msgspec.Struct, frozen=True):
    """What all calls of one batch share."""

    batch_id: str
    headers: Headers
    """Inherited, then managed."""
    rules: HeaderRules
    idempotency_key: str | None = None
    trace: Trace | None = None
    width: int = 8
    """How many runs of one step may be under way: the others are not made before their turn."""
    shared: dict[tuple[tuple[str, ...], bool], tuple[Headers, frozenset[str]]] = {}
    """Names of own fields, and whether there is a body -> the fields that all such calls have in
    common, and those of the names that are void."""


class Kept(msgspec.Struct):
    """What a step's dependents read of it."""

    values: list[bytes]
    size: int = 0
    full: bool = False
    """There was more than may be kept, so nobody may go by what there is."""

"""What an explanation holds. As JSON it has these members, without those that say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from gateway.batch import Headers, Paging
from gateway.config.limits import Limit


class Contents(msgspec.Struct, frozen=True, omit_defaults=True):
    """A subrequest's body."""

    bytes: int
    text: str = ""
    """As the client wrote it, where something is still to be filled in."""


class Unsent(msgspec.Struct, frozen=True):
    """Why a subrequest is not sent, and the status of the result it has instead."""

    status: int
    by: Literal["format", "rules", "plan"]
    """It is wrong in itself, the operator's rules refuse it, or another one's result forbids it."""
    reason: str
    message: str


class Evaluation(msgspec.Struct, frozen=True):
    """An expression that is worked out before a call is made."""

    name: str
    text: str


class Recursion(msgspec.Struct, frozen=True):
    """Records that hold a condition beget calls."""

    when: str
    target: str


class Planned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One subrequest. `target` and `body` are as written where something is to be filled in."""

    index: int
    where: str
    name: str | None = None
    key: str | None = None
    parent: int = -1
    wave: int = 0
    """Counted from 1; 0: nothing of it is sent."""
    method: str = ""
    target: str = ""
    headers: Headers = ()
    """All of them, merged, as they are sent."""
    body: Contents | None = None
    filled_in: tuple[str, ...] = ()
    """What is filled in from earlier results: `target`, `body`."""
    reads: Mapping[str, int] = {}
    """Names its references use, and whose results those are."""
    needs: tuple[int, ...] = ()
    """It is skipped if one of these fails."""
    follows: tuple[int, ...] = ()
    """It waits for these, however they end."""
    barrier: bool = False
    """If it fails, nothing after it runs."""
    loops: tuple[str, ...] = ()
    """It runs once for each element."""
    expressions: tuple[Evaluation, ...] = ()
    paging: Paging | None = None
    recursion: Recursion | None = None
    most_runs: int = 0
    """Where it may be more than one."""
    quiet: bool = False
    """Its result is for others to read and not in the answer."""
    unsent: Unsent | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, in the client's order, depth first."""

    dialect: str
    endpoint: str
    """The path's template."""
    target: str
    """What the call is taken to be sent to."""
    order: Literal["ordered", "graph"]
    gated: bool
    """The first answer may become the answer to the whole call."""
    waves: tuple[tuple[int, ...], ...]
    """What runs together if all calls take equally long."""
    delivery: tuple[int, ...]
    """The order in which results are written."""
    headers: Headers
    """What every subrequest has, before its own fields are laid over them."""
    subrequests: tuple[Planned, ...]
    limits: Mapping[str, Limit]

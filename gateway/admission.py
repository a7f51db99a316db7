"""Whether new work is taken: not while the process shuts down, and not above the marks of `shed`.

Who is turned away early costs little, and what is in hand gets done: under four times the load that
can be carried, most of what can be carried still is. Large documents stand in line before that is
known of them.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

from gateway.batch import Failure
from gateway.config import Shed

SHUTTING_DOWN = Failure(
    "proxy_internal_response", "shutting_down", status=503, message="shutting down", retry_after=1
)
OVERLOADED = Failure(
    "proxy_internal_response",
    "overloaded",
    status=503,
    message="too much to do, come back later",
    retry_after=1,
)

T = TypeVar("T")

MEASURED = 0.1
"""Seconds for which a look at the memory holds good: it costs 10 µs."""


def resident() -> int:
    """Bytes of memory that this process has; 0 where Linux's /proc is not there to tell."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except OSError:
        return 0


_PAGE = os.sysconf("SC_PAGE_SIZE")


class Admission:
    """Asked once for every bulk call and every passed request."""

    def __init__(
        self,
        shed: Shed,
        lag: Callable[[], float],
        in_hand: Callable[[], bool],
        memory: Callable[[], int] = resident,
    ) -> None:
        """`lag`: by how much the event loop is late, seconds; `in_hand`: whether there is work."""
        self.marks = shed
        self.closed = False
        """The process shuts down."""
        self.reading = 0
        """Bytes of bulk calls' bodies that have come but are not yet understood."""
        self.shed: Counter[str] = Counter(lag=0, memory=0)
        """How often work was turned away, by the mark that was passed."""
        self._lag = lag
        self._in_hand = in_hand
        self._memory = memory
        self._size = 0
        self._measured = float("-inf")
        self._reader = ThreadPoolExecutor(1, "reader")

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def read_aside(self, size: int, read: Callable[[], T]) -> T:
        """Reads a document beside the event loop, when those before it have been read.

        A large one takes tens of milliseconds, a hostile one hundreds. In a thread of its own it
        holds everybody else up for 5 ms at a time, or for as long as one step of it takes in C.
        """
        self.reading += size
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, read)
        finally:
            self.reading -= size

    def refusal(self) -> Failure | None:
        """Why a new request is not taken now, or None."""
        if self.closed:
            return SHUTTING_DOWN
        passed = self._passed()
        if passed is None:
            return None
        self.shed[passed] += 1
        return OVERLOADED

    def _passed(self) -> str | None:
        marks = self.marks
        if marks.lag is not None and self._lag() > marks.lag:
            return "lag"
        # An allocator gives memory back late or never. If it is not what is in hand that takes it,
        # turning work away frees none, and would never end.
        if marks.memory is not None and self._in_hand() and self._now() > marks.memory:
            return "memory"
        return None

    def _now(self) -> int:
        now = monotonic()
        if now - self._measured >= MEASURED:
            self._size, self._measured = self._memory(), now
        return self._size

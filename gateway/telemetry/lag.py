"""How late the event loop is: a timer that notes by how much it missed its time.

It costs one call every tenth of a second. What it cannot see is a stall shorter than the rest of
its period; what it sees of a longer one is at least the stall less one period.
"""

from __future__ import annotations

import asyncio

PERIOD = 0.1
WINDOW = 10.0
"""Seconds over which the largest is kept, and then once more: two scrapers see the same peak."""


class LoopLag:
    def __init__(self) -> None:
        self.latest = 0.0
        """What the last tick measured: for shedding load."""
        self._peaks = (0.0, 0.0)
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def peak(self) -> float:
        """The largest of the last 10 to 20 seconds."""
        return max(self._peaks)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        self._wait(loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def observe(self, late: float, now: float) -> None:
        self.latest = late
        before, current = self._peaks
        if now - self._since >= WINDOW:
            self._since = now
            before, current = current, 0.0
        self._peaks = (before, max(current, late))

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + PERIOD
        self._timer = loop.call_at(due, self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.observe(max(0.0, now - due), now)
        self._wait(loop)

"""Deadlines, and a process that stood still: it was stopped, or its event loop was blocked."""

from __future__ import annotations

LATE = 1.0
"""Seconds after the last look at some clocks that make it a late one. There are a few a second."""


class Looks:
    """The looks at the clocks of somebody's deadlines.

    What came while the process stood still lies in the kernel, and came in time. So a late look
    does not count: there is until the next one to read it.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self._excused = False

    def counts(self, now: float) -> bool:
        late, self._last = now - self._last > LATE, now
        self._excused = late and not self._excused
        return not self._excused

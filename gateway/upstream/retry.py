"""How many calls may be repeated: a share of the recent ones, so that a backend in trouble is not
given more work than it had."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW: Final = 10.0
FLOOR: Final = 3


class RetryBudget:
    def __init__(self, share: float) -> None:
        self._share = share
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)])
        """When, and how many calls had been started by then; the oldest is the window's start."""
        self._spent: deque[float] = deque()

    def sample(self, now: float, calls: int) -> None:
        """Told with every sweep of the pool."""
        self._samples.append((now, calls))
        while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()

    def spend(self, now: float, calls: int) -> bool:
        """Whether one more call may be repeated; if so, it is counted."""
        self.sample(now, calls)
        while self._spent and self._spent[0] <= now - WINDOW:
            self._spent.popleft()
        allowed = max(FLOOR, self._share * (calls - self._samples[0][1]))
        if len(self._spent) + 1 > allowed:
            return False
        self._spent.append(now)
        return True

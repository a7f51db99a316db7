"""The pool in force, and those of former settings that have not ended: one set of figures.

A pool that is replaced loses nothing it has. Its calls go on to their end, each batch on the
connections that it began with; for that long two pools keep to their bounds, each by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from gateway.upstream.pool import Pool


class Pools:
    def __init__(self, pool: Pool) -> None:
        self.current = pool
        self._former: list[Pool] = []

    def use(self, pool: Pool) -> None:
        """Calls of new requests go there. What was counted goes on."""
        former = self.current
        if pool is not former:
            pool.connects, pool.retries = former.connects, former.retries
            self.current = pool
            former.wind_down()
            self._former.append(former)

    def __iter__(self) -> Iterator[Pool]:
        self._former = [pool for pool in self._former if not pool.empty]
        yield self.current
        yield from self._former

    async def close(self) -> None:
        for pool in self:
            await pool.close()

    # --- figures ---------------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        return sum(pool.busy for pool in self)

    @property
    def waiting(self) -> int:
        return sum(pool.waiting for pool in self)

    @property
    def held(self) -> int:
        """Bytes."""
        return sum(pool.memory.held for pool in self)

    @property
    def connections(self) -> Mapping[str, int]:
        """By state."""
        return {
            "idle": sum(len(pool.idle) for pool in self),
            "busy": self.busy,
            "connecting": sum(pool.connecting for pool in self),
        }

    @property
    def connects(self) -> Counter[str]:
        return self.current.connects

    @property
    def retries(self) -> Counter[str]:
        return self.current.retries

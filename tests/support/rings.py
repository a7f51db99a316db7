"""What only the collector would find: the gateway's own hardly ever looks (`calm_collector`)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within, what is held in a ring stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def remain(*kinds: type) -> int:
    """How many objects there are of these."""
    return sum(type(thing) in kinds for thing in gc.get_objects())

"""Every address of clients, bound once for each worker; the operators' once.

The kernel deals connections out among sockets that share a port. A socket file cannot be bound
twice, so there all workers accept from the same socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from gateway.config import Listener, Settings
from gateway.server.listeners import Door, bind, discard

Row = list[Door]
"""One worker's doors, in the order of `listen`."""


@contextmanager
def bound(settings: Settings) -> Iterator[tuple[list[Row], Row]]:
    """The workers' doors and the operators'. Raises `CannotListen`."""
    rows: list[Row] = [[] for _ in range(settings.workers)]
    with ExitStack() as stack:
        for listener in settings.listen:
            for row, doors in zip(rows, _copies(listener, settings.workers, stack), strict=True):
                row += doors
        ops = _kept(bind(settings.ops), stack)
        yield rows, ops


def _copies(listener: Listener, count: int, stack: ExitStack) -> Iterator[Row]:
    if listener.unix is not None:
        yield from [_kept(bind(listener), stack)] * count
        return
    # Sharing would succeed where another gateway of ours has the port already.
    discard(bind(listener))
    for _ in range(count):
        doors = _kept(bind(listener, shared=True), stack)
        yield doors
        host = listener.address.rpartition(":")[0]
        listener = replace(listener, address=f"{host}:{doors[0].sock.getsockname()[1]}")


def _kept(doors: Row, stack: ExitStack) -> Row:
    stack.callback(discard, doors)
    return doors

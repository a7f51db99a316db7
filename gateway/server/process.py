"""What a process settles before it serves: its event loop, signals, descriptors and memory, and its
last words."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import resource
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from gateway.server.door import require_c_parser
from gateway.telemetry.lines import places

SPARE = 64
"""Descriptors for listeners, logs, the operators, and what is on its way out."""
QUIET = 1.0
"""Seconds between two log lines about the same shortage."""

MAPPED = 128 * 2**10
"""Bytes; glibc's own bound until it is raised."""
KEPT = 8 * 2**20
"""Bytes of freed memory that the process keeps for what comes next."""
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1

log = structlog.get_logger(__name__)


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed: faster, and its accept survives a lack of descriptors."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs what `main` makes, to its end."""
    require_c_parser()
    occupy_standard_streams()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(Complaints())
        return runner.run(main())


def obey(signalled: Callable[[], None], refresh: Callable[[], None]) -> None:
    """From now on SIGTERM and SIGINT call the one, SIGHUP the other, those that wait too."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    loop.add_signal_handler(signal.SIGHUP, refresh)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def occupy_standard_streams() -> None:
    """Started without them, a process would give their numbers to the next sockets, and write its
    log to whoever is at the other end."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(spare, True)  # by workers
    os.close(spare)


def raise_descriptor_limit() -> int:
    """Raises the soft limit to the hard one; returns what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 2**20


def bound_free_memory() -> None:
    """Has large pieces of memory mapped, and so returned to the system when they are freed.

    glibc raises its bound for that to the size of what was freed, up to 32 MiB, and from then on
    keeps the holes. Measured with slow clients of 8 MB answers: 96 MiB held by all batches took
    180 MiB of the process, and take 118 with the bound fixed. With it glibc fixes the other bound
    too, above which it gives back small pieces, so low that answers of 50 kB cost a page fault for
    each of their pages: a tenth to a sixth of their CPU."""
    with suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, MAPPED)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT)


def calm_collector() -> None:
    """Has the garbage collector look less often, and never at what lasts as long as the process.

    A batch makes thousands of objects and no cycles, so looking every 700 finds nothing. Measured:
    5 % of the CPU of a batch of a hundred, 10 % of one of ten thousand."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def client_bound(wanted: int, descriptors: int, upstream: int) -> int:
    """How many clients fit: `wanted`, unless the process would run out of descriptors before. Each
    may keep a connection to the backend waiting, and the first ones several (`Pool._pass_over`)."""
    fit = max((descriptors - 3 * upstream - SPARE) // 2, descriptors // 4)
    if fit < wanted:
        log.warning("descriptors_short", limit=descriptors, wanted=wanted, connections=fit)
    return min(wanted, fit)


class Complaints:
    """The event loop's exception handler: what nobody caught, without the text of the exception,
    which may be somebody's data. At EMFILE asyncio complains about every connection it cannot
    accept, 372,685 times in five seconds: that is one line a second."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            if loop.time() - self._said >= QUIET:
                self._said = loop.time()
                log.error("descriptors_used_up")
            return
        error = type(exc).__name__
        log.error("event_loop", message=context.get("message"), error=error, where=places(exc))

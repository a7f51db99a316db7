"""A contestant's processes: started together, watched from outside, ended together.

CPU time is read from the kernel's per-process clock, in nanoseconds. `/proc/PID/stat` counts ticks
of 10 ms, too coarse for samples of a quarter second, and `/proc/PID/schedstat` knows one thread
only. The clock counts all threads, also ended ones; children are found in `/proc` and added.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

SCHEDULED = 2
"""CPUCLOCK_SCHED of the kernel's clock ids: a process's user and system time, in nanoseconds."""

PATIENCE = 10.0
"""Seconds a process has to end after SIGTERM."""

_END_WITH_PARENT = 1
"""prctl's PR_SET_PDEATHSIG."""
_PRCTL = ctypes.CDLL(None).prctl


class Process:
    """One command and whatever it forks."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cpus: frozenset[int],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=partial(_prepare, cpus),
            )
        self.argv = tuple(argv)
        self.log = log

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def ended(self) -> bool:
        return self._child.poll() is not None

    def cpu(self) -> float:
        """Seconds of CPU time used so far by the command and its living children."""
        return sum(self.cpu_by_process().values())

    def cpu_by_process(self) -> dict[int, float]:
        return dict(_readings(self._tree()))

    def resident(self) -> int:
        """Bytes resident now, all processes."""
        return sum(_status(pid, "VmRSS") for pid in self._tree())

    def peak(self) -> int:
        """The most that was resident since `forget_peak()`, all processes."""
        return sum(_status(pid, "VmHWM") for pid in self._tree())

    def forget_peak(self) -> None:
        for pid in self._tree():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        if self.ended:
            return
        self._child.terminate()
        try:
            self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            # The session is its own: nothing but what it forked is in its process group.
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def _tree(self) -> list[int]:
        found = [self.pid]
        for pid in found:
            found.extend(_children(pid))
        return found


def _prepare(cpus: frozenset[int]) -> None:
    """In the child, before it becomes the command: a benchmark that is killed leaves nothing."""
    _PRCTL(_END_WITH_PARENT, signal.SIGTERM)
    os.sched_setaffinity(0, cpus)


def _readings(pids: Sequence[int]) -> Iterator[tuple[int, float]]:
    for pid in pids:
        with suppress(OSError):
            yield pid, time.clock_gettime((~pid << 3) | SCHEDULED)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found.extend(map(int, path.read_text().split()))
    return found


def _status(pid: int, name: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0

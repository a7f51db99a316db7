"""Lines to a file descriptor, never making the caller wait.

The event loop must not stand still because a pipe's reader does, nor fail because a disk is full.
So lines go into a bounded queue, and a thread writes them, a few times a second at most: under load
many lines share one wake-up. What does not fit and what cannot be written is counted.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from threading import Event, Lock, Thread

QUEUE_BYTES = 4 * 1024 * 1024
"""Waiting to be written; as much again may be in the thread's hands."""

_PAUSE = 0.05


class Sink:
    def __init__(self, fd: int, queue_bytes: int = QUEUE_BYTES) -> None:
        self.queue_full = 0
        """Lines dropped because the reader is too slow."""
        self.write_failed = 0
        """Lines dropped because the disk is full or the reader is gone."""
        self._fd = fd
        self._room = self._queue_bytes = queue_bytes
        self._queue: list[bytes] = []
        self._lock = Lock()
        self._wake = Event()
        self._closing = Event()
        self._torn = False
        self._thread = Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Takes a line without its end."""
        with self._lock:
            if len(line) >= self._room:
                self.queue_full += 1
                return
            self._room -= len(line) + 1
            self._queue.append(line + b"\n")
        if not self._wake.is_set():
            self._wake.set()

    # structlog calls the method that is named for the level.
    debug = info = warning = error = critical = write

    def close(self, timeout: float = 1.0) -> None:
        """Writes what is left, unless that takes longer: the process must be able to end."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            self._drain()
            self._closing.wait(_PAUSE)
        self._drain()

    def _drain(self) -> None:
        with self._lock:
            lines, self._queue = self._queue, []
            self._room = self._queue_bytes
        for chunk in _chunks(lines):
            # A full disk took half a line: the next one must not continue it.
            mended = not self._torn or self._put(b"\n") == 1
            written = self._put(chunk) if mended else 0
            self._torn = not mended or chunk[:written][-1:] not in (b"", b"\n")
            self.write_failed += chunk.count(b"\n", written)

    def _put(self, chunk: bytes) -> int:
        """How many bytes of it were written."""
        written = 0
        while written < len(chunk):
            try:
                written += os.write(self._fd, chunk[written:])
            except BlockingIOError:  # whoever shares the descriptor made it non-blocking
                if self._closing.is_set():
                    break
                self._await_room()
            except OSError:
                break
        return written

    def _await_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(200)


def _chunks(lines: list[bytes]) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes in one piece: workers share it."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if chunk and size + len(line) > select.PIPE_BUF:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield b"".join(chunk)

"""The sink: nobody waits for it, and what it loses is counted."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.telemetry import sink as module
from gateway.telemetry.sink import Sink


def test_lines_arrive_in_order_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [str(number).encode() * 50 for number in range(1000)]
    with path.open("wb") as file:
        sink = Sink(file.fileno())
        for line in lines:
            sink.write(line)
        sink.close()
    assert path.read_bytes().splitlines() == lines
    assert (sink.queue_full, sink.write_failed) == (0, 0)


def test_a_reader_that_stops_costs_lines_and_no_time() -> None:
    read, write = os.pipe()
    fill(write)
    sink = Sink(write, queue_bytes=10_000)
    for _ in range(10_000):
        sink.write(b"x" * 99)
    assert sink.queue_full >= 9_800  # the queue and the thread hold a hundred each
    sink.close(timeout=0.01)
    os.close(read)  # this wakes the thread
    sink.close()
    os.close(write)


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 4096)
    os.set_blocking(pipe, True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_counted() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        sink = Sink(full.fileno())
        for _ in range(100):
            sink.write(b"x" * 100)
        sink.close()
    assert sink.write_failed == 100


def test_a_closed_pipe_is_counted() -> None:
    read, write = os.pipe()
    os.close(read)
    sink = Sink(write)
    for _ in range(100):
        sink.write(b"x" * 100)
    sink.close()
    assert sink.write_failed == 100
    os.close(write)


def test_after_half_a_line_the_next_one_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for four bytes, then full, then with room again."""
    disk = bytearray()
    answers = [4, 0, 0, 100, 100]

    def write(_: int, data: bytes) -> int:
        room = answers.pop(0)
        if not room:
            raise OSError
        disk.extend(data[:room])
        return min(room, len(data))

    sink = Sink(-1)
    sink.close()
    monkeypatch.setattr(module.os, "write", write)
    for line in (b"first line", b"second", b"third"):
        sink.write(line)
        sink._drain()
    assert bytes(disk) == b"firs\nthird\n"
    assert sink.write_failed == 2


def test_a_descriptor_that_others_made_non_blocking_still_gets_every_line() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    sink = Sink(write)
    for _ in range(2000):
        sink.write(b"x" * 99)
    received = 0
    while received < 2000 * 100:
        received += len(os.read(read, 65536))
    sink.close()
    assert sink.write_failed == sink.queue_full == 0
    os.close(read)
    os.close(write)


def test_pieces_that_workers_write_to_one_pipe_end_at_line_ends() -> None:
    lines = [b"x" * 1500 + b"\n"] * 5 + [b"y" * 9000 + b"\n"]
    chunks = list(module._chunks(lines))
    assert b"".join(chunks) == b"".join(lines)
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert [len(chunk) for chunk in chunks] == [3002, 3002, 1501, 9001]

"""Whether new work is taken."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.admission import Admission, resident
from gateway.config import Shed


@dataclass
class Load:
    lag: float = 0.0
    in_hand: bool = True
    memory: int = 0

    def under(self, **marks: float) -> Admission:
        shed = Shed(**marks)  # type: ignore[arg-type]
        return Admission(shed, lambda: self.lag, lambda: self.in_hand, lambda: self.memory)


def test_without_marks_everything_is_taken_until_the_process_shuts_down() -> None:
    gate = Load(lag=100.0, memory=1 << 60).under()
    assert gate.refusal() is None
    gate.closed = True
    refused = gate.refusal()
    assert refused is not None
    assert (refused.code, refused.details, refused.retry_after) == (503, "shutting_down", 1)
    assert not gate.shed.total()


def test_above_the_lag_mark_work_is_turned_away_until_the_loop_is_in_time_again() -> None:
    load = Load(lag=0.3)
    gate = load.under(lag=0.2)
    refused = gate.refusal()
    assert refused is not None
    assert (refused.code, refused.details, refused.retry_after) == (503, "overloaded", 1)
    load.lag = 0.2
    assert gate.refusal() is None
    assert gate.shed == {"lag": 1, "memory": 0}


def test_above_the_memory_mark_work_is_turned_away_while_other_work_may_free_some() -> None:
    load = Load(memory=101)
    gate = load.under(memory=100)
    assert gate.refusal() is not None
    load.in_hand = False
    assert gate.refusal() is None
    assert gate.shed == {"lag": 0, "memory": 1}


def test_memory_is_not_measured_for_every_request() -> None:
    looks = []

    def memory() -> int:
        looks.append(1)
        return 0

    gate = Admission(Shed(memory=100), lambda: 0.0, lambda: True, memory)
    for _ in range(1000):
        gate.refusal()
    assert len(looks) < 1000


def test_resident_memory_is_that_of_this_process() -> None:
    assert 1 << 20 < resident() < 1 << 34


def test_where_nobody_tells_the_memory_there_is_no_mark() -> None:
    assert Load(memory=0).under(memory=1).refusal() is None

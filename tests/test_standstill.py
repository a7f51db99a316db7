"""When deadlines are looked at, and the process has stood still."""

from __future__ import annotations

from gateway.standstill import LATE, Looks


def test_a_late_look_does_not_count_but_the_one_after_it_does() -> None:
    """Also if that is late as well: a process that is always late still keeps its deadlines."""
    looks = Looks(100.0)
    assert looks.counts(100.1)
    assert not looks.counts(100.2 + LATE)
    assert looks.counts(100.3 + LATE)
    assert not looks.counts(100.4 + 2 * LATE)
    assert looks.counts(100.5 + 3 * LATE)

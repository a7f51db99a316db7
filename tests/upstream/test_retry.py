"""A tenth of the calls of the last ten seconds, but three at least."""

from __future__ import annotations

from gateway.upstream.retry import RetryBudget


def spent(budget: RetryBudget, now: float, calls: int, tries: int = 1000) -> int:
    return sum(budget.spend(now, calls) for _ in range(tries))


def test_three_are_always_allowed() -> None:
    assert spent(RetryBudget(0.1), 100.0, 0) == 3


def test_no_part_of_a_call_is_rounded_up() -> None:
    budget = RetryBudget(0.1)
    budget.sample(100.0, 0)
    assert spent(budget, 101.0, 109) == 10


def test_a_tenth_of_the_recent_calls() -> None:
    budget = RetryBudget(0.1)
    budget.sample(100.0, 0)
    assert spent(budget, 105.0, 500) == 50


def test_old_calls_and_old_retries_no_longer_count() -> None:
    budget = RetryBudget(0.1)
    for second in range(20):
        budget.sample(100.0 + second, second * 100)
    assert spent(budget, 120.0, 2000) == 100
    for second in range(20, 31):
        budget.sample(100.0 + second, 2000)
    assert spent(budget, 131.0, 2000) == 3


def test_samples_do_not_pile_up() -> None:
    budget = RetryBudget(0.1)
    for tick in range(10_000):
        budget.sample(tick / 10, tick)
    assert len(budget._samples) < 150

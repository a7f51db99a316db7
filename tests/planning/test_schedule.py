"""Scheduling as a dialogue: this finished, so these start."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Batch, Failure, Subrequest
from gateway.errors import Refused
from gateway.planning.graph import plan
from gateway.planning.nouns import Plan
from gateway.planning.schedule import Schedule


def batch(*subrequests: Subrequest, order: str = "ordered") -> Batch:
    return Batch(dialect="test", subrequests=subrequests, order=order)  # type: ignore[arg-type]


def sub(method: str = "GET", place: int = 0, **more: object) -> Subrequest:
    return Subrequest(where=f"requests[{place}]", method=method, target=f"/{place}", **more)  # type: ignore[arg-type]


def ordered(methods: str, **more: object) -> Plan:
    """`rrwR`: r is a read, w a write, R a read that is a barrier, W a write that is one."""
    return plan(
        batch(
            *(
                sub("GET" if m in "rR" else "POST", i, barrier=m.isupper())
                for i, m in enumerate(methods)
            )
        )
    )


def over(schedule: Schedule) -> bool:
    """Nothing runs and nothing can."""
    return not schedule.running and not schedule.begin()


def test_reads_between_two_writes_run_together() -> None:
    schedule = Schedule(ordered("rrwrr"), width=8)
    assert schedule.begin() == [0, 1]
    assert schedule.finish(1, failed=False) == ([], [])
    assert schedule.finish(0, failed=False) == ([2], [])
    assert schedule.finish(2, failed=True) == ([3, 4], [])
    assert schedule.finish(4, failed=False) == ([], [])
    assert not over(schedule)
    assert schedule.finish(3, failed=False) == ([], [])
    assert over(schedule)


def test_a_read_that_was_hurried_starts_only_once() -> None:
    schedule = Schedule(ordered("rrr"), width=1)
    assert schedule.begin() == [0]
    assert schedule.hurry({1}) == [1]
    assert schedule.finish(0, failed=False) == ([], [])
    assert schedule.finish(1, failed=False) == ([2], [])
    assert schedule.finish(2, failed=False) == ([], [])
    assert over(schedule)


def test_writes_run_one_after_another() -> None:
    schedule = Schedule(ordered("www"), width=8)
    assert schedule.begin() == [0]
    assert schedule.finish(0, failed=False) == ([1], [])
    assert schedule.finish(1, failed=False) == ([2], [])


def test_width_bounds_what_runs_and_the_rest_waits_in_client_order() -> None:
    schedule = Schedule(ordered("rrrrr"), width=2)
    assert schedule.begin() == [0, 1]
    assert schedule.finish(1, failed=False) == ([2], [])
    assert schedule.finish(0, failed=False) == ([3], [])


def test_a_width_of_one_is_strictly_one_after_another() -> None:
    schedule = Schedule(ordered("rrwr"), width=1)
    started = schedule.begin()
    for expected in range(4):
        assert started == [expected]
        started, _ = schedule.finish(expected, failed=False)


def test_nothing_after_a_barrier_starts_before_it_has_succeeded() -> None:
    schedule = Schedule(ordered("rRrw"), width=8)
    assert schedule.begin() == [0, 1]
    assert schedule.finish(0, failed=False) == ([], [])
    assert schedule.finish(1, failed=False) == ([2], [])


def test_a_write_waits_for_the_reads_before_an_earlier_barrier_too() -> None:
    schedule = Schedule(ordered("rRw"), width=8)
    assert schedule.begin() == [0, 1]
    assert schedule.finish(1, failed=False) == ([], [])
    assert schedule.finish(0, failed=False) == ([2], [])


def test_a_failed_barrier_skips_all_that_comes_after_it() -> None:
    schedule = Schedule(ordered("rWrw"), width=8)
    assert schedule.begin() == [0]
    assert schedule.finish(0, failed=True) == ([1], [])
    assert schedule.finish(1, failed=True) == ([], [(2, 1), (3, 1)])
    assert over(schedule)


def test_an_entry_that_is_never_sent_orders_nothing() -> None:
    refused = sub("POST", 1, refusal=Failure("http_request_error", "no_method"))
    schedule = Schedule(plan(batch(sub("GET", 0), refused, sub("GET", 2))), width=8)
    assert schedule.begin() == [0, 1, 2]


def test_dependents_of_a_failed_step_are_skipped_and_theirs_too() -> None:
    plans = plan(
        batch(
            sub(place=0, name="a"),
            sub(place=1, name="b", needs=("a",)),
            sub(place=2, name="c", needs=("b",)),
            sub(place=3, name="d"),
            order="graph",
        )
    )
    schedule = Schedule(plans, width=8)
    assert schedule.begin() == [0, 3]
    assert schedule.finish(0, failed=True) == ([], [(1, 0), (2, 1)])


def test_stopping_decides_everything_that_has_not_started() -> None:
    schedule = Schedule(ordered("rrwr"), width=1)
    assert schedule.begin() == [0]
    assert schedule.stop() == [1, 2, 3]
    assert schedule.finish(0, failed=False) == ([], [])
    assert over(schedule)


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"a": ["a"]}, "requests[0]: depends on itself"),
        (
            {"a": ["b"], "b": ["c"], "c": ["a"]},
            "requests[0]: depends on itself through requests[1] and requests[2]",
        ),
        ({"a": ["x"]}, "requests[0]: depends on a name nobody has"),
    ],
)
def test_rings_and_unknown_names_are_found_before_anything_is_sent(
    needs: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(Refused) as caught:
        plan(
            batch(
                *(sub(place=i, name=n, needs=tuple(on)) for i, (n, on) in enumerate(needs.items())),
                order="graph",
            )
        )
    assert caught.value.message == message


def test_a_name_used_twice_is_refused_with_both_places() -> None:
    with pytest.raises(Refused, match=r"requests\[1\]\.name: already taken by requests\[0\]"):
        plan(batch(sub(place=0, name="a"), sub(place=1, name="a")))


def test_steps_stand_depth_first_and_know_their_subtree() -> None:
    leaf = sub(place=2)
    tree = plan(batch(sub(place=0, children=(sub(place=1, children=(leaf,)),)), sub(place=3)))
    assert [(s.index, s.parent, s.size) for s in tree.steps] == [
        (0, -1, 3),
        (1, 0, 2),
        (2, 1, 1),
        (3, -1, 1),
    ]


def test_results_of_one_key_are_written_together_in_topological_order() -> None:
    tree = plan(
        batch(
            sub(place=0, name="a", key="x", needs=("c",)),
            sub(place=1, name="b", key="y"),
            sub(place=2, name="c", key="z"),
            sub(place=3, name="d", key="y"),
            order="graph",
        )
    )
    assert tree.delivery == (1, 3, 2, 0)


def test_edges_of_an_ordered_batch_are_linear_in_its_length() -> None:
    methods = "rrrrw" * 400
    edges = sum(len(step.follows) for step in ordered(methods).steps)
    assert edges <= 2 * len(methods)


@st.composite
def graphs(draw: st.DrawFn) -> Plan:
    """Acyclic by construction, shuffled so that a step may depend on a later one."""
    count = draw(st.integers(0, 12))
    names = draw(st.permutations([f"n{i}" for i in range(count)]))
    needs = {
        name: draw(st.sets(st.sampled_from(names[:place]))) if place else set()
        for place, name in enumerate(names)
    }
    return plan(
        batch(
            *(
                sub(place=i, name=f"n{i}", needs=tuple(sorted(needs[f"n{i}"])))
                for i in range(count)
            ),
            order="graph",
        )
    )


@given(
    st.one_of(graphs(), st.text("rwRW", max_size=14).map(ordered)),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
    st.floats(0, 1),
)
def test_every_step_is_decided_once_and_no_rule_is_broken(
    tree: Plan, width: int, chance: random.Random, failing: float
) -> None:
    schedule = Schedule(tree, width)
    running = set(schedule.begin())
    ended: dict[int, bool] = {}
    skipped: set[int] = set()
    while running:
        assert len(running) <= width
        index = chance.choice(sorted(running))
        running.remove(index)
        ended[index] = chance.random() < failing
        starts, skips = schedule.finish(index, failed=ended[index])
        for start in starts:
            step = tree.steps[start]
            assert start not in ended
            assert start not in running
            assert all(ended.get(before) is False for before in step.needs)
            assert all(before in ended or before in skipped for before in step.follows)
            running.add(start)
        skipped.update(skip.step for skip in skips)
    assert over(schedule)
    assert not skipped & set(ended)
    assert skipped | set(ended) == set(range(len(tree.steps)))


@given(st.text("rw", max_size=14).map(ordered), st.randoms(use_true_random=False))
def test_a_write_never_overlaps_anything(tree: Plan, chance: random.Random) -> None:
    schedule = Schedule(tree, width=20)
    running = schedule.begin()
    order: list[int] = []
    while running:
        writes = [i for i in running if not tree.steps[i].subrequest.safe]
        assert not writes or len(running) == 1
        index = chance.choice(running)
        running.remove(index)
        order.append(index)
        running += schedule.finish(index, failed=False)[0]
    writes = [i for i in order if not tree.steps[i].subrequest.safe]
    assert all(a < b for a, b in pairwise(writes))

"""Snapshots of several workers become one."""

from __future__ import annotations

import socket
from copy import deepcopy

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Distribution, Exemplar, Fleet, Snapshot, Worker, merge
from gateway.workers.channel import Farewell, parents, workers

SUBREQUESTS = ("sugarcrm", "_other", "GET", "200")
LAG = "gateway_event_loop_lag_seconds"
CONNECTIONS = "gateway_upstream_connections"


def worker(requests: int, lag: float = 0.0) -> Snapshot:
    metrics = Metrics(methods=["GET"], version="1")
    metrics.read(LAG, lambda: lag)
    metrics.read(CONNECTIONS, lambda: {"idle": requests})
    for _ in range(requests):
        metrics.subrequest("sugarcrm", "_other", "GET", 200, 0.03)
    return metrics.snapshot()


def test_counters_and_buckets_are_summed() -> None:
    total = merge([worker(2), worker(3)])
    assert total.values["gateway_subrequests_total"][SUBREQUESTS] == 5
    took = total.distributions["gateway_subrequest_duration_seconds"][SUBREQUESTS[:3]]
    assert sum(took.counts) == 5


def test_gauges_are_summed_but_the_lag_is_the_largest_and_facts_stay_facts() -> None:
    total = merge([worker(2, lag=0.2), worker(3, lag=0.1)])
    assert total.values[CONNECTIONS]["idle",] == 5
    assert total.values[LAG] == {(): 0.2}
    assert set(total.values["gateway_build_info"].values()) == {1}


def test_one_worker_with_old_settings_is_enough_to_say_so() -> None:
    name = "gateway_config_last_reload_successful"
    assert merge([Snapshot({name: {(): 1}}), Snapshot({name: {(): 0}})]).values[name] == {(): 0}


def test_the_newest_exemplar_survives() -> None:
    def seen(at: float, trace_id: str) -> Snapshot:
        distribution = Distribution([1, 0], 0.1, {0: Exemplar(trace_id, 0.1, at)})
        return Snapshot({}, {"gateway_batch_duration_seconds": {("sugarcrm",): distribution}})

    for order in ([seen(1, "old"), seen(2, "new")], [seen(2, "new"), seen(1, "old")]):
        total = merge(order).distributions["gateway_batch_duration_seconds"]["sugarcrm",]
        assert total.exemplars[0].trace_id == "new"
        assert total.counts == [2, 0]


def test_merging_leaves_its_sources_alone() -> None:
    first, second = worker(2), worker(3)
    kept = deepcopy(first)
    merge([first, second, second])
    assert first == kept


async def test_a_snapshot_reaches_the_parent_as_it_left_the_worker() -> None:
    ours, theirs = socket.socketpair()
    parent, child = await parents(ours), await workers(theirs)
    child.say(Farewell(worker(2)))
    assert await parent.hear() == Farewell(worker(2))
    await child.flush()
    await parent.flush()


def test_what_an_ended_worker_counted_is_kept_and_its_gauges_go() -> None:
    fleet = Fleet()
    fleet.report(Worker(1), worker(2))
    fleet.report(Worker(1), worker(4))
    fleet.report(Worker(2), worker(3))
    fleet.ended(Worker(1))
    total = fleet.snapshot()
    assert total.values["gateway_subrequests_total"][SUBREQUESTS] == 7
    assert total.values[CONNECTIONS]["idle",] == 3
    fleet.ended(Worker(2))
    assert fleet.snapshot().values["gateway_subrequests_total"][SUBREQUESTS] == 7
    assert CONNECTIONS not in fleet.snapshot().values


def test_a_worker_that_never_reported_may_end() -> None:
    fleet = Fleet()
    fleet.ended(Worker(1))
    assert fleet.snapshot() == Snapshot()

"""Counting: what becomes a label, what is bounded, what is read at the scrape."""

from __future__ import annotations

from copy import deepcopy

import pytest

from gateway.telemetry.catalogue import METRICS, SECONDS
from gateway.telemetry.metrics import SERIES_LIMIT, Metrics, status_label

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(methods=METHODS, dialects=["sugarcrm"], version="1.2.3")


def test_a_subrequest_counts_once_by_its_status_and_once_in_its_bucket(metrics: Metrics) -> None:
    metrics.subrequest("sugarcrm", "/rest/{id}", "GET", 200, 0.003)
    metrics.subrequest("sugarcrm", "/rest/{id}", "GET", 404, 0.3)
    seen = metrics.snapshot()
    assert seen.values["gateway_subrequests_total"] == {
        ("sugarcrm", "/rest/{id}", "GET", "200"): 1,
        ("sugarcrm", "/rest/{id}", "GET", "404"): 1,
    }
    took = seen.distributions["gateway_subrequest_duration_seconds"][
        "sugarcrm", "/rest/{id}", "GET"
    ]
    assert took.counts[SECONDS.index(0.005)] == took.counts[SECONDS.index(0.5)] == 1
    assert sum(took.counts) == 2
    assert took.sum == pytest.approx(0.303)


def test_a_bound_belongs_to_its_bucket(metrics: Metrics) -> None:
    metrics.passthrough("_other", "GET", 200, 0.05)
    took = metrics.snapshot().distributions["gateway_passthrough_duration_seconds"]["_other", "GET"]
    assert took.counts[SECONDS.index(0.05)] == 1


@pytest.mark.parametrize(
    ("status", "label"),
    [(0, "000"), (200, "200"), (418, "418"), (299, "2xx"), (599, "5xx"), (100, "100")],
)
def test_registered_statuses_stay_others_become_their_class(status: int, label: str) -> None:
    assert status_label(status) == label


def test_unregistered_statuses_of_a_class_are_one_series(metrics: Metrics) -> None:
    for status in range(290, 300):
        metrics.passthrough("_other", "GET", status, 0.01)
    values = metrics.snapshot().values["gateway_passthrough_requests_total"]
    assert values == {("_other", "GET", "2xx"): 10}


def test_methods_outside_the_allowed_ones_are_one_label(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.passthrough("_other", f"METHOD{number}", 200, 0.01)
    values = metrics.snapshot().values["gateway_passthrough_requests_total"]
    assert values == {("_other", "OTHER", "200"): 1000}


def test_a_thousand_routes_too_many_are_counted_without_their_names(metrics: Metrics) -> None:
    for number in range(SERIES_LIMIT + 1000):
        metrics.subrequest("sugarcrm", f"/{number}", "GET", 200, 0.01)
    values = metrics.snapshot().values["gateway_subrequests_total"]
    assert values["sugarcrm", "_other", "GET", "200"] == 1000
    assert len(values) == SERIES_LIMIT + 1


def test_a_failure_counts_as_no_answer_and_by_its_type(metrics: Metrics) -> None:
    metrics.subrequest("sugarcrm", "_other", "GET", 0, 2.0, "connection_timeout")
    values = metrics.snapshot().values
    assert values["gateway_subrequests_total"] == {("sugarcrm", "_other", "GET", "000"): 1}
    assert values["gateway_subrequest_errors_total"]["connection_timeout",] == 1


def test_a_batch_is_in_flight_until_it_ends(metrics: Metrics) -> None:
    metrics.batch_started("sugarcrm")
    metrics.batch_started("sugarcrm")
    metrics.batch_finished("sugarcrm", "partial", 0.2, 0.01, 7)
    seen = metrics.snapshot()
    assert seen.values["gateway_batches_in_flight"] == {(): 1}
    assert seen.values["gateway_batches_total"]["sugarcrm", "partial"] == 1
    for name in ("duration_seconds", "first_byte_seconds", "subrequests"):
        assert sum(seen.distributions[f"gateway_batch_{name}"]["sugarcrm",].counts) == 1


def test_a_batch_without_an_answer_has_no_first_byte(metrics: Metrics) -> None:
    metrics.batch_started("sugarcrm")
    metrics.batch_finished("sugarcrm", "client_gone", 0.2, None, 7)
    assert not metrics.snapshot().distributions["gateway_batch_first_byte_seconds"]


def test_a_refused_batch_is_counted_by_outcome_and_by_reason(metrics: Metrics) -> None:
    metrics.batch_refused("sugarcrm", "bad_json")
    values = metrics.snapshot().values
    assert values["gateway_batches_total"]["sugarcrm", "refused"] == 1
    assert values["gateway_refused_batches_total"] == {("sugarcrm", "bad_json"): 1}


def test_outcomes_and_errors_exist_before_the_first_event(metrics: Metrics) -> None:
    """A counter that appears with value 1 is an increase that `rate()` does not see."""
    values = metrics.snapshot().values
    assert values["gateway_batches_total"]["sugarcrm", "deadline"] == 0
    assert values["gateway_subrequest_errors_total"]["connection_refused",] == 0


def test_what_others_keep_is_read_at_every_scrape(metrics: Metrics) -> None:
    states = {"idle": 1, "busy": 2}
    metrics.read("gateway_upstream_connections", lambda: states)
    metrics.read("gateway_buffered_bytes", lambda: 4096)
    states["busy"] = 3
    values = metrics.snapshot().values
    assert values["gateway_upstream_connections"] == {("idle",): 1, ("busy",): 3}
    assert values["gateway_buffered_bytes"] == {(): 4096}


def test_a_name_outside_the_table_is_our_mistake(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.count("gateway_surprises_total")
    with pytest.raises(KeyError):
        metrics.read("gateway_surprises", lambda: 0)


def test_a_source_cannot_fill_two_labels(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="one label at most"):
        metrics.read("gateway_batches_total", dict)


def test_exemplars_keep_the_newest_trace_of_each_bucket(metrics: Metrics) -> None:
    metrics.subrequest("sugarcrm", "_other", "GET", 200, 0.3, None, "a" * 32)
    metrics.subrequest("sugarcrm", "_other", "GET", 200, 0.4, None, "b" * 32)
    metrics.subrequest("sugarcrm", "_other", "GET", 200, 0.4)
    series = metrics.snapshot().distributions["gateway_subrequest_duration_seconds"]
    (exemplar,) = series["sugarcrm", "_other", "GET"].exemplars.values()
    assert (exemplar.trace_id, exemplar.value) == ("b" * 32, 0.4)


def test_a_snapshot_does_not_change_with_what_comes_after(metrics: Metrics) -> None:
    metrics.subrequest("sugarcrm", "_other", "GET", 200, 0.3)
    metrics.batch_refused("sugarcrm", "bad_json")
    before = metrics.snapshot()
    kept = deepcopy(before)
    metrics.subrequest("sugarcrm", "_other", "GET", 200, 0.3)
    metrics.batch_refused("sugarcrm", "bad_json")
    assert before == kept


def test_the_table_keeps_the_conventions_of_prometheus() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.name.startswith("gateway_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        assert sorted(metric.bounds) == list(metric.bounds)
        assert bool(metric.bounds) == (metric.kind == "histogram")

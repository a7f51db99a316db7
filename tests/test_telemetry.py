"""What one event becomes in metrics, log line and trace."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.batch import (
    BatchRecord,
    Call,
    Failure,
    PassRecord,
    Recorder,
    RefusedRecord,
    Reply,
    Step,
    Subrequest,
    failed,
)
from gateway.target import Pattern, Routes
from gateway.telemetry import Telemetry
from gateway.telemetry.metrics import Metrics

ROUTE = "/{name}"


class Lines:
    """Stands for the log: keeps what it is told."""

    def __init__(self, listed_from: int = 400) -> None:
        self.listed_from = listed_from
        self.told: list[tuple[Any, ...]] = []

    def dropped(self) -> dict[str, float]:
        return {"rate": 3}

    def batch(self, *event: Any) -> None:
        self.told.append(event)

    refused = passthrough = bug = batch


@pytest.fixture
def telemetry() -> Telemetry:
    metrics = Metrics(methods=["GET", "POST"])
    return Telemetry(metrics, Lines(), Routes([Pattern(ROUTE)]).label)


def step(index: int, method: str = "GET") -> Step:
    return Step(index=index, subrequest=Subrequest(where=f"[{index}]", method=method, target="/a"))


def call(method: str = "GET", target: str = "/a?b=c") -> Call:
    return Call(method, target, ())


def record(**fields: Any) -> BatchRecord:
    return BatchRecord(id="b", dialect="sugarcrm", **fields)


def values(telemetry: Telemetry, name: str) -> dict[tuple[str, ...], float]:
    found = telemetry.metrics.snapshot().values[name]
    return {labels: value for labels, value in found.items() if value}


def test_it_is_what_the_working_parts_are_given(telemetry: Telemetry) -> None:
    recorder: Recorder = telemetry
    assert recorder.trace("POST", "http", "/bulk", ()) is None


def test_an_answered_call_is_counted_by_its_route_without_its_query(telemetry: Telemetry) -> None:
    telemetry.subrequest(record(), step(0), Reply(200, seconds=0.1, call=call()))
    assert values(telemetry, "gateway_subrequests_total") == {("sugarcrm", ROUTE, "GET", "200"): 1}
    assert not values(telemetry, "gateway_subrequest_errors_total")


def test_a_call_without_an_answer_is_counted_as_none_and_by_its_error(
    telemetry: Telemetry,
) -> None:
    failure = Failure("connection_refused", "upstream")
    telemetry.subrequest(record(), step(0), failed(failure, call()))
    assert values(telemetry, "gateway_subrequests_total") == {("sugarcrm", ROUTE, "GET", "000"): 1}
    assert values(telemetry, "gateway_subrequest_errors_total") == {("connection_refused",): 1}


@pytest.mark.parametrize("made", [None, call()])
def test_a_call_that_the_gateway_chose_not_to_make_is_no_subrequest(
    telemetry: Telemetry, made: Call | None
) -> None:
    failure = Failure("http_request_denied", "path_denied")
    telemetry.subrequest(record(), step(0), failed(failure, made))
    assert not values(telemetry, "gateway_subrequests_total")
    assert values(telemetry, "gateway_subrequests_skipped_total") == {
        ("sugarcrm", "path_denied"): 1
    }


def test_a_call_that_ran_into_the_batchs_deadline_is_one(telemetry: Telemetry) -> None:
    failure = Failure("proxy_internal_response", "batch_deadline", sent=True)
    telemetry.subrequest(record(), step(0), failed(failure, call()))
    assert values(telemetry, "gateway_subrequests_total")


def test_the_record_says_which_writes_may_have_reached_the_backend(telemetry: Telemetry) -> None:
    batch = record()
    refused = Failure("connection_refused", "upstream")
    lost = Failure("http_response_timeout", "upstream", sent=True)
    aborted = Failure("proxy_internal_response", "onfail_abort")
    telemetry.subrequest(batch, step(0), Reply(200, call=call()))
    telemetry.subrequest(batch, step(1, "POST"), Reply(201, call=call("POST")))
    telemetry.subrequest(batch, step(2, "POST"), failed(refused, call("POST")))
    telemetry.subrequest(batch, step(3, "POST"), failed(lost, call("POST")))
    telemetry.skipped(batch, step(4, "POST"), aborted)
    telemetry.skipped(batch, step(5), aborted)
    assert batch.writes_sent == [1, 3]
    assert batch.writes_unsent == [2, 4]


def test_the_record_keeps_the_parts_that_the_log_wants(telemetry: Telemetry) -> None:
    batch = record()
    failure = Failure("connection_refused", "upstream")
    telemetry.subrequest(batch, step(0), Reply(200, seconds=0.1, call=call()))
    telemetry.subrequest(batch, step(1), Reply(404, seconds=0.2, call=call()))
    telemetry.subrequest(batch, step(2), failed(failure, call()))
    telemetry.skipped(batch, step(3), Failure("proxy_internal_response", "dependency_failed"))
    assert batch.parts == [
        (1, "GET", 404, "", 0.2),
        (2, "GET", 0, "connection_refused", 0.0),
        (3, "GET", 0, "proxy_internal_response", 0.0),
    ]


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        ({"ok": 2}, "ok"),
        ({}, "ok"),
        ({"ok": 1, "skipped": 1}, "partial"),
        ({"ok": 1, "flawed": True}, "partial"),
        ({"failed": 2}, "failed"),
        ({"ok": 2, "outcome": "cut"}, "cut"),
    ],
)
def test_a_batchs_outcome_is_the_one_told_or_follows_from_its_counts(
    telemetry: Telemetry, counts: dict[str, Any], outcome: str
) -> None:
    telemetry.started(record())
    telemetry.batch(record(**counts))
    assert values(telemetry, "gateway_batches_total") == {("sugarcrm", outcome): 1}
    assert telemetry.logs.told[-1][1] == outcome  # type: ignore[attr-defined]


def test_a_refusal_and_a_passed_request_are_counted_and_logged(telemetry: Telemetry) -> None:
    refusal = RefusedRecord(id="b", dialect="truto", reason="bad_json", status=400)
    passed = PassRecord(id="r", method="PROPFIND", target="/a?b", status=207, seconds=0.1)
    telemetry.refused(refusal)
    telemetry.passthrough(passed)
    assert values(telemetry, "gateway_refused_batches_total") == {("truto", "bad_json"): 1}
    assert values(telemetry, "gateway_passthrough_requests_total") == {(ROUTE, "OTHER", "207"): 1}
    assert telemetry.logs.told == [(refusal,), (passed,)]  # type: ignore[attr-defined]


def test_dropped_lines_are_counted(telemetry: Telemetry) -> None:
    assert values(telemetry, "gateway_log_lines_dropped_total") == {("rate",): 3}


class Trail:
    """Stands for a trace."""

    id = "0af7" * 8

    def __init__(self, sampled: bool) -> None:
        self.sampled = sampled
        self.told: list[str] = []

    def header(self) -> str:
        return ""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.told.append(name)


def whole_life(telemetry: Telemetry, trail: Trail) -> None:
    batch = record(trace=trail)
    telemetry.started(batch)
    telemetry.subrequest(batch, step(0), Reply(200, seconds=0.1, call=call()))
    telemetry.batch(batch)
    telemetry.passthrough(PassRecord(id="r", method="GET", target="/", status=200, trace=trail))
    telemetry.refused(
        RefusedRecord(id="b", dialect="d", reason="bad_json", status=400, trace=trail)
    )


def test_a_sampled_trace_is_told_of_everything_and_becomes_an_exemplar(
    telemetry: Telemetry,
) -> None:
    trail = Trail(sampled=True)
    whole_life(telemetry, trail)
    assert trail.told == ["began", "call", "batch", "passthrough", "refused"]
    for family in ("subrequest", "batch", "passthrough"):
        (series,) = (
            telemetry.metrics.snapshot()
            .distributions[f"gateway_{family}_duration_seconds"]
            .values()
        )
        assert [seen.trace_id for seen in series.exemplars.values()] == [trail.id]


def test_a_trace_that_is_not_sampled_hears_nothing_and_is_no_exemplar(
    telemetry: Telemetry,
) -> None:
    trail = Trail(sampled=False)
    whole_life(telemetry, trail)
    assert trail.told == []
    for family in telemetry.metrics.snapshot().distributions.values():
        assert not any(series.exemplars for series in family.values())

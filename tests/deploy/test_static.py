"""What can be said of files by looking at them: YAML, compose, Dockerfile."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from gateway.config import Settings, load
from tests.deploy.outside import DEPLOY, ROOT, python, run
from tests.support.outside import debian


def test_yamllint_has_nothing_to_say() -> None:
    run(python("yamllint"), "--strict", "--config-file", DEPLOY / ".yamllint.yaml", "deploy")


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    run(python("hadolint"), "--failure-threshold", "style", DEPLOY / "Dockerfile")


def test_the_compose_file_is_one() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    run(python("check-jsonschema"), *schema, DEPLOY / "compose.yaml")


def test_prometheus_takes_the_configuration_of_compose() -> None:
    promtool = debian("promtool", "prometheus")
    run(promtool, "check", "config", "--syntax-only", DEPLOY / "compose/prometheus.yaml")


def test_haproxy_takes_its_configuration_and_notices_a_drain_in_time() -> None:
    run(debian("haproxy", "haproxy"), "-c", "-f", DEPLOY / "haproxy.cfg")
    text = (DEPLOY / "haproxy.cfg").read_text()
    inter, fall = map(int, re.findall(r"inter (\d+)s fall (\d+)", text)[0])
    assert inter * fall < Settings().drain.delay


# --- compose --------------------------------------------------------------------------------------

SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_compose_may_do_nothing_but_its_work(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")


def test_what_compose_mounts_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), source


def test_the_gateway_of_compose_has_settings_and_time_to_drain() -> None:
    drain = load(str(DEPLOY / "compose/gateway.yaml")).drain
    assert drain.timeout < int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))


# --- Dockerfile -----------------------------------------------------------------------------------


def instructions() -> list[str]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def test_both_stages_begin_at_the_base_that_can_be_pinned() -> None:
    assert [line for line in instructions() if line.startswith(("ARG", "FROM"))] == [
        "ARG BASE=python:3.12-slim",
        "FROM ${BASE} AS build",
        "ARG COMPILED=true",
        "FROM ${BASE}",
    ]


def test_the_image_runs_as_nobody_and_tells_how_it_is() -> None:
    last = instructions()
    assert "USER 65532:65532" in last
    assert any(
        line.startswith("HEALTHCHECK") and line.endswith('CMD ["bulk-gateway", "health"]')
        for line in last
    )
    assert last[-2:] == ['ENTRYPOINT ["bulk-gateway"]', 'CMD ["run"]']


def test_what_is_copied_is_let_through_and_nothing_else_is() -> None:
    ignored, *let = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()[1:]
    assert ignored == "*"
    copied = {
        source
        for line in instructions()
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert {line.removeprefix("!") for line in let if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\S+)==(\S+)", lock.read_text(), flags=re.MULTILINE))


def test_the_image_is_built_with_what_the_tests_are_run_with() -> None:
    """deploy/build.lock is what builds, of requirements-dev.lock. After `make lock`:

    printf '%s\\n' hatchling hatch-mypyc mypy setuptools types-PyYAML | \\
        uv pip compile - --quiet --universal --python-version 3.11 \\
        --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \\
        --constraint requirements-dev.lock --output-file deploy/build.lock
    """
    tested = pins(ROOT / "requirements-dev.lock")
    built = pins(DEPLOY / "build.lock")
    assert _wanted_for_building() <= built.keys()
    assert built.items() <= tested.items()
    assert pins(ROOT / "requirements.lock").items() <= tested.items()


def _wanted_for_building() -> set[str]:
    """What pyproject.toml asks for to build with, compiled."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    wanted = project["build-system"]["requires"] + hook["dependencies"]
    return {re.split("[<>=!~ ]", line)[0].lower() for line in wanted}


# --- versions -------------------------------------------------------------------------------------


def test_image_and_chart_have_the_version_of_the_project() -> None:
    wanted = version("bulk-gateway")
    chart = yaml.safe_load((DEPLOY / "helm/bulk-gateway/Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == wanted
    for path in [*(DEPLOY / "kubernetes").rglob("*.yaml"), DEPLOY / "README.md"]:
        for tag in re.findall(r"\bbulk-gateway:(\d[\w.]*)", path.read_text()):
            assert tag == wanted, path

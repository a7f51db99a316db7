"""Every manifest is one that a cluster of Kubernetes 1.33 takes, and keeps our promises.

What is looked at are the golden files, which is what `kubectl apply` would be given.
"""

from __future__ import annotations

import jsonschema
import pytest

from gateway.config.loading import parse
from gateway.config.settings import Settings
from gateway.target import Endpoints, Pattern
from tests.deploy import manifests
from tests.deploy.manifests import CHARTS, OVERLAYS, Manifest, called, golden

RECIPES = (*OVERLAYS, *CHARTS)
EVERYTHING = [
    pytest.param(manifest, id=f"{recipe}: {called(manifest)}")
    for recipe in RECIPES
    for manifest in golden(recipe)
]


@pytest.mark.parametrize("manifest", EVERYTHING)
def test_the_schemas_of_kubernetes_take_it_in_strict_mode(manifest: Manifest) -> None:
    manifests.check(manifest)


@pytest.mark.parametrize("kind", ["HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"])
def test_a_field_that_a_custom_resource_does_not_have_is_refused(kind: str) -> None:
    found = next(m for recipe in RECIPES for m in golden(recipe) if m["kind"] == kind)
    wrong = {**found, "spec": {**found["spec"], "surprise": 1}}
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        manifests.check(wrong)


def test_a_kind_that_nobody_knows_is_refused() -> None:
    stranger = {"apiVersion": "example.com/v1", "kind": "Surprise", "metadata": {"name": "x"}}
    with pytest.raises(jsonschema.ValidationError, match="no schema is known for Surprise"):
        manifests.check(stranger)


# --- containers -----------------------------------------------------------------------------------

CONTAINERS = [
    pytest.param(pod, container, id=f"{recipe}: {name}: {container['name']}")
    for recipe in RECIPES
    for name, pod in manifests.pods(golden(recipe))
    for container in manifests.containers(pod)
]


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_a_container_may_do_nothing_but_its_work(pod: Manifest, container: Manifest) -> None:
    own = container["securityContext"]
    both = {**pod.get("securityContext", {}), **own}
    assert both["runAsNonRoot"] is True
    assert both["runAsUser"] == both["runAsGroup"] == 65532
    assert both["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_a_container_says_what_it_needs_and_has_a_memory_limit(
    pod: Manifest, container: Manifest
) -> None:
    resources = container["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "memory" in resources["limits"]


# --- gateways -------------------------------------------------------------------------------------

GATEWAYS = [
    pytest.param(recipe, pod, container, id=recipe)
    for recipe in RECIPES
    for pod, container in manifests.gateways(golden(recipe))
]


def test_every_recipe_has_one_gateway_and_settings_for_it() -> None:
    assert [param.values[0] for param in GATEWAYS] == list(RECIPES)
    for recipe in RECIPES:
        assert len(manifests.settings_files(golden(recipe))) == 1


@pytest.mark.parametrize(("recipe", "pod", "container"), GATEWAYS)
def test_probes_ask_the_operators_port(recipe: str, pod: Manifest, container: Manifest) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "ops": 8081}
    for probe, path in (("startup", "/livez"), ("liveness", "/livez"), ("readiness", "/readyz")):
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "ops"}


@pytest.mark.parametrize(("recipe", "pod", "container"), GATEWAYS)
def test_the_drain_is_over_before_the_grace_period_is(
    recipe: str, pod: Manifest, container: Manifest
) -> None:
    drain = settings(recipe).drain
    before = slept(pod)
    assert before + drain.timeout < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(("recipe", "pod", "container"), GATEWAYS)
def test_the_limits_of_memory_leave_room_for_what_is_held(
    recipe: str, pod: Manifest, container: Manifest
) -> None:
    """Beside limits.buffer_bytes there is the program itself, 50 MiB, and what it works on."""
    held = settings(recipe).limits.buffer_bytes
    assert held + 128 * 2**20 <= mebibytes(container["resources"]["limits"]["memory"]) * 2**20


def mebibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Mi"))


@pytest.mark.parametrize(("recipe", "pod", "container"), GATEWAYS)
def test_settings_are_found_where_they_are_mounted(
    recipe: str, pod: Manifest, container: Manifest
) -> None:
    (config,) = [entry["value"] for entry in container["env"] if entry["name"] == "GATEWAY_CONFIG"]
    folder, _, file = config.rpartition("/")
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == folder]
    (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
    (found,) = [
        m
        for m in golden(recipe)
        if m["kind"] == "ConfigMap" and m["metadata"]["name"] == volume["configMap"]["name"]
    ]
    assert file in found["data"]


def settings(recipe: str) -> Settings:
    (text,) = manifests.settings_files(golden(recipe))
    return parse(text, recipe)


def slept(pod: Manifest) -> int:
    """Seconds that preStop hooks take, which are the application's."""
    hooks = [c.get("lifecycle", {}).get("preStop", {}) for c in pod["containers"]]
    return sum(int(hook["sleep"]["seconds"]) for hook in hooks if "sleep" in hook)


# --- sidecars -------------------------------------------------------------------------------------


def only_pod(recipe: str) -> Manifest:
    ((_, pod),) = manifests.pods(golden(recipe))
    return pod


def test_the_native_sidecar_starts_first_and_the_application_outlasts_the_balancers() -> None:
    pod = only_pod("sidecar")
    (gateway,) = pod["initContainers"]
    assert gateway["restartPolicy"] == "Always"
    assert "readyz" not in gateway["startupProbe"]["httpGet"]["path"]
    assert slept(pod) >= settings("sidecar").drain.delay


def test_beside_the_classic_sidecar_the_application_lasts_as_long_as_the_drain() -> None:
    pod = only_pod("sidecar-classic")
    assert "initContainers" not in pod
    (application,) = [c for c in pod["containers"] if c["name"] != "bulk-gateway"]
    command, seconds = application["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    drain = settings("sidecar-classic").drain
    assert drain.timeout <= int(seconds) < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("recipe", ["sidecar", "sidecar-classic"])
def test_a_sidecar_s_clients_come_through_it_and_the_application_is_reached_from_within(
    recipe: str,
) -> None:
    (service,) = [m for m in golden(recipe) if m["kind"] == "Service"]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [8080]
    assert settings(recipe).upstream.url == "http://127.0.0.1:8000"


# --- routes ---------------------------------------------------------------------------------------


def paths(manifest: Manifest) -> list[str]:
    if manifest["kind"] == "Ingress":
        rules = manifest["spec"]["rules"]
        return [path["path"] for rule in rules for path in rule["http"]["paths"]]
    matches = [match for rule in manifest["spec"]["rules"] for match in rule["matches"]]
    assert {match["method"] for match in matches} == {"POST"}
    return [match["path"]["value"] for match in matches]


@pytest.mark.parametrize("recipe", ["ingress-route", "http-route", "helm-full"])
def test_a_route_brings_bulk_calls_and_nothing_else(recipe: str) -> None:
    endpoints = Endpoints([(Pattern(e.path), e) for e in settings(recipe).endpoints])
    routes = [m for m in golden(recipe) if m["kind"] in ("Ingress", "HTTPRoute")]
    assert routes
    for path in (path for route in routes for path in paths(route)):
        assert endpoints.match(path) is not None


# --- what refers to what --------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_whatever_selects_pods_selects_some(recipe: str) -> None:
    labels = [
        m["spec"]["template"]["metadata"]["labels"]
        for m in golden(recipe)
        if m["kind"] == "Deployment"
    ]
    for manifest in golden(recipe):
        for wanted in selectors(manifest):
            assert any(wanted.items() <= found.items() for found in labels), called(manifest)


def selectors(manifest: Manifest) -> list[dict[str, str]]:
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Service":
        return [spec["selector"]]
    if manifest["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        return [spec["selector"]["matchLabels"]]
    if manifest["kind"] == "NetworkPolicy":
        return [spec["podSelector"]["matchLabels"]]
    return []


@pytest.mark.parametrize("recipe", ["standalone", "helm-full"])
def test_the_service_monitor_finds_the_operators_service(recipe: str) -> None:
    (monitor,) = [m for m in golden(recipe) if m["kind"] == "ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (service,) = [
        m
        for m in golden(recipe)
        if m["kind"] == "Service" and wanted.items() <= m["metadata"]["labels"].items()
    ]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]


@pytest.mark.parametrize("recipe", ["standalone", "helm-full"])
def test_applying_again_does_not_undo_the_autoscaler(recipe: str) -> None:
    (autoscaler,) = [m for m in golden(recipe) if m["kind"] == "HorizontalPodAutoscaler"]
    target = autoscaler["spec"]["scaleTargetRef"]
    (scaled,) = [
        m
        for m in golden(recipe)
        if m["kind"] == target["kind"] and m["metadata"]["name"] == target["name"]
    ]
    assert "replicas" not in scaled["spec"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_operators_port_is_on_no_service_that_clients_use(recipe: str) -> None:
    for manifest in golden(recipe):
        if manifest["kind"] != "Service":
            continue
        ports = [port["port"] for port in manifest["spec"]["ports"]]
        inward = manifest["spec"].get("clusterIP") == "None"
        assert 8081 not in ports or inward, called(manifest)

"""Kubernetes manifests as data: what the recipes come to, and what a cluster would check."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.deploy.outside import DEPLOY, HERE

GOLDEN = HERE / "golden"
KUBERNETES = "1.33"

OVERLAYS = sorted(path.name for path in (DEPLOY / "kubernetes/overlays").iterdir())
CHARTS = ("helm-default", "helm-full")

Manifest = dict[str, Any]


@cache
def golden(name: str) -> tuple[Manifest, ...]:
    """What a recipe comes to, as kustomize or helm rendered it; test_rendering.py keeps it true."""
    text = (GOLDEN / f"{name}.yaml").read_text()
    return tuple(document for document in yaml.safe_load_all(text) if document)


def called(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def check(manifest: Manifest) -> None:
    """As an API server would in strict mode; raises ValidationError.

    Kinds of Kubernetes itself by its published schemas, others by those in crds/. A kind that is
    in neither is refused.
    """
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        schema = _crd(manifest["kind"], manifest["apiVersion"])
        jsonschema.Draft202012Validator(schema).validate(manifest)
        metadata = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
        kubernetes_validate.validate(metadata, KUBERNETES, strict=True)


@cache
def _crd(kind: str, version: str) -> Any:
    path = HERE / "crds" / f"{kind}.yaml"
    if not path.exists():
        raise jsonschema.ValidationError(f"no schema is known for {kind}")
    found = yaml.safe_load(path.read_text())
    if found["apiVersion"] != version:
        raise jsonschema.ValidationError(f"{kind} is known in {found['apiVersion']}, not {version}")
    return _strict(found["openAPIV3Schema"])


def _strict(schema: Any) -> Any:
    """Fields that the schema does not name are refused, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


# --- pods and what is in them ---------------------------------------------------------------------


def pods(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    """The spec of every pod that would be made."""
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield called(manifest), manifest["spec"]
        elif manifest["kind"] == "Deployment":
            yield called(manifest), manifest["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def gateways(manifests: tuple[Manifest, ...]) -> list[tuple[Manifest, Manifest]]:
    """Each pod that has a gateway in it, and the gateway's container."""
    return [
        (pod, container)
        for name, pod in pods(manifests)
        for container in containers(pod)
        if container["name"] == "bulk-gateway"
    ]


def settings_files(manifests: tuple[Manifest, ...]) -> list[str]:
    return [
        manifest["data"]["gateway.yaml"]
        for manifest in manifests
        if manifest["kind"] == "ConfigMap" and "gateway.yaml" in manifest["data"]
    ]

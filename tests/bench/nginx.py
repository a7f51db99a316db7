"""nginx as Debian packages it, started on a configuration written here, as one plain worker."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from pathlib import Path

from tests.bench import installing
from tests.bench.process import Process

_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
_MODULE_HOMES = (Path("/usr/lib/nginx/modules"), Path("/usr/share/nginx/modules"))
CONNECTIONS = 16384
"""Enough for a peer that asks for a whole batch at once: 4 clients, 1,000 subrequests each."""

_MAIN = """\
{modules}
user {user} {group};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type application/json;
    tcp_nodelay on;
    sendfile on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size 16m;
{http}
}}
"""


def binary() -> str | None:
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def missing(*, lua: bool = False, cjson: bool = False) -> str | None:
    """Why nginx cannot be a contestant here, in the words of what to install."""
    if binary() is None:
        return "nginx is not installed (apt-get install nginx-light)"
    if lua and _module_home() is None:
        return "nginx's Lua module is not installed (apt-get install libnginx-mod-http-lua)"
    if cjson and installing.cjson() is None:
        return "cjson for Lua is not installed (apt-get install lua-cjson)"
    return None


def start(http: str, directory: Path, cpus: frozenset[int], *, lua: bool) -> Process:
    directory.mkdir(parents=True, exist_ok=True)
    text = _MAIN.format(
        # Else a worker of root's would be nobody, who may not read the files.
        user=pwd.getpwuid(os.getuid()).pw_name,
        group=grp.getgrgid(os.getgid()).gr_name,
        modules=_load_modules() if lua else "",
        directory=directory,
        connections=CONNECTIONS,
        http=http,
    )
    path = directory / "nginx.conf"
    path.write_text(text)
    command = [binary() or "nginx", "-e", "stderr", "-p", str(directory), "-c", str(path)]
    return Process(command, cpus=cpus, log=directory / "log")


def _load_modules() -> str:
    home = _module_home()
    return "\n".join(f"load_module {home}/{name};" for name in _MODULES)


def _module_home() -> Path | None:
    return next((home for home in _MODULE_HOMES if (home / _MODULES[1]).exists()), None)

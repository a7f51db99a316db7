"""Debian's nginx, started on a configuration written here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.outside import debian, running
from tests.support.ports import free_port


@asynccontextmanager
async def nginx(folder: Path, *servers: str, http: str = "") -> AsyncIterator[list[str]]:
    """An nginx of one process, at its defaults but for what is given; the servers' addresses."""
    program = debian("nginx", "nginx-light")
    ports = [free_port() for _ in servers]
    blocks = [
        f"server {{ listen 127.0.0.1:{port}; {server} }}"
        for port, server in zip(ports, servers, strict=True)
    ]
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
            fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            {http}
            {" ".join(blocks)}
        }}
    """)
    command = (program, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf")
    async with running(*command, port=ports[-1], log=folder / "nginx.log"):
        yield [f"127.0.0.1:{port}" for port in ports]

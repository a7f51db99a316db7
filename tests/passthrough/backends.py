"""Real backends: each started on a free port of loopback for the length of a block."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tests.support.nginx import nginx
from tests.support.outside import debian, missing, npm, running
from tests.support.ports import free_port

HERE = Path(__file__).parent
Started = Callable[[Path], AbstractAsyncContextManager[str]]
"""Given a folder to write in, it yields the address."""


HTTPBIN = """
import sys
from httpbin import app, helpers
from werkzeug.serving import WSGIRequestHandler, make_server
helpers.ENV_HEADERS += ("X-Forwarded-Host",)  # as it leaves the others out of what it shows
WSGIRequestHandler.protocol_version = "HTTP/1.1"
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""


@asynccontextmanager
async def httpbin(folder: Path) -> AsyncIterator[str]:
    """PyPI's, on Werkzeug's threaded server."""
    if importlib.util.find_spec("httpbin") is None:
        missing("httpbin is not in the environment")
    port = free_port()
    command = (sys.executable, "-c", HTTPBIN, str(port))
    async with running(*command, port=port, log=folder / "log"):
        yield f"127.0.0.1:{port}"


SITE = """
    root {folder}/site; etag on; default_type text/plain; large_client_header_buffers 4 32k;
    location /list/ {{ autoindex on; }}
    location /zipped/ {{
        gzip on; gzip_min_length 1; gzip_types text/plain; alias {folder}/site/;
        gzip_proxied any;  # at its default nginx compresses nothing that was asked for with a Via
    }}
    location /store/ {{
        dav_methods PUT MKCOL COPY MOVE DELETE; client_max_body_size 10k;
        etag off;  # it tells the second in which a file was written
    }}
    location /inner/ {{ internal; }}
    location = /echo {{ return 200 "$request\\n$http_host\\n$http_x_a\\n"; }}
    location = /empty {{ return 204; }}
    location = /there {{ return 301 /here?a=%20; }}
    location = /gone {{ return 410; }}
    location = /teapot {{ return 418 short; }}
    location = /reset {{ return 205; }}
    location = /expires {{ expires 1h; add_header X-A 1 always; add_header X-A 2; return 200 ""; }}
    location = /private {{ auth_basic "a b"; auth_basic_user_file {folder}/users; }}
"""


@asynccontextmanager
async def nginx_site(folder: Path) -> AsyncIterator[str]:
    """Debian's nginx with files, WebDAV's methods and fixed answers."""
    debian("nginx", "nginx-light")
    site = folder / "site"
    for name in ("list/sub", "store", "zipped"):
        (site / name).mkdir(parents=True)
    (site / "a.txt").write_bytes(b"0123456789" * 100)
    (site / "list" / "b c.txt").write_bytes(b"b")
    (site / "large.bin").write_bytes(bytes(range(256)) * 4096)
    (folder / "users").write_text("u:{PLAIN}p\n")
    async with nginx(folder, SITE.format(folder=folder)) as (address,):
        yield address


POSTS = {
    "posts": [{"title": f"t{n}", "id": n} for n in range(1, 13)],
    "profile": {"name": "caf\xe9"},
}


@asynccontextmanager
async def json_server(folder: Path) -> AsyncIterator[str]:
    """npm's, on Express."""
    node = shutil.which("node") or "node"
    program = npm(HERE / "json-server", "json-server/lib/cli/bin.js")
    database, port = folder / "db.json", free_port()
    database.write_text(json.dumps(POSTS))
    options = ("--quiet", "--host", "127.0.0.1", "--port", str(port))
    command = (node, program, *options, database)
    async with running(*command, port=port, log=folder / "log"):
        yield f"127.0.0.1:{port}"


BACKENDS: dict[str, Started] = {"httpbin": httpbin, "nginx": nginx_site, "json-server": json_server}

"""The backend: nginx, cheaper than anyone in front of it, with answers that say what arrived.

Every answer is a believable page of records that opens with the request as the backend saw it, so
the check of a contestant sees order, method, body length and headers without a second backend.
Its CPU time is nobody's: only contestants are measured.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.bench import nginx
from tests.bench.machine import OTHERS
from tests.bench.process import Process
from tests.support.ports import free_port

SIZES = {"200B": 200, "2kB": 2_000, "50kB": 50_000}
SLEEPS = {"0ms": 0, "5ms": 5, "20ms": 20, "500ms": 500}
BIG = 8_000_000
"""Bytes of the answer in the memory case."""
HUGE = 10**9
"""Bytes of the file in the transfer case; sparse, so it takes no room."""

PREFIXES = (
    "/rest/v11_3",
    "/cc/rest/common/v1",
    "/api/2.1",
    "/unified/bench",
)
"""Where the dialects' subrequests arrive."""

_SEEN = (
    '{"uri":"$request_uri","method":"$request_method","length":"$content_length",'
    '"token":"$http_oauth_token","own":"$http_x_part","records":'
)
_FRAME = 136
"""Bytes of an answer that are not its records, with a token and a usual address."""
_TOKEN_MOST = 3_500
"""nginx reads no longer word from its configuration, so longer answers are joined of several."""


def collection(size: str, sleep: str = "0ms") -> str:
    """The path segment behind which answers have that size and take that long."""
    return f"page-{size}-{sleep}"


class Backend:
    """One nginx worker: pages, a slow page, an echo, a big page, a huge file, a sink."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        files = directory / "files"
        files.mkdir(parents=True)
        _write_big(files / "big")
        with (files / "huge").open("wb") as huge:
            os.truncate(huge.fileno(), HUGE)
        http = "\n".join(_server(self.port, files))
        self.process: Process = nginx.start(http, directory, OTHERS, lua=True)


def _server(port: int, files: Path) -> Iterator[str]:
    yield f"server {{ listen 127.0.0.1:{port} backlog=4096 reuseport; root {files};"
    for size, length in SIZES.items():
        yield from _pieces(size, records(length - _FRAME))
    for size in SIZES:
        for sleep, milliseconds in SLEEPS.items():
            document = _document(size)
            answer = (
                f"return 200 '{document}';"
                if not milliseconds
                else _sleeping(milliseconds, document)
            )
            for prefix in PREFIXES:
                yield f"location {prefix}/{collection(size, sleep)}/ {{ {answer} }}"
    for prefix in PREFIXES:
        yield f"location {prefix}/echo/ {{ content_by_lua_block {{ {_ECHO} }} }}"
        yield f"location {prefix}/big/ {{ rewrite ^ /big break; }}"
    yield "location = /huge { }"
    yield f"location = /sink {{ content_by_lua_block {{ {_SINK} }} }}"
    yield "}"


_ECHO = """
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or '""'
    ngx.header.content_length = #body
    ngx.print(body)
"""

_SINK = """
    local socket, total = ngx.req.socket(), 0
    while true do
        local data, trouble, partial = socket:receive(65536)
        total = total + #(data or partial or "")
        if not data then break end
    end
    ngx.print('{"received":' .. total .. '}')
"""


def _sleeping(milliseconds: int, document: str) -> str:
    return (
        f"set $document '{document}'; content_by_lua_block {{"
        f" ngx.sleep({milliseconds / 1000});"
        " local document = ngx.var.document;"
        " ngx.header.content_length = #document; ngx.print(document) }"
    )


def _pieces(size: str, text: str) -> Iterator[str]:
    for number, start in enumerate(range(0, len(text), _TOKEN_MOST)):
        yield f"set $records_{size}_{number} '{text[start : start + _TOKEN_MOST]}';"


def _document(size: str) -> str:
    count = -(-len(records(SIZES[size] - _FRAME)) // _TOKEN_MOST)
    return _SEEN + "".join(f"${{records_{size}_{number}}}" for number in range(count)) + "}"


def records(length: int) -> str:
    """A JSON list of `length` bytes: records, and a note that fills the rest."""
    parts: list[str] = []
    left = length - len('["",]')
    while len(record := _compact(_record(len(parts)))) < left:
        parts.append(record)
        left -= len(record) + 1
    return "[" + ",".join([*parts, _compact("n" * max(0, left + (not parts)))]) + "]"


def _record(number: int) -> dict[str, object]:
    return {
        "id": f"{number:08x}-5a1e-4c2b-9d7e-{number * 7919:012x}",
        "name": f"Account No. {number}",
        "date_modified": "2021-03-04T09:12:44-05:00",
        "assigned_user_name": "Sally Bronsen",
        "industry": "Apparel",
        "annual_revenue": 1_250_000.5 + number,
        "employees": 40 + number,
        "deleted": False,
        "parent_id": None,
        "_acl": {"fields": {}},
        "tag": [],
    }


def _write_big(path: Path) -> None:
    path.write_text(records(BIG))


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))

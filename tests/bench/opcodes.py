"""`python -m tests.bench.opcodes 100 2>/dev/null`: what the interpreter does for one batch.

Counts, not times: the same on every machine and under any load, so a change of one per cent shows.
Gateway, backend and client run in one process; only the gateway's code and its libraries' count,
a client's connection included. The gateway's log goes to stderr, as always. What is compiled has
no opcodes: `make interpreted` first.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import uvloop

from gateway.config.settings import Limits, Listener, Log, Settings, Upstream
from gateway.server import serving
from tests.bench.load import once
from tests.bench.workload import Workload

WARM, COUNTED = 5, 3
"""Batches before counting and while it lasts."""
_HERE = str(Path(__file__).parents[1])
_ANSWER = b'{"records":[{"id":"7d2e21a6-8a76-a74f","name":"Account","tag":["new","bulk"]}]}'
_RAW = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
) % (len(_ANSWER), _ANSWER)


class Backend(asyncio.Protocol):
    """The same answer to every request; reads only, so the end of a head is a request's end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(_RAW * data.count(b"\r\n\r\n"))


class Opcodes:
    """Counts what the interpreter executes, while it is installed."""

    def __init__(self) -> None:
        self.executed: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    def __enter__(self) -> Opcodes:
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename.startswith(_HERE):
            return None
        self.calls[frame.f_code] += 1
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        if event == "opcode":
            self.executed[frame.f_code] += 1
        return self._step


async def count(format: str, batch: int) -> Opcodes:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Backend, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    settings = Settings(
        listen=(Listener(address="127.0.0.1:0"),),
        ops=Listener(address="127.0.0.1:0"),
        upstream=Upstream(url=f"http://{host}:{port}"),
        limits=Limits(subrequests=10_000),
        log=Log(format="json"),
    )
    async with serving(settings) as gateway:
        name, _, number = gateway.address.rpartition(":")
        address = (name, int(number))
        request = Workload(batch).request(format, address)
        for _ in range(WARM):
            await once(address, request)
        with Opcodes() as opcodes:
            for _ in range(COUNTED):
                await once(address, request)
    server.close()
    return opcodes


def table(opcodes: Opcodes, batch: int, rows: int) -> str:
    subrequests = batch * COUNTED
    lines = [
        f"{opcodes.executed.total() / subrequests:8.1f} opcodes and "
        f"{opcodes.calls.total() / subrequests:.1f} calls a subrequest"
    ]
    for code, number in opcodes.executed.most_common(rows):
        file = code.co_filename.rpartition("site-packages/")[2].removeprefix(f"{_ROOT}/")
        lines.append(f"{number / subrequests:8.1f} {file}:{code.co_qualname}")
    return "\n".join(lines)


_ROOT = str(Path(__file__).parents[2])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.opcodes", description=__doc__)
    parser.add_argument("batch", type=int, nargs="?", default=100, help="subrequests")
    parser.add_argument("--format", default="sugarcrm", help="the dialect")
    parser.add_argument("--rows", type=int, default=30, help="functions to show")
    options = parser.parse_args()
    print(table(uvloop.run(count(options.format, options.batch)), options.batch, options.rows))


if __name__ == "__main__":
    main()

"""Runs JSONata where it can be stopped: in a helper process, one expression at a time.

JSONata is a language with recursion, so an expression may never end, or never stop growing, and
nothing inside a process can prevent that. The helper (`helper.py`) bounds its own memory, opens no
files and starts no processes; whoever waits for it here bounds its time. It is started when first
needed, used again, killed when it is over its time, and then started anew.
"""

from __future__ import annotations

import asyncio
import re
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from gateway.batch import Evaluate, Failure, Reply, failed

SECONDS = 1.0
"""For one expression."""
MEMORY = 64 << 20
"""Bytes of address space, for the whole helper."""
START_SECONDS = 10.0

_HELPER = Path(__file__).with_name("helper.py")
_QUESTION = struct.Struct(">II")
_ANSWER = struct.Struct(">cI")
_CODE = re.compile(r"[A-Z][0-9]{4}")


class Evaluator:
    """The helper process, or none yet. What comes while it works waits in line."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._line = asyncio.Lock()

    async def run(self, work: Evaluate) -> Reply:
        """What the expression gives, as a reply with JSON for a body, or a failure."""
        async with self._line:
            try:
                return await self._evaluate(work)
            except BaseException:  # nobody waits any more, so nobody would read the answer
                await self._end()
                raise

    async def close(self) -> None:
        async with self._line:
            await self._end()

    async def _evaluate(self, work: Evaluate) -> Reply:
        clock = asyncio.get_running_loop().time
        try:
            process = self._process or await self._start()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            await self._end()
            return failed(Failure("proxy_internal_error", "helper", message=_NO_HELPER))
        began = clock()
        try:
            async with asyncio.timeout(SECONDS):
                kind, payload = await _ask(process, work)
        except TimeoutError:
            kind, payload = b"t", b""
        except (OSError, asyncio.IncompleteReadError):
            kind, payload = b"m", b""  # the system ended it
        if kind in b"tm":
            await self._end()
        reply = Reply(200, body=payload) if kind == b"v" else failed(_failure(kind, payload))
        reply.seconds = clock() - began
        return reply

    async def _start(self) -> Process:
        found = find_spec("jsonata")
        directory = Path(found.origin).parent.parent if found and found.origin else Path()
        arguments = (sys.executable, "-I", "-S", str(_HELPER), str(directory), str(MEMORY))
        self._process = await asyncio.create_subprocess_exec(
            *arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd="/", env={}
        )
        async with asyncio.timeout(START_SECONDS):
            await _answer(self._process)
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def _ask(process: Process, work: Evaluate) -> tuple[bytes, bytes]:
    assert process.stdin is not None
    expression = work.expression.encode()
    process.stdin.write(_QUESTION.pack(len(expression), len(work.context)))
    process.stdin.write(expression + work.context)
    await process.stdin.drain()
    return await _answer(process)


async def _answer(process: Process) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    kind, length = _ANSWER.unpack(await process.stdout.readexactly(_ANSWER.size))
    return kind, await process.stdout.readexactly(length)


_NO_HELPER = "the process that evaluates expressions cannot be started"


def _failure(kind: bytes, payload: bytes) -> Failure:
    if kind == b"t":
        slug, message = "expression_time", f"an expression takes more than {SECONDS:g} s"
    elif kind == b"m":
        slug, message = "expression_memory", f"an expression takes more than {MEMORY >> 20} MiB"
    else:
        code = payload.decode("latin-1")
        known = f" ({code})" if _CODE.fullmatch(code) else ""
        slug, message = "expression_failed", f"an expression fails{known}"
    return Failure("http_request_error", slug, message=message)

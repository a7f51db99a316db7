"""`bulk-gateway run` as a process of its own, on free ports of loopback."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
LOOPBACK = {"listen": "127.0.0.1:0", "ops": "127.0.0.1:0"}


class Program:
    """The process, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.address = ""
        self.ops = ""
        self.lines: list[dict[str, Any]] = []
        """Its log so far."""
        self.hear: Callable[[dict[str, Any]], None] = self.lines.append
        """Takes each line."""
        self._said = asyncio.Condition()
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        if self.process.stderr is None:
            return
        async for line in self.process.stderr:
            async with self._said:
                self.hear(_parsed(line))
                self._said.notify_all()
        async with self._said:
            self._said.notify_all()

    async def said(self, event: str, times: int = 1) -> dict[str, Any]:
        """Waits for the line of this event."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if line["event"] == event]

        async with self._said:
            await self._said.wait_for(lambda: len(found()) >= times or self._reading.done())
        assert len(found()) >= times, self.lines
        return found()[times - 1]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, when all it said has been read."""
        status = await self.process.wait()
        await self._reading
        return status

    @property
    def asleep(self) -> bool:
        """It waits for something to happen."""
        return "\nState:\tS" in Path(f"/proc/{self.process.pid}/status").read_text()

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def resident(self) -> int:
        """Bytes."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:  # a traceback, or the last words of the interpreter
        found = {"event": "library", "text": line.decode(errors="replace")}
    return found


@asynccontextmanager
async def program(
    folder: Path, settings: Mapping[str, Any], preexec: Callable[[], None] | None = None
) -> AsyncIterator[Program]:
    """`settings` as in the file. Serves when it is handed out; killed if it has not ended."""
    async with _started(folder, settings, preexec, asyncio.subprocess.PIPE) as gateway:
        line = await gateway.said("serving")
        gateway.address, gateway.ops = line["listen"][0], line["ops"][0]
        yield gateway


@asynccontextmanager
async def mute(folder: Path, settings: Mapping[str, Any], log: IO[bytes]) -> AsyncIterator[Program]:
    """Its log goes elsewhere, so it serves at sockets in the folder, and is waited for there."""
    places = {"listen": f"unix:{folder}/gateway", "ops": f"unix:{folder}/ops"}
    async with _started(folder, {**settings, **places}, None, log.fileno()) as gateway:
        gateway.address, gateway.ops = places["listen"], places["ops"]
        for path in places.values():
            while not await _answers(path.removeprefix("unix:")):
                assert gateway.process.returncode is None
                await asyncio.sleep(0.02)
        yield gateway


async def _answers(path: str) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:  # not there yet, or nobody listens yet
        return False
    writer.close()
    return True


@asynccontextmanager
async def _started(
    folder: Path, settings: Mapping[str, Any], preexec: Callable[[], None] | None, stderr: int
) -> AsyncIterator[Program]:
    file = folder / "gateway.yaml"
    file.write_text(json.dumps({**LOOPBACK, **settings}))  # JSON is YAML
    gateway = Program(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "run", "-c", str(file)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=stderr,
            preexec_fn=preexec,
        )
    )
    try:
        yield gateway
    finally:
        with suppress(ProcessLookupError):
            gateway.process.kill()
        await gateway.ended()


def indexes(text: str | None) -> set[int]:
    """`0-2 5` -> {0, 1, 2, 5}."""
    found: set[int] = set()
    for part in (text or "").split():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found

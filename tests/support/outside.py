"""Programs that are not Python's: found, or a reason why a test does not run.

On a person's machine a test whose program is missing is skipped. With CI=true, where .ci/packages
has been installed, it fails: a check that quietly stopped is worse than one that says so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, NoReturn

import pytest

CI = os.environ.get("CI") == "true"


def debian(name: str, package: str = "") -> str:
    """A program of one of the packages in .ci/packages."""
    places = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return shutil.which(name, path=places) or missing(f"Debian's {package or name} is not there")


def missing(reason: str) -> NoReturn:
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)


def npm(folder: Path, program: str) -> Path:
    """A program that the locked packages of a folder bring. CI installs them, if it has an npm."""
    found = folder / "node_modules" / program
    if not found.exists() and CI and shutil.which("npm"):
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run([*command, "--prefix", str(folder)], check=True, timeout=120)
    if not found.exists():
        pytest.skip(f"not installed: npm ci --ignore-scripts --prefix {folder}")
    return found


@asynccontextmanager
async def running(
    *command: str | Path,
    port: int,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server in a process of its own, once it listens; what it says is in the log."""
    with log.open("wb") as file:
        process = await _started(command, file, env)
    try:
        await _listening(port, process, log)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _started(
    command: tuple[str | Path, ...], log: IO[bytes], env: Mapping[str, str] | None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL, env=env
    )


def _said(log: Path) -> str:
    return log.read_text(errors="replace")


async def _listening(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(30):
        while True:
            assert process.returncode is None, _said(log)
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

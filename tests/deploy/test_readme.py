"""deploy/README.md is followed, as far as that goes without a cluster."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from gateway.config.settings import Listener, Log, Settings, Upstream
from gateway.demo.backend import Crm
from gateway.server import serving
from tests.deploy.manifests import OVERLAYS
from tests.deploy.outside import DEPLOY, ROOT, python
from tests.support.consoles import Command, elsewhere, sessions, shell
from tests.support.outside import debian

TEXT = (DEPLOY / "README.md").read_text()
LOOPBACK = Listener(address="127.0.0.1:0")


def commands() -> Iterator[str]:
    for _, session in sessions(TEXT):
        for command in session:
            yield command.text


TRIED = [
    pytest.param(session, id=heading)
    for heading, session in sessions(TEXT)
    if heading != "HAProxy" and any("127.0.0.1:8080" in command.text for command in session)
]


@pytest.mark.parametrize("session", TRIED)
async def test_the_calls_of_a_recipe_print_what_it_says(session: list[Command]) -> None:
    async with TestServer(Crm(work=0.0).app) as backend:
        upstream = Upstream(url=str(backend.make_url("")).rstrip("/"))
        settings = Settings(
            listen=(LOOPBACK,), ops=LOOPBACK, upstream=upstream, log=Log(level="error")
        )
        async with serving(settings) as gateway:
            for command, printed in session:
                ours = command.replace("127.0.0.1:8080", gateway.address)
                ours = ours.replace("127.0.0.1:8081", gateway.ops_address)
                if ours != command:
                    assert await shell(ours) == printed


async def test_the_recipe_without_a_cluster_works(tmp_path: Path) -> None:
    """All of it, on other ports: the CRM, two gateways and HAProxy."""
    program = debian("haproxy", "haproxy")
    (session,) = [session for heading, session in sessions(TEXT) if heading == "HAProxy"]
    script = "\n".join(command.text for command in session)
    moved = elsewhere()
    config = tmp_path / "haproxy.cfg"
    config.write_text(moved((DEPLOY / "haproxy.cfg").read_text()))
    script = moved(script).replace("haproxy -f deploy/haproxy.cfg", f"{program} -f {config}")
    script = script.replace(".venv/bin/bulk-gateway", python("bulk-gateway"))
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            printed = [await process.stdout.readline() for _ in range(2)]
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # all that the script has started
        await process.communicate()
    assert b"".join(printed).decode() == session[-1].printed


def test_every_overlay_is_spoken_of_and_every_one_spoken_of_is_there() -> None:
    assert set(re.findall(r"overlays/([\w-]+)", TEXT)) == set(OVERLAYS)


def test_every_file_that_a_command_names_is_there() -> None:
    named = {word for command in commands() for word in re.findall(r"\bdeploy/[\w./-]+", command)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_link_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
        for heading in re.findall(r"^##+ (.*)$", TEXT, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        if link.startswith("#"):
            assert link.removeprefix("#") in headings
        else:
            assert (DEPLOY / Path(link)).exists(), link

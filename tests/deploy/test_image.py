"""The Dockerfile is really built, and what comes out really runs: as nobody, on a file system that
cannot be written.

No daemon and no registry: buildah builds it on a base of Debian's own packages, made here, in a
chroot. That takes more than a minute, root, and namespaces, so it happens in CI where it can, and
is skipped elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.deploy.outside import DEPLOY, ROOT, run
from tests.support.outside import CI, debian, running
from tests.support.ports import free_port

PACKAGES = "python3,python3-venv,libc-bin,dash,coreutils,gcc,libc6-dev,libpython3-dev"
LOCKS = (ROOT / "requirements.lock", DEPLOY / "build.lock")

PIP = """
[global]
no-index = true
find-links = /wheels-of-the-test
disable-pip-version-check = true
"""

# First on the path: it does not optimise, which saves a minute, and the test needs no more.
COMPILER = """#!/bin/sh
exec /usr/bin/gcc "$@" -O0
"""

# What a container runtime does for `--read-only --user 65532:65532 --cap-drop ALL`.
ENTER = """
set -e
root=$1; shift
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec=65532:65532 --groups= "$root" /usr/bin/env -i "$@"
"""


@dataclass
class Image:
    base: Path
    root: Path
    config: dict[str, Any]

    def command(self, *command: str, **environ: str) -> tuple[str, ...]:
        """To run this in a container: the image's environment, and more."""
        variables = (*self.config["Env"], *(f"{name}={value}" for name, value in environ.items()))
        return ("unshare", "--mount", "sh", "-c", ENTER, "-", str(self.root), *variables, *command)

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        line = self.command(*command, **environ)
        return subprocess.run(line, capture_output=True, text=True, timeout=30)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    codename = _wanted_and_possible()
    folder = tmp_path_factory.mktemp("image")
    try:
        with ThreadPoolExecutor() as both:  # both wait for the network most of the time
            made = both.submit(_make_base, folder / "base.tar", codename)
            fetched = both.submit(_fetch, folder)
        made.result()
        fetched.result()
        yield _build(folder)
    finally:
        shutil.rmtree(folder)  # more than a gigabyte


def _wanted_and_possible() -> str:
    """The name of the Debian that the base is made of, or a reason to skip."""
    if not CI:
        pytest.skip("takes a minute or two, and root: CI=true")
    system = platform.freedesktop_os_release()
    if system["ID"] != "debian" or os.geteuid():
        pytest.skip("wants to be root on Debian")
    if subprocess.run(["unshare", "--mount", "mount", "--bind", "/dev", "/dev"]).returncode:
        pytest.skip("may not make namespaces here")
    return system["VERSION_CODENAME"]


def _make_base(tar: Path, codename: str) -> None:
    """Debian's Python and what a shell needs, from where this machine has its own packages."""
    wanted = "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)"
    sources = run("apt-get", "indextargets", "--format", wanted, "Created-By: Packages")
    mirror = next(
        line.split()[3]
        for line in sources.splitlines()
        if line.startswith(f"Debian {codename} main ")
    )
    include = ("--quiet", "--variant=extract", f"--include={PACKAGES}")
    source = f"deb {mirror} {codename} main"
    run(debian("mmdebstrap", "mmdebstrap"), *include, codename, tar, source)


def _fetch(folder: Path) -> None:
    """The wheels that the locks name, for the Python of the base, which is this machine's too."""
    run("/usr/bin/python3", "-m", "venv", folder / "fetching")
    for lock in LOCKS:
        command = ("download", "--quiet", "--require-hashes", "--dest", folder / "wheels")
        run(folder / "fetching/bin/pip", *command, "--requirement", lock)
    (folder / "pip.conf").write_text(PIP)
    (folder / "compiler").write_text(COMPILER)


def _build(folder: Path) -> Image:
    program = debian("buildah", "buildah")

    def buildah(*command: str | Path) -> str:
        store = ("--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs")
        return run(program, *store, *command).strip()

    base = buildah("from", "scratch")
    buildah("add", "--quiet", base, folder / "base.tar", "/")
    compiler = f"/usr/local/bin/{platform.machine()}-linux-gnu-gcc"
    buildah("add", "--quiet", "--chmod", "755", base, folder / "compiler", compiler)
    buildah("commit", "--quiet", base, "localhost/base")
    buildah(
        *("build", "--quiet", "--isolation", "chroot", "--format", "docker"),
        *("--build-arg", "BASE=localhost/base"),
        *("--volume", f"{folder}/wheels:/wheels-of-the-test:ro"),
        *("--volume", f"{folder}/pip.conf:/etc/pip.conf:ro"),
        *("--ignorefile", DEPLOY / "Dockerfile.dockerignore"),
        *("--file", DEPLOY / "Dockerfile", "--tag", "localhost/bulk-gateway", ROOT),
    )
    container = buildah("from", "localhost/bulk-gateway")
    inspected = json.loads(buildah("inspect", "--type", "image", "localhost/bulk-gateway"))
    base_root, root = (Path(buildah("mount", name)) for name in (base, container))
    return Image(base_root, root, inspected["Docker"]["config"])


# --- what it is -----------------------------------------------------------------------------------


def test_the_image_says_how_it_is_run(image: Image) -> None:
    config = image.config
    assert config["User"] == "65532:65532"
    assert config["ExposedPorts"].keys() == {"8080/tcp", "8081/tcp"}
    assert config["Entrypoint"] + config["Cmd"] == ["bulk-gateway", "run"]
    assert config["Healthcheck"]["Test"] == ["CMD", "bulk-gateway", "health"]


def test_every_source_in_it_has_its_bytecode(image: Image) -> None:
    installed = image.root / "opt/bulk-gateway"
    sources = [path for path in installed.rglob("*.py") if path.parent.name != "bin"]
    assert len(sources) > 500
    for path in sources:
        assert list(path.parent.glob(f"__pycache__/{path.stem}.*.pyc")), path


def test_it_is_its_base_and_one_folder_so_no_compiler_comes_with_it(image: Image) -> None:
    added = _files(image.root) - _files(image.base)
    its_own = re.compile("opt/bulk-gateway/|.*/__pycache__/")
    mounted_while_it_was_built = {"etc/hosts", "etc/pip.conf"}
    assert {path for path in added if not its_own.match(path)} <= mounted_while_it_was_built


def _files(root: Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root)
        for name in names
    }


def test_what_is_installed_in_it_is_what_the_lock_names(image: Image) -> None:
    """It runs without pip and mypy, which have built it."""
    (packages,) = image.root.glob("opt/bulk-gateway/lib/python3*/site-packages")
    names = {found.metadata["Name"] for found in distributions(path=[str(packages)])}
    assert {re.sub("[-_.]+", "-", name).lower() for name in names} == {
        "bulk-gateway",
        *re.findall(r"^(\S+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE),
    }


def test_it_is_nobody_and_cannot_write(image: Image) -> None:
    status = image.run("cat", "/proc/self/status").stdout
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert told["Uid"].split() == told["Gid"].split() == ["65532"] * 4
    assert int(told["CapEff"], 16) == 0
    done = image.run("touch", "/tmp/x", "/opt/bulk-gateway/x")
    assert done.stderr.count("Read-only file system") == 2


def test_it_knows_its_version_and_that_its_engine_is_compiled(image: Image) -> None:
    told = image.run("bulk-gateway", "--version").stdout
    assert told == f"bulk-gateway {version('bulk-gateway')} (compiled)\n"


# --- what it does ---------------------------------------------------------------------------------


@asynccontextmanager
async def container(
    image: Image, log: Path, **environ: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    port = int(environ["GATEWAY_LISTEN"].rpartition(":")[2])
    command = image.command(*image.config["Entrypoint"], *image.config["Cmd"], **environ)
    async with running(*command, port=port, log=log) as process:
        yield process


async def test_it_serves_bulk_calls_says_that_it_is_ready_and_leaves_when_told(
    image: Image, tmp_path: Path
) -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.json_response({"hello": request.match_info["name"]})

    app = web.Application()
    app.router.add_get("/{name}", hello)
    ops = f"127.0.0.1:{free_port()}"
    address = f"127.0.0.1:{free_port()}"
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        environ = {
            "GATEWAY_UPSTREAM__URL": str(server.make_url("")).rstrip("/"),
            "GATEWAY_LISTEN": address,
            "GATEWAY_OPS": ops,
            "GATEWAY_DRAIN__DELAY": "0s",
        }
        async with container(image, tmp_path / "log", **environ) as process:
            asked = await asyncio.to_thread(image.run, "bulk-gateway", "health", GATEWAY_OPS=ops)
            assert (asked.returncode, asked.stdout) == (0, "ready: 200 OK\n")
            body = {"requests": [{"url": "/a"}, {"url": "/b"}]}
            async with session.post(f"http://{address}/bulk", json=body) as answer:
                results = await answer.json()
            assert [result["contents"] for result in results] == [{"hello": "a"}, {"hello": "b"}]
            process.terminate()
            assert await process.wait() == 0
            asked = await asyncio.to_thread(image.run, "bulk-gateway", "health", GATEWAY_OPS=ops)
            assert asked.returncode == 1

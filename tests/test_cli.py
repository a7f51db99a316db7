"""The commands: what they print where, and the exit status they leave."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import gateway.server
import gateway.workers
from gateway.cli import cli, main
from gateway.config import Settings
from gateway.config.manual import example, rows
from gateway.config.watched import Watched
from gateway.dialects import DIALECTS

ROOT = Path(__file__).parent.parent

Output = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    def run(*arguments: str) -> Output:
        status = main(arguments)
        return status, *capsys.readouterr()

    return run


# --- help and mistakes ---------------------------------------------------------------------------


def test_help_is_answered_without_the_libraries_that_take_time_to_import() -> None:
    code = """
import sys
from gateway.cli import main
assert main(["--help"]) == 0
print(sorted({"aiohttp", "msgspec", "yaml", "structlog", "gateway.config"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_says_in_one_line_what_it_does(run: Callable[..., Output]) -> None:
    _, out, _ = run("--help")
    for name, command in cli.commands.items():
        assert f"  {name} " in out
        assert command.get_short_help_str(70).endswith(".")


@pytest.mark.parametrize("name", cli.commands)
def test_every_command_has_help_of_its_own(name: str, run: Callable[..., Output]) -> None:
    status, out, err = run(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: bulk-gateway {name}")


def test_the_version_is_that_of_the_package(run: Callable[..., Output]) -> None:
    status, out, _ = run("--version")
    assert status == 0
    assert re.fullmatch(r"bulk-gateway [\d.]+ \((compiled|interpreted)\)\n", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "bulk-gateway: No such command 'frob'.\n"),
        (["run", "--frob"], "bulk-gateway: No such option '--frob'.\n"),
        (["check"], "bulk-gateway: Missing argument 'FILE...'.\n"),
        (
            ["run", "--workers", "many"],
            'command line: workers: expected a whole number, got "many"\n',
        ),
        (["run", "-c", "/none.yaml"], "/none.yaml: cannot be read: No such file or directory\n"),
        (["health", "ftp://x"], "bulk-gateway: expected http://host:port\n"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_status_2(
    arguments: list[str], message: str, run: Callable[..., Output]
) -> None:
    assert run(*arguments) == (2, "", message)


def test_without_a_command_it_explains_itself(run: Callable[..., Output]) -> None:
    status, out, err = run()
    assert (status, out) == (2, "")
    assert err.startswith("Usage: bulk-gateway [OPTIONS] COMMAND")
    assert "Commands:" in err


# --- run -----------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that `run` was asked to serve."""
    served: list[Settings] = []

    def serve(settings: Settings, watched: Watched) -> int:
        served.append(settings)
        return 0

    monkeypatch.setattr(gateway.workers, "run", serve)
    return served


def test_run_serves_what_flags_environment_and_file_say(
    run: Callable[..., Output],
    served: list[Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("workers: 3\nupstream: {connections: 9}\nops: 127.0.0.1:1\n")
    monkeypatch.setenv("GATEWAY_UPSTREAM__CONNECTIONS", "8")
    flags = ["--upstream", "http://crm:1", "--listen", "a:1", "--listen", "unix:/b", "--ops", "c:2"]
    assert run("run", "-c", str(path), *flags, "--workers", "4") == (0, "", "")
    (settings,) = served
    assert settings.upstream.url == "http://crm:1"
    assert settings.upstream.connections == 8
    assert [listener.address for listener in settings.listen] == ["a:1", "unix:/b"]
    assert (settings.ops.address, settings.workers) == ("c:2", 4)


def test_the_settings_file_may_be_named_by_the_environment(
    run: Callable[..., Output],
    served: list[Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("workers: 3\n")
    monkeypatch.setenv("GATEWAY_CONFIG", str(path))
    run("run")
    assert served[0].workers == 3


def test_the_exit_status_is_the_servers(
    run: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.workers, "run", lambda *_: 1)
    assert run("run") == (1, "", "")


def test_signals_wait_until_they_can_be_obeyed(
    run: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    def waiting(*_: object) -> int:
        return int({signal.SIGTERM, signal.SIGHUP} <= signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    monkeypatch.setattr(gateway.workers, "run", waiting)
    assert run("run") == (1, "", "")
    assert not waiting(), "not in the process that goes on"


def test_an_address_that_is_taken_is_one_line_and_status_1(
    run: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(*_: object) -> int:
        raise gateway.server.CannotListen("127.0.0.1:80: address already in use")

    monkeypatch.setattr(gateway.workers, "run", serve)
    assert run("run") == (1, "", "bulk-gateway: 127.0.0.1:80: address already in use\n")


# --- check, settings, schema, dialects -----------------------------------------------------------


def test_check_names_every_mistake_and_every_good_file(
    run: Callable[..., Output], tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("workers: 2\n")
    bad.write_text("worker: 2\nbatch: {width: 0}\n")
    status, out, err = run("check", str(good), str(bad))
    assert (status, out) == (2, f"{good}: fine\n")
    assert err.splitlines() == [
        f"{bad}:1: worker: unknown setting; did you mean `workers`?",
        f"{bad}:2: batch.width: must be at least 1",
    ]


def test_check_of_a_good_file_is_status_0(run: Callable[..., Output]) -> None:
    path = str(ROOT / "config" / "gateway.yaml")
    assert run("check", path) == (0, f"{path}: fine\n", "")


def test_settings_lists_every_setting(run: Callable[..., Output]) -> None:
    status, out, _ = run("settings")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines() if line[0] != " "] == [
        "setting",
        *(row.name for row in rows()),
    ]


def test_settings_as_yaml_is_the_commented_file(run: Callable[..., Output]) -> None:
    assert run("settings", "--yaml") == (0, example(), "")


@pytest.mark.parametrize("name", ["settings", *DIALECTS])
def test_schema_prints_a_json_schema(name: str, run: Callable[..., Output]) -> None:
    status, out, _ = run("schema", name)
    assert status == 0
    assert isinstance(json.loads(out), dict)


def test_schema_of_something_else_says_what_there_is(run: Callable[..., Output]) -> None:
    status, out, err = run("schema", "sugarcm")
    assert (status, out) == (2, "")
    assert "did you mean `sugarcrm`?" in err


def test_dialects_are_listed_with_their_endpoints_and_options(run: Callable[..., Output]) -> None:
    status, out, _ = run("dialects")
    assert status == 0
    for name in DIALECTS:
        assert f"{name}  " in out
    assert "  POST    {prefix}/{version}/bulk\n" in out
    assert "  option  type_is_method: false " in out


def test_nothing_is_coloured_where_there_is_no_terminal(run: Callable[..., Output]) -> None:
    assert "\x1b" not in run("settings")[1] + run("dialects")[1]


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    command = f"{sys.executable} -m gateway settings | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


# --- explain -------------------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path: Path) -> str:
    """A bulk call: a parent whose child reads its result, and a sibling that is not allowed."""
    child = {"path": "/things/${result=made:$.id}", "headers": {"token": "t2", "X-Own": "1"}}
    first = {"path": "/things", "method": "POST", "name": "made", "body": {"n": 1}}
    requests = [{**first, "requests": [child]}, {"path": "/admin/all?apiKey=secret"}]
    path = tmp_path / "call.json"
    path.write_text(json.dumps({"requests": requests}))
    return str(path)


@pytest.fixture
def denying(tmp_path: Path) -> str:
    path = tmp_path / "gateway.yaml"
    path.write_text("paths: {deny: [/admin/**]}\n")
    return str(path)


def test_explain_shows_a_plan_as_a_tree_with_what_each_call_waits_for(
    run: Callable[..., Output], call: str, denying: str
) -> None:
    fields = ("-H", "Host: crm.example", "-H", "Authorization: Bearer t1")
    status, out, err = run("explain", call, "--dialect", "agendize", "-c", denying, *fields)
    plan, common, limits = out.split("\n\n", 1)[1].split("\n\n")
    assert (status, err) == (0, "")
    assert out.splitlines()[:3] == [
        "agendize  as if sent to POST /api/2.3/batch",
        "3 subrequests, 2 to send, in 2 waves of at most 8.",
        "Nothing was sent.",
    ]
    assert plan.splitlines() == [
        "  wave  #  call",
        "     1  0  POST   /things",
        "             named made",
        "             body of 8 bytes, application/json",
        "     2  1  └ GET    /things/${result=made:$.id}",
        "               reads the result of 0, made",
        "               token: ***",
        "               X-Own: 1",
        "               without Authorization",
        "     -  2  GET    /admin/all?apiKey=***",
        "             not sent: the path is not allowed here (403 path_denied)",
    ]
    assert "  Authorization      Bearer ***" in common.splitlines()
    assert "  Host               crm.example" in common.splitlines()
    assert "t1" not in out
    assert "  limits.subrequests          100 " in limits


def test_explain_as_json_is_what_the_operators_listener_says(
    run: Callable[..., Output], call: str
) -> None:
    status, out, _ = run("explain", call, "--dialect", "agendize", "--json")
    document = json.loads(out)
    assert status == 0
    assert document["waves"] == [[0], [1, 2]]
    assert document["subrequests"][1]["reads"] == {"made": 0}


def test_explain_reads_the_call_from_a_pipe_too(call: str) -> None:
    command = [sys.executable, "-m", "gateway", "explain", "-", "--dialect", "agendize"]
    done = subprocess.run(
        command, input=Path(call).read_text(), capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "POST   /things" in done.stdout


@pytest.mark.parametrize(
    ("body", "dialect", "more", "status", "message"),
    [
        (
            {"requests": [{}]},
            "agendize",
            (),
            1,
            "no plan: requests[0].path: missing",
        ),
        (
            {},
            "agendise",
            (),
            2,
            "the endpoints speak agendize, guidewire, sugarcrm, truto; did you mean `agendize`?",
        ),
        (
            {},
            "agendize",
            ("--path", "/x"),
            1,
            "no plan: path: no endpoint of this dialect takes it",
        ),
    ],
)
def test_a_call_that_cannot_be_explained_is_one_line(
    body: object,
    dialect: str,
    more: tuple[str, ...],
    status: int,
    message: str,
    run: Callable[..., Output],
    tmp_path: Path,
) -> None:
    path = tmp_path / "call.json"
    path.write_text(json.dumps(body))
    answered = run("explain", str(path), "--dialect", dialect, *more)
    assert answered == (status, "", f"bulk-gateway: {message}\n")


def test_a_file_that_is_not_there_is_one_line_and_status_2(run: Callable[..., Output]) -> None:
    status, out, err = run("explain", "/none.json", "--dialect", "sugarcrm")
    assert (status, out) == (2, "")
    assert err == (
        "bulk-gateway: Invalid value for 'FILE': '/none.json': No such file or directory\n"
    )


# --- health --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "out", "err"),
    [(200, 0, "ready: 200 OK\n", ""), (503, 1, "", "not ready: 503 Service Unavailable\n")],
)
async def test_health_asks_readyz(
    answer: int,
    status: int,
    out: str,
    err: str,
    aiohttp_server: Callable[..., Awaitable[TestServer]],
    run: Callable[..., Output],
) -> None:
    asked: list[str] = []

    async def readyz(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=answer)

    app = web.Application()
    app.router.add_get("/readyz", readyz)
    server = await aiohttp_server(app)
    url = f"http://127.0.0.1:{server.port}"
    assert await asyncio.to_thread(run, "health", url) == (status, out, err)
    assert asked == ["/readyz"]


async def test_health_without_a_url_asks_where_the_settings_say(
    tmp_path: Path, run: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def readyz(request: web.BaseRequest) -> web.Response:
        return web.Response(text="yes")

    path = tmp_path / "ops"
    runner: Any = web.ServerRunner(web.Server(readyz))
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    monkeypatch.setenv("GATEWAY_OPS", f"unix:{path}")
    assert await asyncio.to_thread(run, "health") == (0, "ready: 200 OK\n", "")
    await runner.cleanup()


def test_a_gateway_that_is_not_there_is_not_ready(
    tmp_path: Path, run: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_OPS", f"unix:{tmp_path}/none")
    assert run("health") == (1, "", "not ready: no answer: No such file or directory\n")

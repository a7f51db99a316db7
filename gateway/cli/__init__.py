"""The commands. Each imports what it needs when it runs, so that `--help` answers at once.

Exit status: 0 fine, 1 could not run, 2 wrong usage or settings. A mistake is one line on stderr.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import click

if TYPE_CHECKING:
    from gateway.batch import Headers
    from gateway.config import Settings

PROGRAM = "bulk-gateway"

config_option = click.option(
    "-c", "--config", metavar="FILE", envvar="GATEWAY_CONFIG", help="settings file (YAML)"
)


def _fields(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> Headers:
    pairs = [line.partition(":") for line in given]
    if not all(name.strip() and colon for name, colon, _ in pairs):
        raise click.BadParameter("expected `Name: value`")
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


header_option = click.option(
    "-H",
    "--header",
    "fields",
    metavar="'NAME: VALUE'",
    multiple=True,
    callback=_fields,
    help="a field of the bulk call; repeatable",
)


class BadSettings(click.ClickException):
    """Everything that is wrong with the settings, a line each."""

    exit_code = 2

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))


class CannotRun(click.ClickException):
    exit_code = 1


def entry() -> None:
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    arguments = None if argv is None else list(argv)
    try:
        return cli.main(arguments, PROGRAM, standalone_mode=False) or 0
    except BadSettings as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        print(f"{PROGRAM}: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    except OSError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return 1


def settings_of(
    config: str | None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings in force: the file, the environment over it, flags over both."""
    from gateway.config import ConfigErrors, load

    try:
        return load(config, environ, flags)
    except ConfigErrors as error:
        raise BadSettings(error.mistakes) from None


def _version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    engine = find_spec("gateway.execution")
    source = engine is None or (engine.origin or "").endswith(".py")
    try:
        number = version(PROGRAM)
    except PackageNotFoundError:
        number = "not installed"
    click.echo(f"{PROGRAM} {number} ({'interpreted' if source else 'compiled'})")
    context.exit()


@click.group(
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="show the version, and whether the engine is compiled",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Takes bulk API calls apart in front of a REST backend that has no bulk endpoint."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


@cli.command()
@config_option
@click.option("--upstream", metavar="URL", help="the backend: http://host:port or unix:/path")
@click.option("--listen", metavar="ADDR", multiple=True, help="host:port or unix:/path; repeatable")
@click.option("--ops", metavar="ADDR", help="where operators ask: health, metrics")
@click.option("--workers", metavar="N", help="how many processes")
def run(
    config: str | None,
    upstream: str | None,
    listen: tuple[str, ...],
    ops: str | None,
    workers: str | None,
) -> int:
    """Run the gateway until SIGTERM."""
    flags = {"upstream.url": upstream, "listen": listen, "ops": ops, "workers": workers}
    with _signals_waiting():
        return _serve(config, flags)


@contextmanager
def _signals_waiting() -> Iterator[None]:
    """Until they are obeyed (`server.process.obey`). The first process of a container never hears
    of a SIGTERM before that, and any other would end with a SIGHUP."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _serve(config: str | None, flags: Mapping[str, Any]) -> int:
    from gateway.config.watched import Watched

    watched = Watched(config, os.environ, flags)
    settings = settings_of(config, flags)
    from gateway import workers as processes
    from gateway.server import CannotListen
    from gateway.telemetry.traces import CannotTrace

    try:
        return processes.run(settings, watched)
    except (CannotListen, CannotTrace) as error:
        raise CannotRun(str(error)) from None


@cli.command()
@click.option("--once", is_flag=True, help="end after the table")
@click.option("--listen", metavar="ADDR", default="127.0.0.1:0", help="the gateway's address")
@click.option("--ops", metavar="ADDR", default="127.0.0.1:0", help="its operators' address")
@click.option("--backend", metavar="PORT", type=int, default=0, help="the CRM's port")
def demo(once: bool, listen: str, ops: str, backend: int) -> int:
    """Show it at work, in front of a small CRM of its own."""
    settings = settings_of(None, {"listen": (listen,), "ops": ops}, {})
    from gateway.demo import CannotListen, show

    try:
        return show(settings, backend, once=once)
    except CannotListen as error:
        raise CannotRun(str(error)) from None


@cli.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
def check(files: tuple[str, ...]) -> int:
    """Name every mistake in settings files."""
    from gateway.config import ConfigErrors, load

    mistakes = []
    for path in files:
        try:
            load(path)
        except ConfigErrors as error:
            mistakes += error.mistakes
        else:
            click.echo(f"{path}: fine")
    if mistakes:
        raise BadSettings(mistakes)
    return 0


@cli.command()
@click.option("--yaml", "as_yaml", is_flag=True, help="a whole settings file instead of a table")
def settings(as_yaml: bool) -> None:
    """List every setting with its default and meaning."""
    from gateway.config.manual import example, rows
    from gateway.terminal import Ink, table

    if as_yaml:
        click.echo(example(), nl=False)
        return
    short = [(name, _shortened(default), help) for name, default, help in rows()]
    click.echo(table(("setting", "default", "meaning"), short, Ink(sys.stdout)))


def _shortened(text: str, most: int = 26) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


@cli.command()
@click.argument("name", metavar="[DIALECT|settings]", default="settings")
def schema(name: str) -> None:
    """Print a JSON Schema: of a dialect's body or the settings."""
    import json

    from gateway.config import did_you_mean
    from gateway.config.schema import schema as of_settings
    from gateway.dialects import DIALECTS, create

    if name == "settings":
        found = of_settings()
    elif name in DIALECTS:
        found = create(name, {}).schema()
    else:
        known = ["settings", *DIALECTS]
        raise click.UsageError(
            f"there is a schema of {', '.join(known)}{did_you_mean(name, known)}"
        )
    click.echo(json.dumps(found, indent=2))


@cli.command()
@config_option
def dialects(config: str | None) -> None:
    """List the dialects, their endpoints and options."""
    from gateway.cli.listing import listing

    click.echo(listing(settings_of(config), sys.stdout))


@cli.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--dialect", "name", metavar="NAME", required=True, help="the format it is written in"
)
@click.option("--path", metavar="PATH", default="", help="the path, and query, it would be sent to")
@header_option
@click.option("--json", "as_json", is_flag=True, help="for programs")
@config_option
def explain(
    file: BinaryIO,
    name: str,
    path: str,
    fields: Headers,
    as_json: bool,
    config: str | None,
) -> int:
    """Show what a bulk call would become, and send nothing."""
    from gateway.cli.explained import shown

    return shown(settings_of(config), name, path, fields, file.read(), as_json)


@cli.command()
@click.argument("file", type=click.File("rb"))
@click.option("--to", "url", metavar="URL", required=True, help="the bulk endpoint's whole address")
@header_option
@click.option("--json", "as_json", is_flag=True, help="for programs")
def send(file: BinaryIO, url: str, fields: Headers, as_json: bool) -> int:
    """Send a bulk call, and show its results as they come."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError("--to: expected http://host:port/path")
    from gateway.cli.send import send as sent

    return sent(url, fields, file.read(), as_json=as_json)


@cli.command()
@click.argument("url", metavar="[URL]", required=False)
@config_option
def health(url: str | None, config: str | None) -> int:
    """Ask a running gateway whether it is ready."""
    from gateway.cli.health import of_listener, of_url, ready

    try:
        connection = of_url(url) if url else of_listener(settings_of(config).ops)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    fine, answer = ready(connection)
    click.echo(f"ready: {answer}" if fine else f"not ready: {answer}", err=not fine)
    return 0 if fine else 1

"""From a file, the environment and flags to `Settings`, or to every mistake there is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from gateway.config.notations import shown
from gateway.config.reader import BAD, Reader, did_you_mean, fields_of
from gateway.config.rules import broken
from gateway.config.settings import Endpoint, Settings
from gateway.config.source import (
    ConfigErrors,
    Mistake,
    Node,
    YamlTree,
    from_environment,
    from_flags,
    laid_over,
)
from gateway.dialects import DIALECTS


def load(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a YAML file, the environment over it and flags over both.

    `flags` are keyed by dotted names, `upstream.url`; None means not given. Raises ConfigErrors
    with every mistake there is.
    """
    if path is None:
        return parse("", "", environ, flags)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigErrors([Mistake(path, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigErrors([Mistake(path, "", "is not UTF-8 text")]) from None
    return parse(text, path, environ, flags)


def parse(
    text: str,
    name: str = "settings",
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    tree = YamlTree(text, name)
    layers = [*from_environment(environ or {}), *from_flags(flags or {})]
    root = reduce(laid_over, layers, tree.root or Node({}, name))
    reader = Reader({Endpoint: _endpoint})
    settings: Settings = reader.section(Settings, root)
    mistakes = tree.mistakes + reader.mistakes
    if settings is not BAD:
        mistakes += _combinations(settings, reader, name)
    if mistakes:
        raise ConfigErrors(sorted(mistakes, key=_position))
    return settings


def _position(mistake: Mistake) -> tuple[str, int]:
    place, _, line = mistake.place.rpartition(":")
    return (place, int(line)) if line.isdigit() else (mistake.place, 0)


def _combinations(settings: Settings, reader: Reader, name: str) -> list[Mistake]:
    wrong = {mistake.setting for mistake in reader.mistakes}
    # A list with a bad item is shorter than the file's, so its places cannot be trusted.
    wrong |= {setting.partition("[")[0] for setting in wrong}
    return [
        Mistake(next((reader.places[p] for p in paths if p in reader.places), name), paths[0], text)
        for paths, text in broken(settings)
        if not wrong.intersection(paths)
    ]


def _endpoint(reader: Reader, entries: dict[str, Node], node: Node, path: str) -> Any:
    """An endpoint's own settings and, beside them, its dialect's options."""
    own = reader.fields(Endpoint, entries, node, path)
    options = _options(reader, entries, node, path)
    return BAD if own is BAD or options is BAD else Endpoint(**own, options=options)


def _options(reader: Reader, entries: dict[str, Node], node: Node, path: str) -> Any:
    name = entries["dialect"].value if "dialect" in entries else None
    if not isinstance(name, str):
        return BAD  # told already
    if name not in DIALECTS:
        message = f"no dialect is called {shown(name)}{did_you_mean(name, DIALECTS)}"
        return reader.wrong(entries["dialect"], f"{path}.dialect", message)
    dialect = DIALECTS[name]
    rest = {key: child for key, child in entries.items() if key not in fields_of(Endpoint)}
    reader.strangers(rest, [*fields_of(Endpoint), *fields_of(dialect)], path)
    options = reader.fields(dialect, rest, node, path)
    if options is BAD:
        return BAD
    try:
        dialect(**options)
    except ValueError as error:  # what the dialect itself finds wrong: "option: message"
        option, _, message = str(error).partition(": ")
        if option in rest:
            return reader.wrong(rest[option], f"{path}.{option}", message)
        return reader.wrong(node, path, str(error))
    return options

"""The dialects as a person wants to know them: what each is, where it is spoken, its options."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, TextIO

from gateway.config import Settings
from gateway.config.manual import options
from gateway.dialects import DIALECTS
from gateway.terminal import Ink, columns


def listing(settings: Settings, stream: TextIO) -> str:
    ink = Ink(stream)
    return "\n\n".join(
        "\n".join([_title(name, kind, ink), *columns(_facts(settings, name, kind), indent=2)])
        for name, kind in DIALECTS.items()
    )


def _title(name: str, kind: type, ink: Ink) -> str:
    summary = (inspect.getdoc(kind) or "").partition(";")[0].rstrip(".")
    return f"{ink('bold', name)}  {summary}"


def _facts(settings: Settings, name: str, kind: Any) -> Iterator[tuple[str, str, str]]:
    for endpoint in settings.endpoints:
        if endpoint.dialect == name:
            yield "POST", endpoint.path, ""
    for option in options(kind):
        yield "option", f"{option.name}: {option.default}", option.help

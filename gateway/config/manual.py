"""The declaration written out for people: as a table, and as a whole settings file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import yaml

from gateway.config.reader import fields_of, is_required, is_union
from gateway.config.settings import Endpoint, Settings

COLUMN, WIDTH = 30, 100

INTRODUCTION = """\
Every setting at its default, as `bulk-gateway settings --yaml` prints it. A file of your own
needs only what differs.

Durations: 500ms, 2s, 1m30s. Sizes: 64KiB, 4MiB, 1MB or a number of bytes. The environment wins
over the file: GATEWAY_UPSTREAM__URL is upstream.url, lists and maps are YAML or JSON. Flags win
over both."""


class Row(NamedTuple):
    """One setting as documentation shows it."""

    name: str
    default: str
    """As it would stand in the file; empty when it must be given."""
    help: str


def rows() -> list[Row]:
    """Every setting by its dotted name, in the order of the declaration."""
    return list(_rows(Settings, ""))


def options(dialect: Any) -> list[Row]:
    """What an endpoint of this dialect may set beside its path."""
    return [
        Row(name, _default(hint, field), field.metadata.get("help", ""))
        for name, hint, field in _declared(dialect)
    ]


def _rows(kind: Any, prefix: str) -> Iterator[Row]:
    for name, hint, field in _declared(kind):
        if "help" in field.metadata:
            yield Row(prefix + name, _default(hint, field), field.metadata["help"])
        section, several = _section(hint)
        if section and not (section is hint and _is_short(section)):
            yield from _rows(section, f"{prefix}{name}{'[]' if several else ''}.")


def _declared(kind: Any) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    hints = get_type_hints(kind, include_extras=True)
    for name, field in fields_of(kind).items():
        yield name, hints[name], field


def _section(hint: Any) -> tuple[Any, bool]:
    """The section that a setting is or holds, and whether it is a list of them."""
    if get_origin(hint) is tuple:
        return _section(get_args(hint)[0])[0], True
    if is_union(hint):
        return _section(get_args(hint)[0])
    return (hint, False) if dataclasses.is_dataclass(hint) else (None, False)


def _is_short(section: Any) -> bool:
    return hasattr(section, "SHORT")


def _default(hint: Any, field: dataclasses.Field[Any]) -> str:
    return "" if is_required(field) else inline(written(hint, field.default))


def inline(value: Any) -> str:
    """YAML on one line."""
    if value is None:
        return "null"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("...").strip()


def written(hint: Any, value: Any) -> Any:
    """A setting's value as a person would write it in the file."""
    if value is None:
        return None
    if get_origin(hint) is Annotated:
        return get_args(hint)[1].write(value)
    if is_union(hint):
        return written(get_args(hint)[0], value)
    if get_origin(hint) is tuple:
        items = [written(get_args(hint)[0], item) for item in value]
        return items[0] if len(items) == 1 and _is_short(get_args(hint)[0]) else items
    if dataclasses.is_dataclass(hint):
        return _written_section(hint, value)
    return value


def _written_section(kind: Any, value: Any) -> Any:
    given = {
        name: written(hint, getattr(value, name))
        for name, hint, field in _declared(kind)
        if is_required(field) or getattr(value, name) != field.default
    }
    if kind is Endpoint:
        given |= value.options
    return given[kind.SHORT] if _is_short(kind) and list(given) == [kind.SHORT] else given


# --- the whole file ------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of the file, and what is said about it: beside it, or above it for want of room."""

    text: str
    help: str = ""

    def laid_out(self) -> Iterator[str]:
        line = f"{self.text:<{COLUMN}}  # {self.help}"
        if self.help and len(line) <= WIDTH:
            yield line
            return
        if self.help:
            indent = len(self.text) - len(self.text.lstrip(" "))
            yield f"{self.text[:indent]}# {self.help}"
        yield self.text.rstrip()


def example() -> str:
    """A settings file with everything at its default, each setting with its help."""
    lines = [Line(f"# {text}") for text in INTRODUCTION.splitlines()]
    before = lines
    for name, hint, field in _declared(Settings):
        block = _block(name, hint, field)
        if len(before) > 1 or len(block) > 1:
            lines.append(Line(""))
        lines += block
        before = block
    return "".join(f"{text}\n" for line in lines for text in line.laid_out())


def _block(name: str, hint: Any, field: dataclasses.Field[Any]) -> list[Line]:
    """1. a single setting  2. a section  3. a list of sections  4. a section that may be null"""
    help = field.metadata.get("help", "")
    section, several = _section(hint)
    if section is None or _is_short(section):
        return [Line(f"{name}: {_sample(hint, field)}", help)]
    body = [line for member in _declared(section) for line in _block(*member)]
    if section is hint:
        return [Line(f"# {section.__doc__}"), Line(f"{name}:"), *_indented(body)]
    if several:
        items = [Line(f"- {inline(item)}") for item in written(hint, field.default)]
        return [Line(f"{name}:", help), *_indented([*items, *_unused(body)])]
    return [Line(f"{name}: null", help), *_unused([Line(f"{name}:"), *_indented(body)])]


def _sample(hint: Any, field: dataclasses.Field[Any]) -> str:
    value = field.metadata["example"] if is_required(field) else field.default
    return inline(written(hint, value))


def _indented(lines: list[Line]) -> list[Line]:
    return [Line(f"  {line.text}", line.help) for line in lines]


def _unused(lines: list[Line]) -> list[Line]:
    return [Line(f"# {line.text}", line.help) for line in lines if "#" not in line.text]

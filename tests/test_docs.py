"""README says what is there: every setting, metric, dialect and command.

`pytest tests/test_docs.py --update-golden` writes its tables from the declarations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli import cli
from gateway.config import manual
from gateway.dialects import DIALECTS
from gateway.telemetry.catalogue import METRICS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def settings() -> Iterator[str]:
    yield "| setting | default | meaning |"
    yield "|---|---|---|"
    for row in manual.rows():
        default = row.default if len(row.default) < 60 else "see config/gateway.yaml"
        shown = f"`{default}`" if row.default else "required"
        yield f"| `{row.name}` | {shown} | {row.help.replace('|', '/')} |"


def metrics() -> Iterator[str]:
    yield "| metric | labels | meaning |"
    yield "|---|---|---|"
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {labels} | {metric.help} |"


def commands() -> Iterator[str]:
    yield "| command | what it does |"
    yield "|---|---|"
    for name, command in sorted(cli.commands.items()):
        yield f"| `bulk-gateway {name}` | {command.get_short_help_str(200)} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "settings": settings,
    "metrics": metrics,
    "commands": commands,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_readme_is_the_declaration(name: str, update_golden: bool) -> None:
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    text = README.read_text()
    before, _, rest = text.partition(begin)
    found, _, after = rest.partition(end)
    wanted = "\n".join(TABLES[name]()) + "\n"
    if update_golden:
        README.write_text(before + begin + wanted + end + after)
    else:
        assert found == wanted


@pytest.mark.parametrize("name", DIALECTS)
def test_readme_shows_every_dialect_and_config_has_an_example(name: str) -> None:
    assert f"| `{name}` |" in README.read_text()
    assert (ROOT / "config" / f"{name}.yaml").exists()


def test_every_link_in_readme_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert link.startswith("https://") or (ROOT / link).exists(), link

"""The console blocks of a README: commands, and what each prints."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.support.ports import free_port


class Command(NamedTuple):
    text: str
    printed: str


def sessions(readme: str) -> Iterator[tuple[str, list[Command]]]:
    """Each block, with the heading under which it stands."""
    for section in readme.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        for block in re.findall(r"```console\n(.*?)```", body, re.DOTALL):
            parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
            yield heading, [_command(part) for part in parts if part]


def _command(part: str) -> Command:
    """It goes on while its lines end in a backslash, or a quotation in it is open."""
    lines = part.splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        text = "".join(lines[:number])
        if not text.endswith("\\\n") and text.count("'") % 2 == 0:
            break
    return Command(text.replace("\\\n", " ").strip(), "".join(lines[number:]))


def elsewhere() -> Callable[[str], str]:
    """Moves a README's ports, 80xx, to free ones: the same one always to the same."""
    ports: defaultdict[str, str] = defaultdict(lambda: str(free_port()))
    return lambda text: re.sub(r"\b80\d\d\b", lambda port: ports[port[0]], text)


async def shell(command: str) -> str:
    """What it prints."""
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode()

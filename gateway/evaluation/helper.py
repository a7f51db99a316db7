"""The helper process: reads expressions with their contexts, writes what they give.

    in    length of the expression, length of the context, both as UTF-8
    out   kind, length, payload: v with the value as JSON, e with the code of a mistake, m for
          out of memory, after which it ends

It is started by its path, without site packages and with an empty environment, and knows nothing
of the gateway. Its arguments are where the library is found and how many bytes it may take.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from collections.abc import Iterator

_QUESTION = struct.Struct(">II")
_ANSWER = struct.Struct(">cI")

PATIENCE = 5.0
"""Seconds after which the system ends a helper that nobody stopped: its parent must be gone."""


def main() -> None:
    directory, memory = sys.argv[1:]
    sys.path.insert(0, directory)
    _warm_up()
    _give_up(int(memory))
    _answer(b"v", b"")
    for expression, context in _questions():
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            kind, payload = _evaluate(expression, context)
        except MemoryError:
            _answer(b"m", b"")
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(kind, payload)


def _warm_up() -> None:
    """Brings in what the library imports late: afterwards no file can be opened."""
    from jsonata import Jsonata

    Jsonata("$formatNumber(1, '0') & $now() & $match('a', /a/).match").evaluate({})


def _give_up(memory: int) -> None:
    """What no expression needs."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for limit in ("NOFILE", "FSIZE", "CORE", "NPROC"):
        if hasattr(resource, f"RLIMIT_{limit}"):
            resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (0, 0))


def _questions() -> Iterator[tuple[str, bytes]]:
    while len(head := sys.stdin.buffer.read(_QUESTION.size)) == _QUESTION.size:
        expression, context = map(sys.stdin.buffer.read, _QUESTION.unpack(head))
        yield expression.decode(), context


def _evaluate(expression: str, context: bytes) -> tuple[bytes, bytes]:
    from jsonata import Jsonata

    try:
        value = Jsonata(expression).evaluate(json.loads(context))
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return b"v", text.encode()
    except MemoryError:
        raise
    except Exception as mistake:  # the library raises what it likes
        return b"e", str(getattr(mistake, "error", "")).encode()


def _answer(kind: bytes, payload: bytes) -> None:
    sys.stdout.buffer.write(_ANSWER.pack(kind, len(payload)) + payload)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

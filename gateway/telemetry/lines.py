"""What a log line is made of: the fields there are, their texts, and the way to bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from gateway.batch import Part

Event = structlog.typing.EventDict

FIELDS = {
    "id": "of the request; what the backend sees as X-Request-Id begins with it",
    "trace_id": "of the trace that the request belongs to",
    "dialect": "",
    "endpoint": "the bulk endpoint's path template",
    "client": "the peer's address",
    "outcome": "how it ended",
    "ok": "subrequests answered below 400",
    "failed": "subrequests answered with 400 or more, or not at all",
    "skipped": "subrequests that never ran",
    "sent": "whether any byte of a request that did not end well may have reached the backend",
    "seconds": "from the whole request in to the last byte out",
    "first_byte": "seconds until the answer's first byte",
    "bytes_in": "of the request's body",
    "bytes_out": "of the answer's body",
    "writes_sent": "indexes of subrequests with an effect that may have reached the backend",
    "writes_unsent": "indexes of those that did not",
    "parts": "index:method:status:seconds:error of subrequests; status 000: no answer",
    "parts_left_out": "subrequests that the list has no room for",
    "reason": "why it was refused, or done",
    "status": "of the answer; absent: there was none",
    "message": "what is wrong, and where",
    "method": "",
    "path": "as received; of the query only the names",
    "error": "RFC 9209 error type, or the class of an exception",
    "where": "places in the code, innermost last",
    "logger": "the library that reports something",
    "suppressed": "lines of this kind not written in the minute before",
    "listen": "addresses for clients",
    "ops": "addresses for operators",
    "upstream": "",
    "pid": "",
    "worker": "",
    "workers": "",
    "version": "",
    "file": "of settings",
    "cert": "file of a certificate",
    "mistakes": "what is wrong with new settings",
    "settings": "those that a restart would change",
    "signal": "",
    "clean": "whether everything ended before the process did",
    "limit": "of file descriptors",
    "wanted": "connections that the settings ask for",
    "connections": "that there can be",
}
"""The fields there are, and what they mean. Others are left out and named in `unlisted`."""

PARTS = 1000
"""Subrequests listed in one line."""

_TEXT_LIMIT = 300


def shaped(_: Any, level: str, event: Event) -> Event:
    """Time, level and event first, then the fields of the list that have a value."""
    line: Event = begun(level, event.pop("event"))
    unlisted: list[str] = []
    for name, value in event.items():
        if name not in FIELDS:
            unlisted.append(name)
        elif isinstance(value, (int, float)):
            line[name] = value
        elif value is not None and value != "":
            line[name] = clean(value)
    if unlisted:
        line["unlisted"] = unlisted
    return line


def begun(level: str, event: str) -> dict[str, Any]:
    """What every line begins with."""
    return {"timestamp": _timestamp(), "level": level, "event": event}


def _timestamp() -> str:
    """RFC 3339, with milliseconds. All but those is made once a second."""
    global _second
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    if _second[0] != seconds:
        _second = (seconds, datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return f"{_second[1]}.{str(1000 + milliseconds)[1:]}Z"


_second = (0, "")


def micro(seconds: float) -> float:
    """As precise as a microsecond. `round` would write the number out and read it again."""
    return int(seconds * 1e6 + 0.5) / 1e6


def clean(value: object) -> object:
    """A text without control bytes, and not too long of it; a list of such."""
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    text = str(value)[:_TEXT_LIMIT]
    if text.isprintable():  # no control bytes, line separators or lone surrogates
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def renderer(console: bool, colors: bool) -> Callable[[Event], bytes]:
    """A shaped line as bytes."""
    if not console:
        return orjson.dumps
    render = structlog.dev.ConsoleRenderer(10, colors=colors, sort_keys=False)
    return lambda line: render(None, line["level"], line).encode()


# --- texts ---------------------------------------------------------------------------------------


def mask_query(target: str) -> str:
    """`/a?token=secret&b=1` -> `/a?token=*&b=*`; `http://user:word@host/a` -> `/a`."""
    path, mark, query = target.partition("?")
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    if not query:
        return path + mark
    masked = [
        f"{name}=*" if equals else name and "*"
        for name, equals, _ in (pair.partition("=") for pair in query.split("&"))
    ]
    return path + mark + "&".join(masked)


def ranges(indexes: Iterable[int]) -> str | None:
    """`{0, 1, 2, 5}` -> `0-2 5`."""
    found: list[list[int]] = []
    for index in sorted(indexes):
        if found and found[-1][1] == index - 1:
            found[-1][1] = index
        else:
            found.append([index, index])
    return " ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in found) or None


def listed(parts: list[Part]) -> str | None:
    """One string, since a list of objects would cost ten times as much a part."""
    texts = [
        f"{index}:{method}:{status or '000'}:{seconds:.3f}{error and ':' + error}"
        for index, method, status, error, seconds in parts[:PARTS]
    ]
    return " ".join(texts) or None


def places(exc: BaseException | None) -> list[str]:
    """Where an exception came from, innermost last."""
    found: list[str] = []
    trace = None if exc is None else exc.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{short(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return found[-8:]


def short(path: str) -> str:
    return "/".join(path.split("/")[-2:])

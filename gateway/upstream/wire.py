"""The bytes of request heads, and the last place where a smuggled byte is caught.

Whatever was checked before, nothing leaves this file that could be read as another field, another
line or another length: framing fields are written here and nowhere else. A mistake found here is
ours, so it is a plain `ValueError`.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.batch import Call, Headers

CHUNKED: Final = -1
"""As the length of an upload: unknown, so it is sent in chunks."""

UNSAID: Final = -2
"""As the length of a body: there is none, and whoever asks has said nothing of it. Of a call of our
own, whose length is None, we do say so where that matters."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"[!-~\x80-\xff]+")
_WRITTEN_HERE = frozenset({"content-length", "transfer-encoding"})
_IN_LINES = bytes([9, *range(32, 127), *range(128, 256)])
"""What a value is made of."""
_USUAL = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MEANT_TO_HAVE_CONTENT = frozenset({"POST", "PUT", "PATCH"})


def encode(headers: Headers) -> str:
    """The fields as they stand in a head. Made once per batch for what its calls have in common."""
    lines, values = [], []
    for name, value in headers:
        if name not in _names:
            _learn(name)
        lines.append(f"{name}: {value}\r\n")
        values.append(value)
    if not _are_values("".join(values)):
        raise ValueError(_UNSENDABLE)
    return "".join(lines)


_UNSENDABLE = "a header field that must not be sent"
_names: set[str] = set()
"""Of fields that may stand there, and are not of framing: those that were asked about lately."""


def _learn(name: str) -> None:
    if not _TOKEN.fullmatch(name) or name.lower() in _WRITTEN_HERE:
        raise ValueError(_UNSENDABLE)
    if len(_names) >= 256:
        _names.clear()
    _names.add(name)


def _are_values(text: str) -> bool:
    try:
        return not text.encode("latin-1").translate(None, _IN_LINES)
    except UnicodeEncodeError:
        return False


def checked(lines: list[bytes]) -> str:
    """The same, of lines whose names `encode` has let pass before, and now it is about values."""
    text = b"".join([b"\r\n".join(lines), b"\r\n"]) if lines else b""
    if text.translate(None, _IN_LINES) != b"\r\n" * len(lines):
        raise ValueError(_UNSENDABLE)
    return text.decode("latin-1")


def head(call: Call, common: str, length: int | None) -> bytes:
    """A request's head. `common` are `call.headers`, encoded; `length` is its body's, None for no
    body at all, `CHUNKED` or `UNSAID`."""
    method, target, request_id = call.method, call.target, call.request_id
    # The patterns would do alone, but this is many times as fast and says yes to all but a few.
    words = f"{target}{request_id}"
    if not (target and words.isascii() and words.isprintable() and " " not in words):
        _check(target, request_id)
    if method not in _USUAL and not _TOKEN.fullmatch(method):
        raise ValueError("a method that must not be sent")
    # Most calls are reads, and the call to say nothing would be one per subrequest.
    own = "" if length is None and method == "GET" else framing(method, length)
    if request_id:
        own = f"X-Request-Id: {request_id}\r\n{own}"
    if call.extra:
        own = encode(call.extra) + own
    if call.own:
        common = encode(call.own) + common
    return f"{method} {target} HTTP/1.1\r\n{common}{own}\r\n".encode("latin-1")


def _check(target: str, request_id: str) -> None:
    if not _TARGET.fullmatch(target):
        raise ValueError("a target that must not be sent")
    if not (request_id.isascii() and request_id.isprintable()):
        raise ValueError("a request id that must not be sent")


def framing(method: str, length: int | None) -> str:
    """RFC 9110 8.6: a method that is meant to have content says so when it has none."""
    if length is None:
        return "Content-Length: 0\r\n" if method in _MEANT_TO_HAVE_CONTENT else ""
    if length == UNSAID:
        return ""
    if length == CHUNKED:
        return "Transfer-Encoding: chunked\r\n"
    return f"Content-Length: {length}\r\n"


def chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    """One chunk of an upload. An empty one would end it, so there is none."""
    return b"%x\r\n" % len(data), data, b"\r\n"


LAST_CHUNK: Final = b"0\r\n\r\n"

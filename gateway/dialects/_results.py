"""Pieces that renderers share: separators, header fields as JSON, results made by the gateway.

An entry is written from bytes to bytes. What repeats from entry to entry (fields with their
values, status lines) is rendered once and looked up; what an answer must not carry into an entry
is dropped here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

import msgspec

from gateway import bodies, headers
from gateway.batch import Failure, RawHeaders, Reply
from gateway.headers import HOP_BY_HOP
from gateway.statuses import PHRASES

K = TypeVar("K", bound=Hashable)

NOT_IN_ENTRIES: frozenset[bytes] = frozenset(name.encode() for name in HOP_BY_HOP) | {
    b"content-length",
    b"content-encoding",
}
"""Fields about how the body travelled to us, untrue of the contents of an entry."""

BASE64 = (b"Content-Transfer-Encoding", b"base64")
"""Marks contents that are base64, because they were no text (D-S7)."""

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


def string(value: bytes) -> bytes:
    """Bytes of a header field as a JSON string: UTF-8 if they are, else latin-1."""
    try:
        return encode(value.decode())
    except UnicodeDecodeError:
        return encode(value.decode("latin-1"))


class Memo(dict[K, bytes], Generic[K]):
    """What was rendered before, short things only. Starts over when full: what repeats is soon
    back. To be asked by its `__getitem__`: a subscript costs several times that."""

    __slots__ = ("_render",)

    def __init__(self, render: Callable[[K], bytes]) -> None:
        self._render = render

    def __missing__(self, key: K) -> bytes:
        rendered = self._render(key)
        if len(rendered) <= 256:
            if len(self) >= 512:
                self.clear()
            self[key] = rendered
        return rendered


# --- header fields -------------------------------------------------------------------------------

_name = itemgetter(0)


class Layout(NamedTuple):
    """What the names of an answer's fields tell before a value is looked at."""

    content_type: int
    """The place of Content-Type; -1: there is none."""
    connection: int
    """The place of Connection; -1: there is none."""
    repeats: bool
    """A name stands there twice, in whatever spelling."""


_layouts: dict[tuple[bytes, ...], Layout] = {}
_HARMLESS = frozenset({b"keep-alive", b"Keep-Alive", b"close"})


def received(reply: Reply) -> tuple[RawHeaders, Layout]:
    """The fields of an answer, without those its `Connection` names (RFC 9110 7.6.1)."""
    fields = reply.headers
    names = tuple(map(_name, fields))
    # A backend has few layouts and many answers.
    layout = _layouts.get(names) or _layout(names)
    place = layout.connection
    if place < 0 or (fields[place][1] in _HARMLESS and not layout.repeats):
        return fields, layout
    fields = headers.forward_response(fields)
    return fields, _layout(tuple(map(_name, fields)))


def _layout(names: tuple[bytes, ...]) -> Layout:
    if len(_layouts) >= 256:
        _layouts.clear()
    lower = [name.lower() for name in names]
    places = {name: lower.index(name) for name in lower}
    content_type, connection = places.get(b"content-type", -1), places.get(b"connection", -1)
    layout = _layouts[names] = Layout(content_type, connection, len(places) < len(lower))
    return layout


def contents(body: bytes, fields: RawHeaders, known: Layout) -> tuple[bytes, bool]:
    """A body that is not empty, as JSON, and whether it had to become base64."""
    declared = fields[known.content_type][1] if known.content_type >= 0 else None
    return bodies.splice(body, declared)


# --- status --------------------------------------------------------------------------------------


def phrase(status: int, reason: bytes = b"") -> str:
    """The backend's own reason phrase, else the registered one."""
    if reason:
        return reason.decode("latin-1")
    return PHRASES.get(status, "")


# --- results made by the gateway -----------------------------------------------------------------


def gateway_fields(failure: Failure) -> RawHeaders:
    """What marks an entry as ours and not the backend's (RFC 9209, DESIGN part 5)."""
    status = (
        f'bulk-gateway; error={failure.error}; details="{failure.details}"; sent=?{failure.sent:d}'
    )
    marks = ((b"Proxy-Status", status.encode()),)
    if not failure.retry_after:
        return marks
    return (*marks, (b"Retry-After", b"%d" % failure.retry_after))


def gateway_member(failure: Failure) -> bytes:
    """The same mark for entries that have no fields: a member of the error's body."""
    mark: dict[str, str | bool | int] = {"error": failure.error, "sent": failure.sent}
    if failure.retry_after:
        mark["retry_after"] = failure.retry_after
    return encode(mark)

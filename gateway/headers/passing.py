"""Fields of pass-through requests and answers: all that is end-to-end, in order, as spelt."""

from __future__ import annotations

from gateway.batch import Header, Headers, RawHeaders
from gateway.headers.connection import options, removed_by
from gateway.headers.names import FRAMING, HOP_BY_HOP, OVERRIDES, WRITTEN, Kind, kind, normal
from gateway.headers.policy import HeaderPolicy


def text(raw: RawHeaders) -> Headers:
    return tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw])


def forward_request(
    outer: Headers,
    written: Headers,
    policy: HeaderPolicy,
    *,
    trusted: bool,
    overrides: bool = True,
    upgrade: bool = False,
    hops: int | None = None,
) -> Headers:
    """A request's fields as they go up; `written` is `managed(outer, ..., bulk=False)`.

    Framing is left out, since whoever sends the body writes it; so is `Expect`, which the server
    has answered. `overrides=False` drops method overrides, for where the method was checked.
    `upgrade` and `hops` are what `upgrade_asked` and `max_forwards` found.
    """
    never = HOP_BY_HOP | FRAMING | _OURS
    never |= removed_by(options(outer), policy)
    if not overrides:
        never |= OVERRIDES
    if upgrade:
        never -= {"upgrade"}
    kept = [
        field
        for field in outer
        if (name := normal(field[0])) not in never
        and (kind(name) is not Kind.IDENTITY or (trusted and policy.believes(field[0])))
        and not policy.poses(field[0])
    ]
    if hops is not None:
        kept = [_counted(field, hops - 1) for field in kept]
    if upgrade:
        kept.append(("Connection", "Upgrade"))
    # RFC 9110 7.2: `Host` stands first.
    return (*written[:1], *kept, *written[1:])


_OURS = WRITTEN - {"accept-encoding", "x-request-id"}
"""Of these `written` has what there is to say: no address, where the peer is on a unix socket."""


def _counted(field: Header, hops: int) -> Header:
    return (field[0], str(hops)) if normal(field[0]) == "max-forwards" else field


def forward_response(
    fields: RawHeaders, *, via: bytes | None = None, upgrade: bool = False
) -> RawHeaders:
    """An answer's fields on their way down; `upgrade` when it is a 101 that was asked for."""
    never = _HOP_BY_HOP_BYTES - {b"upgrade"} if upgrade else _HOP_BY_HOP_BYTES
    kept = [field for field in fields if field[0].lower() not in never]
    said = _connection(fields)
    if said and (gone := removed_by(options(text(said)), _NO_LISTS)):
        kept = [field for field in kept if normal(field[0].decode("latin-1")) not in gone]
    if upgrade:
        kept.append((b"Connection", b"Upgrade"))
    if via is not None:
        kept.append((b"Via", via))
    return tuple(kept)


_HOP_BY_HOP_BYTES = frozenset(name.encode() for name in HOP_BY_HOP)
_NO_LISTS = HeaderPolicy()


# --- asked of us ---------------------------------------------------------------------------------


def upgrade_asked(fields: RawHeaders) -> bytes | None:
    """The protocols that a request offers to switch to.

    Never HTTP in another form, h2c say: the backend would then take requests on that connection
    that no rule has seen.
    """
    offered = b", ".join(value for name, value in fields if name.lower() == b"upgrade")
    if not offered or _carries_requests(offered):
        return None
    return offered if "upgrade" in options(text(_connection(fields))) else None


def _carries_requests(protocols: bytes) -> bool:
    names = protocols.lower().split(b",")
    return any(name.strip().startswith((b"h2", b"http")) for name in names)


def max_forwards(fields: RawHeaders) -> int | None:
    """How often an OPTIONS request may still be handed on (RFC 9110 7.6.2); at 0 it is for us."""
    for name, value in fields:
        if name.lower() == b"max-forwards":
            return int(value) if value.isdigit() and len(value) < 10 else None
    return None


def _connection(fields: RawHeaders) -> RawHeaders:
    return tuple([field for field in fields if field[0].lower() == b"connection"])

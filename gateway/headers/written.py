"""Fields that only the gateway writes: where the call goes, and which way it came."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial

from gateway.batch import Header, Headers

_Given = Mapping[str, Sequence[str]]


HEARD = frozenset({"via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
"""All that `managed` reads beside the host, by names in normal form."""


def managed(
    given: _Given,
    *,
    host: str,
    authority: str,
    peer: str | None,
    trusted: bool,
    scheme: str,
    via: str,
    version: str = "1.1",
    bulk: bool = True,
) -> Headers:
    """The fields that are written last: once per batch, once per pass-through request.

    `given` are the outer request's fields, as `by_name` has them. `host` is the setting
    (`preserve`, `upstream` or a name), `authority` the backend's own; `version` is the outer
    request's, `via` our name.
    """
    outer_host = given.get("host", [""])[0]
    sent_host = {"preserve": outer_host or authority, "upstream": authority}.get(host, host)
    ours = (sent_host, outer_host, peer, scheme, f"{version} {via}", bulk)
    if trusted or "via" in given:
        return _fields(given if trusted else {}, given.get("via", ()), *ours)
    return _usual(*ours)


def _fields(
    believed: _Given,
    past: Iterable[str],
    sent_host: str,
    outer_host: str,
    peer: str | None,
    scheme: str,
    via: str,
    bulk: bool,
) -> Headers:
    fields = [("Host", sent_host), *_forwarded(believed, peer, scheme, outer_host)]
    fields.append(("Via", ", ".join([*past, via])))
    if bulk:
        # Compressed bytes must not reach an answer that is one document.
        fields.append(("Accept-Encoding", "identity"))
    return tuple(fields)


_usual = lru_cache(maxsize=256)(partial(_fields, {}, ()))
"""Of a client that came straight here, and whose word is not taken: the same every time."""


def _forwarded(believed: _Given, peer: str | None, scheme: str, host: str) -> list[Header]:
    """`believed` is what a trusted peer says, and empty for any other.

    Only the address becomes a list. Of scheme and host a trusted peer's word stands alone, since
    backends compare `X-Forwarded-Proto` as a whole with `https`.
    """
    fields = []
    addresses = [address for address in [*believed.get("x-forwarded-for", ()), peer] if address]
    if addresses:
        fields.append(("X-Forwarded-For", ", ".join(addresses)))
    fields.append(("X-Forwarded-Proto", believed.get("x-forwarded-proto", [""])[0] or scheme))
    if named := believed.get("x-forwarded-host", [""])[0] or host:
        fields.append(("X-Forwarded-Host", named))
    return fields


# --- loops ---------------------------------------------------------------------------------------

_FAMILY = "bulk-gateway"
_MOST_OF_FAMILY = 5


def looped(via: Iterable[str], name: str) -> bool:
    """Whether a call was here before (RFC 9110 7.6.3), or in too many gateways of this kind."""
    entries = [entry.split() for value in via for entry in value.lower().split(",")]
    names = [entry[1] for entry in entries if len(entry) > 1]
    kin = sum(known.startswith(_FAMILY) for known in names)
    return name.lower() in names or kin > _MOST_OF_FAMILY


# --- Host ----------------------------------------------------------------------------------------

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def valid_host(value: str) -> bool:
    """Whether a `Host` names one host: the server's parser takes lists and userinfo too."""
    return _HOST.fullmatch(value) is not None

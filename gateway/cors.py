"""Which pages of other origins may make bulk calls: what a browser is told (Fetch, CORS protocol).

Nothing is refused here. The answer is the same for everybody; a browser keeps it from a page
whose origin it does not name.
"""

from __future__ import annotations

from gateway.batch import Headers
from gateway.config import Cors as Declared

MAX_AGE = "600"
"""Seconds for which a browser may keep a preflight's answer; left to itself it takes five."""

EXPOSED = "Retry-After, Server-Timing, X-Request-Id"
"""What a page may read of an answer beside the few fields that it always may."""


class Cors:
    """The setting `cors`, as fields of answers."""

    def __init__(self, declared: Declared) -> None:
        self._everybody = "*" in declared.origins
        self._origins = frozenset(map(_as_sent, declared.origins)) - {"*"}
        self._credentials = declared.credentials and not self._everybody
        # A page has to ask for every type of body but three, and JSON is none of them.
        self._headers = ", ".join(dict.fromkeys(("Content-Type", *declared.headers)))

    def names(self, origin: str) -> bool:
        """Whether this one is named: everybody is nobody in particular."""
        return origin in self._origins

    def fields(self, origin: str | None) -> Headers:
        """What every answer of a bulk endpoint carries; `origin` is the request's."""
        return self._granted(origin, (("Access-Control-Expose-Headers", EXPOSED),))

    def preflight(self, origin: str | None) -> Headers:
        """What the answer to a preflight carries."""
        return self._granted(
            origin,
            (
                ("Access-Control-Allow-Methods", "POST"),
                ("Access-Control-Allow-Headers", self._headers),
                ("Access-Control-Max-Age", MAX_AGE),
            ),
        )

    def _granted(self, origin: str | None, rest: Headers) -> Headers:
        """1. Everybody may: the answer does not depend on who asks, or on whether it is a page.
        2. Some may: it names the one that asks if it is among them, and caches are to know."""
        if self._everybody:
            return (("Access-Control-Allow-Origin", "*"), *rest)
        if origin not in self._origins:
            return (_VARY,)
        allowed = (("Access-Control-Allow-Origin", origin), *rest, _VARY)
        return (*allowed, _CREDENTIALS) if self._credentials else allowed


_VARY = ("Vary", "Origin")
_CREDENTIALS = ("Access-Control-Allow-Credentials", "true")


def _as_sent(origin: str) -> str:
    """As browsers write it (RFC 6454 6.2): in lower case, without the scheme's own port."""
    origin = origin.lower()
    scheme, _, _ = origin.partition(":")
    own = {"http": ":80", "https": ":443"}.get(scheme, "")
    return origin.removesuffix(own)

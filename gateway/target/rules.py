"""The operator's rules: which methods and paths a subrequest may have."""

from __future__ import annotations

import re
from typing import Literal

from gateway.batch import Failure
from gateway.target.form import readings
from gateway.target.patterns import Pattern, joined

_METHOD_DENIED = Failure(
    "http_request_denied", "method_denied", message="the method is not allowed here"
)
_PATH_DENIED = Failure("http_request_denied", "path_denied", message="the path is not allowed here")
_SLASH_DENIED = Failure(
    "http_request_denied", "encoded_slash", message="an encoded slash is not allowed here"
)


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class PathRules:
    """Deny wins, and an empty `allow` is all. A slash at a path's end makes no difference."""

    def __init__(
        self,
        allow: tuple[Pattern, ...] = (),
        deny: tuple[Pattern, ...] = (),
        methods: frozenset[str] = METHODS,
        encoded_slash: Literal["auto", "keep", "refuse"] = "auto",
    ) -> None:
        self.methods = methods
        self._any = bool(allow or deny)
        self._allowed = joined(allow, "/?") if allow else None
        self._denied = joined(deny, "/?")
        if encoded_slash == "auto":
            encoded_slash = "refuse" if self._any else "keep"
        self.slash = encoded_slash
        """What becomes of an encoded slash: it is data while no rule reads the path."""
        reads = self._any or self.slash == "refuse"
        self.whatever_path: frozenset[str] = frozenset() if reads else methods
        """Methods that are allowed whatever the path is: all or none."""

    def refusal(self, method: str, target: str) -> Failure | None:
        """Why a subrequest (target in normal form) may not be sent, or None."""
        if method not in self.methods:
            return _METHOD_DENIED
        path = target.partition("?")[0]
        if self.slash == "refuse" and _ENCODED_SLASH.search(path):
            return _SLASH_DENIED
        if self._any and not all(map(self._permitted, readings(path))):
            return _PATH_DENIED
        return None

    def _permitted(self, reading: str) -> bool:
        """One way in which the path can be read: each must be allowed, and none denied."""
        if self._denied.fullmatch(reading):
            return False
        return self._allowed is None or self._allowed.fullmatch(reading) is not None


_ENCODED_SLASH = re.compile(r"%(?:25)?2[Ff]")

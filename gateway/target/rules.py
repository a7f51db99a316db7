"""The operator's rules: which methods and paths a subrequest may have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from gateway.batch import Failure
from gateway.target.form import decoded
from gateway.target.patterns import Pattern, joined

_METHOD_DENIED = Failure(
    "http_request_denied", "method_denied", message="the method is not allowed here"
)
_PATH_DENIED = Failure("http_request_denied", "path_denied", message="the path is not allowed here")
_SLASH_DENIED = Failure(
    "http_request_denied", "encoded_slash", message="an encoded slash is not allowed here"
)


@dataclass(frozen=True)
class PathRules:
    """Deny wins, and an empty `allow` is all. A slash at a path's end makes no difference."""

    allow: tuple[Pattern, ...] = ()
    deny: tuple[Pattern, ...] = ()
    methods: frozenset[str] = frozenset(
        {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    )
    encoded_slash: Literal["auto", "keep", "refuse"] = "auto"

    @cached_property
    def slash(self) -> Literal["keep", "refuse"]:
        """What becomes of an encoded slash: it is data while no rule reads the path."""
        if self.encoded_slash == "auto":
            return "refuse" if self.allow or self.deny else "keep"
        return self.encoded_slash

    @cached_property
    def whatever_path(self) -> frozenset[str]:
        """Methods that are allowed whatever the path is: all or none."""
        reads = self.allow or self.deny or self.slash == "refuse"
        return frozenset() if reads else self.methods

    def refusal(self, method: str, target: str) -> Failure | None:
        """Why a subrequest (target in normal form) may not be sent, or None."""
        if method not in self.methods:
            return _METHOD_DENIED
        path = target.partition("?")[0]
        if self.slash == "refuse" and _ENCODED_SLASH.search(path):
            return _SLASH_DENIED
        if (self.allow or self.deny) and not self._permitted(path):
            return _PATH_DENIED
        return None

    def _permitted(self, path: str) -> bool:
        """Every reading of the path is allowed, and none denied."""
        return not any(
            self._denied.fullmatch(reading) or (self.allow and not self._allowed.fullmatch(reading))
            for reading in _readings(path)
        )

    @cached_property
    def _allowed(self) -> re.Pattern[str]:
        return joined(self.allow, "/?")

    @cached_property
    def _denied(self) -> re.Pattern[str]:
        return joined(self.deny, "/?")


_ENCODED_SLASH = re.compile(r"%(?:25)?2[Ff]")
_PARAMETERS = re.compile(r"(?:(?<!/)/*+;[^/]*+)+")


def _readings(path: str) -> Iterator[str]:
    """The path as backends read it: decoded, and without path parameters, which Java's cut off
    (`/a;x/b` and `/a/;x/b` are `/a/b` to them)."""
    for reading in decoded(path):
        yield reading
        if ";" in reading:
            yield _PARAMETERS.sub("", reading) or "/"

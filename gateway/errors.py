"""The client's mistakes, each with its place and status. Raised before anything is sent."""

from __future__ import annotations

REASONS = {
    "bad_json": 400,
    "bad_shape": 400,
    "bad_target": 400,
    "bad_reference": 400,
    "missing_parameter": 400,
    "body_too_large": 413,
    "too_many_subrequests": 413,
    "too_deep": 400,
    "unsupported_media_type": 415,
    "request_timeout": 408,
    "loop_detected": 508,
    "overloaded": 503,
    "shutting_down": 503,
}
"""Why a whole bulk call is refused -> the HTTP status where the dialect names no other. The keys
are the `reason` label of `gateway_refused_batches_total`."""


class Refused(Exception):
    """The whole batch is wrong: nothing is sent, the dialect writes the answer.

    `message` names the place first: `requests[3].url: another host is not allowed`. It never
    quotes input.
    """

    def __init__(self, reason: str, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return REASONS[self.reason]


class BadTarget(ValueError):
    """An address that must not be sent. `slug` is one of `target.MISTAKES`; no place, no input."""

    def __init__(self, slug: str, message: str) -> None:
        super().__init__(message)
        self.slug = slug
        self.message = message


class BadHeader(ValueError):
    """A header field that must not be sent. No place, no input."""

    def __init__(self, slug: str, message: str) -> None:
        super().__init__(message)
        self.slug = slug
        self.message = message


class Unresolved(ValueError):
    """A reference that finds nothing. `message` says which part of it, never its text."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Exhausted(Unresolved):
    """There is no room left for what would be made."""


class TooMany(Unresolved):
    """It finds more than may be gone through, or kept."""

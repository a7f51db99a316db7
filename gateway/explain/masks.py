"""Values that let their holder in are masked, so that a plan can be shown around."""

from __future__ import annotations

import re
from urllib.parse import unquote

from gateway.batch import Headers
from gateway.headers import normal

MASK = "***"

_SECRET = re.compile(
    r"auth|token|cookie|(?<!idempotency-)key|secret|passw|session|signature|credential|jwt"
)
"""Better one name too many: who reads a plan can do without a value, but not unread one."""
_SCHEME = re.compile(r"(?:basic|bearer|digest|negotiate|token) ", re.IGNORECASE)
# What is one whole reference is no secret yet.
_PARAMETER = re.compile(r"(?<=[?&])([^=&]*+)=(?!\$?\{[^&]*\}(?:&|\Z))[^&]++")
_STRING = r'"((?:[^"\\]|\\.)*+)"'
_MEMBER = re.compile(
    rf'{_STRING}(\s*+:\s*+)(?!"\$?\{{[^"]*\}}"){_STRING}',
    re.DOTALL,
)


def masked_target(target: str) -> str:
    """What the query says under the name of a secret is masked."""
    return _PARAMETER.sub(
        lambda found: f"{found[1]}={MASK}" if _secret(unquote(found[1])) else found[0], target
    )


def masked_json(text: str) -> str:
    """The same for the strings of a JSON text."""
    return _MEMBER.sub(
        lambda found: f'"{found[1]}"{found[2]}"{MASK}"' if _secret(found[1]) else found[0], text
    )


def masked_fields(fields: Headers, credentials: frozenset[str]) -> Headers:
    """The scheme of an `Authorization` stays: it is often what is wrong."""
    return tuple([(name, _masked(name, value, credentials)) for name, value in fields])


def _masked(name: str, value: str, credentials: frozenset[str]) -> str:
    if normal(name) not in credentials and not _secret(name):
        return masked_target(value)  # an address, a `Referer` say, may hold one
    scheme = _SCHEME.match(value)
    return f"{scheme[0] if scheme else ''}{MASK}"


def _secret(name: str) -> bool:
    return _SECRET.search(normal(name)) is not None

"""Values that let their holder in are masked, so that a plan can be shown around."""

from __future__ import annotations

import re
from urllib.parse import unquote

from gateway.batch import Headers
from gateway.headers import normal

MASK = "***"

_SECRET = re.compile(
    r"auth|token|cookie|(?<!idempotency[-_.])key|secret|passw|passphrase|pwd|session|signature|hmac"
    r"|credential|assertion|bearer|jwt|saml|(?<![a-z])(?:sig|otp|sid)(?![a-z])"
)
"""Better one name too many: who reads a plan can do without a value, but not unread one."""
_SCHEME = re.compile(r"(?:basic|bearer|digest|negotiate|token) ", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<=[?&])([^=&?]*+)=")
_QUOTED = r'"([^"\\]*+(?:\\.?[^"\\]*+)*+)(?:"|\Z)'
# Each text is read from its beginning to its end and once: whatever stands in it, that is linear.
_TEXT = re.compile(rf"{_QUOTED}(?:(\s*+:\s*+){_QUOTED})?", re.DOTALL)


def masked_target(target: str) -> str:
    """What the query says under the name of a secret is masked, also in an address within it."""
    if "%" not in target and not _secret(target):
        return target
    shown, told = [], 0
    for found in _PARAMETER.finditer(target):
        if found.start() < told or not _secret(unquote(found[1])):
            continue
        begin, end = found.end(), target.find("&", found.end())
        end = len(target) if end < 0 else end
        whole = _is_reference(target, begin, end)
        shown += [target[told:end]] if whole else [target[told:begin], MASK]
        told = end
    return "".join([*shown, target[told:]])


def masked_json(text: str) -> str:
    """The same for the strings of a JSON text."""
    return _TEXT.sub(_masked_member, text)


def _masked_member(found: re.Match[str]) -> str:
    name, between, value = found.groups()
    if between is None or not _secret(name) or _is_reference(value, 0, len(value)):
        return found[0]
    return f'"{name}"{between}"{MASK}"'


def _is_reference(text: str, begin: int, end: int) -> bool:
    """What is one whole reference is no secret yet."""
    return text.startswith(("{", "${"), begin, end) and text.endswith("}", begin, end)


def masked_fields(fields: Headers, credentials: frozenset[str]) -> Headers:
    """The scheme of an `Authorization` stays: it is often what is wrong."""
    return tuple([(name, _masked(name, value, credentials)) for name, value in fields])


def _masked(name: str, value: str, credentials: frozenset[str]) -> str:
    if normal(name) not in credentials and not _secret(name):
        return masked_target(value)  # an address, a `Referer` say, may hold one
    scheme = _SCHEME.match(value)
    return f"{scheme[0] if scheme else ''}{MASK}"


def _secret(name: str) -> bool:
    return _SECRET.search(name.lower()) is not None

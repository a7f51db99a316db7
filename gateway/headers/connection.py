"""What the `Connection` field names: fields for one hop, but never those meant for the backend.

A client that could name `Authorization` or an identity field there would have a proxy take them
away on the way to a backend that believes what is absent (CVE-2024-45410).
"""

from __future__ import annotations

from gateway.batch import Headers
from gateway.headers.names import Kind, kind, normal
from gateway.headers.policy import HeaderPolicy

_END_TO_END = frozenset(
    {
        "accept",
        "accept-language",
        "age",
        "allow",
        "api-key",
        "apikey",
        "authorization",
        "cache-control",
        "cookie",
        "date",
        "etag",
        "expires",
        "last-modified",
        "location",
        "oauth-token",
        "origin",
        "pragma",
        "referer",
        "retry-after",
        "set-cookie",
        "token",
        "user-agent",
        "vary",
        "www-authenticate",
        "x-access-token",
        "x-api-key",
        "x-auth-token",
        "x-csrf-token",
    }
)
"""Meant for the other end whatever a `Connection` option says (RFC 9110 7.6.1), beside all that is
of a kind of its own."""


def options(fields: Headers) -> frozenset[str]:
    """The options of all `Connection` fields, in normal form."""
    values = [value for name, value in fields if normal(name) == "connection"]
    return frozenset([normal(option.strip()) for value in values for option in value.split(",")])


def removed_by(
    named: frozenset[str], policy: HeaderPolicy, credentials: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Of the names in `named`, those whose fields go no further."""
    return frozenset(
        name
        for name in named - _END_TO_END - policy.never_from_subrequest - credentials
        if kind(name) is Kind.PLAIN
    )

"""Names of header fields: the form in which they are compared, and what each one is to us.

The lists are the policy of DESIGN part 6; nothing else in the gateway knows a field by name in
order to strip it.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache


@lru_cache(maxsize=256)  # names come from clients, so the cache is bounded
def normal(name: str) -> str:
    """The form in which names are compared: `X_Real.IP` is `x-real-ip`."""
    return name.lower().replace("_", "-").replace(".", "-")


class Kind(Enum):
    """What a field is to us."""

    NEVER = "no subrequest has it from anyone else than the gateway"
    OUTER = "it speaks of the bulk call and of nothing inside it"
    IDENTITY = "it says who the caller is or where the call came from"
    TRACE = "it places the call in a trace"
    PLAIN = "anything else"


HOP_BY_HOP = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""They concern one connection and never travel on (RFC 9110 7.6.1 and 11.7, RFC 7540 3.2.1)."""

FRAMING = frozenset({"content-length", "expect"})
"""Whoever sends a body says how long it is, and whether to wait before it."""

OVERRIDES = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
"""They make another method of the one that was checked. Unlike DESIGN part 6, not even a trusted
peer's are inherited: they were said of the outer POST."""

WRITTEN = frozenset(
    {
        "accept-encoding",
        "host",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    }
)
"""The gateway writes them itself."""

_NEVER = HOP_BY_HOP | FRAMING | OVERRIDES | WRITTEN | {"max-forwards"}

_OUTER = frozenset(
    {
        "digest",
        "dpop",
        "idempotency-key",  # one key for a hundred effects would leave ninety-nine undone
        "prefer",
        "range",
        "repr-digest",
    }
)
_OUTER_PREFIXES = ("content-", "if-", "signature")

_TRACE = frozenset({"traceparent", "tracestate"})

_IDENTITY = frozenset(
    {
        "cdn-src-ip",
        "cf-pseudo-ipv4",
        "cf-visitor",
        "client-cert",
        "client-cert-chain",
        "client-ip",
        "do-connecting-ip",
        "fastly-client",
        "fastly-client-ip",
        "fastly-ssl",
        "forwarded",
        "front-end-https",
        "incap-client-ip",
        "proxy",  # becomes HTTP_PROXY in a CGI environment (CVE-2016-5385)
        "proxy-client-ip",
        "true-client-ip",
        "x-anonymous-consumer",
        "x-client-ip",
        "x-clientip",
        "x-cluster-client-ip",
        "x-forward-for",
        "x-forward-proto",
        "x-forwarded",
        "x-host",
        "x-http-host-override",
        "x-jwt-assertion",
        "x-nf-client-connection-ip",
        "x-originating-ip",
        "x-proxy-remote-user",
        "x-proxy-user",
        "x-proxyuser-ip",
        "x-real-ip",
        "x-rewrite-url",
        "x-scheme",
        "x-script-name",
        "x-true-client-ip",
        "x-url-scheme",
        "x-userinfo",
    }
)
_IDENTITY_PREFIXES = (
    "cf-access-",
    "cf-client-",
    "cf-connecting-",
    "cloudfront-viewer-address",
    "fly-client-",
    "forwarded-",
    "iv-creds",
    "iv-groups",
    "iv-user",
    "l5d-client-",
    "mellon-",
    "ngrok-auth-",
    "oam-remote-user",
    "oidc-",
    "remote-",
    "shib-",
    "sm-serversession",
    "sm-universalid",
    "sm-user",
    "ssl-client-",
    "tailscale-user-",
    "wl-proxy-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-appengine-",
    "x-arr-clientcert",
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-cert",
    "x-client-dn",
    "x-client-ssl-",
    "x-client-verify",
    "x-clientcert",
    "x-consumer-",
    "x-credential-",
    "x-envoy-",
    "x-forwarded-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-iisnode-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-original-",
    "x-pomerium-",
    "x-remote-",
    "x-ssl-",
    "x-sucuri-clientip",
    "x-tls-client-",
    "x-vercel-forwarded-",
    "x-vouch-",
    "x-webauth-",
)
"""What common proxies tell backends about the caller, and what backends believe of it. Not those
that clients themselves log in with, such as `X-Auth-User` or `X-User-Id`, nor what a network says
of a place or a device: a backend that is told today is to be told behind us. A backend of one's own
names: `headers.never_from_subrequest`."""


@lru_cache(maxsize=256)
def kind(name: str) -> Kind:
    """What a field is to us, by its name in normal form."""
    if name in _NEVER:
        return Kind.NEVER
    if name in _OUTER or name.startswith(_OUTER_PREFIXES):
        return Kind.OUTER
    if name in _IDENTITY or name.startswith(_IDENTITY_PREFIXES):
        return Kind.IDENTITY
    return Kind.TRACE if name in _TRACE else Kind.PLAIN


def odd(spelling: str) -> bool:
    """Whether something else may stand for `-` in a name."""
    return "_" in spelling or "." in spelling


@lru_cache(maxsize=256)
def disguised(spelling: str) -> bool:
    """Whether `_` or `.` stands for `-` in a field that only we or a trusted peer may write.

    A proxy that sets such a field replaces its own spelling alone and hands the others on, so they
    are its client's word (CVE-2025-64484).
    """
    return odd(spelling) and kind(normal(spelling)) in (Kind.NEVER, Kind.IDENTITY)

"""Header fields on their way through: what a subrequest inherits, what it may bring, what we write.

Pure functions over tuples of pairs. A part may change nothing about who the caller is or where the
call goes, whatever the spelling: names are compared in their normal form, because a CGI, WSGI, Rack
or PHP backend sees `X_Real-IP` and `x-real-ip` as one variable (CVE-2022-24112, CVE-2025-64484).
Text pairs serve bulk calls; pass-through works on the pairs as received, so that order, spelling
and repetition survive.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gateway.batch import HeaderRules, Headers, RawHeaders
from gateway.errors import BadHeader

# --- names ---------------------------------------------------------------------------------------


def normal(name: str) -> str:
    """The form in which names are compared: `X_Real.IP` is `x-real-ip`."""
    return name.lower().replace("_", "-").replace(".", "-")


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
"""RFC 9110 7.6.1 and 11.7, RFC 7540 3.2.1. They concern one connection and never travel on."""

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
"""Fields the gateway writes itself in every subrequest: nobody else's survive beside them."""

OVERRIDES = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
"""They make another method of the one that was checked."""

_TRACE = frozenset({"traceparent", "tracestate"})

_IDENTITY = frozenset(
    {
        "cf-connecting-ip",
        "client-cert",
        "client-cert-chain",
        "client-ip",
        "fastly-client-ip",
        "forwarded",
        "forwarded-for",
        "proxy",  # becomes HTTP_PROXY in a CGI environment (CVE-2016-5385)
        "remote-addr",
        "true-client-ip",
        "x-arr-clientcert",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-forwarded",
        "x-host",
        "x-originating-ip",
        "x-proxyuser-ip",
        "x-real-ip",
        "x-rewrite-url",
        "x-webauth-user",
    }
)
_IDENTITY_PREFIXES = (
    "remote-",
    "ssl-client-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-authenticated-",
    "x-client-cert",
    "x-client-dn",
    "x-client-verify",
    "x-consumer-",
    "x-credential-",
    "x-envoy-",
    "x-forwarded-",
    "x-goog-authenticated-user-",
    "x-ms-client-principal",
    "x-original-",
    "x-remote-",
    "x-ssl-",
)
"""What common proxies tell backends about the caller, and what backends believe of it."""

_ABOUT_THE_OUTER_CALL = frozenset(
    {
        "digest",
        "dpop",
        "expect",
        "idempotency-key",  # one key for a hundred effects would undo ninety-nine of them
        "max-forwards",
        "prefer",
        "range",
        "repr-digest",
        "want-digest",
    }
)
_ABOUT_THE_OUTER_CALL_PREFIXES = ("content-", "if-", "signature")
"""True of the bulk call and of nothing it contains: its contents, conditions and signatures."""

_UNREMOVABLE = frozenset(
    {
        "authorization",
        "cache-control",
        "cookie",
        "date",
        "etag",
        "host",
        "location",
        "set-cookie",
        "via",
        "www-authenticate",
        "x-request-id",
    }
)
"""End-to-end by definition: a `Connection` option that names one is ignored (RFC 9110 7.6.1)."""


def identifies(name: str) -> bool:
    """Whether a field (normal form) says who the caller is or where it came from."""
    return name in _IDENTITY or name.startswith(_IDENTITY_PREFIXES)


# --- rules of the operator -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeaderPolicy:
    """The operator's lists; names in any spelling, kept in normal form."""

    never_inherit: frozenset[str] = frozenset()
    never_from_subrequest: frozenset[str] = frozenset()
    """Fields that identify the caller to this backend: `Connection` cannot remove them either."""
    odd_names: frozenset[str] = frozenset()
    """Names with `_` or `.` that a subrequest may bring all the same."""

    def __post_init__(self) -> None:
        for field in ("never_inherit", "never_from_subrequest", "odd_names"):
            object.__setattr__(self, field, frozenset(map(normal, getattr(self, field))))


class TrustedProxies:
    """The peers whose word about the caller is taken.

    Networks in CIDR form, or `unix` for every peer on a unix socket. Being on one is not enough
    in itself: a proxy of the same machine may forward what its clients made up.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Raises ValueError for what is no network."""
        words = frozenset(entries)
        self._unix = "unix" in words
        networks = [ip_network(word, strict=False) for word in sorted(words - {"unix"})]
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(networks)

    def trusted(self, peer: str | None) -> bool:
        """`peer` is the address of the connection's other end; None on a unix socket."""
        if peer is None:
            return self._unix
        if not self._networks:
            return False
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


# --- subrequests ---------------------------------------------------------------------------------


def inherit(outer: Headers, rules: HeaderRules, policy: HeaderPolicy, *, trusted: bool) -> Headers:
    """What every subrequest of a batch gets from the outer call. Once per batch."""
    named = _connection_options(value for name, value in outer if name.lower() == "connection")
    never = HOP_BY_HOP | WRITTEN | OVERRIDES | (_ABOUT_THE_OUTER_CALL - rules.also_inherited)
    never |= _removable(named, policy, rules.credentials)
    never |= policy.never_inherit | frozenset(map(normal, rules.never_inherited))
    return tuple(
        field
        for field in outer
        if (name := normal(field[0])) not in never
        and not name.startswith(_ABOUT_THE_OUTER_CALL_PREFIXES)
        and (trusted or not (identifies(name) or name in policy.never_from_subrequest))
    )


_MOST = 64
_LONGEST_NAME = 128
_LONGEST_VALUE = 8192
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\xa0-\xff]*")
_NEVER_OWN = (
    HOP_BY_HOP
    | WRITTEN
    | OVERRIDES
    | _TRACE
    | frozenset({"content-length", "expect", "max-forwards"})
)


def own(pairs: Iterable[tuple[str, str]], policy: HeaderPolicy) -> Headers:
    """A subrequest's own fields, checked. Raises BadHeader for what must not be sent.

    Left out without a word, because real clients send them and mean no harm: framing, `Host`,
    `Accept-Encoding` and all that only the gateway or the operator may say.
    """
    kept: list[tuple[str, str]] = []
    spelling: dict[str, str] = {}
    for count, (name, value) in enumerate(pairs):
        if count == _MOST:
            raise BadHeader("too_many_headers", f"more than {_MOST} header fields")
        _check(name, value)
        compared = normal(name)
        if compared in _NEVER_OWN or compared in policy.never_from_subrequest:
            continue
        if identifies(compared):
            continue
        if ("_" in name or "." in name) and compared not in policy.odd_names:
            raise BadHeader("bad_header_name", "a header name holds `_` or `.`")
        if spelling.setdefault(compared, name) != name:
            raise BadHeader("two_spellings", "two spellings of one header name")
        kept.append((name, value.strip(" \t")))
    return tuple(kept)


def _check(name: str, value: str) -> None:
    if len(name) > _LONGEST_NAME:
        raise BadHeader("bad_header_name", f"a header name is longer than {_LONGEST_NAME} bytes")
    if _TOKEN.fullmatch(name) is None:
        raise BadHeader("bad_header_name", "a header name is no token")
    if len(value) > _LONGEST_VALUE:
        raise BadHeader("bad_header_value", f"a header value is longer than {_LONGEST_VALUE} bytes")
    if _VALUE.fullmatch(value) is None:
        raise BadHeader("bad_header_value", "a header value holds a control or non-latin character")


def merge(inherited: Headers, own: Headers, rules: HeaderRules) -> Headers:
    """`own` (checked) over `inherited`, which may end in managed fields: they stay last.

    `inherited` itself when nothing differs, so that its bytes are made once per batch.
    """
    if not own or not rules.own_allowed:
        return inherited
    names = {normal(name) for name, _ in own}
    if not names.isdisjoint(rules.credentials):
        if rules.precedence == "own":
            names |= rules.credentials
        elif any(normal(name) in rules.credentials for name, _ in inherited):
            own = tuple(field for field in own if normal(field[0]) not in rules.credentials)
            names -= rules.credentials
            if not own:
                return inherited
    return own + tuple([field for field in inherited if normal(field[0]) not in names])


JSON_BODY: Headers = (("Content-Type", "application/json"),)


def body_type(own: Headers) -> Headers:
    """What is to be added for a subrequest with a body: its own type stands, else JSON is said."""
    return () if first(own, "content-type") is not None else JSON_BODY


def first(headers: Headers, name: str) -> str | None:
    """The first value of a name (normal form)."""
    for key, value in headers:
        if normal(key) == name:
            return value
    return None


def idempotency_key(outer: Headers) -> str | None:
    """The outer key; a subrequest gets `<key>-<index>`."""
    return first(outer, "idempotency-key")


# --- written by the gateway ----------------------------------------------------------------------


def managed(
    outer: Headers,
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
    """The fields only the gateway writes: once per batch, once per pass-through request.

    `host` is the setting (`preserve`, `upstream` or a name), `authority` the backend's own.
    """
    outer_host = first(outer, "host") or ""
    sent = {"preserve": outer_host or authority, "upstream": authority}.get(host, host)
    fields = [("Host", sent)]
    fields += _forwarded(outer if trusted else (), peer, scheme, outer_host)
    fields.append(("Via", _appended(outer, "via", f"{version} {via}")))
    if bulk:
        # Compressed bytes must not reach an answer that is one document.
        fields.append(("Accept-Encoding", "identity"))
    return tuple(fields)


def _forwarded(believed: Headers, peer: str | None, scheme: str, host: str) -> Headers:
    """`believed` is the outer fields of a trusted peer, else nothing.

    Only the address makes a list. Of scheme and host a trusted peer's word stands alone: backends
    compare `X-Forwarded-Proto` with `https` as a whole.
    """
    fields = []
    if addresses := _appended(believed, "x-forwarded-for", peer or ""):
        fields.append(("X-Forwarded-For", addresses))
    fields.append(("X-Forwarded-Proto", first(believed, "x-forwarded-proto") or scheme))
    if named := first(believed, "x-forwarded-host") or host:
        fields.append(("X-Forwarded-Host", named))
    return tuple(fields)


def _appended(headers: Headers, name: str, value: str) -> str:
    values = [old for key, old in headers if old and normal(key) == name]
    return ", ".join([*values, value] if value else values)


_FAMILY = "bulk-gateway"
_MOST_OF_FAMILY = 5


def looped(via: Iterable[str], name: str) -> bool:
    """Whether the call was here before (RFC 9110 7.6.3), or in too many gateways like this one."""
    entries = [entry.split() for value in via for entry in value.lower().split(",")]
    names = [entry[1] for entry in entries if len(entry) > 1]
    family = sum(known.startswith(_FAMILY) for known in names)
    return name.lower() in names or family > _MOST_OF_FAMILY


_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def valid_host(value: str) -> bool:
    """Whether a `Host` names one host: the server's parser takes lists and userinfo too."""
    return _HOST.fullmatch(value) is not None


# --- pass-through --------------------------------------------------------------------------------


def text(raw: RawHeaders) -> Headers:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)


def raw(headers: Headers) -> RawHeaders:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)


def upgrade_asked(fields: RawHeaders) -> bytes | None:
    """The protocol that a request asks to switch to, or an answer has switched to.

    Never h2c: the backend would then take requests that no rule of ours has seen.
    """
    if b"upgrade" not in _connection_tokens(fields):
        return None
    asked = b", ".join(value for name, value in fields if name.lower() == b"upgrade").strip()
    return None if not asked or b"h2c" in asked.lower() else asked


def forward_request(
    fields: RawHeaders,
    written: Headers,
    policy: HeaderPolicy,
    *,
    trusted: bool,
    overrides: bool = True,
    upgrade: bytes | None = None,
) -> RawHeaders:
    """A pass-through request's fields as they go up, `written` being `managed(..., bulk=False)`.

    Framing is left out: whoever sends the body writes it. So is `Expect`, which the server has
    answered. `overrides=False` drops method overrides, where the method was checked.
    """
    never = HOP_BY_HOP | _FRAMING | frozenset(normal(name) for name, _ in written)
    never |= _removable(_text_options(fields), policy)
    if not overrides:
        never |= OVERRIDES
    kept = tuple(
        field
        for field in fields
        if (name := normal(field[0].decode("latin-1"))) not in never
        and (trusted or not (identifies(name) or name in policy.never_from_subrequest))
    )
    first_field, *others = raw(written)
    return (first_field, *kept, *others, *_switch(upgrade))


_FRAMING = frozenset({"content-length", "expect"})


def forward_response(fields: RawHeaders, *, upgrade: bytes | None = None) -> RawHeaders:
    """An answer's fields on their way down: all that is end-to-end, as it came."""
    named = _connection_tokens(fields)
    never = _RAW_HOP_BY_HOP
    if not named <= _HARMLESS_OPTIONS:
        never |= {name.encode("latin-1") for name in _removable(_text_options(fields))}
    kept = tuple([field for field in fields if field[0].lower() not in never])
    return kept + _switch(upgrade)


_RAW_HOP_BY_HOP = frozenset(name.encode() for name in HOP_BY_HOP)
_HARMLESS_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade"})


def _switch(upgrade: bytes | None) -> RawHeaders:
    return ((b"Upgrade", upgrade), (b"Connection", b"Upgrade")) if upgrade else ()


def max_forwards(fields: RawHeaders) -> int | None:
    """How often an OPTIONS request may still be forwarded (RFC 9110 7.6.2)."""
    for name, value in fields:
        if name.lower() == b"max-forwards" and value.isdigit():
            return int(value[:9])
    return None


# --- Connection ----------------------------------------------------------------------------------


def _connection_tokens(fields: RawHeaders) -> frozenset[bytes]:
    values = [value for name, value in fields if name.lower() == b"connection"]
    return frozenset(option.strip().lower() for value in values for option in value.split(b",")) - {
        b""
    }


def _text_options(fields: RawHeaders) -> frozenset[str]:
    return frozenset(normal(option.decode("latin-1")) for option in _connection_tokens(fields))


def _connection_options(values: Iterable[str]) -> frozenset[str]:
    return frozenset(normal(option.strip()) for value in values for option in value.split(","))


def _removable(
    named: frozenset[str],
    policy: HeaderPolicy | None = None,
    credentials: Collection[str] = (),
) -> frozenset[str]:
    """The names that `Connection` may remove: not credentials, identities, contents or ours."""
    return frozenset(
        name
        for name in named
        if name not in _UNREMOVABLE
        and name not in credentials
        and not name.startswith("content-")
        and not identifies(name)
        and not (policy and name in policy.never_from_subrequest)
    )

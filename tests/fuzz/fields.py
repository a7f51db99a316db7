"""Header fields: a part changes nothing about who the caller is or where a request ends.

An input is lines: those of the outer call, an empty one, those of a subrequest.
"""

from __future__ import annotations

from collections import Counter

from gateway import headers
from gateway.batch import HeaderRules, Headers
from gateway.errors import BadHeader
from gateway.upstream import wire
from tests.fuzz.hunt import Signs

WORDS = (
    b"\n", b"\n\n", b": ", b":", b"Host", b"X-Real-IP", b"x_real.ip", b"X-Forwarded-For",
    b"Forwarded", b"Via", b"Connection: close, ", b"Connection", b"Content-Length: 5",
    b"Transfer-Encoding: chunked", b"Expect", b"TE", b"Authorization: own", b"token: t",
    b"apiKey: k", b"OAuth-Token", b"Cookie", b"If-Match", b"Upgrade: h2c",
    b"X-HTTP-Method-Override: DELETE", b"X-Request-Id", b"Accept-Encoding: gzip", b"Content-Type",
    b"X-A", b"x_a", b"X-Tenant: t", b"Remote-User", b"X-SSL-Client-Verify", b"traceparent",
    b"Max-Forwards: 0", b"bulk-gateway-1", b"1.1 us", b"\r", b"\0", b"\t", b"\x80", b"\xff", b"_",
    b".", b"-",
)  # fmt: skip
SEEDS = (
    b"Host: a\nAuthorization: outer\nX-A: 1\n\nX-A: 2\nAccept: x",
    b"Host: a\nConnection: close, X-A\nCookie: c\nX_Real_IP: 1\n\ntoken: t\napiKey: k",
    b"Host: a\ntoken: t\nVia: 1.1 b\nIf-Match: x\nUpgrade: websocket\nConnection: upgrade\n\n",
)

# From RFC 9110 and DESIGN part 6, not from the tables that are under test.
HOP_BY_HOP = {
    "connection",
    "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
OVERRIDES = {"x-http-method", "x-http-method-override", "x-method-override"}
IDENTITY = {
    "forwarded", "x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "x-original-url",
    "x-rewrite-url", "x-client-cert", "x-ssl-client-verify", "remote-user", "true-client-ip",
}  # fmt: skip
WRITTEN_ONCE = {"host", "via", "x-forwarded-for", "x-forwarded-proto", "accept-encoding"}
NEVER = HOP_BY_HOP | OVERRIDES | IDENTITY | {"content-length", "expect", "max-forwards"}
NEVER_OWN = NEVER | WRITTEN_ONCE | {"x-forwarded-host", "x-request-id", "traceparent"}

RULES = (
    HeaderRules(credentials=frozenset({"token", "apikey", "authorization"})),
    HeaderRules(credentials=frozenset({"oauth-token", "authorization"}), precedence="outer"),
    HeaderRules(never_inherited=frozenset({"prefer"}), also_inherited=frozenset({"if-match"})),
)
POLICY = headers.HeaderPolicy(never_from_subrequest=frozenset({"X-Tenant"}))


def run(data: bytes) -> Signs:
    above, _, below = data.partition(b"\n\n")
    outer = tuple(pair for pair in _pairs(above) if _may_be_received(*pair))
    signs = _check_passing(outer)
    brought = _pairs(below)
    names = {headers.normal(name) for name, _ in brought}
    try:
        own = headers.own(brought, POLICY)
    except BadHeader as bad:
        return signs | {bad.message}
    wire.encode(own)
    assert not {headers.normal(name) for name, _ in own} & (NEVER_OWN | {"x-tenant"})
    signs |= {f"left out: {name}" for name in names & NEVER_OWN}
    for rules in RULES:
        signs |= _check_subrequest(outer, own, rules)
    return signs


def _pairs(lines: bytes) -> Headers:
    pairs = (line.partition(":") for line in lines.decode("latin-1").split("\n") if line)
    return tuple((name, value.strip(" \t")) for name, _, value in pairs)


def _may_be_received(name: str, value: str) -> bool:
    """What the server's parser lets through: tokens, and values without control characters."""
    try:
        wire.encode((("X", value), (f"X{name}", "")))
    except ValueError:
        return False
    return bool(name)


def _written(outer: Headers, *, bulk: bool) -> Headers:
    return headers.managed(
        headers.by_name(outer),
        host="preserve",
        authority="backend",
        peer="127.0.0.1",
        trusted=False,
        scheme="http",
        via="us",
        bulk=bulk,
    )


def _check_subrequest(outer: Headers, own: Headers, rules: HeaderRules) -> Signs:
    inherited = headers.inherit(outer, rules, POLICY, trusted=False)
    written = _written(outer, bulk=True)
    merged = headers.merge(inherited + written, own, rules)
    wire.encode(merged)
    names = Counter(headers.normal(name) for name, _ in merged)
    assert merged[-len(written) :] == written
    assert all(names[name] == 1 for name in WRITTEN_ONCE)
    assert not names.keys() & NEVER
    callers = [_credentials(fields, rules) for fields in (own, inherited)]
    said = _credentials(merged, rules)
    assert said in callers
    return frozenset({f"credentials {bool(callers[0])} {bool(callers[1])} {bool(said)}"})


def _credentials(fields: Headers, rules: HeaderRules) -> set[tuple[str, str]]:
    return {pair for pair in fields if headers.normal(pair[0]) in rules.credentials}


def _check_passing(outer: Headers) -> Signs:
    raw = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in outer)
    offered, hops = headers.upgrade_asked(raw), headers.max_forwards(raw)
    passed = headers.forward_request(
        outer, _written(outer, bulk=False), POLICY, trusted=False, upgrade=offered is not None
    )
    wire.encode(passed)
    names = Counter(headers.normal(name) for name, _ in passed)
    assert passed[0][0] == "Host"
    assert names["host"] == names["via"] == names["x-forwarded-for"] == 1
    forbidden = HOP_BY_HOP | {"content-length", "expect", "x-real-ip", "forwarded"}
    assert names.keys() & forbidden == ({"connection", "upgrade"} if offered else set())
    tenants = [pair for pair in passed if headers.normal(pair[0]) == "x-tenant"]
    assert tenants == [pair for pair in outer if headers.normal(pair[0]) == "x-tenant"]
    _check_answer(raw)
    looped = headers.looped([value for name, value in outer if name.lower() == "via"], "us")
    return frozenset({f"upgrade {bool(offered)} hops {hops is not None} looped {looped}"})


def _check_answer(raw: tuple[tuple[bytes, bytes], ...]) -> None:
    down = {name.lower().decode("latin-1") for name, _ in headers.forward_response(raw)}
    assert not down & HOP_BY_HOP
    assert {"set-cookie", "location"} & {name.lower().decode("latin-1") for name, _ in raw} <= down

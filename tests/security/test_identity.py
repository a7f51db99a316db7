"""Who the caller is and where the call goes is for the gateway to say, and for nobody else."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
import uvloop

from gateway.config.settings import HeaderLists, Upstream
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    SUGARCRM,
    TRUTO,
    Format,
    Pairs,
    echo,
    got,
    head,
    posted,
    siege,
    truto,
)
from tests.support.raw_backend import RawBackend, Request

FORGED = "6.6.6.6"
"""Stands in every forged field, so that none can arrive unnoticed."""

IDENTITIES = (
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-User",
    "X-Forwarded-Client-Cert", "X-Forwarded-Prefix", "X-Real-IP", "X-Client-IP", "True-Client-IP",
    "CF-Connecting-IP", "Forwarded", "X-Original-URL", "X-Original-Host", "X-Rewrite-URL",
    "X-Remote-User", "Remote-User", "X-Auth-Request-Email", "X-Authenticated-Userid",
    "X-Consumer-Username", "X-Credential-Identifier", "X-SSL-Client-Cert", "SSL-Client-S-DN",
    "X-Client-Cert", "Client-Cert", "X-Envoy-Original-Path", "X-Goog-Authenticated-User-Email",
    "X-MS-Client-Principal", "X-Amzn-Oidc-Identity", "Proxy", "X-Host", "X-Proxyuser-Ip",
    "Fly-Client-IP", "X-Azure-ClientIP", "X-Azure-SocketIP", "X-AppEngine-User-IP",
    "X-Authentik-Username", "X-Pomerium-Jwt-Assertion", "Tailscale-User-Login", "X-Vouch-User",
    "Front-End-Https", "X-Scheme", "X-Url-Scheme", "WL-Proxy-Client-IP", "CF-Visitor",
    "CloudFront-Viewer-Address", "X-WEBAUTH-Role", "X-Goog-IAP-JWT-Assertion", "OIDC-Claim-Email",
    "SM-User", "X-Userinfo", "X-Sucuri-ClientIP", "X-Vercel-Forwarded-For", "L5d-Client-Id",
)  # fmt: skip
OURS = (
    "Host", "Via", "X-Request-Id", "Accept-Encoding", "X-HTTP-Method-Override",
    "X-Method-Override", "X-HTTP-Method", "Max-Forwards", "Connection", "Proxy-Connection",
    "Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Authorization", "Expect", "traceparent",
    "tracestate",
)  # fmt: skip
"""No subrequest brings these either."""


def spellings(name: str) -> Iterator[str]:
    """Names that a CGI, WSGI, Rack or PHP backend takes for this one."""
    yield name
    yield name.lower()
    yield name.upper()
    yield name.swapcase()
    if "-" in name:
        yield name.replace("-", "_")
        yield name.replace("-", ".").lower()
        yield name.replace("-", "_", 1).upper()


def forged(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(spelling, FORGED) for name in names for spelling in dict.fromkeys(spellings(name))]


def variables(request: Request) -> Counter[str]:
    """How often the backend has a value for each variable of a CGI environment."""
    names = (name.decode("latin-1") for name, _ in request.headers)
    return Counter("".join(c if c.isalnum() else "_" for c in name.upper()) for name in names)


def check(request: Request) -> None:
    """Nothing forged arrived, and nothing that the gateway writes stands there twice."""
    assert FORGED.encode() not in request.head
    assert not [name for name, times in variables(request).items() if times > 1]
    assert request.all("host") == [b"gw"]
    assert request.all("x-forwarded-for") == [b"127.0.0.1"]
    assert request.all("x-forwarded-host") == [b"gw"]
    assert request.all("x-forwarded-proto") == [b"http"]
    assert len(request.all("via")) == 1
    assert len(request.all("x-request-id")) == 1
    assert request.all("accept-encoding") == [b"identity"]


def batches(pairs: Pairs, size: int) -> Iterator[list[tuple[str, str]]]:
    given = iter(pairs)
    while some := list(itertools.islice(given, size)):
        yield some


@pytest.mark.parametrize(
    ("form", "own"),
    [(form, own) for form in FORMATS for own in form.own],
    ids=[f"{form.name}, {own}" for form in FORMATS for own in form.own],
)
async def test_no_spelling_of_an_identity_in_a_subrequest_reaches_the_backend(
    form: Format, own: str
) -> None:
    pairs = forged((*IDENTITIES, *OURS))
    entries = [form.entry("/x", own=form.own[own](some)) for some in batches(pairs, 50)]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.bulk(form, entries)
        assert set(form.statuses(answer)) == {200}
        assert len(backend.requests) == len(entries)
    for request in backend.requests:
        check(request)


async def test_a_list_of_fields_may_not_say_one_identity_in_two_spellings_either() -> None:
    pairs = [(name, FORGED) for _ in range(2) for name in ("X-Real-IP", "x_real_ip", "X-REAL.IP")]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for form in (SUGARCRM, GUIDEWIRE, AGENDIZE):
            answer = await gate.bulk(form, [form.entry("/x", own=form.own["items"](pairs))])
            assert form.statuses(answer) == [200]
        for request in backend.requests:
            check(request)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_names_that_a_backend_may_take_for_one_are_refused_with_nothing_sent(
    form: Format,
) -> None:
    """`X-Tenant` is nobody's business but the backend's, so it may be sent: in one spelling."""
    for pairs in (
        [("X_Tenant", "1")],
        [("X.Tenant", "1")],
        [("X-Tenant", "1"), ("x-tenant", "2")],
        [("X-Tenant", "1"), ("X-TENANT", "2")],
    ):
        async with RawBackend(echo) as backend, siege(backend) as gate:
            answer = await gate.bulk(form, [form.entry("/x", own=form.own["items"](pairs))])
            assert 400 <= answer.status < 500
            assert not backend.requests


@pytest.mark.parametrize("path", [*(form.path for form in FORMATS), TRUTO, "/passed"])
async def test_an_outer_identity_is_believed_of_trusted_peers_alone(path: str) -> None:
    """Fields come in several requests, since each may have 128 of them."""
    said = {name for name, _ in forged(IDENTITIES) if "forwarded" not in name.lower()}
    disguised = {name for name in said if "_" in name or "." in name}
    document = {
        TRUTO: truto({"resource": "r", "method": "list"}),
        "/passed": b"{}",
        **{form.path: form.document([form.entry("/x")]) for form in FORMATS},
    }[path]
    for trusted in ((), ("127.0.0.0/8",)):
        lists = HeaderLists(trusted_proxies=trusted)
        async with RawBackend(echo) as backend, siege(backend, headers=lists) as gate:
            for some in batches(forged(IDENTITIES), 60):
                assert (await gate.ask(posted(path, document, some))).status == 200
        received = b"".join(request.head for request in backend.requests)
        if trusted:
            arrived = {name for name in said if f"\r\n{name}: {FORGED}".encode() in received}
            assert arrived == said - disguised
        else:
            assert FORGED.encode() not in received
            for request in backend.requests:
                assert request.all("x-forwarded-for") == [b"127.0.0.1"]
                assert not [n for n, times in variables(request).items() if times > 1]


@pytest.mark.parametrize("path", [*(form.path for form in FORMATS), TRUTO, "/passed"])
async def test_nobody_speaks_for_a_trusted_proxy_in_another_spelling(path: str) -> None:
    """It writes the fields that it knows, and hands their like on (CVE-2025-64484)."""
    theirs = {
        "X-Forwarded-For": b"1.2.3.4, 127.0.0.1",
        "X-Forwarded-Proto": b"https",
        "X-Forwarded-Host": b"shop.example",
        "X-Remote-User": b"alice",
    }
    said = [(name, value.decode().partition(",")[0]) for name, value in theirs.items()]
    document = {
        TRUTO: truto({"resource": "r", "method": "list"}),
        "/passed": b"{}",
        **{form.path: form.document([form.entry("/x")]) for form in FORMATS},
    }[path]
    lists = HeaderLists(trusted_proxies=("127.0.0.0/8",))
    for odd in ("_", "."):
        forgeries = [(name.replace("-", odd), FORGED) for name in theirs]
        async with RawBackend(echo) as backend, siege(backend, headers=lists) as gate:
            for outer in (forgeries + said, said + forgeries):
                assert (await gate.ask(posted(path, document, outer))).status == 200
        assert len(backend.requests) == 2
        for request in backend.requests:
            assert FORGED.encode() not in request.head
            assert {name: request.all(name.lower()) for name in theirs} == {
                name: [value] for name, value in theirs.items()
            }


@pytest.mark.parametrize("path", [*(form.path for form in FORMATS), TRUTO, "/passed"])
async def test_nobody_speaks_in_another_spelling_for_who_writes_the_operators_own_fields(
    path: str,
) -> None:
    """`X-Tenant` identifies the caller to this backend, which takes `X_Tenant` for it, and the
    same the other way round with `My_Role`."""
    document = {
        TRUTO: truto({"resource": "r", "method": "list"}),
        "/passed": b"{}",
        **{form.path: form.document([form.entry("/x")]) for form in FORMATS},
    }[path]
    said = [("X_Tenant", FORGED), ("X-Tenant", "mine"), ("x.tenant", FORGED)]
    said += [("My-Role", FORGED), ("My_Role", "mine"), ("my.role", FORGED)]
    listed = HeaderLists(never_from_subrequest=("X-Tenant", "My_Role"))
    async with RawBackend(echo) as backend, siege(backend, headers=listed) as gate:
        assert (await gate.ask(posted(path, document, said))).status == 200
    (request,) = backend.requests
    assert FORGED.encode() not in request.head
    assert request.all("x-tenant") == request.all("my_role") == [b"mine"]


CREDENTIALS = [
    ("Authorization", "Bearer mine"),
    ("Cookie", "session=mine"),
    ("OAuth-Token", "mine"),
    ("token", "mine"),
    ("apiKey", "mine"),
]


@pytest.mark.parametrize("path", [*(form.path for form in FORMATS), TRUTO, "/passed"])
@pytest.mark.parametrize(
    "connection",
    [
        ["close, Authorization, Cookie, OAuth-Token, token, apiKey"],
        ["", "authorization,cookie,oauth-token,TOKEN,APIKEY"],
        ["x, ,AUTHORIZATION", "Cookie", "OAUTH_TOKEN, token; , apikey"],
        ["Host, Via, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Request-Id"],
        ["host,via,X_Forwarded_For,x.forwarded.host,Content-Length,Content-Type"],
    ],
    ids=["a list", "an empty one first", "in pieces", "the gateway's", "in other spellings"],
)
async def test_connection_names_neither_credentials_nor_the_gateways_fields_away(
    path: str, connection: list[str]
) -> None:
    document = {
        TRUTO: truto({"resource": "r", "method": "list"}),
        "/passed": b"{}",
        **{form.path: form.document([form.entry("/x")]) for form in FORMATS},
    }[path]
    fields = [*CREDENTIALS, *(("Connection", value) for value in connection)]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        assert (await gate.ask(posted(path, document, fields))).status == 200
    (request,) = backend.requests
    assert [request.header(name) for name, _ in CREDENTIALS] == [
        value.encode() for _, value in CREDENTIALS
    ]
    assert request.all("host") == [b"gw"]
    assert request.all("x-forwarded-for") == [b"127.0.0.1"]
    assert len(request.all("via")) == 1
    assert request.header("connection") is None
    if path == "/passed":
        assert request.body == b"{}"


@pytest.mark.parametrize(
    ("setting", "seen"), [("preserve", b"gw"), ("upstream", None), ("crm.example", b"crm.example")]
)
async def test_no_part_chooses_the_backends_virtual_host(setting: str, seen: bytes | None) -> None:
    hosts = [("Host", "evil"), ("HOST", "evil"), ("X-Forwarded-Host", "evil"), ("X-Host", "evil")]
    async with RawBackend(echo) as backend:
        async with siege(backend, upstream=Upstream(url=backend.url, host=setting)) as gate:
            for form in FORMATS:
                entries = [form.entry("/x", own=form.own["items"](hosts))]
                assert form.statuses(await gate.bulk(form, entries)) == [200]
    for request in backend.requests:
        assert request.all("host") == [seen or backend.url.removeprefix("http://").encode()]
        assert b"evil" not in request.head


@pytest.mark.parametrize(
    "target",
    ["http://evil@gw/x", "http://gw:80@evil/x", "http://gw,evil/x", "http://gw:x/x", "http://gw%20/x",
     "ftp://gw/x", "gopher://gw/x", "http://[::1/x", "http://gw\\evil/x", "http://ev_il;x/x"],
)  # fmt: skip
async def test_a_target_in_absolute_form_names_one_host_or_is_refused(target: str) -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answers = await gate.talk(head(f"GET {target} HTTP/1.1", [("Connection", "close")]))
        assert [answer.status for answer in answers] == [400]
        assert not backend.requests


async def test_a_bulk_call_in_absolute_form_gets_no_other_host_for_its_parts() -> None:
    document = SUGARCRM.document([SUGARCRM.entry("/x"), SUGARCRM.entry("http://evil/x")])
    async with RawBackend(echo) as backend, siege(backend) as gate:
        request = posted("http://evil/bulk", document)
        answer = await gate.ask(request)
        assert SUGARCRM.statuses(answer) == [200, 404]
    assert [request.target for request in backend.requests] == ["/x"]


async def test_a_method_override_is_not_passed_through_where_methods_are_checked() -> None:
    from gateway.config.settings import PassThrough, Paths

    overrides = [
        ("X-HTTP-Method-Override", "DELETE"), ("X_METHOD_OVERRIDE", "DELETE"),
        ("x-http-method", "DELETE"),
    ]  # fmt: skip
    async with RawBackend(echo) as backend:
        passing = PassThrough(enforce_paths=True)
        async with siege(backend, passthrough=passing, paths=Paths(methods=("GET",))) as gate:
            assert (await gate.ask(got("/x", overrides))).status == 200
            assert (await gate.ask(got("/x", method="DELETE"))).status == 403
    (request,) = backend.requests
    assert b"DELETE" not in request.head


def test_who_has_left_before_he_was_let_in_is_not_taken_for_one_of_a_unix_socket() -> None:
    """uvloop, which the program runs on, knows no address of one who has reset his connection."""

    async def attack() -> None:
        lists = HeaderLists(trusted_proxies=("unix",))
        async with RawBackend(echo) as backend, siege(backend, headers=lists) as gate:
            host, _, port = gate.address.rpartition(":")
            for _ in range(20):
                with socket.create_connection((host, int(port))) as client:
                    client.sendall(got("/forged", [("X-Remote-User", FORGED)]))
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await gate.alive()
            assert {request.target for request in backend.requests} == {"/alive"}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(attack())

"""Header fields: what a subrequest inherits, what it may bring, what the gateway writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import headers
from gateway.batch import HeaderRules, Headers, RawHeaders
from gateway.errors import BadHeader
from gateway.headers import HeaderPolicy, TrustedProxies
from gateway.headers.names import HOP_BY_HOP, WRITTEN

NO_LISTS = HeaderPolicy()
NO_RULES = HeaderRules()
SUGARCRM = HeaderRules(
    never_inherited=frozenset({"x-metadata-hash"}),
    credentials=frozenset({"oauth-token", "authorization"}),
    precedence="outer",
)
AGENDIZE = HeaderRules(credentials=frozenset({"token", "apikey", "authorization"}))


def fields(*names: str) -> Headers:
    return tuple((name, f"outer {name}") for name in names)


def names(fields: Headers) -> list[str]:
    return [name for name, _ in fields]


def inherit(
    outer: Headers,
    rules: HeaderRules = NO_RULES,
    policy: HeaderPolicy = NO_LISTS,
    *,
    trusted: bool = False,
) -> list[str]:
    return names(headers.inherit(outer, rules, policy, trusted=trusted))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-Real-IP", "x-real-ip", "X_Real-IP", "x_real_ip", "X.Real.Ip"])
def test_names_that_a_backend_may_take_for_one_have_one_normal_form(name: str) -> None:
    assert headers.normal(name) == "x-real-ip"


# --- inherited -----------------------------------------------------------------------------------


def test_what_is_meant_for_the_backend_is_inherited_in_order_and_as_spelt() -> None:
    outer = (
        ("User-Agent", "ventana"),
        ("accept", "application/json"),
        ("OAuth-Token", "t"),
        ("X_Odd", "kept"),
        ("Cookie", "a=1"),
        ("cookie", "b=2"),
        ("traceparent", "00-1-2-01"),
    )
    assert headers.inherit(outer, NO_RULES, NO_LISTS, trusted=False) == outer


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP | WRITTEN),
        "Content-Type",
        "Content-Length",
        "Content-Encoding",
        "Content-MD5",
        "Expect",
        "If-None-Match",
        "If-Match",
        "If-Modified-Since",
        "If-Range",
        "Range",
        "Prefer",
        "Digest",
        "Repr-Digest",
        "Signature",
        "Signature-Input",
        "DPoP",
        "Max-Forwards",
        "Idempotency-Key",
        "X-HTTP-Method-Override",
        "X_HTTP.Method_Override",
        "Transfer_Encoding",
    ],
)
def test_what_is_true_of_the_bulk_call_alone_is_not_inherited(name: str) -> None:
    assert inherit(fields(name, "Accept"), trusted=True) == ["Accept"]


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded",
        "X-Forwarded-Port",
        "X-Forwarded-User",
        "X-Forwarded-Client-Cert",
        "X-Real-IP",
        "x-rEAL-ip",
        "X-Original-URL",
        "X-Rewrite-URL",
        "True-Client-IP",
        "Remote-User",
        "X-Remote-User",
        "X-SSL-Client-Verify",
        "Client-Cert",
        "X-Auth-Request-Email",
        "Proxy",
    ],
)
def test_an_identity_is_believed_of_a_trusted_peer_only(name: str) -> None:
    assert inherit(fields(name), trusted=False) == []
    assert inherit(fields(name), trusted=True) == [name]


@pytest.mark.parametrize("name", ["X_Real_IP", "x-real.ip", "SSL_CLIENT_VERIFY"])
def test_an_identity_in_disguise_is_believed_of_nobody_unless_it_is_listed(name: str) -> None:
    assert inherit(fields(name), trusted=True) == []
    listed = HeaderPolicy(odd_names=frozenset({name}))
    hyphened = name.replace("_", "-").replace(".", "-")
    assert inherit(fields(name, hyphened), policy=listed, trusted=True) == [name]
    assert inherit(fields(name), policy=listed, trusted=False) == []


def test_spellings_that_are_all_listed_are_all_believed() -> None:
    policy = HeaderPolicy(
        never_from_subrequest=frozenset({"X-Tenant"}), odd_names=frozenset({"X_Tenant"})
    )
    assert inherit(fields("X-Tenant", "x_tenant", "x.tenant"), policy=policy) == [
        "X-Tenant",
        "x_tenant",
    ]


def test_the_dialects_list_and_the_operators_list_are_not_inherited() -> None:
    policy = HeaderPolicy(never_inherit=frozenset({"X_Tenant"}))
    outer = fields("X-Metadata-Hash", "X-Tenant", "x.tenant", "Accept")
    assert inherit(outer, SUGARCRM, policy) == ["Accept"]


def test_a_dialect_may_have_fields_inherited_that_others_do_not() -> None:
    rules = HeaderRules(also_inherited=frozenset({"prefer", "host", "te"}))
    assert inherit(fields("Prefer", "Host", "TE", "If-Match"), rules) == ["Prefer"]


def test_the_operators_list_wins_over_what_a_dialect_asks_for() -> None:
    rules = HeaderRules(also_inherited=frozenset({"prefer"}))
    policy = HeaderPolicy(never_inherit=frozenset({"Prefer"}))
    assert inherit(fields("Prefer"), rules, policy) == []


def test_what_connection_names_is_not_inherited() -> None:
    outer = (("Connection", "close, X_Hop"), ("connection", "x-other"), *fields("X-Hop", "X-Other"))
    assert inherit(outer) == []


@pytest.mark.parametrize(
    "name",
    ["Authorization", "Cookie", "OAuth-Token", "X-Real-IP", "x-real-IP", "X-Tenant", "Session",
     "traceparent"],
)  # fmt: skip
def test_connection_cannot_name_credentials_and_identities_away(name: str) -> None:
    policy = HeaderPolicy(never_from_subrequest=frozenset({"X-Tenant"}))
    rules = HeaderRules(credentials=frozenset({"session"}))
    outer = (("Connection", f"close, {name.upper()}"), *fields(name))
    assert inherit(outer, rules, policy, trusted=True) == [name]


def test_a_trace_is_taken_off_where_the_gateway_writes_its_own() -> None:
    assert headers.untraced(fields("traceparent", "Accept", "TraceState")) == fields("Accept")


def test_the_operators_never_from_subrequest_is_inherited_all_the_same() -> None:
    policy = HeaderPolicy(never_from_subrequest=frozenset({"X-Tenant"}))
    assert inherit(fields("X-Tenant"), NO_RULES, policy) == ["X-Tenant"]


# --- own -----------------------------------------------------------------------------------------


def own(*pairs: tuple[str, str], policy: HeaderPolicy = NO_LISTS) -> Headers:
    return headers.own(pairs, policy)


def test_own_fields_are_kept_in_order_and_their_values_trimmed() -> None:
    given_fields = (("If-None-Match", ' "e1"\t'), ("X-A", "é"), ("X-A", ""), ("Range", "bytes=0-1"))
    kept = (("If-None-Match", '"e1"'), ("X-A", "é"), ("X-A", ""), ("Range", "bytes=0-1"))
    assert own(*given_fields) == kept


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP | WRITTEN),
        "Host",
        "Content-Length",
        "Transfer_Encoding",
        "Accept-Encoding",
        "Expect",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Anything",
        "X-Real-IP",
        "X_Real.IP",
        "X-Original-URL",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "Via",
        "X-SSL-Client-S-DN",
        "Client-Cert",
        "X-Client-Cert",
        "X-Request-Id",
        "traceparent",
        "tracestate",
        "X-Tenant",
        "x_tenant",
    ],
)
def test_what_only_the_gateway_may_say_is_left_out_in_any_spelling(name: str) -> None:
    policy = HeaderPolicy(never_from_subrequest=frozenset({"X-Tenant"}))
    for spelling in (name, name.upper(), name.lower(), name.replace("-", "_")):
        assert own((spelling, "x"), ("Accept", "y"), policy=policy) == (("Accept", "y"),)


@pytest.mark.parametrize(
    ("pairs", "slug"),
    [
        ([("X:E", "a")], "bad_header_name"),
        ([("X E", "a")], "bad_header_name"),
        ([("X\r\nY", "a")], "bad_header_name"),
        ([("X\n", "a")], "bad_header_name"),
        ([("", "a")], "bad_header_name"),
        ([("Ünreal", "a")], "bad_header_name"),
        pytest.param([("X" * 129, "a")], "bad_header_name", id="long-name"),
        ([("X_E", "a")], "bad_header_name"),
        ([("X.E", "a")], "bad_header_name"),
        ([("X", "a\r\nY: b")], "bad_header_value"),
        ([("X", "a\nb")], "bad_header_value"),
        ([("X", "a\n")], "bad_header_value"),
        ([("X", "a\0")], "bad_header_value"),
        ([("X", "a\x7f")], "bad_header_value"),
        ([("X", "a\x85")], "bad_header_value"),
        ([("X", "日本")], "bad_header_value"),
        ([("X", "\ud800")], "bad_header_value"),
        pytest.param([("X", "a" * 8193)], "bad_header_value", id="long-value"),
        ([("Host", "a\r\nX: b")], "bad_header_value"),
        ([("X-A", "a"), ("x-a", "b")], "two_spellings"),
        ([("X", "a")] * 65, "too_many_headers"),
    ],
)
def test_what_must_not_be_sent_is_refused_without_quoting_it(
    pairs: list[tuple[str, str]], slug: str
) -> None:
    with pytest.raises(BadHeader) as refused:
        own(*pairs)
    assert refused.value.slug == slug
    assert not any(
        len(text) > 2 and text in refused.value.message for pair in pairs for text in pair
    )


def test_the_limits_themselves_are_allowed() -> None:
    assert len(own(*[("X" * 128, "a" * 8192)] * 64)) == 64


def test_listed_odd_names_are_allowed() -> None:
    assert own(("X_E", "a"), policy=HeaderPolicy(odd_names=frozenset({"x_e"}))) == (("X_E", "a"),)


# --- merged --------------------------------------------------------------------------------------


def test_without_own_fields_the_inherited_ones_are_handed_on_themselves() -> None:
    common = fields("Accept")
    assert headers.merge(common, (), NO_RULES) is common


def test_a_dialect_without_own_fields_has_none() -> None:
    common = fields("Accept")
    rules = HeaderRules(own_allowed=False)
    assert headers.merge(common, (("X", "1"),), rules) is common


def test_an_own_field_replaces_every_inherited_one_of_its_name_in_any_spelling() -> None:
    common = fields("X-A", "x_a", "X.A", "B")
    mine = (("x-a", "1"), ("x-a", "2"))
    assert headers.merge(common, mine, NO_RULES) == (*mine, ("B", "outer B"))


def test_managed_fields_stay_last() -> None:
    common = fields("Accept", "Host", "Via")
    assert names(headers.merge(common, (("X", "1"),), NO_RULES)) == ["X", "Accept", "Host", "Via"]


@pytest.mark.parametrize(
    ("rules", "outer", "mine", "merged"),
    [
        (SUGARCRM, ["OAuth-Token"], ["OAuth-Token"], ["outer OAuth-Token"]),
        (SUGARCRM, ["OAuth_Token"], ["Authorization"], ["outer OAuth_Token"]),
        (SUGARCRM, ["Authorization"], ["OAuth-Token", "X"], ["own X", "outer Authorization"]),
        (SUGARCRM, ["Accept"], ["OAuth-Token"], ["own OAuth-Token", "outer Accept"]),
        (AGENDIZE, ["token", "apiKey", "Accept"], ["token"], ["own token", "outer Accept"]),
        (AGENDIZE, ["Authorization"], ["apiKey"], ["own apiKey"]),
        (AGENDIZE, ["Authorization"], ["X"], ["own X", "outer Authorization"]),
        (NO_RULES, ["Authorization"], ["authorization"], ["own authorization"]),
    ],
)
def test_credentials_of_two_callers_never_mix(
    rules: HeaderRules, outer: list[str], mine: list[str], merged: list[str]
) -> None:
    own_fields = tuple((name, f"own {name}") for name in mine)
    assert [value for _, value in headers.merge(fields(*outer), own_fields, rules)] == merged


def test_an_own_token_that_counts_for_nothing_leaves_the_common_fields_themselves() -> None:
    common = fields("OAuth-Token", "Accept")
    assert headers.merge(common, (("OAuth-Token", "old"),), SUGARCRM) is common


_NAMES = st.sampled_from(
    ["Accept", "X-A", "x-a", "OAuth-Token", "Authorization", "token", "apiKey", "Host", "Via"]
)
_FIELDS = st.lists(st.tuples(_NAMES, st.text("ab", max_size=3)), max_size=8)


@given(_FIELDS, _FIELDS, st.sampled_from([NO_RULES, SUGARCRM, AGENDIZE]))
def test_no_name_comes_from_both_sides_and_no_group_of_credentials_does(
    outer: list[tuple[str, str]], mine: list[tuple[str, str]], rules: HeaderRules
) -> None:
    common = tuple((name, "outer") for name, _ in outer)
    merged = headers.merge(common, tuple((name, "own") for name, _ in mine), rules)
    sides: dict[str, set[str]] = {}
    for name, side in merged:
        normal = headers.normal(name)
        sides.setdefault("credentials" if normal in rules.credentials else normal, set()).add(side)
    assert all(len(side) == 1 for side in sides.values())
    assert {*map(headers.normal, names(merged))} >= {
        headers.normal(name) for name, _ in mine if headers.normal(name) not in rules.credentials
    }


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=6))
def test_whatever_a_part_brings_nothing_can_leave_its_line(pairs: list[tuple[str, str]]) -> None:
    try:
        kept = headers.own(pairs, NO_LISTS)
    except BadHeader:
        return
    for name, value in kept:
        line = f"{name}: {value}".encode("latin-1")
        assert not {*line} & {*b"\r\n\0"}
        assert headers.normal(name) not in HOP_BY_HOP | WRITTEN


def test_a_body_without_a_type_of_its_own_is_json() -> None:
    assert headers.body_type(()) == (("Content-Type", "application/json"),)
    assert headers.body_type((("content-type", "text/csv"),)) == ()


def test_all_values_of_a_name_are_found_in_whatever_spelling() -> None:
    fields = (("X_Mine", "1"), ("A", ""), ("x-mine", "2"))
    assert headers.by_name(fields) == {"x-mine": ["1", "2"], "a": [""]}


# --- managed -------------------------------------------------------------------------------------


def managed(outer: Headers = (), **changed: object) -> dict[str, str]:
    options: dict[str, object] = {
        "host": "preserve",
        "authority": "backend:8000",
        "peer": "10.0.0.1",
        "trusted": False,
        "scheme": "http",
        "via": "gw",
    }
    written = headers.managed(headers.by_name(outer), **(options | changed))  # type: ignore[arg-type]
    assert len({*names(written)}) == len(written)
    return dict(written)


@pytest.mark.parametrize(
    ("setting", "outer", "sent"),
    [
        ("preserve", (("host", "crm.example"),), "crm.example"),
        ("preserve", (), "backend:8000"),
        ("upstream", (("Host", "crm.example"),), "backend:8000"),
        ("legacy.internal", (("Host", "crm.example"),), "legacy.internal"),
    ],
)
def test_host_is_the_settings_word(setting: str, outer: Headers, sent: str) -> None:
    assert managed(outer, host=setting)["Host"] == sent


FORWARDED = (
    ("Host", "inner"),
    ("X_Forwarded.Proto", "gopher"),
    ("X-Forwarded-For", "1.1.1.1"),
    ("x-forwarded-for", "2.2.2.2"),
    ("x_forwarded_for", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "crm.example"),
)


def test_an_untrusted_peer_cannot_say_where_a_call_came_from() -> None:
    written = managed(FORWARDED)
    assert written["X-Forwarded-For"] == "10.0.0.1"
    assert written["X-Forwarded-Proto"] == "http"
    assert written["X-Forwarded-Host"] == "inner"


def test_a_trusted_peers_word_stands_and_its_address_is_appended() -> None:
    written = managed(FORWARDED, trusted=True)
    assert written["X-Forwarded-For"] == "1.1.1.1, 2.2.2.2, 10.0.0.1"
    assert written["X-Forwarded-Proto"] == "https"
    assert written["X-Forwarded-Host"] == "crm.example"


def test_a_peer_without_an_address_adds_none() -> None:
    assert "X-Forwarded-For" not in managed(peer=None)
    assert managed(FORWARDED, peer=None, trusted=True)["X-Forwarded-For"] == "1.1.1.1, 2.2.2.2"


def test_via_is_appended_whoever_the_peer_is() -> None:
    outer = (("Via", "1.1 a"), ("via", "1.0 b"))
    assert managed(outer, version="1.0")["Via"] == "1.1 a, 1.0 b, 1.0 gw"


def test_only_subrequests_are_asked_for_in_plain() -> None:
    assert managed()["Accept-Encoding"] == "identity"
    assert "Accept-Encoding" not in managed(bulk=False)


@pytest.mark.parametrize(
    ("via", "looped"),
    [
        ([], False),
        (["1.1 varnish"], False),
        (["1.1 varnish, 1.1 bulk-gateway-00000001"], False),
        (["1.1 varnish, HTTP/1.1 MINE (comment)"], True),
        (["1.0 fred", "1.1 mine"], True),
        (["1.1 mine-too, 1.1 minemine"], False),
        (["garbage,,, ,mine"], False),
        ([f"1.1 bulk-gateway-{n}" for n in range(5)], False),
        ([", ".join(f"1.1 bulk-gateway-{n}" for n in range(6))], True),
    ],
)
def test_a_call_that_was_here_before_is_known_by_its_via(via: list[str], looped: bool) -> None:
    assert headers.looped(via, "Mine") is looped


@pytest.mark.parametrize(
    ("host", "valid"),
    [
        ("crm.example", True),
        ("crm_1.example:8080", True),
        ("127.0.0.1", True),
        ("[::1]:80", True),
        ("", False),
        ("gw, evil", False),
        ("a@evil", False),
        ("evil/x", False),
        ("a@evil/x", False),
        ("gw:", False),
        ("gw:port", False),
        ("gw\n", False),
    ],
)
def test_a_host_names_one_host(host: str, valid: bool) -> None:
    assert headers.valid_host(host) is valid


# --- trusted proxies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("fd00::1", True),
        ("fe80::1%eth0", True),
        ("::1", False),
        ("not an address", False),
        (None, False),
        ("", False),
    ],
)
def test_a_peer_is_trusted_by_its_network(peer: str | None, trusted: bool) -> None:
    proxies = TrustedProxies(["10.1.2.3/8", "192.0.2.7", "fd00::/8", "fe80::/10"])
    assert proxies.trusted(peer) is trusted


def test_a_unix_socket_is_trusted_when_it_is_listed() -> None:
    assert TrustedProxies(["unix"]).trusted(None)
    assert not TrustedProxies().trusted(None)
    assert not TrustedProxies(["unix"]).trusted("127.0.0.1")


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="ten"):
        TrustedProxies(["ten"])


# --- pass-through --------------------------------------------------------------------------------


def forward(
    outer: Headers, written: Headers = (("Host", "h"), ("Via", "v")), **how: object
) -> Headers:
    options: dict[str, object] = {"trusted": True, "policy": NO_LISTS}
    return headers.forward_request(outer, written, **(options | how))  # type: ignore[arg-type]


def test_a_request_goes_up_in_order_as_spelt_and_with_its_repetitions() -> None:
    outer = (
        ("accept-ENCODING", "br"),
        ("X-A", "1"),
        ("Cookie", "a=1"),
        ("x-a", "2"),
        ("If-None-Match", '"e"'),
        ("Content-Type", "text/csv"),
        ("Idempotency-Key", "k"),
        ("X-HTTP-Method-Override", "PUT"),
        ("X-Request-Id", "r"),
    )
    assert forward(outer) == (("Host", "h"), *outer, ("Via", "v"))


def test_a_request_leaves_behind_what_concerns_this_hop_and_what_is_written_anew() -> None:
    outer = (
        ("host", "x"),
        ("Connection", "keep-alive, X-Hop"),
        ("x-hop", "1"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Upgrade", "websocket"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "3"),
        ("Expect", "100-continue"),
        ("VIA", "1.1 x"),
    )
    assert names(forward(outer)) == ["Host", "Via"]


def test_an_untrusted_peers_identities_do_not_pass_through() -> None:
    outer = (("X-Real-IP", "1"), ("X_Forwarded_User", "root"), ("Accept", "a"))
    assert names(forward(outer, trusted=False)) == ["Host", "Accept", "Via"]
    assert names(forward(outer)) == ["Host", "X-Real-IP", "Accept", "Via"]
    listed = HeaderPolicy(odd_names=frozenset({"X_Forwarded_User"}))
    assert len(forward(outer, policy=listed)) == 5


def test_connection_cannot_take_credentials_away_on_the_way_up() -> None:
    outer = (("Connection", "authorization, cookie, x-real-ip"), *fields("Authorization", "Cookie"))
    assert names(forward(outer)) == ["Host", "Authorization", "Cookie", "Via"]


def test_method_overrides_go_where_the_method_was_checked() -> None:
    assert names(forward(fields("X_HTTP_Method"), overrides=False)) == ["Host", "Via"]


def test_a_request_that_was_asked_to_switch_says_so_itself() -> None:
    outer = (("Connection", "keep-alive, Upgrade"), ("upgrade", "websocket"))
    asked = (("Host", "h"), ("upgrade", "websocket"), ("Connection", "Upgrade"), ("Via", "v"))
    assert forward(outer, upgrade=True) == asked


@pytest.mark.parametrize(
    ("raw", "asked"),
    [
        (((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")), b"websocket"),
        (((b"connection", b"keep-alive, upgrade"), (b"UPGRADE", b"a/1, b")), b"a/1, b"),
        (((b"Upgrade", b"websocket"),), None),
        (((b"Connection", b"upgrade"),), None),
        (((b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c")), None),
        (((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Upgrade", b"H2C")), None),
        (((b"Connection", b"Upgrade"), (b"Upgrade", b"HTTP/2.0, websocket")), None),
        (((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket,h2")), None),
    ],
)
def test_an_upgrade_is_asked_for_in_two_fields_and_never_to_what_carries_requests(
    raw: RawHeaders, asked: bytes | None
) -> None:
    assert headers.upgrade_asked(raw) == asked


@pytest.mark.parametrize(
    ("value", "left"), [(b"3", 3), (b"0", 0), (b"-1", None), (b"x", None), (b"9" * 10, None)]
)
def test_max_forwards_is_a_count(value: bytes, left: int | None) -> None:
    assert headers.max_forwards(((b"max-forwards", value),)) == left


def test_max_forwards_goes_up_as_one_less() -> None:
    assert ("Max-Forwards", "2") in forward((("Max-Forwards", "3"),), hops=3)
    assert ("Max-Forwards", "3") in forward((("Max-Forwards", "3"),))


def test_an_answer_comes_down_in_order_as_spelt_and_with_its_repetitions() -> None:
    raw = (
        (b"Server", b"x"),
        (b"set-cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"Content-Length", b"3"),
        (b"WWW-Authenticate", b"Basic"),
        (b"X_Latin", b"\xe9"),
    )
    assert headers.forward_response(raw) == raw
    assert headers.forward_response(raw, via=b"1.1 gw") == (*raw, (b"Via", b"1.1 gw"))


def test_an_answer_leaves_behind_what_concerns_the_hop_but_never_what_it_is_for() -> None:
    raw = (
        (b"Connection", b"close, x-hop, Set-Cookie, content-type"),
        (b"Keep-Alive", b"timeout=5"),
        (b"X_Hop", b"1"),
        (b"Set-Cookie", b"a=1"),
        (b"Content-Type", b"text/plain"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Upgrade", b"h2"),
    )
    assert [name for name, _ in headers.forward_response(raw)] == [b"Set-Cookie", b"Content-Type"]


def test_an_answer_that_switches_says_so() -> None:
    raw = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"Sec-WebSocket-Accept", b"x"))
    assert headers.forward_response(raw, upgrade=True) == (
        (b"upgrade", b"websocket"),
        (b"Sec-WebSocket-Accept", b"x"),
        (b"Connection", b"Upgrade"),
    )


def test_received_bytes_are_read_as_latin_1() -> None:
    assert headers.text(((b"X", b"\xe9\xff"),)) == (("X", "é\xff"),)

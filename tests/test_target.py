"""Addresses: their normal form, those that have none, and the operator's patterns over them."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import target
from gateway.batch import Failure
from gateway.errors import BadTarget
from gateway.target import Endpoints, PathRules, Pattern, Routes
from gateway.target.endpoints import KNOWN
from gateway.target.form import _careful


def mistake(text: str, **how: str) -> str:
    with pytest.raises(BadTarget) as bad:
        target.normalise(text, **how)  # type: ignore[arg-type]
    assert bad.value.message == target.MISTAKES[bad.value.slug]
    return bad.value.slug


# --- the normal form -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "/a",
        "/a/",
        "/rest/v11_3/Accounts?max_num=2&fields=name,id",
        "/cc/rest/claim/v1/claims/cc:22/notes",
        "/api/users;id=1/@me/*/$ref/(x)/it's/a+b,c=d&e!",
        "/a.b/..a/a../.well-known/...",
        "/a?",
        "/a??x=/../..//&y=:@",
        '/a?filter[0][name]=x&q="{a|b}^`\\',
        "/a?x=%zz&y=%00&z=100%",
        "/a%2Fb/%23/%25/%3B/%3F/%20/%E9",
        "/%C3%A9",
        "/a/%2525",
    ],
)
def test_what_is_in_normal_form_stays_byte_for_byte(text: str) -> None:
    assert target.normalise(text) == text


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("/a/%7Eb?x=1", "/a/~b?x=1"),
        ("/%61%2d%5F%2e%30x", "/a-_.0x"),
        ("/a%2fb%c3%a9%3b", "/a%2Fb%C3%A9%3B"),
        ("/é/日本?q=é", "/%C3%A9/%E6%97%A5%E6%9C%AC?q=%C3%A9"),
        ('/[x]/{y}/a|b^c`"<>', "/%5Bx%5D/%7By%7D/a%7Cb%5Ec%60%22%3C%3E"),
        ("/a%3ab?%7e", "/a%3Ab?%7e"),
        ("/%2e%2ea", "/..a"),
    ],
)
def test_everything_else_becomes_the_normal_form_of_rfc_3986(text: str, normal: str) -> None:
    assert target.normalise(text) == normal
    assert target.normalise(normal) == normal


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("", "empty_path"),
        ("?x=1", "empty_path"),
        ("a/b", "not_rooted"),
        (".", "not_rooted"),
        ("http://evil/", "another_host"),
        ("HTTPS:evil", "another_host"),
        ("javascript:alert(1)", "another_host"),
        ("evil:80/x", "another_host"),
        ("//evil/x", "another_host"),
        ("///evil/x", "another_host"),
        ("@evil/x", "not_rooted"),
        (":80@evil/x", "not_rooted"),
        ("\\\\evil\\x", "backslash"),
        ("/\\evil", "backslash"),
        ("/a//b", "empty_segment"),
        ("/a//", "empty_segment"),
        ("/a#b", "fragment"),
        ("/a?b#c", "fragment"),
        ("/a b", "space"),
        ("/a?b c", "space"),
        ("/a\r\nX: y", "control"),
        ("/a?b\r\nX: y", "control"),
        ("/a\n", "control"),
        ("/a\tb", "control"),
        ("/a\0", "control"),
        ("/a\x7f", "control"),
        ("/a%00", "control"),
        ("/a%0d%0aX", "control"),
        ("/a%7f", "control"),
        ("/a%250a", "control"),
        ("/a\\b", "backslash"),
        ("/a%5cb", "backslash"),
        ("/a%5Cb", "backslash"),
        ("/a%255cb", "backslash"),
        ("/%", "bad_percent"),
        ("/%a", "bad_percent"),
        ("/%zz", "bad_percent"),
        ("/%u002e%u002e/x", "bad_percent"),
        ("/..", "dot_segment"),
        ("/../x", "dot_segment"),
        ("/a/..", "dot_segment"),
        ("/a/../b", "dot_segment"),
        ("/a/./b", "dot_segment"),
        ("/a/.", "dot_segment"),
        ("/%2e%2e/x", "dot_segment"),
        ("/%2E./x", "dot_segment"),
        ("/.%2e/x", "dot_segment"),
        ("/%2e/x", "dot_segment"),
        ("/%252e%252e/x", "dot_segment"),
        ("/a/%252e%252E", "dot_segment"),
        ("/%25%32%65%25%32%65/x", "dot_segment"),
        ("/..;/x", "dot_segment"),
        ("/..;a=b/x", "dot_segment"),
        ("/.;/x", "dot_segment"),
        ("/%2e%2e%3b/x", "dot_segment"),
        ("/%2e%2e;", "dot_segment"),
        ("/a%2f..%2fb", "dot_segment"),
        ("/a%2f%2e%2e%2fb", "dot_segment"),
        ("/a%252f..", "dot_segment"),
        ("/..%2fb", "dot_segment"),
        ("/．．/x", "look_alike"),
        ("/‥/x", "look_alike"),
        ("/a／b", "look_alike"),
        ("/a＼b", "look_alike"),
        ("/%ef%bc%8e%ef%bc%8e/x", "look_alike"),
        ("/%25ef%25bc%258e/x", "look_alike"),
        ("/%c0%ae%c0%ae/x", "look_alike"),
        ("/a%c0%afb", "look_alike"),
        ("/a%c1%9cb", "look_alike"),
        ("/a%e0%80%ae", "look_alike"),
        ("/a%f0%80%80%af", "look_alike"),
        ("/\ud800", "bad_character"),
        ("/a?\udfff", "bad_character"),
        pytest.param("/" + "a" * 8190, "too_long", id="long"),
        pytest.param("/" + "é" * 2000, "too_long", id="long-once-encoded"),
        pytest.param("/a?" + "é" * 2000, "too_long", id="long-query-once-encoded"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(text: str, slug: str) -> None:
    assert mistake(text) == slug


def test_the_longest_target_is_allowed() -> None:
    text = "/" + "a" * 8189
    assert target.normalise(text) == text
    assert mistake(text + "a") == "too_long"


@pytest.mark.parametrize("text", ["/a%2fb", "/a%2Fb", "/a%252fb", "/a/%2f"])
def test_an_encoded_slash_is_data_until_a_rule_reads_the_path(text: str) -> None:
    assert "%2F" in target.normalise(text) or "%252f" in target.normalise(text)
    assert mistake(text, encoded_slash="refuse") == "encoded_slash"


def test_the_query_may_hold_encoded_slashes_whatever_the_rules() -> None:
    assert target.normalise("/a?b=%2f", encoded_slash="refuse") == "/a?b=%2f"


PIECES = st.sampled_from(
    [*"/.%;?#\\: @&=~\n\0é．", "/a", "/..", "/.", "%2e", "%2F", "%25", "%5c", "%7E", "%c3%a9",
     "%00", "%0", "..;", "//", "%252e", "v10", "?x=1", "http:", "\x7f", "％", "\ud800"]
)  # fmt: skip
ADDRESSES = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.lists(PIECES, max_size=8).map(lambda pieces: "/a" + "".join(pieces)),
    st.text(max_size=20),
    st.text("abcXYZ019-._~:@!$&'()*+,;=/?", max_size=20).map("/".__add__),
)


def outcome(text: str, way: object) -> str:
    try:
        return way(text)  # type: ignore[operator, no-any-return]
    except BadTarget as bad:
        return bad.slug


@given(ADDRESSES)
def test_the_fast_way_and_the_careful_way_agree(text: str) -> None:
    careful = outcome(text, lambda text: _careful(text, "keep"))
    assert outcome(text, target.normalise) == careful


@given(ADDRESSES)
@example("/a%2F..;%2Fb")
@example("/%25%32%65%25%32%65")
def test_what_is_sent_means_the_same_however_often_it_is_decoded(text: str) -> None:
    try:
        sent = target.normalise(text)
    except BadTarget:
        return
    assert target.normalise(sent) == sent
    assert re.fullmatch(r"/[!-~]*", sent)
    assert "#" not in sent
    assert not sent.startswith("//")
    path = sent.partition("?")[0].encode()
    for form in (path, unquote_to_bytes(path), unquote_to_bytes(unquote_to_bytes(path))):
        assert not {*form} & {*range(0x20), 0x7F, ord("\\")}
        segments = [segment.partition(b";")[0] for segment in form.split(b"/")]
        assert b"." not in segments
        assert b".." not in segments


@given(st.text(max_size=30))
def test_a_value_is_one_segment_or_nothing(value: str) -> None:
    try:
        segment = target.segment(value)
        path = target.normalise(f"/a/{segment}/b")
    except BadTarget:
        return
    assert path.count("/") == 3
    assert unquote_to_bytes(segment) == value.encode()


def test_a_segment_keeps_the_unreserved_characters_alone() -> None:
    assert target.segment("a-b_c.d~e/f:g é%") == "a-b_c.d~e%2Ff%3Ag%20%C3%A9%25"
    assert target.segment("") == ""
    with pytest.raises(BadTarget):
        target.segment("\ud800")


# --- absolute addresses --------------------------------------------------------------------------

OWN = frozenset({"https://crm.example:443", "http://crm.example:8080", "http://[::1]:80"})


@pytest.mark.parametrize(
    ("url", "rebased"),
    [
        ("/v10/Accounts", "/v10/Accounts"),
        ("v10/Accounts?a=http://x/", "v10/Accounts?a=http://x/"),
        ("https://crm.example/rest/v10/a?b", "/rest/v10/a?b"),
        ("HTTPS://CRM.Example:443/a", "/a"),
        ("http://crm.example:8080", "/"),
        ("http://crm.example:8080?x", "/?x"),
        ("http://[::1]/a", "/a"),
    ],
)
def test_the_gateways_own_origin_is_taken_off(url: str, rebased: str) -> None:
    assert target.rebase(url, OWN) == rebased


@pytest.mark.parametrize(
    "url",
    [
        "http://crm.example/a",
        "https://crm.example:8080/a",
        "https://evil/a",
        "ftp://crm.example:443/a",
        "//crm.example/a",
        "https:/crm.example/a",
        "https:a",
        "https://user@crm.example/a",
        "https://crm.example@evil/a",
        "https://crm.example:443@evil/a",
        "https://crm.example\\@evil/a",
        "https://crm.example#@evil/a",
        "https://crm.example.evil/a",
        "https://crm.example:/a",
        "https://crm.example:443x/a",
        "httpſ://crm.example/a",
        "data:text/plain,x",
    ],
)
def test_any_other_host_port_scheme_or_user_is_refused(url: str) -> None:
    with pytest.raises(BadTarget) as bad:
        target.normalise(target.rebase(url, OWN))
    assert bad.value.slug in ("another_host", "not_rooted")


@pytest.mark.parametrize(
    ("scheme", "authority", "origin"),
    [
        ("https", "CRM.example", "https://crm.example:443"),
        ("http", "crm.example:8080", "http://crm.example:8080"),
        ("http", "[::1]", "http://[::1]:80"),
        ("http", "", ""),
        ("http", "a@b", ""),
        ("http", "a/b", ""),
    ],
)
def test_an_origin_names_its_port(scheme: str, authority: str, origin: str) -> None:
    assert target.origin(scheme, authority) == origin


# --- patterns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/bulk", "/bulk", {}),
        ("/bulk", "/bulk/", None),
        ("/bulk", "/x/bulk", None),
        ("/bulk", "/bulkx", None),
        ("/", "/", {}),
        ("/a.b", "/a.b", {}),
        ("/a.b", "/axb", None),
        ("/my%20path", "/my%20path", {}),
        ("/%7Ex/é", "/~x/%C3%A9", {}),
        ("{prefix}/{version}/bulk", "/v10/bulk", {"prefix": "", "version": "v10"}),
        ("{prefix}/{version}/bulk", "/rest/v11_3/bulk", {"prefix": "/rest", "version": "v11_3"}),
        ("{prefix}/{version}/bulk", "/a/b/v1/bulk", {"prefix": "/a/b", "version": "v1"}),
        ("{prefix}/{version}/bulk", "/v10/v11/bulk", {"prefix": "/v10", "version": "v11"}),
        ("{prefix}/{version}/bulk", "/rest/bulk", None),
        ("{prefix}/{version}/bulk", "/rest/v100/bulk", None),
        ("{prefix}/{version}/bulk", "/rest/v1_/bulk", None),
        ("{prefix}/{version}/bulk", "/rest/v11_345/bulk", None),
        ("{prefix}/{version}/bulk", "/rest/V10/bulk", None),
        ("{prefix}/rest/bulk", "/rest/bulk", {"prefix": ""}),
        ("{prefix}/rest/bulk", "/rest/rest/bulk", {"prefix": "/rest"}),
        (
            "{prefix}/rest/{api}/{major}/batch",
            "/cc/rest/claim/v1/batch",
            {"prefix": "/cc", "api": "claim", "major": "v1"},
        ),
        ("{prefix}/rest/{api}/{major}/batch", "/cc/rest/claim/batch", None),
        ("/rest/{module}/{id}", "/rest/a/b:1", {"module": "a", "id": "b:1"}),
        ("/rest/{module}/{id}", "/rest/a/", None),
        ("/rest/{module}/{id}", "/rest/a/b/c", None),
        ("/rest/*/x", "/rest/a/x", {}),
        ("/admin/**", "/admin", {}),
        ("/admin/**", "/admin/", {}),
        ("/admin/*", "/admin/a/b", {}),
        ("/admin/**", "/administrator", None),
        ("{prefix}/x/**", "/a/b/x/c", {"prefix": "/a/b"}),
        ("/**", "/any/thing", {}),
    ],
)
def test_a_pattern_matches_whole_paths(
    pattern: str, path: str, params: dict[str, str] | None
) -> None:
    assert Pattern(pattern).match(path) == params


@pytest.mark.parametrize(
    "text",
    ["", "bulk", "{prefix}", "/a//b", "/{a}/{a}", "/a{b}", "/{}", "/{a b}", "/a*", "/a/../b",
     "/a%zz", "/a?b", "/a#b", "/a b", "x{prefix}/a", "/{prefix}/{prefix}", "//a"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_when_it_is_made(text: str) -> None:
    with pytest.raises(ValueError, match=r"path pattern"):
        Pattern(text)


def test_a_pattern_is_linear_in_the_path() -> None:
    """Were it not, this would run for longer than the universe has."""
    pattern = Pattern("{prefix}/rest/{a}/{b}/{c}/**")
    assert pattern.match("/rest" * 100_000) is not None
    assert Pattern("{prefix}/rest/{a}/{b}/{c}/bulk").match("/rest" * 100_000) is None
    assert Pattern("{prefix}/rest/{a}").match("/rest/" + "a" * 100_000 + "/") is None


def test_a_route_is_labelled_by_the_first_template_that_matches() -> None:
    routes = Routes(
        map(Pattern, ["/rest/{version}/me", "/rest/{version}/{module}", "{prefix}/x/**"])
    )
    assert routes.label("/rest/v10/me") == "/rest/{version}/me"
    assert routes.label("/rest/v10/Accounts?a=/b/x") == "/rest/{version}/{module}"
    assert routes.label("/a/b/x/c/d?e") == "{prefix}/x/**"
    assert routes.label("/rest/v10/a/b?x") == "_other"
    assert routes.label("/rest/v10") == "_other"
    assert Routes([]).label("/rest") == "_other"


# --- the operator's rules ------------------------------------------------------------------------


def refused(rules: PathRules, text: str, method: str = "GET") -> str | None:
    failure = rules.refusal(method, target.normalise(text, encoded_slash=rules.slash))
    assert failure is None or (failure.error, failure.code) == ("http_request_denied", 403)
    return failure.details if failure else None


def rules(allow: tuple[str, ...] = (), deny: tuple[str, ...] = (), **others: object) -> PathRules:
    return PathRules(tuple(map(Pattern, allow)), tuple(map(Pattern, deny)), **others)  # type: ignore[arg-type]


def test_without_rules_every_path_is_allowed() -> None:
    assert refused(PathRules(), "/any/thing?x") is None


def test_a_method_outside_the_set_is_denied() -> None:
    assert refused(PathRules(methods=frozenset({"GET"})), "/", "POST") == "method_denied"


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("/rest/v10/Accounts", False),
        ("/rest/v10/Accounts/", False),
        ("/rest/v10/admin", True),
        ("/rest/v10/admin/", True),
        ("/rest/v10/admin?x", True),
        ("/rest/v10/admin/users", True),
        ("/rest/v10/%61dmin", True),
        ("/rest/v10/admin;x=1", True),
        ("/rest/v10/admin;x=1/users", True),
        ("/rest/v10/admin%3bx/users", True),
        ("/rest;x/v10/Accounts", True),
        ("/rest/v10/Accounts;x", False),
        ("/rest/v10/;x/admin", True),
        ("/rest/;/v10/;x=/;y/admin", True),
        ("/rest/v10/%2561dmin", True),
        ("/rest/v10/admin%253bx", True),
        ("/rest/v10/@all", True),
        ("/rest/v10/%40all", True),
        ("/rest/v10/%2540all", True),
        ("/rest/v10/cc%3a22/x", True),
        ("/rest/v10/cc:23/x", False),
        ("/rest/v10/a%20b", True),
        ("/rest/v10/a%2520b", True),
        ("/rest/v10/100%25", False),
        ("/rest/v10/%C3%A9", False),
        ("/public", False),
        ("/other", True),
        ("/", True),
    ],
)
def test_a_path_is_denied_in_every_reading(text: str, denied: bool) -> None:
    deny = ("admin/**", "@all", "cc%3A22/*", "a%20b")
    policy = rules(("/rest/**", "/public"), tuple(f"/rest/{{version}}/{path}" for path in deny))
    assert (refused(policy, text) == "path_denied") is denied


def test_an_encoded_slash_is_refused_once_a_rule_reads_the_path_unless_it_is_kept() -> None:
    assert PathRules().slash == "keep"
    assert PathRules(encoded_slash="refuse").slash == "refuse"
    assert rules(deny=("/admin/**",)).slash == "refuse"
    kept = rules(deny=("/admin/**",), encoded_slash="keep")
    assert kept.slash == "keep"
    assert refused(kept, "/admin%2fusers") == "path_denied"
    assert refused(kept, "/%2fadmin%2f/users") == "path_denied"  # nginx merges them
    for text in ("/a%2fb", "/a%252fb"):  # also where whoever made the target let it pass
        failure = rules(deny=("/admin/**",)).refusal("GET", target.normalise(text))
        assert failure is not None
        assert failure.details == "encoded_slash"
    assert refused(kept, "/a%2fb") is None


def test_a_denial_says_why_and_quotes_nothing() -> None:
    failure = rules(deny=("/secret/**",)).refusal("GET", "/secret/x")
    assert failure == Failure(
        "http_request_denied", "path_denied", message="the path is not allowed here"
    )


# --- endpoints -----------------------------------------------------------------------------------


def test_a_strangers_many_targets_are_routed_and_not_all_remembered() -> None:
    endpoints = Endpoints([(Pattern("{prefix}/bulk"), "here")])
    for _ in range(2):
        for number in range(2 * KNOWN):
            routed = endpoints.route(f"/{number}/bulk?x")
            assert routed == ("here", {"prefix": f"/{number}"}, f"/{number}/bulk")
    assert len(endpoints._known) <= KNOWN


ENDPOINTS = Endpoints(
    [
        (Pattern(path), path)
        for path in [
            "/api/2.3/batch",
            "/batch-request",
            "{prefix}/{version}/bulk",
            "{prefix}/rest/bulk",
            "/bulk",
            "{prefix}/rest/{api}/{major}/batch",
            "/batch",
            "/open/{any}",
        ]
    ]
)


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("/bulk", "/bulk"),
        ("/rest/bulk", "{prefix}/rest/bulk"),
        ("/rest/v10/bulk", "{prefix}/{version}/bulk"),
        ("/api/rest.php/v10/bulk", "{prefix}/{version}/bulk"),
        ("/api/2.3/batch", "/api/2.3/batch"),
        ("/cc/rest/claim/v1/batch", "{prefix}/rest/{api}/{major}/batch"),
        ("/open/bulk", "/open/{any}"),
        ("/open/x", "/open/{any}"),
        ("/rest/v10/Accounts", None),
        ("/x/bulk", None),
        ("/bulk/", None),
        ("/Bulk", None),
        ("/", None),
    ],
)
def test_the_first_entry_that_matches_wins(path: str, entry: str | None) -> None:
    found = ENDPOINTS.match(path)
    assert (found and found[0]) == entry


def test_a_match_says_what_the_names_stand_for() -> None:
    assert ENDPOINTS.match("/a/v11_3/bulk") == (
        "{prefix}/{version}/bulk",
        {"prefix": "/a", "version": "v11_3"},
    )


@pytest.mark.parametrize(
    ("received", "is_bulk"),
    [
        ("/bulk", True),
        ("/bulk?", True),
        ("/%62ulk?x=%zz", True),
        ("/b%75lk", True),
        ("http://any.host:1/rest/v10/bulk?x", True),
        ("HTTP://any.host", False),
        ("*", False),
        ("/../bulk", False),
        ("//bulk", False),
        ("/x\\bulk", False),
        ("/rest%2Fbulk", False),
        ("/%zz/v10/bulk", False),
        ("\udce9", False),
    ],
)
def test_a_request_is_routed_by_its_normal_form_and_passes_through_without_one(
    received: str, is_bulk: bool
) -> None:
    assert (ENDPOINTS.route(received) is not None) is is_bulk


@pytest.mark.parametrize(
    ("text", "recursion"),
    [
        ("/bulk", True),
        ("/bulk?x=1", True),
        ("/%62ulk", True),
        ("/rest%2Fbulk", True),
        ("/rest%2fv10%2fbulk", True),
        ("/rest%252fbulk", True),
        ("/%2562ulk", True),
        ("/%2Fbulk", True),
        ("/rest%2F/bulk", True),
        ("/bulk/", True),
        ("/bulk;x", True),
        ("/bulk;x/?y", True),
        ("/rest;x/;y/bulk%3Bz", True),
        ("/bulk%252F", True),
        ("/bulk/1", False),
        ("/bulk;/1", False),
        ("/rest/v10/Accounts;x=/bulk/a", False),
        ("/rest/v10/Accounts?url=/bulk", False),
        ("/rest/v10/Accounts?url=/bulk/;", False),
        ("/rest/v10/bulkimport", False),
        ("/a%2Fb", False),
    ],
)
def test_a_bulk_call_inside_a_bulk_call_is_known_by_the_same_router(
    text: str, recursion: bool
) -> None:
    assert ENDPOINTS.recursion(target.normalise(text)) is recursion


def test_an_endpoint_may_end_with_a_slash_itself() -> None:
    endpoints = Endpoints([(Pattern("/do/all/"), "all")])
    assert endpoints.recursion("/do/all/")
    assert endpoints.recursion("/do/%2561ll/?x=1")

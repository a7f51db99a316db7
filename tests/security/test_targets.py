"""A subrequest reaches the backend it was meant for, and there the paths it may have."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest

from gateway.config.settings import PassThrough, Paths
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    SUGARCRM,
    TRUTO,
    Answer,
    Format,
    echo,
    got,
    siege,
    truto,
)
from tests.support.raw_backend import Peer, RawBackend, ok

ELSEWHERE = [
    "http://{other}/x", "HTTP://{other}/x", "https://{other}/x", "//{other}/x", "///{other}/x",
    "http:{other}/x", "http:/{other}/x", "http:///{other}/x", "http://gw@{other}/x",
    "http://gw:80@{other}/x", "http://{other}#@gw/x", "http://{other}?@gw/x",
    "http://{other}\\@gw/x", "http://gw.{other}/x", "http://gw%00.{other}/x", "\\\\{other}\\x",
    "/\\{other}/x", "/%5c{other}/x", "ftp://{other}/x", "gopher://{other}/_x",
    "file:///etc/passwd", "unix:/run/x", "javascript:x", "ws://{other}/x", "http://{other}",
    "http://[::ffff:127.0.0.1]/x", "http://0x7f.1/x", "http://gw:81/x", "http://gw:0/x",
    "http://gw:080/x", "http://g\u0445w/x", "//gw/x", "http://gw.:80/x", "\thttp://{other}/x",
    " http://{other}/x", "http\n://{other}/x", "%68ttp://{other}/x/..",
]  # fmt: skip
"""Addresses that some reader takes for another host, port or scheme."""

SHIFTED = [
    "/a/../b", "/..", "/a/..", "/.", "/a/./b", "/a//b", "//", "/a/%2e%2e/b", "/a/%2E./b",
    "/a/.%2e/b", "/a/%252e%252e/b", "/a/%252E%252e", "/a/..%2fb", "/a/..%252fb", "/a%2f..%2fb",
    "/a/..;/b", "/a/..;x=1/b", "/a/..%3b/b", "/a/..%253bx/b", "/a\\..\\b", "/a\\b", "/a/%5c..%5cb",
    "/a%255cb", "/a/%c0%ae%c0%ae/b", "/a/%e0%80%ae%e0%80%ae/b", "/a/%f0%80%80%ae/b",
    "/a/%c0%af../b", "/a/\uff0e\uff0e/b", "/a/\u2025/b", "/a\uff0fb", "/a/%ef%bc%8e%ef%bc%8e/b",
    "/a\uff3cb", "/a%", "/a%2", "/a%zz", "/a%u002e", "/a#b", "/a?b#c", "/a b", "/a?b c",
    "/a\ud800b",
]  # fmt: skip
"""Paths that two readers take for two things."""

BROKEN = [f"/a{mark}b" for mark in ("\r\n", "\n", "\r", "\0", "\t", "\x0b", "\x1f", "\x7f")]
BROKEN += [f"/a?b={mark}" for mark in ("\r\nX: 1", "\n", "\0", "\t", "\x7f")]
BROKEN += [
    "/a HTTP/1.1\r\nX: y\r\n\r\n", "/a%0d%0aX:%20y", "/a%0ab", "/a%00", "/a%250d%250ab", "/a%2500",
    "/a%7f", "/a%1f",
]  # fmt: skip
"""Addresses that would end their line, or their C string."""


def refused(form: Format, answer: Answer) -> bool:
    """In the way of the format: the whole batch, or that entry alone."""
    if form.name == "sugarcrm" and answer.status == 200:
        (result,) = answer.json
        return bool(result["status"] in (404, 422) and result["contents"]["error"])
    assert answer.json
    return answer.status in (400, 422)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize(
    "addresses", [ELSEWHERE, SHIFTED, BROKEN], ids=["elsewhere", "shifted", "broken"]
)
async def test_an_address_that_two_readers_read_differently_is_refused_with_nothing_sent(
    form: Format, addresses: list[str]
) -> None:
    async with RawBackend(echo) as other, RawBackend(echo) as backend, siege(backend) as gate:
        name = other.url.removeprefix("http://")
        for address in addresses:
            address = address.replace("{other}", name)
            answer = await gate.bulk(form, [form.entry(address)])
            assert refused(form, answer), address
            assert address.strip() not in json.dumps(answer.json), address
        assert not backend.peers
        assert not other.peers


@pytest.mark.parametrize("query", ["a=\r\nX: 1", "a b", "a#b", "a\0", "\t", "x HTTP/1.1"])
async def test_a_query_in_a_member_of_its_own_is_no_other_way_in(query: str) -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        entry = GUIDEWIRE.entry("/a") | {"query": query}
        assert (await gate.bulk(GUIDEWIRE, [entry])).status == 400
        assert not backend.peers


async def test_a_part_stays_below_the_address_of_its_endpoint() -> None:
    """What stands in front of a path is the outer call's, and nothing in the part changes it."""
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for path, form in (
            ("/site/rest/v11/bulk", SUGARCRM),
            ("/cc/rest/claim/v1/batch", GUIDEWIRE),
        ):
            for wish in (
                "/v11/x",
                "/../v11/x",
                "/..%2f..%2fadmin",
                "/%2e%2e/%2e%2e/admin",
                "v10/../../x",
            ):
                await gate.post(path, form.document([form.entry(wish)]))
    prefixes = ("/site/rest/v11/", "/cc/rest/claim/v1/")
    assert {r.target for r in backend.requests} == {
        f"{p.removesuffix('v11/')}v11/x" for p in prefixes
    }


# --- what is put in later ------------------------------------------------------------------------

VALUES: list[Any] = [
    "..", ".", "../../admin", "%2e%2e", "%252e%252e", "..%2f..%2fadmin", "/admin", "//other/x",
    "http://other/x", "a/b", "a\\b", "a?b=c", "a#b", "a;b", "a\r\nX: y", "a\0b", " ", "\u2025",
    "\uff0f", "\ud800", "", None, True, {"a": 1}, ["..", "x"], 10**30, "x" * 9000,
    "${result=a:$.id}", "{{args.x}}",
]  # fmt: skip


def is_one_segment(target: str, before: str, after: str) -> bool:
    """Whether what stands between is data of one segment, however often the path is decoded."""
    inside = target.removeprefix(before).removesuffix(after)
    for _ in range(2):
        if re.search(r"(?:^|/)\.\.?(?:[/;]|$)|[\x00-\x1f\x7f\\]", inside):
            return False
        inside = unquote(inside)
    path = target.partition("?")[0]
    return path.startswith(before) and path.endswith(after) and path.count("/") == 3


async def test_what_a_reference_finds_is_one_segment_of_a_path_or_nothing() -> None:
    """A1 of the chain is the backend's record: whoever wrote it may have meant us."""
    for value in VALUES:
        record = json.dumps({"id": value}).encode()

        async def records(peer: Peer, record: bytes = record) -> None:
            while True:
                await peer.request()
                await peer.send(ok(record))

        async with RawBackend(records) as backend, siege(backend) as gate:
            first = AGENDIZE.entry("/first") | {"name": "a"}
            second = AGENDIZE.entry("/part/${result=a:$.id}/end")
            answer = await gate.bulk(AGENDIZE, [first, second])
            statuses = AGENDIZE.statuses(answer)
            sent = [request.target for request in backend.requests][1:]
        assert statuses[1] in ((200,) if sent else (400, 424)), value
        assert all(is_one_segment(target, "/part/", "/end") for target in sent), (value, sent)


@pytest.mark.parametrize("loop", [False, True])
async def test_what_a_placeholder_finds_is_one_segment_of_a_path_or_nothing(loop: bool) -> None:
    for value in VALUES:
        node: dict[str, Any] = {"resource": "things", "method": "update", "persist": True}
        if loop:
            node |= {"id": "{{args.x}}", "loop_on": "args.x"}
        else:
            node |= {"id": "{{args.x}}"}
        async with RawBackend(echo) as backend, siege(backend) as gate:
            answer = await gate.post(TRUTO, truto(node, args={"x": [value] if loop else value}))
            sent = [request.target for request in backend.requests]
        assert answer.status in (200, 400), value
        assert sent or answer.status == 400 or answer.json["errors"]["things"], value
        for target in sent:
            assert is_one_segment(target, "/proxy/things/", ""), (value, target)


@pytest.mark.parametrize(
    "node",
    [
        {"resource": "../admin", "method": "list"},
        {"resource": "a/../../admin", "method": "list"},
        {"resource": "%2e%2e/admin", "method": "list"},
        {"resource": "//other/x", "method": "list"},
        {"resource": "http://other/x", "method": "list"},
        {"resource": "a?b", "method": "list"},
        {"resource": "a\r\nX: y", "method": "list"},
        {"resource": "a\\..\\b", "method": "list"},
        {"resource": "a", "method": "../../admin"},
        {"resource": "a", "method": "x\r\ny"},
        {"resource": "a", "method": "get", "id": "../../admin"},
        {"resource": "a", "method": "get", "id": "..%2fadmin"},
        {"resource": "a", "method": "list", "query": {"a\r\nb": "c d#e?f"}},
        {"resource": "a", "method": "list", "query": {"integrated_account_id": "other"}},
    ],
)
async def test_a_nodes_words_are_segments_and_parameters(node: dict[str, Any]) -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        await gate.post(TRUTO, truto(node | {"persist": True}))
        for request in backend.requests:
            path, _, query = request.target.partition("?")
            assert re.fullmatch(r"/(?:proxy|unified)(?:/[A-Za-z0-9%_.~-]+)+", path)
            assert not re.search(r"(?:^|/)\.\.?(?:/|$)|//|[\\\x00-\x1f]", unquote(unquote(path)))
            assert re.fullmatch(r"[\x21\x24-\x7e]*", query)
            assert query.endswith("integrated_account_id=a")


# --- the operator's lists ------------------------------------------------------------------------

RULES = Paths(
    allow=("/open/**",),
    deny=("/open/secret/**", "/open/@me", "/open/cc:22/**"),
    methods=("GET", "POST"),
)
PASSWORDS = [
    "/closed", "/open/../closed", "/open/secret", "/open/secret/", "/open/secret/x",
    "/open/secret?x", "/open/%73ecret", "/open/%73%65%63%72%65%74", "/open/%2573ecret",
    "/open/secre%74;x", "/open/secret;x=1", "/open/secret%3bx", "/open/secret%253bx",
    "/open;x/secret", "/open/;x/secret", "/open/;/secret", "/open/secret%2fx", "/open%2fsecret",
    "/open%252fsecret", "/open//secret", "/open/./secret", "/open/x/..;/secret",
    "/open/x/%2e%2e/secret", "/open\\secret", "/open/secret%00", "/open/secret#", "/open/@me",
    "/open/%40me", "/open/%2540me", "/open/cc:22/x", "/open/cc%3a22/x", "/open/cc%3A22",
    "/closed;/open/x", "/;/closed", "/;x/open/secret", "/%6fpen/secret", "/closed?/open/x",
    "/closed%3f/open/x",
]  # fmt: skip
"""Ways around a list."""


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_no_encoding_gets_around_the_operators_paths(form: Format) -> None:
    async with RawBackend(echo) as backend, siege(backend, paths=RULES) as gate:
        for path in PASSWORDS:
            answer = await gate.bulk(form, [form.entry(path)])
            if answer.status == 200:
                assert form.statuses(answer)[0] in (403, 404, 422), path
            else:
                assert answer.status == 400, path
        assert not backend.peers
        for path in ("/open/x", "/open/100%25", "/open/secrets", "/open/cc:23", "/open/a;b=c"):
            assert form.statuses(await gate.bulk(form, [form.entry(path)])) == [200], path


async def test_no_encoding_gets_around_the_operators_paths_in_pass_through() -> None:
    passing = PassThrough(enforce_paths=True)
    async with RawBackend(echo) as backend:
        async with siege(backend, paths=RULES, passthrough=passing) as gate:
            for path in PASSWORDS:
                answer = await gate.ask(got(path))
                assert answer.status in (400, 403), path
            assert (await gate.ask(got("/open/x", method="DELETE"))).status == 403
            assert (await gate.ask(got("http://gw/open/%73ecret"))).status == 403
            assert not backend.requests
            assert (await gate.ask(got("/open/x"))).status == 200


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_methods_are_a_list_and_nothing_else_is_sent(form: Format) -> None:
    methods = ["DELETE", "delete", "TRACE", "CONNECT", "PURGE", "M-SEARCH", "PRI"]
    broken = ["GET /x", "GE T", "GET\r\nX: y", "", " GET", "G\u0415T", "GET\0", "x" * 33, "(GET)"]
    async with RawBackend(echo) as backend, siege(backend, paths=RULES) as gate:
        for method in methods:
            answer = await gate.bulk(form, [form.entry("/open/x", method)])
            assert form.statuses(answer) == [403], method
        for method in broken:
            answer = await gate.bulk(form, [form.entry("/open/x", method)])
            sent = form.name == "sugarcrm" and not method  # SugarCRM's own: none is GET
            assert (answer.status == 200) is sent, method
        assert {request.method for request in backend.requests} <= {"GET"}
        assert form.statuses(await gate.bulk(form, [form.entry("/open/x", "post")])) == [200]


async def test_the_rules_hold_for_what_references_and_placeholders_made() -> None:
    async def records(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(ok(b'{"id":"secret","at":"@me"}'))

    async with RawBackend(records) as backend, siege(backend, paths=RULES) as gate:
        first = AGENDIZE.entry("/open/first") | {"name": "a"}
        entries = [AGENDIZE.entry(f"/open/${{result=a:$.{name}}}") for name in ("id", "at")]
        answer = await gate.bulk(AGENDIZE, [first, *entries])
        assert AGENDIZE.statuses(answer) == [200, 403, 403]
    assert [request.target for request in backend.requests] == ["/open/first"]

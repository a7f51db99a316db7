"""No call comes back to where it was: not inside a batch, not around a ring of gateways."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.config.settings import Endpoint, Listener
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    LOOPBACK,
    SUGARCRM,
    TRUTO,
    Format,
    echo,
    got,
    posted,
    siege,
    truto,
)
from tests.support.raw_backend import Peer, RawBackend, ok

BULK = [
    "/batch", "/bulk", "/batch-request", "/api/2.3/batch", "/api/2.0/batch", "/v10/bulk",
    "/v11_3/bulk", "/rest/v10/bulk", "/a/b/rest/bulk", "/rest/claim/v1/batch",
    "/cc/rest/claim/v1/batch",
]  # fmt: skip
"""Where the default settings take bulk calls."""


def aliases(path: str) -> list[str]:
    """The same, as somebody writes it who hopes that nobody notices."""
    last = path.rpartition("/")[2]
    before = path.removesuffix(last)
    return [
        path,
        f"{path}?x=1",
        f"{path}?",
        f"{before}%{ord(last[0]):x}{last[1:]}",
        f"{before}{last[:-1]}%{ord(last[-1]):X}",
        before + "".join(f"%{ord(char):x}" for char in last),
        before + "".join(f"%25{ord(char):x}" for char in last),
        f"{before}%25{ord(last[0]):x}{last[1:]}",
        path.replace("/", "%2f").replace("%2f", "/", 1),
        path.replace("/", "%252F").replace("%252F", "/", 1),
        f"/%2F{path[1:]}",  # nginx merges slashes
        f"{before}%252f{last}",
        f"{path}/",
        f"{path}/?x=1",
        f"{path}%2f",
        f"{path};x=1",  # Java's servers cut path parameters off
        f"{path}%3bx",
        f"{path};/",
        f"{before};x/{last}",
    ]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_a_bulk_call_inside_a_bulk_call_is_known_by_every_alias(form: Format) -> None:
    """SugarCRM's own nested call is the format's: it is taken apart here and never sent."""
    wished = [alias for path in BULK for alias in aliases(path)]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for path in wished:
            for method in ("POST", "GET"):
                answer = await gate.bulk(form, [form.entry(path, method, body={})])
                if answer.status == 200:
                    assert form.statuses(answer)[0] in (508, 422), path
                else:
                    assert answer.status == 400, path
        assert not backend.peers


NO_BULK = [
    "/BATCH", "/batch.json", "/batch/;x/1", "/x/batch", "/batch/x",
    "/%2562atch%20", "/bulk%00"[:-3] + "s", "/v100/bulk", "/v_1/bulk", "/rest/batch",
    "/api/2.3/batch/1",
]  # fmt: skip


async def test_the_router_of_requests_and_that_of_subrequests_are_one() -> None:
    """What is no bulk call from outside is none from inside, and the other way round."""
    document = GUIDEWIRE.document([])
    async with RawBackend(echo) as backend, siege(backend) as gate:
        every = (alias for path in BULK for alias in aliases(path) if "?" not in alias)
        for path in (*NO_BULK, *every):
            passed = len(backend.requests)
            outside = await gate.post(path, document)
            passes = len(backend.requests) > passed
            assert outside.status in (200, 400), path
            answer = await gate.bulk(GUIDEWIRE, [GUIDEWIRE.entry(path, "POST", body={})])
            inside = GUIDEWIRE.statuses(answer) if answer.status == 200 else [answer.status]
            # Decoded more often, or cut, it may be one to a backend, so it is refused all the same.
            assert inside in ([200], [508]) if passes else inside == [508], path
        for path in NO_BULK:
            answer = await gate.bulk(GUIDEWIRE, [GUIDEWIRE.entry(path, "POST", body={})])
            assert GUIDEWIRE.statuses(answer) == [200], path


async def test_an_endpoint_of_the_operators_own_is_one_too() -> None:
    endpoints = (
        Endpoint(path="/do/{what}/run:all", dialect="guidewire"),
        Endpoint(path="/batch", dialect="guidewire"),
    )
    async with RawBackend(echo) as backend, siege(backend, endpoints=endpoints) as gate:
        for path in (
            "/do/x/run:all",
            "/do/x/run%3aall",
            "/do/%78/run%253Aall",
            "/do%2fx%2frun:all",
        ):
            answer = await gate.bulk(GUIDEWIRE, [GUIDEWIRE.entry(path, "POST", body={})])
            assert GUIDEWIRE.statuses(answer) == [508], path
        assert not backend.peers


async def test_neither_references_nor_placeholders_make_one() -> None:
    async def records(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(ok(b'{"last":"batch","coded":"b%61tch","api":"api"}'))

    endpoints = (
        Endpoint(path="/api/2.3/batch", dialect="agendize"),
        Endpoint(path="/batch-request", dialect="truto", options={"proxy": "/{resource}"}),
    )
    async with RawBackend(records) as backend, siege(backend, endpoints=endpoints) as gate:
        first = AGENDIZE.entry("/first") | {"name": "a"}
        paths = [
            "/api/2.3/${result=a:$.last}", "/${result=a:$.api}/2.3/batch",
            "/api/2.3/${result=a:$.coded}",
        ]  # fmt: skip
        answer = await gate.bulk(AGENDIZE, [first, *(AGENDIZE.entry(path) for path in paths)])
        assert AGENDIZE.statuses(answer) == [200, 508, 508, 508]
        for node in ({"resource": "batch-request", "method": "create"},
                     {"resource": "x", "method": "get", "id": "batch"}):  # fmt: skip
            await gate.post(TRUTO, truto(node | {"persist": True}))
        answer = await gate.post(TRUTO, truto({"resource": "batch-request", "method": "list"}))
        assert answer.json["errors"]["batch-request"][0]["statusCode"] == 508
    assert [request.target.partition("?")[0] for request in backend.requests] == [
        "/first",
        "/x/batch",
    ]


async def test_a_nested_bulk_call_of_sugarcrm_is_one_level_deep_and_counts() -> None:
    def nested(levels: int) -> dict[str, Any]:
        if not levels:
            return SUGARCRM.entry("/leaf")
        return SUGARCRM.entry("/bulk", "POST", body={"requests": [nested(levels - 1)] * 2})

    async with RawBackend(echo) as backend, siege(backend) as gate:
        (group,) = (await gate.bulk(SUGARCRM, [nested(1)])).json
        assert [entry["status"] for entry in group["contents"]] == [200, 200]
        (group,) = (await gate.bulk(SUGARCRM, [nested(2)])).json
        assert [entry["status"] for entry in group["contents"]] == [422, 422]
        assert len(backend.requests) == 2
        many = SUGARCRM.entry("/bulk", "POST", body={"requests": [nested(0)] * 50})
        assert (await gate.bulk(SUGARCRM, [many] * 2)).status == 413
        bomb = nested(12)
        assert (await gate.bulk(SUGARCRM, [bomb])).status == 200
        assert len(backend.requests) == 2


# --- rings ---------------------------------------------------------------------------------------


def unix(path: Path) -> Listener:
    return Listener(address=f"unix:{path}")


@pytest.mark.parametrize("gateways", [1, 2, 3])
async def test_a_ring_of_gateways_ends_where_it_began(tmp_path: Path, gateways: int) -> None:
    """Each has the next one as its backend, the last one the first; names are drawn at start."""
    doors = [tmp_path / f"{number}.sock" for number in range(gateways)]
    async with AsyncExitStack() as stack:
        ring = [
            await stack.enter_async_context(
                siege(f"unix:{doors[(number + 1) % gateways]}", listen=(LOOPBACK, unix(door)))
            )
            for number, door in enumerate(doors)
        ]
        gate = ring[0]
        assert (await gate.ask(got("/x"))).status == 508
        assert (await gate.ask(got("/x", [("Connection", "Via")]))).status == 508
        for form in FORMATS:
            fields = form.own["items"]([("Via", "1.1 x")])
            entries = [form.entry("/x"), form.entry("/y", "POST", fields, {})]
            assert form.statuses(await gate.bulk(form, entries)) == [508, 508]
        answer = await gate.post(TRUTO, truto({"resource": "x", "method": "list", "persist": True}))
        assert answer.json["errors"]["x"][0]["statusCode"] == 508
        page = (await gate.metrics()).splitlines()
        passed = [line for line in page if line.startswith("gateway_passthrough_requests_total{")]
        # Each call came back once, and was not handed on again.
        calls = 2 + 2 * len(FORMATS) + 1
        assert sum(float(line.rpartition(" ")[2]) for line in passed) == calls + 2


@pytest.mark.parametrize(
    "via",
    [
        ["1.1 us"], ["1.1 US"], ["1.0 a, 1.1 us (comment)"], ["1.1 a", "HTTP/1.1 us"],
        ["1.1 us, 1.1 b"], ["1.1 \tus"], ["1.1  us"],
        [", ".join(f"1.1 bulk-gateway-{i}" for i in range(6))],
    ],
)  # fmt: skip
async def test_a_call_that_says_that_it_was_here_is_508_in_every_spelling(via: list[str]) -> None:
    fields = [("Via", value) for value in via]
    async with RawBackend(echo) as backend, siege(backend, name="us") as gate:
        assert (await gate.ask(got("/x", fields))).status == 508
        for form in FORMATS:
            assert (await gate.bulk(form, [form.entry("/x")], fields)).status == 508
        assert (await gate.post(TRUTO, truto(), fields)).status == 508
        assert not backend.peers


async def test_a_name_that_is_like_ours_is_not_ours() -> None:
    """Via is the client's to write; nobody is kept out by a name that merely resembles."""
    via = [("Via", "1.1 us2, 1.1 not-us, 1.1 a (us), 1.1 bulk-gateway-1"), ("Via", "us 1.1")]
    async with RawBackend(echo) as backend, siege(backend, name="us") as gate:
        assert (await gate.ask(got("/x", via))).status == 200
    (request,) = backend.requests
    assert request.all("via") == [
        b"1.1 us2, 1.1 not-us, 1.1 a (us), 1.1 bulk-gateway-1, us 1.1, 1.1 us"
    ]


async def test_a_long_via_costs_no_more_than_its_length() -> None:
    fields = [("Via", ",".join(["1.1 a"] * 2000)) for _ in range(3)]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        assert (await gate.ask(got("/x", fields))).status == 200
        request = posted("/bulk", json.dumps({"requests": [{"url": "/x"}]}).encode(), fields)
        assert (await gate.ask(request)).status == 200

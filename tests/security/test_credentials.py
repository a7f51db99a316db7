"""Whoever may do something in one subrequest may do it in no other."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    SUGARCRM,
    TRUTO,
    Format,
    echo,
    got,
    posted,
    siege,
    truto,
)
from tests.support.raw_backend import Peer, RawBackend, Request, ok

NAMES = ("authorization", "oauth-token", "token", "apikey", "cookie", "x-session")
GROUPS = {
    "sugarcrm": ({"oauth-token", "authorization"}, "outer"),
    "guidewire": ({"authorization"}, "own"),
    "agendize": ({"token", "apikey", "authorization"}, "own"),
}
"""The names that identify a caller together, and whose hold where both sides bring some."""

Wallet = dict[str, str]


def expected(form: Format, outer: Wallet, own: Wallet) -> Wallet:
    """What a subrequest carries, said a second time and in another way than `headers.merge`."""
    group, precedence = GROUPS[form.name]
    if precedence == "outer" and group & outer.keys():
        own = {name: value for name, value in own.items() if name not in group}
    elif group & own.keys():
        outer = {name: value for name, value in outer.items() if name not in group}
    return outer | own


def carried(request: Request) -> Wallet:
    found = {name: [v.decode() for v in request.all(name)] for name in NAMES}
    assert all(len(values) <= 1 for values in found.values())
    return {name: values[0] for name, values in found.items() if values}


def wallet(owner: str, names: set[str]) -> Wallet:
    return {name: f"{owner}'s {name}" for name in NAMES if name in names}


some_names = st.sets(st.sampled_from(NAMES))
SHAPES: st.SearchStrategy[list[Any]] = st.recursive(
    st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=8
)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@settings(max_examples=15)
@given(
    outer=some_names,
    parts=st.lists(st.tuples(some_names, st.booleans()), max_size=7),
    data=st.data(),
)
async def test_no_credential_crosses_from_one_subrequest_to_another(
    form: Format, outer: set[str], parts: list[tuple[set[str], bool]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(parts))))
    entries, wallets = [], {}
    for place in order:
        names, write = parts[place]
        own = wallet(f"part {place}", names)
        spelt = data.draw(st.sampled_from(sorted(form.own)))
        wallets[f"/part/{place}"] = own
        method = "POST" if write else "GET"
        entries.append(form.entry(f"/part/{place}", method, form.own[spelt](list(own.items()))))
    everybody = wallet("outer", outer)
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.bulk(form, entries, list(everybody.items()))
        assert form.statuses(answer) == [200] * len(parts)
    assert len(backend.requests) == len(parts)
    for request in backend.requests:
        assert carried(request) == expected(form, everybody, wallets[request.target])


@settings(max_examples=15)
@given(outer=some_names, shape=SHAPES, data=st.data())
async def test_a_nested_request_has_nothing_of_its_parents(
    outer: set[str], shape: list[Any], data: st.DataObject
) -> None:
    """Agendize nests requests in requests; each is a caller of its own."""
    wallets: dict[str, Wallet] = {}

    def made(children: list[Any]) -> dict[str, Any]:
        target = f"/part/{len(wallets)}"
        own = wallets[target] = wallet(target, data.draw(some_names))
        entry = AGENDIZE.entry(target, own=own)
        entry["requests"] = [made(child) for child in children]
        return entry

    entries = [made(children) for children in (shape, [])]
    everybody = wallet("outer", outer)
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.bulk(AGENDIZE, entries, list(everybody.items()))
        assert answer.status == 200
    assert len(backend.requests) == len(wallets)
    for request in backend.requests:
        assert carried(request) == expected(AGENDIZE, everybody, wallets[request.target])


@settings(max_examples=15)
@given(outer=some_names, group=some_names, parts=st.lists(some_names, max_size=4))
async def test_what_a_nested_bulk_call_brings_holds_inside_it_alone(
    outer: set[str], group: set[str], parts: list[set[str]]
) -> None:
    """SugarCRM's: its own fields are the outer ones of what stands in it, and of nobody else."""
    everybody, shared = wallet("outer", outer), wallet("group", group)
    wallets = {f"/in/{i}": wallet(f"part {i}", names) for i, names in enumerate(parts)}
    inner = [SUGARCRM.entry(target, own=own) for target, own in wallets.items()]
    entries = [
        SUGARCRM.entry("/before"),
        SUGARCRM.entry("/bulk", "POST", shared, {"requests": inner}),
        SUGARCRM.entry("/after"),
    ]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        answer = await gate.bulk(SUGARCRM, entries, list(everybody.items()))
        assert SUGARCRM.statuses(answer) == [200] * 3
    requests = {request.target: request for request in backend.requests}
    assert carried(requests["/before"]) == carried(requests["/after"]) == everybody
    for target, own in wallets.items():
        own = expected(SUGARCRM, shared, own)
        assert carried(requests[target]) == expected(SUGARCRM, everybody, own)


@given(outer=some_names)
@settings(max_examples=10)
async def test_a_format_without_own_fields_has_the_outer_ones_alone(outer: set[str]) -> None:
    everybody = wallet("outer", outer)
    node = {"resource": "r", "method": "list", "headers": {"authorization": "mine"}}
    async with RawBackend(echo) as backend, siege(backend) as gate:
        fields = list(everybody.items())
        assert (await gate.post(TRUTO, truto(node, node), fields)).status == 200
    assert [carried(request) for request in backend.requests] == [everybody] * 2


async def test_a_key_in_the_outer_query_goes_to_those_parts_that_bring_none() -> None:
    entries = [
        AGENDIZE.entry("/plain"),
        AGENDIZE.entry("/asks?x=1"),
        AGENDIZE.entry("/own?apiKey=own"),
        AGENDIZE.entry("/empty?apiKey="),
        AGENDIZE.entry("/token", own={"token": "t"}),
        AGENDIZE.entry("/bearer", own="Authorization: b"),
    ]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        document = AGENDIZE.document(entries)
        answer = await gate.post(AGENDIZE.path + "?apiKey=a%26b%3D1", document)
        told = [result["path"] for result in answer.json["responses"]]
        assert told == [entry["path"] for entry in entries]
    keys = {
        url.path: dict(parse_qsl(url.query, keep_blank_values=True)).get("apiKey")
        for url in (urlsplit(request.target) for request in backend.requests)
    }
    assert keys == {
        "/plain": "a&b=1",
        "/asks": "a&b=1",
        "/own": "own",
        "/empty": "",
        "/token": None,
        "/bearer": None,
    }


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_no_cookie_is_kept_for_anybody(form: Format) -> None:
    async def generous(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(ok(b"{}", f"Set-Cookie: session={request.target[1:]}; Path=/"))

    entries = [form.entry(f"/{i}", "POST" if i % 2 else "GET", body=[]) for i in range(6)]
    if form.name == "guidewire":
        entries = [form.entry(f"/{i}", "POST", body={}) for i in range(6)]
    async with RawBackend(generous) as backend, siege(backend) as gate:
        for _ in range(2):
            answer = await gate.bulk(form, entries)
            assert form.statuses(answer) == [200] * 6
            assert not answer.all("set-cookie")
        assert (await gate.ask(got("/passed"))).all("set-cookie") == ["session=passed; Path=/"]
        await gate.ask(got("/passed"))
    assert len(backend.requests) == 14
    assert not [request for request in backend.requests if request.header("cookie")]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Again", "308 For ever"])
async def test_a_redirect_is_an_answer_and_takes_nobodys_credentials_anywhere(
    form: Format, status: str
) -> None:
    async def elsewhere(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(ok(b"{}", f"Location: {elsewhere_url}/taken", status=status))

    async with RawBackend(echo) as other, RawBackend(elsewhere) as backend, siege(backend) as gate:
        elsewhere_url = other.url
        fields = [("Authorization", "Bearer mine")]
        answer = await gate.bulk(form, [form.entry("/a"), form.entry("/b")], fields)
        assert form.statuses(answer) == [int(status[:3])] * 2
        assert (await gate.ask(got("/passed", fields))).status == int(status[:3])
        assert not other.requests
    assert len(backend.requests) == 3


async def test_one_clients_fields_are_on_no_other_clients_calls() -> None:
    """Both share the pool and its connections, and what is rendered once per batch."""
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for form in FORMATS:
            for client in ("ann", "bob"):
                document = form.document([form.entry(f"/{client}") for _ in range(5)])
                await gate.ask(posted(form.path, document, [("Authorization", client)]))
            await gate.ask(posted(form.path, form.document([form.entry("/nobody")] * 2)))
    for request in backend.requests:
        said = request.header("authorization")
        assert said == (None if request.target == "/nobody" else request.target[1:].encode())
    assert len(backend.peers) <= 8

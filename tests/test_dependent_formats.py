"""Agendize and Truto at the whole gateway, over real sockets: results that feed other calls."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gateway import evaluation
from gateway.config.settings import Limits, Listener, Settings, Upstream
from gateway.server import serving
from tests.front import Raw, length_of, raw
from tests.support.raw_backend import Peer, RawBackend, ok

LOOPBACK = Listener(address="127.0.0.1:0")
ENDLESS = "$match($pad('', 40, 'a') & 'b', /(a*)*c/)"
"""An expression in JSONata."""
Route = Callable[[str], Awaitable[bytes]]


class Backend(RawBackend):
    """Answers by method and target; what is not in the table is `{}`."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__(self._serve)
        self.answers = answers
        self.asked: list[str] = []
        self.held: dict[str, asyncio.Event] = {}
        """Calls that are answered when the test says so."""

    async def _serve(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            line = f"{request.method} {request.target}"
            self.asked.append(f"{line} {request.body.decode()}".strip())
            if line in self.held:
                await self.held[line].wait()
            await peer.send(ok(self.answers.get(line, "{}").encode()))


@asynccontextmanager
async def gateway(backend: Backend, **sections: Any) -> AsyncIterator[str]:
    """The address of a gateway in front of the backend."""
    upstream = Upstream(url=backend.url)
    settings = dataclasses.replace(
        Settings(), listen=(LOOPBACK,), ops=LOOPBACK, upstream=upstream, **sections
    )
    async with serving(settings) as running:
        yield running.addresses[0]


async def bulk(address: str, path: str, body: Any, **fields: str) -> Any:
    async with aiohttp.ClientSession() as client:
        url = f"http://{address}{path}"
        async with client.post(url, json=body, headers=fields) as answer:
            assert answer.status == 200
            return json.loads(await answer.read(), parse_float=str)


# --- Agendize -------------------------------------------------------------------------------------


async def test_a_64_bit_id_arrives_in_the_next_call_digit_for_digit() -> None:
    answers = {"POST /api/2.1/companies": '{"id": 18446744073709551615, "rate": 1.10}'}
    async with Backend(answers) as backend, gateway(backend) as address:
        first = {"path": "/api/2.1/companies", "method": "POST", "name": "c", "body": {"n": 1}}
        second = {
            "path": "/api/2.1/companies/${result=c:$.id}/services",
            "method": "POST",
            "body": {"of": "${result=c:$.id}", "rate": "${result=c:$.rate}"},
        }
        told = await bulk(
            address, "/api/2.3/batch", {"requests": [{**first, "requests": [second]}]}
        )
    path = "/api/2.1/companies/18446744073709551615/services"
    assert backend.asked[1] == f'POST {path} {{"of": 18446744073709551615, "rate": 1.10}}'
    assert told["responses"][0]["responses"][0]["path"] == path


async def test_a_part_with_credentials_of_its_own_is_of_no_other_identity() -> None:
    parts = [{"path": "/a"}, {"path": "/b", "headers": {"token": "T2"}}, {"path": "/c"}]
    async with Backend({}) as backend, gateway(backend) as address:
        await bulk(address, "/api/2.3/batch", {"requests": parts}, token="T", apiKey="K")
    sent = {
        request.target: (request.all("token"), request.all("apikey"))
        for request in backend.requests
    }
    outer = ([b"T"], [b"K"])
    assert sent == {"/a": outer, "/b": ([b"T2"], []), "/c": outer}


# --- Truto ----------------------------------------------------------------------------------------

SDK = b"""POST /batch-request HTTP/1.1\r
Host: 127.0.0.1:18666\r
Authorization: Bearer t\r
Content-Type: application/json\r
Accept: application/json\r
Accept-Encoding: gzip, deflate\r
User-Agent: Python/3.12 aiohttp/3.14.5\r
Content-Length: 422\r
\r
{"integrated_account_id": "A", "args": {"limit": 1, "ids": ["u1", "u2"]}, "resources": [\
{"resource": "crm/contacts", "method": "list", "query": {"limit": "{{args.limit:int}}"}}, \
{"resource": "crm/notes", "method": "list", "depends_on": "crm/contacts", \
"query": {"contact": {"id": "{{resources.crm.contacts.id}}"}}}, \
{"resource": "users", "method": "get", "id": "{{args.ids}}", "loop_on": "{{args.ids}}", \
"persist": true}]}"""
"""What PyPI's truto-python-sdk 0.1.6 sends for `batch_requests.create`, as it was received."""

ACCOUNT = "integrated_account_id=A"
CONTACTS = f"GET /unified/crm/contacts?limit=1&{ACCOUNT}"


async def test_the_vendors_sdk_is_understood() -> None:
    """The captured bytes: two pages, a fan-out, a loop, and the answer in the vendor's shape."""
    answers = {
        CONTACTS: '{"result": [{"id": 9223372036854775808}], "next_cursor": "c2"}',
        f"{CONTACTS}&next_cursor=c2": '{"result": [{"id": "two"}], "next_cursor": null}',
        f"GET /unified/crm/notes?contact[id]=two&{ACCOUNT}": '{"result": [1, 2]}',
        f"GET /proxy/users/u2?{ACCOUNT}": '{"id": "u2"}',
    }
    async with Backend(answers) as backend, gateway(backend) as address, raw(address) as client:
        client.send(SDK)
        answer = await _document(client)
    assert sorted(backend.asked) == sorted(
        [
            CONTACTS,
            f"{CONTACTS}&next_cursor=c2",
            f"GET /unified/crm/notes?contact[id]=9223372036854775808&{ACCOUNT}",
            f"GET /unified/crm/notes?contact[id]=two&{ACCOUNT}",
            f"GET /proxy/users/u1?{ACCOUNT}",
            f"GET /proxy/users/u2?{ACCOUNT}",
        ]
    )
    assert answer == {
        "result": {
            "crm/contacts": [{"id": 9223372036854775808}, {"id": "two"}],
            "crm/notes": [{}, 1, 2],
            "users": [{}, {"id": "u2"}],
        },
        "errors": {"crm/contacts": [], "crm/notes": [], "users": []},
    }


async def _document(client: Raw) -> Any:
    """An answer's contents: it has a length when it was quick enough to be one write."""
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    if b"chunked" not in head:
        return json.loads(await client.exactly(length_of(head)))
    body = b""
    while size := int(await client.until(b"\r\n"), 16):
        body += (await client.exactly(size + 2))[:-2]
    return json.loads(body)


async def test_the_page_of_the_key_being_written_leaves_before_the_next_one_is_there() -> None:
    page, last = f"GET /unified/crm/a?{ACCOUNT}", f"GET /unified/crm/a?{ACCOUNT}&next_cursor=2"
    answers = {page: '{"result": ["first page"], "next_cursor": 2}', last: '{"result": ["last"]}'}
    body = {"integrated_account_id": "A", "resources": [{"resource": "crm/a", "method": "list"}]}
    text = json.dumps(body).encode()
    async with Backend(answers) as backend, gateway(backend) as address, raw(address) as client:
        backend.held[last] = asyncio.Event()
        client.send(
            b"POST /batch-request HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % len(text)
            + text
        )
        await client.until(b'"first page"')
        backend.held[last].set()
        assert b'"last"' in await client.until(b"0\r\n\r\n")


async def test_jsonata_transforms_records_and_what_never_ends_is_an_error_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "SECONDS", 0.4)
    nodes = [
        {"resource": "contacts", "method": "list"},
        _transform("names", "resources.contacts.{'who': name}"),
        _transform("endless", ENDLESS),
        {
            "resource": "crm/made",
            "method": "create",
            "depends_on": "names",
            "body": "{'all': resources.names.who}",
        },
    ]
    answers = {f"GET /proxy/contacts?{ACCOUNT}": '{"result": [{"name": "a"}, {"name": "b"}]}'}
    async with Backend(answers) as backend, gateway(backend) as address:
        body = {"integrated_account_id": "A", "resources": nodes}
        told = await bulk(address, "/batch-request", body)
    assert told["result"]["names"] == [{"who": "a"}, {"who": "b"}]
    assert told["result"]["endless"] == []
    (entry,) = told["errors"]["endless"]
    assert entry["message"] == "resources[2]: an expression takes more than 0.4 s"
    assert f'POST /unified/crm/made?{ACCOUNT} {{"all":["a","b"]}}' in backend.asked


async def test_an_expression_that_the_batchs_deadline_ends_is_a_504_like_all_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "SECONDS", 60)
    nodes = [{"resource": "contacts", "method": "list"}, _transform("endless", ENDLESS)]
    async with (
        Backend({}) as backend,
        gateway(backend, limits=Limits(batch_time=0.2)) as address,
    ):
        body = {"integrated_account_id": "A", "resources": nodes}
        told = await bulk(address, "/batch-request", body)
    (entry,) = told["errors"]["endless"]
    assert (entry["statusCode"], entry["message"]) == (504, "resources[1]: batch deadline")


def _transform(name: str, expression: str) -> dict[str, Any]:
    config = {"expression": expression}
    return {
        "name": name,
        "type": "transform",
        "depends_on": "contacts",
        "persist": True,
        "config": config,
    }

"""The real clients that the formats were made for, unmodified, through the gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp.test_utils import TestServer

from gateway.config.settings import Listener, Settings, Upstream
from gateway.demo import samples
from gateway.demo.backend import Crm
from gateway.server import serving
from tests.support import truto_sdk

LOOPBACK = Listener(address="127.0.0.1:0")


def settings(backend: TestServer) -> Settings:
    upstream = Upstream(url=f"http://127.0.0.1:{backend.port}")
    return Settings(listen=(LOOPBACK,), ops=LOOPBACK, upstream=upstream)


async def test_pysugarcrm_logs_in_and_uses_bulk() -> None:
    def use(base: str) -> tuple[Any, Any]:
        from pysugarcrm import SugarCRM

        api = SugarCRM(base, "u", "p")
        entries = [
            {"url": "/v10/Accounts?max_num=2"},
            {"url": "/v10/Contacts", "method": "POST", "data": '{"last_name": "Vance"}'},
            {"url": "/v10/Nope"},
        ]
        try:
            return api.me, api.post("/bulk", json={"requests": entries})
        finally:
            api.session.close()

    async with TestServer(Crm(work=0.0).app) as backend, serving(settings(backend)) as gateway:
        me, results = await asyncio.to_thread(use, f"http://{gateway.address}")
    assert me["current_user"]["user_name"]
    assert [result["status"] for result in results] == [200, 200, 404]
    assert len(results[0]["contents"]["records"]) == 2
    assert results[1]["contents"]["last_name"] == "Vance"
    assert results[2]["contents"]["error"]


async def test_sugarcrms_client_survives_a_refresh_of_its_token() -> None:
    """The outer token is new, the entries' are still the old one (dialects 0.1)."""
    stale = {"OAuth-Token": "expired"}
    entries = [
        {"url": "v11_3/Accounts?max_num=1", "headers": stale},
        {"url": "v11_3/Contacts", "method": "POST", "data": "{}", "headers": stale},
    ]

    def use(base: str) -> list[tuple[int, Any]]:
        import requests

        url = f"{base}/rest/v11_3/bulk"
        with requests.Session() as session:
            first = session.post(url, json={"requests": entries}, headers=stale)
            login = session.post(f"{base}/rest/v11_3/oauth2/token", data='{"username": "u"}')
            fresh = {"OAuth-Token": login.json()["access_token"]}
            again = session.post(url, json={"requests": entries}, headers=fresh)
        return [(answer.status_code, answer.json()) for answer in (first, again)]

    crm = Crm(work=0.0)
    async with TestServer(crm.app) as backend, serving(settings(backend)) as gateway:
        refused, answered = await asyncio.to_thread(use, f"http://{gateway.address}")
    assert refused == (401, refused[1])
    assert refused[1]["error"] == "invalid_grant"
    assert answered[0] == 200
    assert [result["status"] for result in answered[1]] == [200, 200]
    assert sum(seen.method == "POST" and "Contacts" in seen.target for seen in crm.seen) == 1


TRUTO = """
import asyncio, json, sys
from aiohttp import ClientResponseError
from truto_python_sdk import TrutoApi

async def use():
    api = TrutoApi(token="demo", base_url=sys.argv[1])
    good, bad = json.load(sys.stdin)
    answer = await api.batch_requests.create(good)
    try:
        refused = await api.batch_requests.create(bad)
    except ClientResponseError as error:
        refused = error.status
    users = [user async for user in api.proxy_api.list("users", {"integrated_account_id": "A"})]
    print(json.dumps([answer, refused, users]))

asyncio.run(use())
"""


async def test_trutos_sdk_sends_batches_and_is_told_of_a_refusal() -> None:
    """Two pages of contacts, notes of each, a loop; a batch that names nobody; pass-through."""
    python = truto_sdk.python()
    good = samples.TRUTO.body
    bad = {**good, "resources": [{**good["resources"][1], "depends_on": "nobody"}]}
    crm = Crm(work=0.0)
    async with TestServer(crm.app) as backend, serving(settings(backend)) as gateway:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", TRUTO, f"http://{gateway.address}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(json.dumps([good, bad]).encode())
    answer, refused, users = json.loads(out)
    contacts = [contact["id"] for contact in answer["result"]["crm/contacts"]]
    assert contacts == [f"con-{number}" for number in range(1, 6)]
    assert {note["contact"]["id"] for note in answer["result"]["crm/notes"]} <= set(contacts)
    assert [user["id"] for user in answer["result"]["users"]] == ["con-1", "con-2"]
    assert answer["errors"] == {"crm/contacts": [], "crm/notes": [], "users": []}
    assert refused == 400
    assert [user["id"] for user in users] == contacts

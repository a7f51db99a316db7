"""The demo: a backend that can be believed, and a show that tells what happened."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from gateway.config import Settings
from gateway.demo.api import TOKEN
from gateway.demo.backend import Crm, Seen
from gateway.demo.picture import Row, drawn, laid_out, rows
from gateway.demo.samples import SAMPLES
from gateway.dialects import DIALECTS
from gateway.target import Pattern
from gateway.terminal import Ink

Client = TestClient[Any, Any]


@pytest.fixture(autouse=True)
def _as_wide_as_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


CREDENTIALS = {
    "sugarcrm": {"OAuth-Token": TOKEN},
    "guidewire": {"Authorization": "Basic ZGVtbzpkZW1v"},
    "agendize": {"token": "t", "apiKey": "k"},
    "truto": {"Authorization": "Bearer t"},
}


@pytest.fixture
async def crm(aiohttp_client: Callable[..., Awaitable[Client]]) -> Client:
    return await aiohttp_client(Crm(work=0.0).app)


async def ask(
    crm: Client, vendor: str, method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    async with crm.request(method, path, json=body, headers=CREDENTIALS[vendor]) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


# --- the backend ---------------------------------------------------------------------------------


async def test_a_record_is_made_found_changed_and_deleted(crm: Client) -> None:
    status, made = await ask(crm, "sugarcrm", "POST", "/rest/v10/Contacts", {"last_name": "Vance"})
    path = f"/rest/v10/Contacts/{made['id']}"
    assert status == 200
    assert (await ask(crm, "sugarcrm", "GET", "/rest/v10/Contacts?q=vance"))[1]["records"] == [made]
    await ask(crm, "sugarcrm", "PUT", path, {"last_name": "Vale"})
    assert (await ask(crm, "sugarcrm", "GET", path))[1]["last_name"] == "Vale"
    assert await ask(crm, "sugarcrm", "DELETE", path) == (200, {"id": made["id"]})
    assert (await ask(crm, "sugarcrm", "GET", path))[0] == 404


async def test_sugarcrm_lists_come_in_pages(crm: Client) -> None:
    _, first = await ask(crm, "sugarcrm", "GET", "/rest/v11_3/Accounts?max_num=4&fields=name")
    _, last = await ask(crm, "sugarcrm", "GET", "/rest/v11_3/Accounts?max_num=4&offset=4")
    assert (first["next_offset"], len(first["records"])) == (4, 4)
    assert (last["next_offset"], len(last["records"])) == (-1, 1)
    assert first["records"][0] == {"id": "acc-1", "name": "Aurora Freight", "_module": "Accounts"}


async def test_whoever_logs_in_gets_the_token_that_is_asked_for(crm: Client) -> None:
    # As pysugarcrm does it: without a content type.
    async with crm.post("/rest/v10/oauth2/token", data=b'{"username": "u"}') as response:
        token = (await response.json())["access_token"]
    async with crm.get("/rest/v10/me", headers={"OAuth-Token": token}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("headers", "label"), [({}, "need_login"), ({"OAuth-Token": "old"}, "invalid_grant")]
)
async def test_sugarcrm_says_whether_a_token_is_missing_or_old(
    crm: Client, headers: dict[str, str], label: str
) -> None:
    async with crm.get("/rest/v10/me", headers=headers) as response:
        assert (response.status, (await response.json())["error"]) == (401, label)


@pytest.mark.parametrize(
    ("vendor", "method", "path", "status", "error"),
    [
        (
            "sugarcrm",
            "GET",
            "/rest/v10/Forecasts",
            500,
            {"error": "fatal_error", "error_message": "Table 'forecasts' is marked as crashed"},
        ),
        (
            "sugarcrm",
            "GET",
            "/rest/v10/Accounts/x",
            404,
            {"error": "not_found", "error_message": "Could not find record x in Accounts"},
        ),
        (
            "guidewire",
            "GET",
            "/rest/claim/v1/claims/cc:1",
            404,
            {
                "status": 404,
                "errorCode": "gw.api.rest.exceptions.NotFoundException",
                "userMessage": "Could not find record cc:1 in claims",
            },
        ),
        (
            "agendize",
            "GET",
            "/api/2.1/scheduling/companies/9",
            404,
            {"error": {"code": 404, "message": "Could not find record 9 in companies"}},
        ),
        (
            "truto",
            "GET",
            "/proxy/users/9?integrated_account_id=a",
            404,
            {
                "statusCode": 404,
                "error": "Not Found",
                "message": "Could not find record 9 in Contacts",
            },
        ),
    ],
)
async def test_each_vendor_has_its_own_shape_of_errors(
    crm: Client, vendor: str, method: str, path: str, status: int, error: Any
) -> None:
    assert await ask(crm, vendor, method, path) == (status, error)


async def test_guidewire_wraps_records_and_minds_their_checksum(crm: Client) -> None:
    note = {"data": {"attributes": {"body": "n1"}}}
    status, made = await ask(
        crm, "guidewire", "POST", "/rest/claim/v1/activities/xc:11/notes", note
    )
    assert (status, made["data"]["attributes"]["body"]) == (201, "n1")
    path = f"/rest/claim/v1/notes/{made['data']['attributes']['id']}"
    _, changed = await ask(crm, "guidewire", "PATCH", path, note)
    assert changed["data"]["checksum"] == "1"
    headers = {**CREDENTIALS["guidewire"], "GW-Checksum": "0"}
    async with crm.patch(path, json=note, headers=headers) as response:
        assert response.status == 409
    assert await ask(crm, "guidewire", "DELETE", path) == (204, None)


async def test_agendize_keeps_services_and_staff_with_their_company(crm: Client) -> None:
    base = "/api/2.1/scheduling/companies"
    _, company = await ask(crm, "agendize", "POST", base, {"name": "My Location"})
    children = f"{base}/{company['id']}/services"
    _, service = await ask(crm, "agendize", "POST", children, {"name": "Haircut"})
    assert await ask(crm, "agendize", "GET", children) == (200, {"items": [service]})
    assert (await ask(crm, "agendize", "GET", f"{base}/101/services"))[1] == {"items": []}


async def test_truto_lists_have_a_cursor_and_nested_queries(crm: Client) -> None:
    contacts = "/unified/crm/contacts?integrated_account_id=a&limit=3"
    _, page = await ask(crm, "truto", "GET", contacts)
    _, last = await ask(crm, "truto", "GET", f"{contacts}&next_cursor={page['next_cursor']}")
    assert (len(page["result"]), len(last["result"]), last["next_cursor"]) == (3, 2, None)
    notes = "/unified/crm/notes?integrated_account_id=a&contact[id]=con-3"
    assert (await ask(crm, "truto", "GET", notes))[1]["result_count"] == 1


async def test_the_backend_remembers_when_each_call_came_and_ended(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    backend = Crm(work=0.0)
    crm = await aiohttp_client(backend.app)
    await ask(crm, "sugarcrm", "GET", "/rest/v10/me")
    await crm.get("/nowhere")
    first, second = backend.seen
    assert (first.method, first.target, first.status) == ("GET", "/rest/v10/me", 200)
    assert first.began <= first.ended <= second.began
    assert second.status == 404


# --- the picture ---------------------------------------------------------------------------------

SEEN = [
    Seen("b.0", "GET", "/a", 10.0, 10.1, 200),
    Seen("b.1", "GET", "/b", 10.0, 10.2, 200),
    Seen("b.2", "POST", "/c", 10.2, 10.4, 500),
]
RESULTS = [("GET", "a", 200), ("GET", "b", 200), ("POST", "c", 500), ("GET", "d", 424)]


def test_a_result_finds_the_backends_record_by_its_request_id() -> None:
    table = rows([SEEN[2], SEEN[0], SEEN[1]], RESULTS)
    assert [row.seen for row in table] == [*SEEN, None]


def test_without_results_the_backends_record_is_the_table() -> None:
    assert rows(SEEN, None)[2] == Row(2, "POST", "/c", 500, SEEN[2])


def test_the_table_shows_what_ran_together_and_what_was_not_sent() -> None:
    head, *lines = drawn(rows(SEEN, RESULTS), Ink(StringIO()))
    assert head.split() == ["#", "call", "status", "took", "ran", "0", "400", "ms"]
    assert [re.split(r"  +", line.strip())[:5] for line in lines] == [
        ["0", "GET", "a", "200", "100 ms"],
        ["1", "GET", "b", "200", "200 ms"],
        ["2", "POST", "c", "500", "200 ms"],
        ["3", "GET", "d", "424", "not sent"],
    ]
    assert ["with 1" in lines[0], "with 0" in lines[1], "alone" in lines[2]] == [True] * 3
    bars = [line.count("█") for line in lines]
    assert bars[0] * 2 == bars[1] == bars[2]
    assert lines[2].index("█") == lines[1].rindex("█") + 1


def test_json_stays_on_a_line_where_it_fits() -> None:
    assert laid_out({"a": [1, 2]}, 0, 10) == '{"a": [1, 2]}'
    long = {"items": ["x" * 60, "y" * 60]}
    assert laid_out(long, 2, 10).splitlines() == [
        "{",
        '    "items": [',
        f'      "{"x" * 60}",',
        f'      "{"y" * 60}"',
        "    ]",
        "  }",
    ]


def test_a_long_document_loses_its_middle() -> None:
    lines = laid_out([["x" * 90]] * 20, 0, 10).splitlines()
    assert len(lines) == 10
    assert (lines[0], lines[6], lines[-1]) == ("[", "… 13 lines", "]")


# --- the show ------------------------------------------------------------------------------------


def test_every_sample_goes_to_an_endpoint_of_its_dialect() -> None:
    for sample in SAMPLES:
        if sample.dialect in DIALECTS:
            path = sample.path.partition("?")[0]
            endpoint = next(
                e for e in Settings().endpoints if Pattern(e.path).match(path) is not None
            )
            assert endpoint.dialect == sample.dialect


async def demo(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_demo_once_shows_a_bulk_call_of_each_dialect_and_ends() -> None:
    process = await demo("--once")
    out, err = await process.communicate()
    text = out.decode()
    assert (process.returncode, err.decode()) == (0, "")
    assert "\x1b" not in text
    for name in DIALECTS:
        assert f"── {name} ─" in text
        assert f"# {name}\n  curl -s " in text
    assert re.search(r"POST +v11_3/Contacts +200 +\d+ ms +alone", text)
    assert re.search(r"GET +v11_3/Forecasts +500", text)
    assert re.search(r"DELETE /claims/cc:24 +424 +not sent", text)


async def test_demo_stays_up_until_it_is_interrupted() -> None:
    process = await demo()
    assert process.stdout is not None
    while b"until Ctrl-C" not in await process.stdout.readline():
        assert process.returncode is None
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")

"""One bulk call per dialect, as its clients send them, and what to read out of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.demo.api import TOKEN

Result = tuple[str, str, int]
"""Method and target as the client wrote them, and the status it was told."""


@dataclass(frozen=True)
class Sample:
    """A bulk call worth looking at."""

    dialect: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    look: str
    """What there is to see in it."""
    results: Callable[[Any, Any], Iterator[Result]] | None
    """Request and answer -> results in client order; None where the answer has no statuses."""
    short: dict[str, Any]
    """A smaller body, to be typed."""


def _sugarcrm(asked: Any, answered: Any) -> Iterator[Result]:
    for entry, result in zip(asked["requests"], answered, strict=True):
        yield entry.get("method", "GET"), entry["url"], result["status"]


def _guidewire(asked: Any, answered: Any) -> Iterator[Result]:
    for entry, result in zip(asked["requests"], answered["responses"], strict=True):
        query = f"?{entry['query']}" if "query" in entry else ""
        yield entry["method"].upper(), entry["path"] + query, result["status"]


def _agendize(_: Any, answered: Any) -> Iterator[Result]:
    for result in answered["responses"]:
        yield result["method"], result["path"], result["status"]
        yield from _agendize(_, result) if "responses" in result else ()


SUGARCRM = Sample(
    dialect="sugarcrm",
    path="/rest/v11_3/bulk",
    headers={"OAuth-Token": TOKEN},
    look="Reads run together, the write keeps its place, and a broken module fails alone.",
    body={
        "requests": [
            {"url": "v11_3/me"},
            {"url": "v11_3/Accounts?max_num=2&fields=name,city"},
            {"url": "v11_3/Reports/pipeline"},
            {"url": "v11_3/Contacts", "method": "POST", "data": '{"last_name": "Vance"}'},
            {"url": "v11_3/Contacts?q=vance"},
            {"url": "v11_3/Forecasts"},
        ]
    },
    results=_sugarcrm,
    short={"requests": [{"url": "v11_3/me"}, {"url": "v11_3/Accounts?max_num=1"}]},
)

GUIDEWIRE = Sample(
    dialect="guidewire",
    path="/rest/claim/v1/batch?includeResponseHeaders=none",
    headers={"Authorization": "Basic ZGVtbzpkZW1v"},
    look="A write that must succeed does not, so what follows it is never sent.",
    body={
        "requests": [
            {"method": "get", "path": "/claims/cc:22", "query": "fields=description,status"},
            {"method": "get", "path": "/claims/cc:22/activities"},
            {
                "method": "post",
                "path": "/activities/xc:11/notes",
                "data": {"attributes": {"body": "Estimate is in"}},
            },
            {
                "method": "patch",
                "path": "/notes/xc:404",
                "body": {"data": {"attributes": {"body": "?"}}},
                "onFail": "abort",
            },
            {"method": "delete", "path": "/claims/cc:24"},
        ]
    },
    results=_guidewire,
    short={
        "requests": [
            {"method": "get", "path": "/claims/cc:22"},
            {"method": "get", "path": "/claims/cc:22/activities"},
        ]
    },
)

AGENDIZE = Sample(
    dialect="agendize",
    path="/api/2.3/batch",
    headers={"token": "partner", "apiKey": "demo"},
    look="Later requests use the id that an earlier one was given.",
    body={
        "requests": [
            {
                "path": "/api/2.1/scheduling/companies",
                "method": "POST",
                "name": "add-company",
                "body": {"name": "My Location"},
                "requests": [
                    {
                        "path": "/api/2.1/scheduling/companies/${result=add-company:$.id}/services",
                        "method": "POST",
                        "name": "add-service",
                        "body": {"name": "Haircut"},
                    }
                ],
            },
            {
                "path": "/api/2.1/scheduling/companies/${result=add-company:$.id}/staff",
                "method": "POST",
                "body": {"firstName": "Jo", "services": [{"id": "${result=add-service:$.id}"}]},
            },
            {"path": "/api/2.1/scheduling/companies/101", "method": "GET"},
            {"path": "/api/2.1/scheduling/companies/102", "method": "GET"},
        ]
    },
    results=_agendize,
    short={
        "requests": [
            {"path": "/api/2.1/scheduling/companies/101", "method": "GET"},
            {"path": "/api/2.1/scheduling/companies/102", "method": "GET"},
        ]
    },
)

TRUTO = Sample(
    dialect="truto",
    path="/batch-request",
    headers={"Authorization": "Bearer demo"},
    look="A list is followed page by page; each contact's notes and each user are fetched.",
    body={
        "integrated_account_id": "demo-account",
        "args": {"limit": 3, "users": ["con-1", "con-2"]},
        "resources": [
            {
                "resource": "crm/contacts",
                "method": "list",
                "query": {"limit": "{{args.limit:int}}"},
            },
            {
                "resource": "crm/notes",
                "method": "list",
                "depends_on": "crm/contacts",
                "query": {"contact": {"id": "{{resources.crm.contacts.id}}"}},
            },
            {
                "resource": "users",
                "method": "get",
                "id": "{{args.users}}",
                "loop_on": "{{args.users}}",
                "persist": True,
            },
        ],
    },
    results=None,
    short={
        "integrated_account_id": "demo-account",
        "resources": [{"resource": "crm/accounts", "method": "list"}],
    },
)

SAMPLES = (SUGARCRM, GUIDEWIRE, AGENDIZE, TRUTO)

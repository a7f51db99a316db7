"""The demo backend's records: a few believable ones, made anew for every start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import count
from typing import Any

Record = dict[str, Any]

ACCOUNTS = (
    ("acc-1", "Aurora Freight", "Transport", "Hamburg"),
    ("acc-2", "Beacon Dental", "Health", "Leeds"),
    ("acc-3", "Cobalt Foundry", "Manufacturing", "Essen"),
    ("acc-4", "Dune Analytics", "Software", "Lisbon"),
    ("acc-5", "Ember & Sons", "Retail", "Cork"),
)
CONTACTS = (
    ("con-1", "Ada", "Lind", "acc-1"),
    ("con-2", "Bo", "Okafor", "acc-1"),
    ("con-3", "Cleo", "Marsh", "acc-3"),
    ("con-4", "Dov", "Petit", "acc-4"),
    ("con-5", "Edda", "Ruiz", "acc-5"),
)
CLAIMS = (
    ("cc:22", "Hail on a parked car", "open", "2 450.00"),
    ("cc:23", "Burst pipe, ground floor", "open", "18 900.00"),
    ("cc:24", "Stolen bicycle", "closed", "640.00"),
)
COMPANIES = (("101", "Harbour Clinic"), ("102", "Old Town Barbers"))


class Store:
    """Collections of records by id."""

    def __init__(self) -> None:
        self._collections: defaultdict[str, dict[str, Record]] = defaultdict(dict)
        self._numbers = count(501)

    def every(
        self, collection: str, wanted: Callable[[Record], bool] | None = None
    ) -> list[Record]:
        records = self._collections[collection].values()
        return [record for record in records if wanted is None or wanted(record)]

    def get(self, collection: str, id: str) -> Record | None:
        return self._collections[collection].get(id)

    def add(self, collection: str, record: Record, kind: str = "") -> Record:
        """Keeps the record; without an id of its own it gets the next number, after `kind`."""
        record.setdefault("id", f"{kind}{next(self._numbers)}")
        self._collections[collection][record["id"]] = record
        return record

    def drop(self, collection: str, id: str) -> Record | None:
        return self._collections[collection].pop(id, None)


def seeded() -> Store:
    store = Store()
    for id, name, industry, city in ACCOUNTS:
        store.add("Accounts", {"id": id, "name": name, "industry": industry, "city": city})
    for id, first, last, account in CONTACTS:
        store.add(
            "Contacts", {"id": id, "first_name": first, "last_name": last, "account_id": account}
        )
    for id, what, status, paid in CLAIMS:
        store.add("claims", {"id": id, "description": what, "status": status, "paid": paid})
    _paperwork(store)
    for id, name in COMPANIES:
        store.add("companies", {"id": id, "name": name})
    return store


def _paperwork(store: Store) -> None:
    """Activities of claims and their notes, notes of contacts."""
    for id, claim, subject in (
        ("xc:11", "cc:22", "Call the repair shop"),
        ("xc:12", "cc:22", "Check the weather report"),
        ("xc:13", "cc:23", "Send a surveyor"),
    ):
        store.add("activities", {"id": id, "parent": claim, "subject": subject})
    store.add("notes", {"id": "xc:90", "parent": "xc:11", "body": "Estimate expected on Monday"})
    for n, contact in enumerate(("con-1", "con-1", "con-3"), 1):
        note = {"id": f"note-{n}", "contact": {"id": contact}, "text": f"Talked on day {n}"}
        store.add("crm/notes", note)

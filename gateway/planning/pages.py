"""Lists that come in pages: what a page says, and how the next one is asked for."""

from __future__ import annotations

from gateway.batch import Paging
from gateway.target import segment
from gateway.templates import values


def read(page: bytes, paging: Paging) -> tuple[int, str]:
    """How many records a page has, and the cursor of the next one; empty: it was the last."""
    if values.kind(page) == "array":
        return len(values.items(page)), ""
    if values.kind(page) != "object":
        return 0, ""
    members = values.members(page)
    records = values.within(members, paging.records)
    cursor = values.within(members, paging.cursor)
    count = 0
    if records is not None and values.kind(records) == "array":
        count = len(values.items(records))
    if cursor is None or values.kind(cursor) not in ("string", "number"):
        return count, ""
    return count, values.text(cursor)


def following(target: str, paging: Paging, cursor: str) -> str:
    """The target of the next page: the first one's, but for the cursor."""
    path, _, query = target.partition("?")
    name = paging.parameter
    others = [pair for pair in query.split("&") if pair and pair.partition("=")[0] != name]
    return f"{path}?{'&'.join([*others, f'{name}={segment(cursor)}'])}"

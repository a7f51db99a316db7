"""The results of a bulk call, as its client meets them: what was asked, and when what came of it.

No dialect is asked: the request says which results there will be, and all four formats say in the
same few ways where they stand in the answer.

    [{..}, {..}]   {"key": {..}}   {"responses": [{.., "responses": [..]}]}   entries with a status
    {"result": {"key": [..]}, "errors": {"key": [..]}}                        records of a key
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.scanning import NotJson, Path, Scanner

NESTED = ("responses", "contents")
"""Members of an entry that hold the entries of what was nested in its request."""


@dataclass(slots=True)
class Result:
    """What became of one subrequest; seconds count from when the call was sent."""

    index: int
    call: str
    began: float = 0.0
    """When the result before it had come."""
    arrived: float | None = None
    status: int = 0
    """0: the format has none, or there is no result."""
    records: int | None = None
    """How many came, in a format that answers with records."""
    errors: list[str] = field(default_factory=list)
    bytes: int = 0

    @property
    def came(self) -> bool:
        return self.status > 0 or self.records is not None

    @property
    def failed(self) -> bool:
        return self.status >= 400 or bool(self.errors) or not self.came


class Results:
    """All results of one call."""

    def __init__(self, request: bytes) -> None:
        document = _loaded(request)
        self._mapped = isinstance(document, dict) and isinstance(document.get("resources"), list)
        asked = _nodes(document["resources"]) if self._mapped else _asked(document, ())
        self._results: dict[Path, Result] = {}
        for place, call in asked:
            self._results.setdefault(place, Result(len(self._results), call))
        self._nests = {place[:-1] for place in self._results} - {()}
        self._last = 0.0
        wanted, leads = self._wanted, self._leads
        if self._mapped:
            wanted, leads = _is_record, _leads_to_records
        self._scanner = Scanner(wanted, leads)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)

    @property
    def here(self) -> int:
        return sum(result.came for result in self)

    def feed(self, data: bytes, now: float) -> None:
        """Takes the answer's next bytes. Raises NotJson."""
        for path, value in self._scanner.feed(data):
            if self._mapped:
                self._record(path, value, now)
            elif value is None:
                self._open(_place(path), now)
            else:
                self._entry(self._results[_place(path)], value, now)

    def finish(self) -> None:
        """The answer ended whole: a key without records has none."""
        for result in self:
            if self._mapped and result.records is None:
                result.records = 0

    # --- entries ---------------------------------------------------------------------------------

    def _wanted(self, path: Path) -> bool:
        return _place(path) in self._results

    def _leads(self, path: Path) -> bool:
        if path in ((), ("responses",)):
            return True
        outer = path[:-1] if path[-1] in NESTED else path
        return _place(outer) in self._nests

    def _open(self, place: Path, now: float) -> None:
        """An entry begins. The one that it stands in has come: the rest of that are such as it."""
        parent = self._results.get(place[:-1])
        if parent is not None and parent.arrived is None:
            self._arrive(parent, now)

    def _entry(self, result: Result, value: bytes, now: float) -> None:
        entry = _loaded(value)
        if not isinstance(entry, dict):
            raise NotJson
        if result.arrived is None:
            self._arrive(result, now)
        status = entry.get("status")
        result.status = status if type(status) is int else 200
        result.bytes = len(value)
        if "path" in entry and "method" in entry:  # with its references resolved
            result.call = f"{entry['method']} {entry['path']}"
        if result.status >= 400:
            result.errors.append(said({**entry, "responses": None}))

    def _arrive(self, result: Result, now: float) -> None:
        if result.arrived is None:
            result.began = self._last
        result.arrived = self._last = now

    # --- records ---------------------------------------------------------------------------------

    def _record(self, path: Path, value: bytes | None, now: float) -> None:
        if value is None:
            return
        which, key, _ = path
        new = Result(len(self), str(key))
        result = self._results.setdefault((key,), new)
        self._arrive(result, now)
        result.bytes += len(value)
        result.records = (result.records or 0) + (which == "result")
        if which == "errors":
            result.errors.append(said(_loaded(value)))


def _is_record(path: Path) -> bool:
    return len(path) == 3 and path[0] in ("result", "errors")


def _leads_to_records(path: Path) -> bool:
    return not path or (len(path) < 3 and path[0] in ("result", "errors"))


def _place(path: Path) -> Path:
    """Where the request stood whose entry is here; empty: here is no entry."""
    path = path[1:] if path[:1] == ("responses",) and len(path) > 1 else path
    nested = all(member in NESTED for member in path[1::2])
    return path[::2] if nested and len(path) % 2 else ()


# --- what was asked ------------------------------------------------------------------------------


def _asked(document: Any, place: Path) -> Iterator[tuple[Path, str]]:
    """Places and calls of the requests in a document, depth first."""
    requests = document.get("requests") if isinstance(document, dict) else None
    listed = requests if isinstance(requests, list) else ()
    items = requests.items() if isinstance(requests, dict) else enumerate(listed)
    for key, entry in items:
        if isinstance(entry, dict):
            yield (*place, key), _call(entry)
            yield from _asked(_inner(entry), (*place, key))


def _call(entry: dict[str, Any]) -> str:
    address = entry.get("url") or entry.get("path") or ""
    query = f"?{entry['query']}" if entry.get("query") else ""
    return f"{str(entry.get('method') or 'GET').upper()} {address}{query}"


def _inner(entry: dict[str, Any]) -> Any:
    """What holds an entry's own requests: itself, or the bulk call that it is."""
    if "requests" in entry or not _call(entry).partition("?")[0].endswith("bulk"):
        return entry
    data = entry.get("data")
    return _loaded(data.encode()) if isinstance(data, str) else data


def _nodes(resources: list[Any]) -> Iterator[tuple[Path, str]]:
    """Nodes that share a key share its result."""
    for node in resources:
        if isinstance(node, dict):
            key = str(node.get("resource") or node.get("name") or "")
            yield (key,), f"{node.get('method') or node.get('type') or ''} {key}".strip()


# --- what was answered ---------------------------------------------------------------------------

_SAYING = ("error_message", "userMessage", "message", "error_description", "detail", "title")


def said(value: Any) -> str:
    """What an error says to people, wherever it says it; empty when that is nowhere."""
    waiting = deque([value])
    while waiting:
        found = waiting.popleft()
        if isinstance(found, dict):
            for name in _SAYING:
                if isinstance(found.get(name), str):
                    return " ".join(found[name].split())
            waiting.extend(found.values())
    return value if isinstance(value, str) else ""


def _loaded(text: bytes) -> Any:
    """None for what is no JSON: whoever sends it will be told so."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None

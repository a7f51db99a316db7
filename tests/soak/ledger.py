"""The books: what clients asked and were told, what the backend saw, what the log says.

A bulk call is closed when both its answer and its log line are there, and audited a while later,
when everything that was sent must have arrived.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

from tests.support.program import indexes

RIPE = 5.0
"""Seconds after which whatever was sent has been read by the backend."""


class Told(NamedTuple):
    """A result."""

    status: int
    sent: bool | None
    """What the gateway says, where it made the result."""


@dataclass
class Entry:
    """One bulk call, or one passed request."""

    id: str
    methods: list[str]
    results: list[Told] | None = None
    """None: the client left."""
    asked: bool = False
    """The client has said all it had to say."""
    over: bool = False
    """The client has its answer, or has left."""
    line: dict[str, Any] = field(default_factory=dict)
    closed: float = 0.0


class Ledger:
    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen
        self.figures: Counter[str] = Counter()
        self.mistakes: list[str] = []
        self.parts: Counter[str] = Counter()
        """`METHOD STATUS` of the subrequests that the log names."""
        self._open: dict[str, Entry] = {}
        self._closed: deque[Entry] = deque()

    # --- entries ---------------------------------------------------------------------------------

    def bulk(self, id: str, methods: list[str]) -> Entry:
        self._open[id] = Entry(id, methods)
        self.figures["batches"] += 1
        self.figures["subrequests"] += len(methods)
        return self._open[id]

    def unasked(self, entry: Entry) -> None:
        """Its client left before it had asked."""
        del self._open[entry.id]
        self.figures["batches"] -= 1
        self.figures["subrequests"] -= len(entry.methods)

    def passed(self, id: str, method: str, told: Told | None) -> None:
        self.figures["passed"] += 1
        self._seen(id, method, told)
        self.seen.pop(id, None)

    def heard(self, line: Mapping[str, Any]) -> None:
        """A line of the gateway's log."""
        match line["event"]:
            case "batch":
                entry = self._open[line["id"]]
                entry.line = dict(line)
                self.closing(entry)
            case "bug" | "event_loop" | "library" | "malformed" | "refused":
                self.mistakes.append(f"logged: {line}")

    def closing(self, entry: Entry) -> None:
        if entry.over and entry.line:
            del self._open[entry.id]
            entry.closed = monotonic()
            self._closed.append(entry)

    def audit(self, *, all: bool = False) -> None:
        """Those that are ripe."""
        while self._closed and (all or monotonic() - self._closed[0].closed > RIPE):
            self._audit(self._closed.popleft())

    def end(self) -> None:
        """Nothing comes any more."""
        self.audit(all=True)
        for entry in list(self._open.values()):
            if entry.over and entry.results is None and not self._reached(entry):
                self.figures["left before they were heard"] += 1
                self.unasked(entry)
        self._check(not self._open, f"without a log line: {[*self._open][:5]}")
        self._check(not self.seen, f"seen and not asked: {[*self.seen][:5]}")

    def _reached(self, entry: Entry) -> bool:
        """Whether the backend saw any of it. If not, and there is no line either, the metrics must
        not know of it: they are compared with what is left."""
        return any(f"{entry.id}.{index}" in self.seen for index in range(len(entry.methods)))

    # --- what must hold --------------------------------------------------------------------------

    def _audit(self, entry: Entry) -> None:
        line, results = entry.line, entry.results
        sent, unsent = indexes(line.get("writes_sent")), indexes(line.get("writes_unsent"))
        writes = {i for i, method in enumerate(entry.methods) if method != "GET"}
        counted = line["ok"] + line["failed"] + line["skipped"]
        self._check(counted == len(entry.methods), f"{entry.id}: {counted} results in the log")
        self._check(sent | unsent == writes and not sent & unsent, f"{entry.id}: writes {line}")
        self.parts.update(" ".join(x.split(":")[1:3]) for x in line.get("parts", "").split())
        if results is not None:
            got = len(results)
            self._check(got == len(entry.methods), f"{entry.id}: {got} results")
        for index, method in enumerate(entry.methods):
            told = results[index] if results is not None and index < len(results) else None
            id = f"{entry.id}.{index}"
            if index in writes:
                self._check(self.seen[id] <= (index in sent), f"{id}: seen, logged as unsent")
                if told is not None and told.sent is not None:
                    self._check(told.sent == (index in sent), f"{id}: result and log differ")
            self._seen(id, method, told)
            self.seen.pop(id, None)

    def _seen(self, id: str, method: str, told: Told | None) -> None:
        times = self.seen.get(id, 0)
        self._check(times <= (2 if method == "GET" else 1), f"{method} {id}: seen {times} times")
        self.figures["repeated reads"] += times > 1
        if told is None:
            return
        if told.sent is None and told.status:
            self._check(times > 0, f"{method} {id}: {told.status}, never seen")
        if told.sent is False:
            self._check(times == 0, f"{method} {id}: said to be unsent, seen {times} times")

    def _check(self, holds: bool, mistake: str) -> None:
        if not holds:
            self.mistakes.append(mistake)

"""The two maps of an answer: `result` as its keys come, `errors` last.

A key is open until its last node has ended; the pages of the key being written leave as they
arrive. Errors are few or cut short, so they can wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from gateway.batch import Batch, Failure, Outcome, Reply, Step
from gateway.dialects import _results
from gateway.dialects.truto.holes import records
from gateway.dialects.truto.node import Note
from gateway.templates import values

LONGEST = 4096
"""Bytes of `message` and of `details` that are told of one error."""
MOST_SAID = 2**20
"""Bytes of what the backend says in the errors of one answer; of those beyond it only the status is
told."""
_READ = 2**18
"""Bytes of an error that is looked into: each of its members costs a hundred."""
_DATE = 64
"""Bytes of a `Retry-After`, more than a number or a date has."""

_TOO_MUCH = "Content Too Large"
"""RFC 9110's name of 413; Python's own changed with 3.13."""


class Maps:
    """Writes the answer."""

    __slots__ = ("_errors", "_left", "_more", "_most_errors", "_open", "_quoted", "_separator")

    def __init__(self, batch: Batch, most_errors: int) -> None:
        keys = [subrequest.key for subrequest in batch.subrequests]
        self._left = Counter(key for key in keys if key is not None)
        """Nodes of a key that have not ended."""
        self._errors: dict[str, list[bytes]] = {s.note.key: [] for s in batch.subrequests}
        self._more: Counter[str] = Counter()
        """Errors beyond what is told."""
        self._most_errors = most_errors
        self._quoted = 0
        """Bytes of errors of the backend's."""
        self._open = ""
        self._separator = b""

    def head(self) -> bytes:
        return b'{"result":{'

    def open(self, step: Step) -> bytes:
        """Nodes of one key stand together, so the first of them opens it."""
        key = step.subrequest.key
        if key is None or key == self._open:
            return b""
        lead, self._separator = (b"," if self._open else b""), b""
        self._open = key
        return lead + values.quoted(key) + b":["

    def part(self, step: Step, reply: Reply) -> bytes:
        note: Note = step.subrequest.note
        if reply.failed:
            self._fail(note.key, reply)
            return b""
        contents = b"" if step.subrequest.key is None else _contents(reply, note)
        if not contents:
            return b""
        separator, self._separator = self._separator, b","
        return separator + contents

    def close(self, step: Step, outcome: Outcome) -> bytes:
        key = step.subrequest.key
        if key is None:
            return b""
        self._left[key] -= 1
        return b"" if self._left[key] else b"]"

    def whole(self, step: Step, reply: Reply) -> bytes:
        return self.open(step) + self.part(step, reply) + self.close(step, Outcome())

    def tail(self) -> bytes:
        return b'},"errors":{' + b",".join(self._told()) + b"}}"

    # --- errors ----------------------------------------------------------------------------------

    def _fail(self, key: str, reply: Reply) -> None:
        if len(self._errors[key]) < self._most_errors:
            self._errors[key].append(self._entry(reply))
        else:
            self._more[key] += 1

    def _entry(self, reply: Reply) -> bytes:
        if reply.failure is not None:
            return _ours(reply.failure)
        entry = _theirs(reply)
        if self._quoted + len(entry) > MOST_SAID:
            return error(reply.status, "", "")
        self._quoted += len(entry)
        return entry

    def _told(self) -> Iterator[bytes]:
        for key, entries in self._errors.items():
            if self._more[key]:
                message = f"and {self._more[key]} further errors"
                entries.append(error(413, _TOO_MUCH, message))
            yield values.quoted(key) + b":[" + b",".join(entries) + b"]"


def _contents(reply: Reply, note: Note) -> bytes:
    """The records of a reply, comma between them (D-T1); none of an empty one."""
    if not reply.body:
        return b""
    found = records(reply.body, note.kind, note.at)
    if found is None:  # no JSON: one record that is a string
        return _results.contents(reply.body, *_results.received(reply))[0]
    if note.kind == "one":
        return bytes(found)
    match values.kind(found):
        case "array":
            return bytes(found)[1:-1].strip()
        case "null":
            return b""
    return bytes(found)


def error(status: int, label: str, message: str) -> bytes:
    """The envelope of the vendor's errors."""
    return _results.encode(
        {
            "statusCode": status,
            "error": label or _results.phrase(status),
            "message": message or f"status {status}",
        }
    )


def _theirs(reply: Reply) -> bytes:
    members: Mapping[str, values.Value] = {}
    document = values.document(reply.body) if len(reply.body) <= _READ else None
    if document is not None and values.kind(document) == "object":
        members = values.members(document)
    label, message = (_said(members.get(name)) for name in ("error", "message"))
    entry = error(reply.status, label or _results.phrase(reply.status, reply.reason), message)
    details = bytes(members.get("details", b""))
    if details and len(details) <= LONGEST:
        entry = _with(entry, b"details", details)
    wait = reply.header(b"retry-after")
    if not wait or len(wait) > _DATE:
        return entry
    return _with(entry, b"retryAfter", _results.string(wait))


def _said(value: values.Value | None) -> str:
    if value is None or values.kind(value) != "string":
        return ""
    return values.text(value)[:LONGEST]


def _ours(failure: Failure) -> bytes:
    label = _TOO_MUCH if failure.code == 413 else ""
    entry = error(failure.code, label, failure.words)
    if failure.retry_after:
        entry = _with(entry, b"retryAfter", b'"%d"' % failure.retry_after)
    return _with(entry, b"gateway", _results.gateway_member(failure))


def _with(entry: bytes, name: bytes, value: bytes) -> bytes:
    return b'%b,"%b":%b}' % (entry[:-1], name, value)

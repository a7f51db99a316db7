"""The golden cases again, over sockets: a client before the whole gateway, a backend behind it.

The backend answers each call with the case's next reply to it, so nothing here depends on order.
What the gateway adds to calls and answers of its own is not compared: hops, dates, framing.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.batch import Reply
from gateway.config import Settings
from gateway.dialects import DIALECTS
from tests.dialects.cases import canned_reply, folders
from tests.security.siege import Answer, siege
from tests.support.raw_backend import Peer, RawBackend, Request


class Case:
    """One folder, as it looks from both ends."""

    def __init__(self, folder: Path) -> None:
        self.name = f"{folder.parent.name}/{folder.name}"
        options = self._json(folder, "options.json") or {}
        self.endpoints = tuple(
            replace(entry, options=entry.options | options)
            for entry in Settings().endpoints
            if entry.dialect == folder.parent.name
        )
        self.upstream: list[dict[str, Any]] = self._json(folder, "upstream.json") or []
        self.answer = (folder / "response.http").read_bytes()
        self._request = (folder / "request.http").read_bytes()
        plan = self._json(folder, "plan.json")
        self.fields = {
            step["send"]: step["headers"] for step in plan.get("steps", ()) if "send" in step
        }

    @staticmethod
    def _json(folder: Path, name: str) -> Any:
        path = folder / name
        return json.loads(path.read_bytes()) if path.exists() else None

    @property
    def possible(self) -> bool:
        """A backend that answers gives no replies that are failures."""
        return not any("failure" in reply for reply in self.upstream)

    @property
    def request(self) -> bytes:
        head, _, body = self._request.partition(b"\n\n")
        lines = [*head.split(b"\n"), b"Content-Length: %d" % len(body)]
        if not re.search(rb"(?im)^host:", head):
            lines.append(b"Host: localhost")
        return b"\r\n".join([*lines, b"", body])


class Backend:
    """Answers by what it is asked, and says what was not as the case has it."""

    def __init__(self, case: Case) -> None:
        self.wrong: list[str] = []
        self._gated = bool(case.upstream) and not case.answer.startswith(b"HTTP/1.1 200 ")
        self._fields: Mapping[str, list[str]] = case.fields
        self._replies: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        for reply in case.upstream:
            if "to" in reply:
                self._replies[reply["to"]].append(dict(reply))

    @property
    def unasked(self) -> list[str]:
        return [line for line, replies in self._replies.items() if replies]

    def reply(self, request: Request) -> bytes:
        line = f"{request.method} {request.target}"
        if not self._replies[line]:
            # A read may be on its way when the first answer turns out to be that of all.
            if not (self._gated and request.method == "GET"):
                self.wrong.append(f"asked for {line}")
            return b"HTTP/1.1 500 Unexpected\r\nContent-Length: 0\r\n\r\n"
        canned = self._replies[line].popleft()
        body = request.body.decode()
        if (canned.pop("sent", body) or "") != body:
            self.wrong.append(f"{line}: sent {request.body!r}")
        fields = [f"{name.decode()}: {value.decode()}" for name, value in request.headers]
        self.wrong += [
            f"{line}: no {field}" for field in self._fields.get(line, ()) if field not in fields
        ]
        canned.pop("to")
        return _written(canned_reply(canned, None))


def _written(reply: Reply) -> bytes:
    """In chunks, whatever framing its fields claim: entries show none of it. Coded as they claim,
    though a case's body is as it is read."""
    fields = [
        name + b": " + value
        for name, value in reply.headers
        if name.lower() not in (b"content-length", b"transfer-encoding")
    ]
    line = b"HTTP/1.1 %d %b" % (reply.status, reply.reason)
    if reply.status in (204, 304):
        return b"\r\n".join([line, *fields, b"", b""])
    body = gzip.compress(reply.body) if b"gzip" in dict(reply.headers).values() else reply.body
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    fields.append(b"Transfer-Encoding: chunked")
    return b"\r\n".join([line, *fields, b"", chunk + b"0", b"", b""])


CASES = [case for folder in folders() if (case := Case(folder)).possible]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_case_is_the_same_over_sockets(case: Case) -> None:
    backend = Backend(case)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(backend.reply(request))

    async with RawBackend(script) as raw, siege(raw, endpoints=case.endpoints) as gateway:
        answer = await gateway.ask(case.request)
    assert backend.wrong == []
    assert backend.unasked == []
    assert unlike(case.answer, answer) == []


def unlike(expected: bytes, answer: Answer) -> list[str]:
    """What is not as the file has it."""
    head, _, body = expected.partition(b"\n\n")
    first, *fields = head.decode("latin-1").split("\n")
    found = [f"{name}: {value}" for name, value in answer.headers]
    wrong = [f"no {field}" for field in fields if field not in found]
    if answer.status != int(first.split(" ")[1]):
        wrong.append(f"status {answer.status}")
    if timeless(answer.body) != timeless(body):
        wrong.append(f"{answer.body!r} is not {body!r}")
    return wrong


def timeless(body: bytes) -> bytes:
    """Agendize's entries say how long they took."""
    return re.sub(rb'("duration":"?)\d+', rb"\g<1>0", body)


def test_nearly_all_cases_are_tried() -> None:
    assert {case.name.split("/")[0] for case in CASES} == set(DIALECTS)
    assert len(CASES) > 0.9 * len(folders())

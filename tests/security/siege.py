"""The whole gateway under siege: bytes in front of it, behind it a backend that keeps every byte.

Attackers do not use client libraries, so nothing here helps a request to be well-formed, and what
comes back is read as strictly as a client could read it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httptools

from gateway.config.settings import Listener, Log, Settings, Timeouts, Upstream
from gateway.server import serving
from gateway.server.worker import Gateway
from tests.front import raw
from tests.support.raw_backend import Peer, RawBackend, Request, ok

LOOPBACK = Listener(address="127.0.0.1:0")

Pairs = Sequence[tuple[str, str]]


# --- answers -------------------------------------------------------------------------------------


class Answer:
    """One answer as a strict parser reads it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.complete = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:200]!r}>"


class Reader:
    """Answers of one connection, as they come. Raises what httptools raises for what is none."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.answers.append(Answer())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answers[-1].headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.answers[-1].status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.answers[-1].body += data

    def on_message_complete(self) -> None:
        self.answers[-1].complete = True


# --- the gateway ---------------------------------------------------------------------------------


class Siege:
    """A gateway, and what an attacker says to it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.address = gateway.address
        self.ops = gateway.ops_address

    async def talk(
        self, *pieces: bytes, answers: int | None = None, to: str | None = None
    ) -> list[Answer]:
        """Says these bytes on a connection of their own, each piece in a write of its own; what is
        answered until the gateway closes, or until there are so many answers."""
        reader = Reader()
        async with raw(to or self.address) as client, asyncio.timeout(20):
            for piece in pieces:
                client.send(piece)
                await client.writer.drain()
                await asyncio.sleep(0)
            while answers is None or sum(a.complete for a in reader.answers) < answers:
                data = await client.reader.read(65536)
                if not data:
                    break
                reader.feed(data)
        return reader.answers

    async def ask(self, data: bytes, to: str | None = None) -> Answer:
        """One request, one answer."""
        (answer,) = await self.talk(data, answers=1, to=to)
        return answer

    async def post(
        self, path: str, body: bytes | object, fields: Pairs = (), to: str | None = None
    ) -> Answer:
        return await self.ask(posted(path, body, fields), to)

    async def bulk(self, form: Format, entries: Iterable[Any], fields: Pairs = ()) -> Answer:
        return await self.post(form.path, form.document(entries), fields)

    async def metrics(self) -> str:
        """The operators' page as it is now; every request before it has been counted."""
        return (await self.ask(got("/metrics"), to=self.ops)).body.decode()

    async def alive(self) -> None:
        """It still serves. By then it has also dealt with whatever was said before."""
        assert (await self.ask(got("/alive"))).status == 200


@asynccontextmanager
async def siege(backend: RawBackend | str, **sections: Any) -> AsyncIterator[Siege]:
    """The gateway in this process; `sections` are settings."""
    url = backend if isinstance(backend, str) else backend.url
    sections.setdefault("log", Log(level="error"))
    patient = Timeouts(idle=60.0)  # what is not to be kept must not pass for merely idle
    sections.setdefault("upstream", Upstream(url=url, timeouts=patient))
    sections.setdefault("listen", (LOOPBACK,))
    settings = dataclasses.replace(Settings(), ops=LOOPBACK, **sections)
    async with serving(settings) as gateway:
        yield Siege(gateway)


# --- what is said to it --------------------------------------------------------------------------


def head(line: str, fields: Pairs = (), host: str | None = "gw") -> bytes:
    lines = [line, *(() if host is None else (f"Host: {host}",))]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def got(target: str, fields: Pairs = (), method: str = "GET") -> bytes:
    return head(f"{method} {target} HTTP/1.1", fields)


def posted(path: str, body: bytes | object, fields: Pairs = ()) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    json_ = (("Content-Type", "application/json"), ("Content-Length", str(len(data))))
    return head(f"POST {path} HTTP/1.1", (*json_, *fields)) + data


# --- the formats ---------------------------------------------------------------------------------

Own = Callable[[Pairs], Any]
"""Own fields in one of a format's forms."""


@dataclasses.dataclass(frozen=True)
class Format:
    """How a wish is written in one of the formats that take any path, and where its result is."""

    name: str
    path: str
    target: str
    body: str
    own: Mapping[str, Own]
    """The forms of own fields."""

    def entry(
        self, target: str, method: str = "GET", own: Any = None, body: object = None
    ) -> dict[str, Any]:
        entry: dict[str, Any] = {self.target: target, "method": method}
        if own is not None:
            entry["headers"] = own
        if body is not None:
            entry[self.body] = body
        return entry

    def document(self, entries: Iterable[Any]) -> bytes:
        return json.dumps({"requests": list(entries)}).encode()

    def statuses(self, answer: Answer) -> list[int]:
        results = answer.json
        return [
            r["status"] for r in (results if isinstance(results, list) else results["responses"])
        ]


def _items(pairs: Pairs) -> object:
    return [{"name": name, "value": value} for name, value in pairs]


def _lines(pairs: Pairs) -> object:
    return [f"{name}: {value}" for name, value in pairs]


SUGARCRM = Format(
    "sugarcrm", "/bulk", "url", "data", {"map": dict, "items": _items, "lines": _lines}
)
GUIDEWIRE = Format("guidewire", "/batch", "path", "body", {"items": _items})
AGENDIZE = Format(
    "agendize",
    "/api/2.3/batch",
    "path",
    "body",
    {
        "map": dict,
        "items": _items,
        "lines": _lines,
        "a map as text": lambda pairs: json.dumps(dict(pairs)),
        "items as text": lambda pairs: json.dumps(_items(pairs)),
        "lines as text": lambda pairs: "\n".join(f"{n}: {v}" for n, v in pairs),
    },
)
FORMATS = (SUGARCRM, GUIDEWIRE, AGENDIZE)
"""Those whose subrequests name any path and bring fields. Truto's do neither."""

TRUTO = "/batch-request"


def truto(*resources: dict[str, Any], **more: Any) -> bytes:
    """A document of Truto's: nodes that name resources of the backend."""
    return json.dumps({"integrated_account_id": "a", "resources": resources, **more}).encode()


# --- the backend ---------------------------------------------------------------------------------


def echoed(request: Request) -> bytes:
    return ok(json.dumps({"method": request.method, "target": request.target}).encode())


async def echo(peer: Peer) -> None:
    """Answers with what it was asked."""
    while True:
        await peer.send(echoed(await peer.request()))

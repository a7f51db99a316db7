"""HTTP/1.1 as it is read off a socket, and what of it a proxy may change.

Reading is strict and knows nothing of the gateway's own code, so that both cannot share a mistake.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from tests.front import Raw
from tests.support.raw_backend import Request

Fields = tuple[tuple[bytes, bytes], ...]

OF_ONE_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 7.6.1: said to the next one on the way, and not handed on by it."""

NEVER_OF_ONE_HOP = frozenset({b"authorization", b"cookie"})
"""Whatever `Connection` says of them (CVE-2024-45410): here, what the shapes name there."""

LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
FRAMING = LENGTHS | {b"expect"}
"""Whoever sends contents says how long they are, and whether it waits before them."""

ADDED = frozenset({b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"})
"""What the gateway tells the backend of who called, and both of which way it came."""


@dataclass(frozen=True)
class Answer:
    """One answer, as a client reads it."""

    version: bytes
    status: int
    reason: bytes
    fields: Fields
    body: bytes
    """Its contents; chunks undone."""

    def value(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.fields if key.lower() == name), None)

    def names(self) -> set[bytes]:
        return {name.lower() for name, _ in self.fields}


async def read_answer(client: Raw, method: str) -> Answer:
    """The next answer, which may be an interim one."""
    answer = parsed(await client.head())
    return replace(answer, body=await contents(client, method, answer))


def parsed(head: bytes) -> Answer:
    line, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    version, status, *reason = line.split(b" ", 2)
    pairs = (text.partition(b":") for text in rest)
    fields = tuple((name, value.strip(b" \t")) for name, _, value in pairs)
    return Answer(version, int(status), b"".join(reason), fields, b"")


async def contents(client: Raw, method: str, answer: Answer) -> bytes:
    """RFC 9112 6.3, from the top."""
    if method == "HEAD" or answer.status < 200 or answer.status in (204, 304):
        return b""
    if (answer.value(b"transfer-encoding") or b"").lower() == b"chunked":
        return await chunks(client)
    length = answer.value(b"content-length")
    return await client.rest() if length is None else await client.exactly(int(length))


async def chunks(client: Raw) -> bytes:
    whole = b""
    while size := int((await client.until(b"\r\n")).partition(b";")[0], 16):
        whole += (await client.exactly(size + 2))[:-2]
    while await client.until(b"\r\n") != b"\r\n":
        """A trailer."""
    return whole


async def turns(number: int = 6) -> None:
    """Gives both ends of a loopback connection in this process time to see what was written."""
    for _ in range(number):
        await asyncio.sleep(0)


# --- what may differ -----------------------------------------------------------------------------


def handed_on(answer: Answer, via: bytes) -> Answer:
    """What a client gets of an answer behind a proxy that leaves no trace but its `Via`."""
    fields = end_to_end(answer.fields, OF_ONE_HOP)
    return replace(answer, fields=(*fields, (b"Via", via)), version=b"HTTP/1.1")


def without_framing(answer: Answer, straight: Answer) -> Answer:
    """An answer without what each hop writes for itself.

    How an answer ends is the proxy's to tell where the backend said no length. Where it did, its
    own field stands, spelt and placed as it was."""
    own = frozenset() if b"content-length" in straight.names() else frozenset({b"content-length"})
    return replace(answer, fields=end_to_end(answer.fields, OF_ONE_HOP | own))


@dataclass(frozen=True)
class Arrived:
    """What a backend has to get of a request, whichever way it comes.

    `Host` stands first behind a proxy (RFC 9110 7.2), and whoever sends contents frames them."""

    method: str
    target: str
    host: bytes | None
    fields: Fields
    framed: bool
    """It says that it has contents, be they empty."""
    body: bytes

    @classmethod
    def of(cls, request: Request) -> Arrived:
        fields = tuple(request.headers)
        return cls(
            request.method,
            request.target,
            request.header("host"),
            end_to_end(fields, OF_ONE_HOP | FRAMING | ADDED | {b"host"}),
            any(name.lower() in LENGTHS for name, _ in fields),
            request.body,
        )


def end_to_end(fields: Fields, without: frozenset[bytes]) -> Fields:
    """The fields that are not of one hop, by their nature or because `Connection` says so."""
    named = {
        option.strip().lower()
        for name, value in fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    gone = without | (named - NEVER_OF_ONE_HOP)
    return tuple((name, value) for name, value in fields if name.lower() not in gone)

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
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 7.6.1 and 11.7.1: said to the next one on the way, and not handed on by it."""

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


async def read_answer(client: Raw, method: str) -> Answer:
    """The next answer, which may be an interim one."""
    answer = parsed(await client.head())
    return replace(answer, body=await contents(client, method, answer))


async def final_answer(client: Raw, method: str) -> Answer:
    while (answer := await read_answer(client, method)).status < 200:
        """An interim one, which the gateway may drop."""
    return answer


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
        return await undone(client)
    length = answer.value(b"content-length")
    return await client.rest() if length is None else await client.exactly(int(length))


async def undone(client: Raw) -> bytes:
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


def expected_and_got(
    straight: Answer, through: Answer, *, via: str, legacy: bool = False
) -> tuple[Answer, Answer]:
    """What a client has to get of an answer through a proxy that leaves no trace but its `Via`, and
    what it got, both without what is said to the reader alone.

    To a `legacy` client, who knows no chunks, an answer's length is the proxy's to say where the
    backend said none."""
    names = {name.lower() for name, _ in straight.fields}
    own = LENGTHS if legacy and b"content-length" not in names else frozenset()
    fields = end_to_end(straight.fields, OF_ONE_HOP)
    if straight.status >= 200:
        fields = (*fields, (b"Via", f"1.1 {via}".encode()))
    got = end_to_end(through.fields, OF_ONE_HOP | own)
    return replace(straight, version=b"HTTP/1.1", fields=fields), replace(through, fields=got)


@dataclass(frozen=True)
class Arrived:
    """What a backend has to get of a request, whichever way it comes.

    Behind a proxy `Host` stands first (RFC 9110 7.2), and what frames the contents last."""

    method: str
    target: str
    host: bytes | None
    fields: Fields
    framing: frozenset[bytes]
    body: bytes

    @classmethod
    def of(cls, request: Request) -> Arrived:
        fields = tuple(request.headers)
        return cls(
            request.method,
            request.target,
            request.header("host"),
            end_to_end(fields, OF_ONE_HOP | FRAMING | ADDED | {b"host"}),
            frozenset(name.lower() for name, _ in fields) & LENGTHS,
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

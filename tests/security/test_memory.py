"""What one hostile request may take of the memory: 64 MiB, whatever it is.

Measured on `bulk-gateway run`, from outside: the peak of its resident memory over what it had
before.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from tests.front import raw
from tests.security.hostile import LISTED, SIZE, documents, filled, templates
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    SUGARCRM,
    TRUTO,
    Reader,
    got,
    head,
    posted,
    truto,
)
from tests.support.program import Program, program
from tests.support.raw_backend import Peer, RawBackend, ok

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 2**20
ROOM = 64 * MIB


class Scales:
    """A running gateway, weighed."""

    def __init__(self, gateway: Program) -> None:
        self.gateway = gateway
        self._folder = Path(f"/proc/{gateway.process.pid}")

    @asynccontextmanager
    async def weighed(self, name: str, room: int = ROOM) -> AsyncIterator[None]:
        (self._folder / "clear_refs").write_text("5")
        before = self._bytes("VmRSS")
        yield
        grown = self._bytes("VmHWM") - before
        assert grown <= room, f"{name}: {grown / MIB:.0f} MiB"

    def _bytes(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    async def say(self, data: bytes) -> int:
        """A status. Reads while it writes: who is refused early does not stop sending."""
        reader = Reader()
        async with raw(self.gateway.address) as client, asyncio.timeout(60):
            client.send(data)
            while not any(answer.complete for answer in reader.answers):
                received = await client.reader.read(2**18)
                assert received
                reader.feed(received)
        return reader.answers[0].status


@asynccontextmanager
async def scales(folder: Path, backend: RawBackend, **settings: object) -> AsyncIterator[Scales]:
    """What every process loads and keeps once is loaded before anything is weighed."""
    async with program(folder, {"upstream": {"url": backend.url}, **settings}) as gateway:
        found = Scales(gateway)
        first = AGENDIZE.entry("/warm") | {"name": "a"}
        refer = AGENDIZE.document([first, AGENDIZE.entry("/${result=a:$.x}")])
        await found.say(got("/warm"))
        await found.say(posted(AGENDIZE.path, refer))
        await found.say(posted(TRUTO, truto({"resource": "warm", "method": "list"})))
        for form in FORMATS:
            await found.say(posted(form.path, form.document([form.entry("/warm")])))
        yield found


async def plain(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(ok(b'{"x":"y","result":[]}'))


# --- documents -----------------------------------------------------------------------------------


async def test_no_document_takes_more_than_its_share(tmp_path: Path) -> None:
    """As much of one thing as may be read, or a quarter of it, whatever becomes of it: at most 24
    times its bytes."""
    async with RawBackend(plain) as backend, scales(tmp_path, backend) as gate:
        for size in (SIZE // 4, SIZE):
            for path, body in documents(size):
                async with gate.weighed(f"{path} {body[:90]!r}", min(ROOM, 24 * size)):
                    assert await gate.say(posted(path, body)) in (200, 400, 404, 413, 422)


async def test_no_template_takes_more_than_its_share(tmp_path: Path) -> None:
    """What is a few kilobytes and would be gigabytes, filled in."""

    async def listing(peer: Peer) -> None:
        while True:
            big = (await peer.request()).target.startswith(("/big", "/proxy/big"))
            await peer.send(ok(json.dumps(LISTED if big else {}).encode()))

    async with RawBackend(listing) as backend, scales(tmp_path, backend) as gate:
        for name, path, document in templates():
            async with gate.weighed(name):
                assert await gate.say(posted(path, document)) == 200


async def test_no_body_takes_more_than_what_may_be_read_of_it(tmp_path: Path) -> None:
    """Fifty megabytes in one string, announced or not; bombs in every coding; halves of bodies."""
    string = b'{"requests":[{"url":"/a","data":"' + b"x" * (50 * MIB) + b'"}]}'
    chunked = head("POST /bulk HTTP/1.1", [("Transfer-Encoding", "chunked")])
    bomb = gzip.compress(b"0" * (200 * MIB), 6)
    limits = {"buffer_bytes": "16MiB", "batch_buffer_bytes": "16MiB"}
    async with RawBackend(plain) as backend, scales(tmp_path, backend, limits=limits) as gate:
        async with gate.weighed("announced"):
            assert await gate.say(posted("/bulk", string)) == 413
        async with gate.weighed("in chunks"):
            whole = chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(string), string)
            assert await gate.say(whole) == 413
        for coding in ("gzip", "deflate", "br", "zstd"):
            async with gate.weighed(coding):
                request = posted("/bulk", bomb, [("Content-Encoding", coding)])
                assert await gate.say(request) == 415
        async with gate.weighed("passed"):
            assert await gate.say(posted("/x", bomb, [("Content-Encoding", "gzip")])) == 200
        async with gate.weighed("halves"), AsyncExitStack() as stack:
            for _ in range(40):
                client = await stack.enter_async_context(raw(gate.gateway.address))
                client.send(posted("/bulk", b" " * (4 * MIB))[:-1])
                await client.writer.drain()
            assert await gate.say(posted("/bulk", SUGARCRM.document([SUGARCRM.entry("/x")]))) == 200


# --- answers -------------------------------------------------------------------------------------

LARGE = 15 * MIB
ANSWERS = {
    "numbers": filled(LARGE, b'{"result":[', b"0,", b"0]}"),
    "arrays": filled(LARGE, b'{"result":[', b"[],", b"[]]}"),
    "members": b'{"result":[{%b}]}' % b",".join(b'"%x":0' % i for i in range(1_200_000)),
    "a tower": b"[" * (LARGE // 2) + b"]" * (LARGE // 2),
    "half a pair behind arrays": filled(LARGE, b'{"result":[', b"[],", b'"\\ud800"]}'),
    "quotes": filled(LARGE, b"", b'"', b""),
    "control characters": b"\x01" * LARGE,
}
SPLICED = ("half a pair behind arrays", "quotes", "control characters")
LOOKED_INTO = ("numbers", "arrays", "members", "a tower")


async def large(peer: Peer) -> None:
    while True:
        path = (await peer.request()).target.partition("?")[0]
        await peer.send(ok(ANSWERS.get(unquote(path.rpartition("/")[2]), b"{}")))


async def test_no_answer_takes_more_than_its_share(tmp_path: Path) -> None:
    """Beside what must be there: the answer as it came, and as it goes on."""
    room = ROOM + 2 * LARGE
    async with RawBackend(large) as backend, scales(tmp_path, backend) as gate:
        for name in SPLICED:
            document = SUGARCRM.document([SUGARCRM.entry(f"/{quote(name)}")])
            async with gate.weighed(f"{name}, spliced", room):
                assert await gate.say(posted("/bulk", document)) == 200
        for name in LOOKED_INTO:
            first = AGENDIZE.entry(f"/{quote(name)}") | {"name": "a"}
            second = AGENDIZE.entry("/x/${result=a:$.result[5]}/${result=a:$..id}")
            document = AGENDIZE.document([first, second])
            async with gate.weighed(f"{name}, by reference", room):
                assert await gate.say(posted(AGENDIZE.path, document)) == 200
            each = f"{{{{resources.{name}.id}}}}"
            nodes = [
                {"resource": name, "method": "list"},
                {"resource": "b", "method": "get", "id": each, "depends_on": name},
            ]
            async with gate.weighed(f"{name}, as records", room):
                assert await gate.say(posted(TRUTO, truto(*nodes))) == 200


async def odd(peer: Peer) -> None:
    """Every answer has header names of its own."""
    while True:
        await peer.request()
        number = f"{id(peer)}-{len(peer.requests)}"
        await peer.send(ok(b"{}", *(f"X-{number}-{i}: {number}" for i in range(100))))


async def test_names_that_never_come_twice_are_not_remembered(tmp_path: Path) -> None:
    """Two hundred thousand of a backend's header names; thousands of clients' paths and keys."""
    async with RawBackend(odd) as backend, scales(tmp_path, backend) as gate:
        for number in range(4):  # for what is remembered to be full
            await names(gate, number)
        async with gate.weighed("names", 8 * MIB):
            for number in range(4, 8):
                await names(gate, number)
        assert len(backend.requests) > 2000


async def names(gate: Scales, number: int) -> None:
    paths = [f"/{number}/{i}" for i in range(100)]
    entries = [SUGARCRM.entry(path, own={f"X{path.replace('/', '-')}": "1"}) for path in paths]
    keyed = {path: {"url": path} for path in paths}
    fields = [(f"X-{number}-{i}", "1") for i in range(100)]
    assert await gate.say(posted("/bulk", SUGARCRM.document(entries))) == 200
    assert await gate.say(posted("/bulk", json.dumps({"requests": keyed}).encode())) == 200
    assert await gate.say(posted("/batch", GUIDEWIRE.document(map(GUIDEWIRE.entry, paths)))) == 200
    assert await gate.say(got(f"/{number}", fields)) == 200


# --- what clients leave behind -------------------------------------------------------------------

NO_HEAD = head("GET / HTTP/1.1", [("X", "x" * 7000)] * 8)[:-2] + b"no field\r\n\r\n"
HALF = posted("/x", b"x" * MIB)[:-1]
SEEN = 100_000


async def test_what_a_client_said_goes_when_the_client_does(tmp_path: Path) -> None:
    """Whatever error its end is, no ring of that and what was read waits for the collector."""
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def listening(peer: Peer) -> None:
        while b" /x " not in (said := await peer.head()):
            await peer.send(ok())
        await peer.read(SEEN)
        arrived.put_nowait(said)
        await peer.gone()

    async def upload() -> None:
        async with raw(gate.gateway.address) as client:
            client.send(HALF)
            await arrived.get()

    async def nonsense() -> None:
        assert await gate.say(NO_HEAD) == 400

    async with RawBackend(listening) as backend, scales(tmp_path, backend) as gate:
        for leave in (nonsense, upload):
            for _ in range(20):
                await leave()
            async with gate.weighed(leave.__name__, 6 * MIB):
                for _ in range(200):
                    await leave()

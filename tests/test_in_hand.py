"""Requests that are answered without a task: what they promise beside those that have one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest
from aiohttp import web

from gateway.answer import ClientAnswer, Done, problem, wire
from gateway.config import settings
from gateway.server import door
from gateway.server.client import AHEAD, Client
from gateway.server.worker import Gateway
from tests.front import Raw, eventually, get, house, raw

SECRET = "hunter2"
LARGE = bytes(16 * 2**20)
"""More than the kernel takes for a client that does not read."""
IMPATIENT = settings.Client(header=0, idle=0)
"""With whoever asks for nothing."""


class Desk:
    """Takes requests and answers them when the test says so."""

    def __init__(self) -> None:
        self.taken: list[web.BaseRequest] = []
        self.left: list[str] = []
        self.swift = False
        """From now on every request is answered as soon as it is taken."""
        self._done: list[Done] = []

    def begin(self, request: web.BaseRequest, done: Done) -> bool:
        self.taken.append(request)
        self._done.append(done)
        wire(request).on_gone = lambda: self.left.append(request.raw_path)
        if self.swift:
            self.answer()
        return True

    def answer(self, text: bytes = b"done") -> None:
        """Answers the request taken last."""
        self._done[-1](ClientAnswer(self.taken[-1], 200).finish(text))

    async def number(self, count: int) -> None:
        """Until so many requests were taken."""
        await eventually(lambda: len(self.taken) == count)


@asynccontextmanager
async def one_client(desk: Desk) -> AsyncIterator[tuple[Gateway, Raw]]:
    async with house(by_a_task, begin=desk.begin) as gateway, raw(gateway.address) as client:
        yield gateway, client


async def by_a_task(request: web.BaseRequest) -> ClientAnswer:
    return ClientAnswer(request, 200).finish(b"by a task: " + await request.content.read())


async def test_one_request_after_another_is_answered_on_a_kept_connection() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        for number in range(3):
            client.send(get(f"/{number}"))
            await desk.number(number + 1)
            assert gateway.worker.clients.busy == 1
            desk.answer(b"%d" % number)
            assert (await client.answer())[1] == b"%d" % number
            assert not gateway.worker.clients.busy


async def test_the_first_request_of_a_quick_client_needs_no_task_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    desk.swift = True
    made = Client.connection_made

    def made_and_read(self: Client, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        self.data_received(get("/quick"))

    monkeypatch.setattr(Client, "connection_made", made_and_read)
    async with one_client(desk) as (_, peer):
        for path in ("/quick", "/next"):
            assert (await peer.answer())[1] == b"done"
            assert desk.taken[-1].raw_path == path
            peer.send(get("/next"))


async def test_what_comes_behind_a_request_in_hand_waits_for_its_answer() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(get("/first"))
        await desk.number(1)
        (connection,) = gateway.worker.clients.open
        connection.data_received(get("/second")[:20])
        connection.data_received(get("/second")[20:])
        assert len(desk.taken) == 1
        desk.answer(b"first")
        await desk.number(2)
        desk.answer(b"second")
        assert (await client.answer())[1] == b"first"
        assert (await client.answer())[1] == b"second"
        assert not desk.left


async def test_a_client_that_says_much_ahead_is_not_listened_to_for_a_while() -> None:
    desk = Desk()
    one = get("/", "X: " + "x" * 500)
    many = 20 * AHEAD // len(one)
    async with one_client(desk) as (gateway, client):
        client.send(get())
        await desk.number(1)
        client.send(one * many)
        (connection,) = gateway.worker.clients.open
        await eventually(lambda: connection._buffer_paused)
        desk.swift = True
        desk.answer()
        for _ in range(1 + many):
            assert (await client.answer())[0].startswith(b"HTTP/1.1 200 ")


async def test_the_next_request_waits_while_the_client_does_not_read_the_last_answer() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(get("/large"))
        await desk.number(1)
        desk.answer(LARGE)
        (connection,) = gateway.worker.clients.open
        connection.data_received(get("/next"))
        connection.sweep(asyncio.get_running_loop().time() + 3600, IMPATIENT)
        assert len(desk.taken) == 1
        assert (await client.answer())[1] == LARGE
        await desk.number(2)
        desk.answer()
        assert (await client.answer())[1] == b"done"


async def test_so_does_one_that_is_handled_by_a_task() -> None:
    handled = []

    async def large(request: web.BaseRequest) -> ClientAnswer:
        handled.append(request)
        return ClientAnswer(request, 200).finish(LARGE)

    async with house(large) as gateway, raw(gateway.address) as client:
        client.send(get() + get())
        await eventually(lambda: any(c.writing_paused for c in gateway.worker.clients.open))
        assert len(handled) == 1
        for _ in range(2):
            assert (await client.answer())[1] == LARGE


@asynccontextmanager
async def unread() -> AsyncIterator[tuple[Client, Raw]]:
    """A connection whose task waits for its client to take an answer, and that client."""

    async def large(request: web.BaseRequest) -> ClientAnswer:
        return ClientAnswer(request, 200).finish(LARGE)

    async with house(large) as gateway, raw(gateway.address) as client:
        client.send(get())
        await eventually(lambda: any(c.writing_paused for c in gateway.worker.clients.open))
        (connection,) = gateway.worker.clients.open
        yield connection, client


async def test_what_comes_behind_an_answer_not_yet_read_is_bounded() -> None:
    async with unread() as (connection, client):
        connection.data_received(get("/", "X: " + "x" * AHEAD)[:-4])
        assert connection._buffer_paused
        assert (await client.answer())[1] == LARGE
        assert (await client.head()).startswith(b"HTTP/1.1 431 ")


async def test_what_comes_behind_an_answer_not_yet_read_follows_what_came_before() -> None:
    async with unread() as (connection, client):
        for path in ("/b", "/c", "/d"):
            connection.data_received(get(path))
        for _ in range(4):
            assert (await client.answer())[1] == LARGE


async def test_several_requests_that_come_together_are_handled_by_a_task() -> None:
    desk = Desk()
    async with one_client(desk) as (_, client):
        client.send(get() + get())
        for _ in range(2):
            assert (await client.answer())[1] == b"by a task: "
    assert not desk.taken


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo",
    ],
    ids=["length", "chunks"],
)
async def test_a_request_that_is_not_complete_is_handled_by_a_task(request_: bytes) -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(request_)
        await eventually(lambda: gateway.worker.clients.busy)
        client.send(b"dy\r\n0\r\n\r\n" if b"chunked" in request_ else b"dy")
        assert (await client.answer())[1] == b"by a task: body"
    assert not desk.taken


async def test_a_small_body_that_comes_with_its_head_needs_no_task() -> None:
    desk = Desk()
    async with one_client(desk) as (_, client):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        await desk.number(1)
        assert desk.taken[0].content.read_nowait() == b"body"
        desk.answer()
        await client.answer()


async def test_a_request_that_the_door_refuses_is_not_offered() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(get(method="TRACE"))
        assert (await client.rest()).startswith(b"HTTP/1.1 405 ")
        assert gateway.worker.app.refused == [(405, "bad_method", "127.0.0.1")]  # type: ignore[attr-defined]
    assert not desk.taken


async def test_a_client_that_leaves_is_told_once_and_is_no_longer_waited_for() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(get("/left"))
        await desk.number(1)
        client.close()
        await eventually(lambda: not gateway.worker.clients.open)
        assert desk.left == ["/left"]
        assert gateway.worker.clients.quiet.is_set()


async def test_a_client_may_wait_longer_for_its_answer_than_it_may_be_idle() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(get())
        await desk.number(1)
        (connection,) = gateway.worker.clients.open
        connection.sweep(asyncio.get_running_loop().time() + 3600, gateway.worker.clients.deadlines)
        desk.answer()
        assert (await client.answer())[1] == b"done"


async def test_a_client_that_waits_for_its_answer_does_not_give_way_to_others() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(get())
        await desk.number(1)
        gateway.worker.clients._make_room(inf)
        desk.answer()
        assert (await client.answer())[1] == b"done"
        gateway.worker.clients._make_room(inf)
        assert await client.rest() == b""


async def test_an_answer_that_ends_the_connection_ends_it() -> None:
    desk = Desk()
    async with one_client(desk) as (_, client):
        client.send(get("/", "Connection: close"))
        await desk.number(1)
        desk.answer()
        assert (await client.rest()).endswith(b"\r\nConnection: close\r\n\r\ndone")


async def test_an_answer_left_open_is_cut() -> None:
    desk = Desk()
    async with one_client(desk) as (_, client):
        client.send(get())
        await desk.number(1)
        answer = ClientAnswer(desk.taken[0], 200)
        answer.send(b"begun")
        await client.until(b"begun")
        desk._done[0](answer)
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_who_takes_a_request_may_answer_it_at_once() -> None:
    def begin(request: web.BaseRequest, done: Done) -> bool:
        done(problem(request, door.BAD_TARGET))
        return True

    async with house(by_a_task, begin=begin) as gateway, raw(gateway.address) as client:
        for _ in range(2):
            client.send(get())
            assert (await client.answer())[0].startswith(b"HTTP/1.1 400 ")
        assert not gateway.worker.clients.busy


async def test_a_bug_in_who_takes_a_request_is_500_and_says_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def begin(request: web.BaseRequest, done: Done) -> bool:
        raise RuntimeError(SECRET)

    async with house(by_a_task, begin=begin) as gateway, raw(gateway.address) as client:
        client.send(get())
        answer = (await client.rest()).decode()
        assert not gateway.worker.clients.busy
    assert answer.startswith("HTTP/1.1 500 ")
    logged = capsys.readouterr()
    assert "request_failed" in logged.out + logged.err
    assert SECRET not in answer + logged.out + logged.err


async def test_a_drain_waits_for_it_and_its_answer_is_the_connection_s_last() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(get())
        await desk.number(1)
        drain = asyncio.create_task(gateway.worker.drain(0, 3600))
        await eventually(lambda: "shut" in gateway.worker.app.calls)  # type: ignore[attr-defined]
        assert not drain.done()
        desk.answer()
        assert (await client.rest()).endswith(b"\r\nConnection: close\r\n\r\ndone")
        assert await drain


async def test_a_forced_end_cuts_it() -> None:
    desk = Desk()
    async with one_client(desk) as (gateway, client):
        client.send(get("/cut"))
        await desk.number(1)
        assert not await gateway.worker.drain(0, 0)
        await gateway.worker.close()
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert desk.left == ["/cut"]

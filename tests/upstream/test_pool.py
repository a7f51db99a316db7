"""Whose turn it is, what is retried, what is stopped, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from gateway.batch import Call, Failure, Reply
from gateway.upstream import Pool
from gateway.upstream.pool import CROWD
from tests.support.ports import free_port
from tests.support.raw_backend import (
    Peer,
    RawBackend,
    Script,
    after_request,
    answering,
    gated,
    ok,
    silent,
)
from tests.upstream.conftest import HOST, MakePool, Owner, configured, failure, until

STOPPED = Failure("proxy_internal_response", "batch_deadline", status=504)


# --- turns ---------------------------------------------------------------------------------------


async def test_calls_that_follow_each_other_share_a_connection(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        owner.then = lambda reply: len(owner.replies) < 50 and owner.send()
        owner.send()
        await owner.count(50)
        assert len(backend.peers) == 1
        assert pool.connects == {"ok": 1}
        assert (pool.calls, pool.busy, len(pool.idle)) == (50, 0, 1)


async def test_no_more_connections_than_calls_and_never_more_than_the_limit(
    pool_for: MakePool,
) -> None:
    gate = asyncio.Event()
    async with (
        RawBackend(gated(gate)) as backend,
        pool_for(backend.url, connections=3) as pool,
    ):
        owner = Owner(pool)
        for _ in range(2):
            owner.send()
        await backend.until(lambda: len(backend.requests) == 2)
        assert len(backend.peers) == 2
        for _ in range(8):
            owner.send()
        await backend.until(lambda: len(backend.requests) == 3)
        assert (pool.busy, pool.waiting) == (3, 7)
        gate.set()
        await owner.count(10)
    assert len(backend.peers) == 3


async def test_batches_take_turns(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok())) as backend,
        pool_for(backend.url, connections=1) as pool,
    ):
        big, small = Owner(pool), Owner(pool)
        for number in range(6):
            big.send(target=f"/big/{number}")
        for number in range(3):
            small.send(target=f"/small/{number}")
        await big.count(6)
    assert [request.target for request in backend.requests] == [
        "/big/0",
        "/small/0",
        "/big/1",
        "/small/1",
        "/big/2",
        "/small/2",
        "/big/3",
        "/big/4",
        "/big/5",
    ]


async def asked_in_a_crowd(pool_for: MakePool, calls: int) -> list[int]:
    """Whose calls the backend gets, one after the other, when each of a crowd sends so many."""
    async with (
        RawBackend(answering(ok())) as backend,
        pool_for(backend.url, connections=1) as pool,
    ):
        owners = [Owner(pool) for _ in range(3 * CROWD)]
        for number, owner in enumerate(owners):
            for _ in range(calls):
                owner.send(target=f"/{number}")
        for owner in owners:
            await owner.count(calls)
    return [int(request.target[1:]) for request in backend.requests]


async def test_where_many_batches_wait_a_turn_is_of_several_calls(pool_for: MakePool) -> None:
    asked = await asked_in_a_crowd(pool_for, 4)
    turns = [(number, len(list(calls))) for number, calls in groupby(asked)]
    assert turns[: 3 * CROWD] == [(number, 3) for number in range(3 * CROWD)]


async def test_who_asks_for_no_more_leaves_the_next_a_whole_turn(pool_for: MakePool) -> None:
    asked = await asked_in_a_crowd(pool_for, 2)
    assert asked[:60] == [number for number in range(30) for _ in range(2)]


async def test_a_batch_that_never_pauses_does_not_keep_others_from_their_turn(
    pool_for: MakePool,
) -> None:
    async with (
        RawBackend(answering(ok())) as backend,
        pool_for(backend.url, connections=1) as pool,
    ):
        endless, other = Owner(pool), Owner(pool)
        endless.then = lambda reply: endless.send()
        for _ in range(8):
            endless.send()
        await endless.count(20)
        await other.get("/other")
        targets = [request.target for request in backend.requests]
        asked_after = len(targets) - targets.index("/other")
        endless.then = lambda reply: None
        await endless.count(len(endless.replies) + 8)
    assert asked_after <= 3


async def test_every_call_has_one_reply_even_when_it_can_not_be_sent(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        bad = owner.send(headers=(("X", "a\r\nY: b"),))
        assert not owner.replies  # never from within `submit`
        reply = await owner.reply(bad)
        assert failure(reply) == ("proxy_internal_error", "bad_head")
        assert (await owner.get()).status == 200


async def test_a_thousand_failures_in_a_row_are_no_recursion(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        bad: Any = {"headers": (("X", "\n"),)}
        owner.then = lambda reply: len(owner.replies) < 3000 and owner.send(**bad)
        owner.send(**bad)
        await owner.count(3000)


async def test_what_an_owner_does_while_it_is_told_waits_for_the_connection_that_told_it(
    pool_for: MakePool,
) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        owner, other = Owner(pool), Owner(pool)

        def go_on(reply: Reply) -> None:
            if len(owner.replies) < 5:
                owner.send()
                other.lane.stop(lambda call: STOPPED)

        owner.then = go_on
        owner.send()
        await owner.count(5)
    assert len(backend.peers) == 1


async def test_a_bug_in_one_owner_is_reported_and_harms_nobody_else(pool_for: MakePool) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    def stumble(reply: Reply) -> None:
        raise RuntimeError("a bug")

    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        clumsy, other = Owner(pool), Owner(pool)
        clumsy.then = stumble
        call = clumsy.send()
        await until(lambda: clumsy.replies)
        assert clumsy.replies[0].call is call
        assert (await other.get()).status == 200
    assert isinstance(reported[0]["exception"], RuntimeError)
    assert len(backend.peers) == 1


# --- connections that were kept ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "poison",
    [b"", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", ok(b"forged")],
    ids=["an end", "a 408", "a forged answer"],
)
async def test_what_arrives_on_an_idle_connection_is_never_the_next_answer(
    pool_for: MakePool, method: str, poison: bytes
) -> None:
    async def poisoned(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await served.wait()
        await peer.send(poison)

    served = asyncio.Event()
    async with (
        RawBackend(poisoned, answering(ok(b"second"))) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        assert (await owner.get()).body == b"first"
        served.set()
        await backend.peers[0].closed.wait()
        # The bytes are in the kernel, but the event loop may not have told the pool.
        assert (await owner.get(method=method)).body == b"second"
        assert not pool.retries


async def test_a_write_looks_before_it_takes_a_connection_that_has_just_answered(
    pool_for: MakePool,
) -> None:
    """The connection's end is in the kernel while its answer is being handed over."""
    handed_over, closed = threading.Event(), threading.Event()

    def backend(listener: socket.socket) -> None:
        for closes in (True, False):
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(ok(b"first" if closes else b"second"))
                handed_over.wait(5)
            closed.set()

    def write(reply: Reply) -> None:
        handed_over.set()
        closed.wait(5)
        if len(owner.replies) == 1:
            owner.send("POST")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=backend, args=[listener])
        thread.start()
        async with pool_for(f"http://127.0.0.1:{listener.getsockname()[1]}") as pool:
            owner = Owner(pool)
            owner.then = write
            owner.send()
            assert [reply.body for reply in await owner.count(2)] == [b"first", b"second"]
        thread.join()


@pytest.mark.parametrize("field", ["Connection: close", "connection: keep-alive, close"])
async def test_a_closing_answer_is_not_followed_by_another(pool_for: MakePool, field: str) -> None:
    async with RawBackend(answering(ok(b"", field))) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        await owner.get()
        assert not pool.connections
        await owner.get()
    assert len(backend.peers) == 2


@pytest.mark.parametrize("bounds", [{"idle": 0.05}, {"idle": 60.0, "age": 0.05}])
async def test_an_idle_connection_is_closed_in_time(
    bounds: dict[str, float], pool_for: MakePool
) -> None:
    """When nobody wants it, and when it has grown old."""
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url, **bounds) as pool:
        await Owner(pool).get()
        await backend.peers[0].closed.wait()
        assert not pool.connections
        await until(lambda: pool._sweeper is None)  # with nothing left to look at, nobody looks


async def test_an_old_connection_is_not_used_again(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url, age=0.0) as pool:
        owner = Owner(pool)
        await owner.get()
        await owner.get()
        await owner.get()
    assert len(backend.peers) > 1


@pytest.mark.parametrize(
    ("size", "status"),
    [
        (50_000_000, "413 Too Large"),  # we hold the rest
        (3_000_000, "200 OK"),  # the kernel does
        (100_000, "403 Forbidden"),  # the backend's kernel does, for all that we know
    ],
)
async def test_an_answer_that_overtakes_its_body_costs_the_connection(
    pool_for: MakePool, size: int, status: str
) -> None:
    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"early", status=status))
        await peer.gone()

    async with RawBackend(early, answering(ok())) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        reply = await owner.get(method="POST", body=bytes(size))
        assert (reply.status, reply.body) == (int(status[:3]), b"early")
        assert (await owner.get(method="POST")).status == 200
    assert len(backend.peers) == 2


async def test_a_large_body_arrives_whole_and_leaves_nothing_in_the_way(pool_for: MakePool) -> None:
    body = bytes(range(256)) * 20_000
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        await Owner(pool).get(method="POST", body=body)
        await Owner(pool).get(method="POST", body=body)
    assert [request.body for request in backend.requests] == [body, body]
    assert len(backend.peers) == 1


async def test_an_answer_that_came_while_the_event_loop_stood_still_is_in_time(
    pool_for: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.standstill.LATE", 0.2)

    asked, standing, sent, done = (threading.Event() for _ in range(4))

    def backend(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            asked.set()
            standing.wait(5)
            peer.sendall(ok(b"in time"))
            sent.set()
            done.wait(5)

    def stand_still() -> None:
        standing.set()
        sent.wait(5)
        time.sleep(0.4)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=backend, args=[listener])
        thread.start()
        async with pool_for(f"http://127.0.0.1:{listener.getsockname()[1]}", response=0.3) as pool:
            owner = Owner(pool)
            call = owner.send()
            await until(asked.is_set)
            asyncio.get_running_loop().call_soon(stand_still)
            assert (await owner.reply(call)).body == b"in time"
            done.set()
        thread.join()


# --- retries -------------------------------------------------------------------------------------


def once_then(*pieces: bytes, end: str) -> Script:
    """A good answer, and then something else on the same connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await after_request(*pieces, end=end)(peer)

    return script


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_call_is_repeated_once_when_a_kept_connection_closes_unanswered(
    pool_for: MakePool, method: str, end: str
) -> None:
    async with (
        RawBackend(once_then(end=end), answering(ok(b"again"))) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        await owner.get()
        reply = await owner.get(method=method)
        assert reply.failure is None
        assert reply.call
        assert reply.call.resent
        assert pool.retries == {"closed": 1}
    assert [request.method for request in backend.requests] == ["GET", method, method]


async def test_a_retry_has_what_is_left_of_the_calls_time(pool_for: MakePool) -> None:
    async with (
        RawBackend(once_then(end="close"), silent) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        await owner.get()
        call = owner.send()
        await until(lambda: call.resent and pool.busy)
        (connection,) = pool.connections
        assert connection.started > call.began
        assert connection.deadline == call.began + pool.timeouts.response
        owner.lane.close()


async def not_kept(pool: Pool, owner: Owner) -> None:
    """Nothing goes before."""


async def kept(pool: Pool, owner: Owner) -> None:
    await owner.get()


NOT_RETRIED: dict[str, tuple[str, Script, Callable[..., Any], dict[str, Any]]] = {
    "POST": ("POST", once_then(end="close"), kept, {}),
    "PATCH": ("PATCH", once_then(end="reset"), kept, {}),
    "PUT, unless it is in the settings": ("PUT", once_then(end="close"), kept, {}),
    "DELETE, unless it is in the settings": ("DELETE", once_then(end="close"), kept, {}),
    "on a fresh connection": ("GET", after_request(end="close"), not_kept, {}),
    "after the first byte": ("GET", once_then(b"H", end="close"), kept, {}),
    "after an interim answer": (
        "GET",
        once_then(b"HTTP/1.1 100 Continue\r\n\r\n", end="close"),
        kept,
        {},
    ),
    "a large body": ("GET", once_then(end="close"), kept, {"body": bytes(65_537)}),
}


@pytest.mark.parametrize(
    ("method", "script", "before", "fields"), NOT_RETRIED.values(), ids=NOT_RETRIED
)
async def test_a_call_that_may_have_been_received_is_not_repeated(
    pool_for: MakePool,
    method: str,
    script: Script,
    before: Callable[..., Any],
    fields: dict[str, Any],
) -> None:
    async with RawBackend(script, answering(ok())) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        await before(pool, owner)
        reply = await owner.get(method=method, **fields)
        assert reply.failure
        assert reply.failure.sent
        assert not pool.retries
        assert (await owner.get()).status == 200


async def test_put_is_repeated_where_the_settings_say_so(pool_for: MakePool) -> None:
    async with (
        RawBackend(once_then(end="close"), answering(ok())) as backend,
        pool_for(backend.url, methods=("PUT",)) as pool,
    ):
        owner = Owner(pool)
        await owner.get()
        assert (await owner.get(method="PUT", body=b"1")).status == 200
    assert [request.body for request in backend.requests] == [b"", b"1", b"1"]


async def test_a_retry_is_not_retried(pool_for: MakePool) -> None:
    async with (
        RawBackend(once_then(end="close"), after_request(end="close")) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        await owner.get()
        assert failure(await owner.get())[0] == "connection_terminated"
    assert len(backend.requests) == 3


async def test_retries_are_a_tenth_of_the_calls_but_three(pool_for: MakePool) -> None:
    async with (
        RawBackend(once_then(end="close")) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        for _ in range(12):
            await owner.get()
        assert pool.retries == {"closed": 3}


async def test_a_status_is_never_retried(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok(b"", status="503 Unavailable"))) as backend,
        pool_for(backend.url) as pool,
    ):
        assert (await Owner(pool).get()).status == 503
    assert len(backend.requests) == 1


# --- no connection -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_connection_is_tried_twice_for_any_method(
    pool_for: MakePool, method: str
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with pool_for(url) as pool:
        reply = await Owner(pool).get(method=method)
        assert failure(reply) == ("connection_refused", "refused")
        assert reply.status == 502
        assert reply.failure
        assert not reply.failure.sent
        assert pool.connects == {"connection_refused": 2}
        assert pool.retries == {"connect": 1}


async def test_a_backend_that_comes_back_is_used_at_once(pool_for: MakePool) -> None:
    port = free_port()
    async with pool_for(f"http://127.0.0.1:{port}") as pool:
        owner = Owner(pool)
        assert failure(await owner.get())[0] == "connection_refused"
        async with RawBackend(answering(ok()), port=port):
            assert (await owner.get()).status == 200


async def test_each_of_many_calls_to_a_dead_backend_fails_once(pool_for: MakePool) -> None:
    async with pool_for(f"http://127.0.0.1:{free_port()}") as pool:
        owner = Owner(pool)
        for _ in range(100):
            owner.send()
        replies = await owner.count(100)
        assert {failure(reply)[0] for reply in replies} == {"connection_refused"}
        assert len({id(reply.call) for reply in replies}) == 100


async def test_while_a_connection_lives_no_call_fails_for_want_of_another(
    pool_for: MakePool,
) -> None:
    """The backend takes one connection and refuses all others."""
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        owner.send()
        await backend.until(lambda: len(backend.requests) == 1)
        backend.stop_listening()
        for _ in range(5):
            owner.send()
        await until(lambda: not pool.connecting)
        assert pool.connects["connection_refused"] > 0
        gate.set()
        assert {reply.status for reply in await owner.count(6)} == {200}


async def test_after_a_rest_another_connection_is_tried(
    pool_for: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.pool.REST", 0.05)
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as full, pool_for(full.url) as pool:
        owner = Owner(pool)
        first = owner.send()
        await full.until(lambda: len(full.requests) == 1)
        full.stop_listening()
        second = owner.send()
        await until(lambda: pool.connects["connection_refused"])
        async with RawBackend(answering(ok(b"later")), port=full.port):
            assert (await owner.reply(second)).body == b"later"
        gate.set()
        assert (await owner.reply(first)).status == 200


async def test_a_connect_that_hangs_ends_at_its_deadline(pool_for: MakePool) -> None:
    """A listener with a full queue drops what comes."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with pool_for(url, connect=0.1) as pool:
            reply = await Owner(pool).get()
            assert failure(reply) == ("connection_timeout", "connect_timeout")
            assert reply.status == 504


# --- stopping ------------------------------------------------------------------------------------


async def test_stop_ends_what_waits_and_what_runs_and_says_what_was_sent(
    pool_for: MakePool,
) -> None:
    async with (
        RawBackend(silent) as backend,
        pool_for(backend.url, connections=2) as pool,
    ):
        owner = Owner(pool)
        for step in range(4):
            owner.send(step=step)
        await backend.until(lambda: len(backend.peers) == 2)
        await until(lambda: pool.busy == 2)
        owner.lane.stop(lambda call: STOPPED)
        sent = {r.call.step: r.failure.sent for r in owner.replies if r.call and r.failure}
        assert sent == {0: True, 1: True, 2: False, 3: False}
        assert {reply.status for reply in owner.replies} == {504}
        for peer in backend.peers:
            await peer.closed.wait()


async def test_stop_leaves_running_what_the_owner_wants_to_keep(pool_for: MakePool) -> None:
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        write, read = owner.send("POST"), owner.send("GET")
        await backend.until(lambda: len(backend.requests) == 2)
        owner.lane.stop(lambda call: None if call is write else STOPPED)
        assert [reply.call for reply in owner.replies] == [read]
        gate.set()
        assert (await owner.reply(write)).status == 200


async def test_stop_ends_calls_whose_connection_is_still_being_made(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        owner.send()
        owner.lane.stop(lambda call: STOPPED)
        assert len(owner.replies) == 1
        assert owner.replies[0].failure
        assert not owner.replies[0].failure.sent
        await until(lambda: not pool.connecting)
        assert len(pool.idle) == 1
        assert not backend.requests


async def test_what_an_owner_submits_while_it_is_stopped_is_sent_afterwards(
    pool_for: MakePool,
) -> None:
    async with (
        RawBackend(silent, answering(ok())) as backend,
        pool_for(backend.url) as pool,
    ):
        owner = Owner(pool)
        owner.send()
        await until(lambda: pool.busy == 1)
        owner.then = lambda reply: len(owner.replies) == 1 and owner.send()
        owner.lane.stop(lambda call: STOPPED)
        assert (await owner.count(2))[1].status == 200


async def test_a_closed_lane_hears_nothing_more(pool_for: MakePool) -> None:
    async with (
        RawBackend(silent) as backend,
        pool_for(backend.url, connections=1) as pool,
    ):
        owner = Owner(pool)
        owner.send()
        owner.send()
        owner.lane.hold(1000)
        await backend.until(lambda: len(backend.peers) == 1)
        await until(lambda: pool.busy)
        owner.lane.close()
        await backend.peers[0].closed.wait()
        assert not owner.replies
        assert (pool.memory.held, pool.waiting, pool.busy) == (0, 0, 0)


async def test_closing_a_pool_ends_what_is_being_connected(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend:
        pool = Pool(*configured(backend.url))
        owner = Owner(pool)
        owner.send()
        assert pool.connecting == 1
        owner.lane.close()
        await pool.close()
        assert pool.connecting == 0


# --- heads ---------------------------------------------------------------------------------------


async def test_a_head_is_the_common_fields_then_its_own(pool_for: MakePool) -> None:
    common = (*HOST, ("Accept", "*/*"), ("X-Twice", "1"), ("X-Twice", "2"))
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        call = Call("POST", "/a?b", common, b"{}", "batch.3", (("Idempotency-Key", "k-3"),))
        owner.lane.submit(call)
        await owner.reply(call)
    assert bytes(backend.peers[0].received) == (
        b"POST /a?b HTTP/1.1\r\nHost: backend.test\r\nAccept: */*\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
        b"Idempotency-Key: k-3\r\nX-Request-Id: batch.3\r\nContent-Length: 2\r\n\r\n{}"
    )

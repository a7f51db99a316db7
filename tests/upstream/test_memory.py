"""A ceiling on what answers hold, whatever their sizes, that locks nothing up (DESIGN part 4)."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable

import pytest

from gateway.batch import Call, Failure
from gateway.upstream import Pool
from tests.support.ports import free_port
from tests.support.raw_backend import Peer, RawBackend, answering, gated, ok
from tests.upstream.conftest import MakePool, Owner, failure, until

MB = 1_000_000
READ = 300_000
"""The most that one read of the event loop brings."""


def paused(pool: Pool) -> set[str]:
    """The targets of calls that are not read."""
    return {c.call.target for c in pool.connections if c.call and c.paused}


async def test_a_reply_is_charged_for_until_its_owner_gives_it_back(pool_for: MakePool) -> None:
    answer = ok(b"x" * 1000, "X: " + "h" * 500)
    async with RawBackend(answering(answer)) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        owner.lane.hold(5000)
        reply = await owner.get()
        assert reply.held == len(answer)
        assert owner.lane.held == pool.memory.held == 5000 + len(answer)
        owner.lane.release(reply.held)
        owner.lane.release(5000)
        assert owner.lane.held == pool.memory.held == 0


async def test_decoded_bytes_are_charged_too(pool_for: MakePool) -> None:
    answer = ok(gzip.compress(bytes(100_000)), "Content-Encoding: gzip")
    async with RawBackend(answering(answer)) as backend, pool_for(backend.url) as pool:
        reply = await Owner(pool).get()
        assert reply.held == len(answer) + 100_000


async def test_over_its_budget_a_lane_reads_only_what_is_urgent(pool_for: MakePool) -> None:
    gate = asyncio.Event()
    async with (
        RawBackend(gated(gate, ok(bytes(4 * MB)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=MB, response=0.3) as pool,
    ):
        owner = Owner(pool)
        owner.is_urgent = lambda call: call.target == "/0"
        for number in range(4):
            owner.send(target=f"/{number}")
        await backend.until(lambda: len(backend.requests) == 4)
        gate.set()
        await owner.count(1)
        assert owner.replies[0].call
        assert owner.replies[0].call.target == "/0"
        assert owner.lane.over_budget
        assert paused(pool) == {"/1", "/2", "/3"}
        # Everything else had at most the budget and the read that broke it.
        assert owner.lane.held < 4 * MB + MB + READ

        await asyncio.sleep(0.5)  # longer than a call may take: its time stands still
        assert len(owner.replies) == 1

        owner.is_urgent = lambda call: call.target == "/2"
        owner.lane.reconsider()
        await owner.count(2)
        assert owner.replies[1].call
        assert owner.replies[1].call.target == "/2"

        owner.is_urgent = lambda call: True
        owner.lane.reconsider()
        assert {reply.status for reply in await owner.count(4)} == {200}


async def test_a_call_begun_over_the_budget_waits_to_be_read(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok())) as backend,
        pool_for(backend.url, batch_buffer_bytes=MB) as pool,
    ):
        owner = Owner(pool)
        owner.is_urgent = lambda call: False
        owner.lane.hold(2 * MB)
        owner.send()
        await backend.until(lambda: len(backend.requests) == 1)
        assert paused(pool) == {"/"}
        owner.lane.release(2 * MB)
        await owner.count(1)


async def test_time_stands_still_for_a_call_that_is_not_read(pool_for: MakePool) -> None:
    """It was paused for longer than it may take, and then needs some more time."""
    gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"halves")[:-3])
        await gate.wait()
        await asyncio.sleep(0.25)
        await peer.send(b"ves")
        await peer.gone()

    async with (
        RawBackend(script) as backend,
        pool_for(backend.url, batch_buffer_bytes=MB, response=0.6) as pool,
    ):
        owner = Owner(pool)
        owner.is_urgent = lambda call: False
        call = owner.send()
        await until(lambda: owner.lane.held)
        owner.lane.hold(2 * MB)
        await asyncio.sleep(0.8)
        owner.lane.release(2 * MB)
        gate.set()
        assert (await owner.reply(call)).body == b"halves"


async def test_a_connection_that_was_paused_with_its_last_byte_reads_on(
    pool_for: MakePool,
) -> None:
    async with (
        RawBackend(answering(ok(bytes(2000)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=1000) as pool,
    ):
        owner = Owner(pool)
        owner.is_urgent = lambda call: False
        for _ in range(3):
            await owner.get()
            owner.free()
    assert len(backend.peers) == 1


async def test_an_owner_that_cannot_say_what_is_urgent_harms_nobody(pool_for: MakePool) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    def stumble(call: Call) -> bool:
        raise RuntimeError("a bug")

    async with (
        RawBackend(answering(ok(bytes(2000)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=1000) as pool,
    ):
        owner = Owner(pool)
        owner.is_urgent = stumble
        assert (await owner.get()).status == 200
        assert reported


async def test_a_budget_is_its_own_lanes_affair(pool_for: MakePool) -> None:
    async with (
        RawBackend(answering(ok(bytes(MB)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=2 * MB) as pool,
    ):
        full, other = Owner(pool), Owner(pool)
        full.is_urgent = other.is_urgent = lambda call: False
        full.lane.hold(3 * MB)
        full.send(target="/full")
        assert (await other.get()).status == 200
        assert paused(pool) == {"/full"}
        full.lane.release(3 * MB)
        await full.count(1)


async def test_over_the_pools_budget_only_the_oldest_lanes_urgent_call_is_read(
    pool_for: MakePool,
) -> None:
    gate = asyncio.Event()
    async with (
        RawBackend(gated(gate, ok(bytes(4 * MB)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=100 * MB, buffer_bytes=2 * MB) as pool,
    ):
        old, young = Owner(pool), Owner(pool)
        young.send(target="/young/0")
        young.send(target="/young/1")
        old.send(target="/old/0")
        old.send(target="/old/1")
        old.is_urgent = lambda call: call.target == "/old/1"
        await backend.until(lambda: len(backend.requests) == 4)
        gate.set()
        await old.count(1)
        assert old.replies[0].call
        assert old.replies[0].call.target == "/old/1"
        assert not young.replies
        assert pool.memory.held < 4 * MB + 2 * MB + READ
        old.is_urgent = lambda call: True
        old.lane.reconsider()
        await old.count(2)
        assert not young.replies
        old.free()
        old.lane.close()
        await young.count(2)


async def test_a_lane_that_waits_for_its_client_holds_large_ones_up_only_over_the_budget(
    pool_for: MakePool,
) -> None:
    async with (
        RawBackend(answering(ok(bytes(MB)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=100 * MB, buffer_bytes=4 * MB) as pool,
    ):
        slow, other = Owner(pool), Owner(pool)
        slow.lane.hold(4 * MB)  # rendered, not read by its client
        other.send()
        await until(lambda: other.lane.held > MB // 2)
        assert paused(pool) == {"/"}
        slow.lane.release(2 * MB)  # it has begun to read
        assert pool.memory.over
        await other.count(1)
        slow.lane.release(2 * MB)


async def test_when_a_favoured_lane_s_calls_are_stopped_the_next_is_read(
    pool_for: MakePool,
) -> None:
    """The lane may stay and hold what it has, for as long as a write that was sent takes."""
    gate = asyncio.Event()
    async with (
        RawBackend(gated(gate, ok(bytes(MB // 10)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=100 * MB, buffer_bytes=4 * MB) as pool,
    ):
        old, young = Owner(pool), Owner(pool)
        for owner in (old, young):
            owner.lane.hold(2 * MB - MB // 10)
            owner.send()
        await backend.until(lambda: len(backend.requests) == 2)
        assert [c.lane for c in pool.connections if c.paused] == [young.lane]
        old.lane.stop(lambda call: Failure("proxy_internal_response", "client_gone"))
        gate.set()
        await young.count(1)


async def test_a_lane_that_holds_little_is_read_whatever_others_hold(pool_for: MakePool) -> None:
    """A quarter of the budget is theirs, in even shares: two of half a megabyte here."""
    async with (
        RawBackend(answering(ok(bytes(MB // 4)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=100 * MB, buffer_bytes=4 * MB) as pool,
    ):
        slow, other = Owner(pool), Owner(pool)
        slow.lane.hold(4 * MB)
        for _ in range(10):
            assert (await other.get()).status == 200
            other.free()
        other.is_urgent = lambda call: False
        for _ in range(8):
            other.send()
        await until(lambda: other.lane.over_budget)
        assert paused(pool) == {"/"}
        assert other.lane.held < MB // 2 + 8 * (MB // 4 + READ)
        assert len(other.replies) < 18
        slow.lane.release(4 * MB)
        await other.count(18)


async def test_what_many_lanes_hold_that_came_one_after_another_is_bounded(
    pool_for: MakePool,
) -> None:
    """An even share of a quarter for each is more than a quarter when the first had larger ones."""
    async with pool_for(
        f"http://127.0.0.1:{free_port()}", batch_buffer_bytes=MB, buffer_bytes=4 * MB
    ) as pool:
        for _ in range(300):
            lane = Owner(pool).lane
            while not lane.over_budget:
                lane.hold(500)
        assert pool.memory.held < 5 * MB + 300 * 1500


async def test_a_lane_whose_calls_wait_for_a_connection_does_not_lock_the_pool_up(
    pool_for: MakePool,
) -> None:
    """All connections carry younger lanes' calls: one of those must end for the oldest to begin."""
    gate = asyncio.Event()
    async with (
        RawBackend(gated(gate, ok(bytes(4 * MB)))) as backend,
        pool_for(
            backend.url, connections=2, batch_buffer_bytes=100 * MB, buffer_bytes=2 * MB
        ) as pool,
    ):
        old, young = Owner(pool), Owner(pool)
        old.then = lambda reply: old.free()
        old.lane.hold(1000)
        young.send()
        young.send()
        await backend.until(lambda: len(backend.requests) == 2)
        old.send()
        gate.set()
        await old.count(1)
        old.lane.close()
        await young.count(2)


Urgency = Callable[[Owner], Callable[[Call], bool]]


async def crowded(pool: Pool, urgency: Urgency) -> list[Owner]:
    """Thirty batches of eight calls whose clients do not read, each with a connection at least, and
    whatever comes of that when time goes by."""
    owners = [Owner(pool) for _ in range(30)]
    for owner in owners:
        owner.is_urgent = urgency(owner)
        for _ in range(8):
            owner.send()
    served = set[object]()
    while len(served) < len(owners):
        await slow_clients_are_noticed(pool)
        served = {connection.lane for connection in pool.connections}
    for _ in range(20):
        await slow_clients_are_noticed(pool)
    return owners


@pytest.mark.parametrize("urgent", [False, True])
async def test_clients_that_do_not_read_keep_few_connections(
    pool_for: MakePool, urgent: bool
) -> None:
    """Each batch one, but for the first few, even where its answer could go on with any of its
    calls. None is made in vain, and all go on as soon as somebody reads."""
    async with (
        RawBackend(answering(ok(bytes(MB)))) as backend,
        pool_for(backend.url, connections=2, buffer_bytes=2 * MB) as pool,
    ):
        owners = await crowded(pool, lambda owner: lambda call: urgent and not owner.replies)
        assert len(pool.connections) <= 3 * 2 + len(owners)
        connects = pool.connects["ok"]
        for _ in range(20):
            await slow_clients_are_noticed(pool)
        assert pool.connects["ok"] == connects

        owners[0].is_urgent = lambda call: call.target == "/urgent"
        await owners[0].get("/urgent")
        for owner in owners:
            owner.is_urgent = lambda call: True
            owner.then = lambda reply, owner=owner: owner.free()  # type: ignore[misc]
            owner.free()
            owner.lane.reconsider()
        for owner in owners:
            await owner.count(8)


async def test_batches_whose_calls_are_held_back_are_no_way_round_the_budget(
    pool_for: MakePool,
) -> None:
    """Their calls wait, but not for a connection: nobody else may read on meanwhile."""
    async with (
        RawBackend(answering(ok(bytes(MB)))) as backend,
        pool_for(backend.url, connections=2, buffer_bytes=4 * MB) as pool,
    ):
        owners = await crowded(pool, lambda owner: lambda call: not owner.replies)
        assert pool.memory.held < 5 * MB + len(owners) * READ
        for owner in owners:
            owner.lane.close()


async def slow_clients_are_noticed(pool: Pool) -> None:
    """As if a second had passed, and everything that came of that."""
    pool._look_at_clocks(time.monotonic() + 1.0)
    await asyncio.sleep(0)
    while pool.connecting:
        await asyncio.sleep(0)


async def test_a_call_that_fails_or_is_stopped_gives_back_what_it_held(pool_for: MakePool) -> None:
    async def half(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(bytes(MB))[:-1])
        await asyncio.Event().wait()

    async with RawBackend(half) as backend, pool_for(backend.url, response=0.2) as pool:
        owner = Owner(pool)
        assert failure(await owner.get())[0] == "http_response_timeout"
        assert owner.lane.held == 0
        owner.send()
        await until(lambda: owner.lane.held > MB // 2)
        owner.lane.close()
        assert pool.memory.held == 0


async def test_a_thousand_large_answers_fit_under_a_small_ceiling(pool_for: MakePool) -> None:
    """In client order, taken one by one by a slow reader, as a batch does."""
    highest = 0
    async with (
        RawBackend(answering(ok(bytes(200_000)))) as backend,
        pool_for(backend.url, batch_buffer_bytes=MB, buffer_bytes=2 * MB) as pool,
    ):
        owner = Owner(pool)
        done: dict[int, int] = {}
        next_out = 0

        def ready() -> bool:
            done.update({reply.call.step: reply.held for reply in owner.replies if reply.call})
            owner.replies.clear()
            return next_out in done

        owner.is_urgent = lambda call: call.step == next_out
        for number in range(8):
            owner.send(step=number)
        for number in range(300):
            next_out = number
            owner.lane.reconsider()
            await until(ready)
            highest = max(highest, pool.memory.held)
            owner.lane.release(done.pop(number))
            if number + 8 < 300:
                owner.send(step=number + 8)
        assert owner.lane.held == 0
    assert highest < MB + READ + 200_000

"""Whatever the backend does and whenever owners stop: one reply for each call, its own; no write
twice, no read more than twice; nothing left behind.

One fault is missing, because HTTP/1.1 cannot see it: a second answer that arrives after the next
call was sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import cycle

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batch import Failure, Reply
from gateway.upstream import Pool
from tests.support.raw_backend import Peer, RawBackend, ok
from tests.upstream.conftest import Owner, configured, until

STOPPED = Failure("proxy_internal_response", "stopped")


async def fine(peer: Peer, body: bytes) -> bool:
    await peer.send(ok(body))
    return True


async def in_pieces(peer: Peer, body: bytes) -> bool:
    await peer.send(*[bytes([byte]) for byte in ok(body)])
    return True


async def chunked(peer: Peer, body: bytes) -> bool:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    await peer.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    return True


async def hesitant(peer: Peer, body: bytes) -> bool:
    await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    return await fine(peer, body)


async def last(peer: Peer, body: bytes) -> bool:
    await peer.send(ok(body, "Connection: close"))
    return False


async def last_but_silent(peer: Peer, body: bytes) -> bool:
    await peer.send(ok(body))
    return False


async def without_length(peer: Peer, body: bytes) -> bool:
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    return False


async def doubled(peer: Peer, body: bytes) -> bool:
    await peer.send(ok(body) + ok(b"forged"))
    return True


async def closed(peer: Peer, body: bytes) -> bool:
    return False


async def reset(peer: Peer, body: bytes) -> bool:
    peer.reset()
    return False


async def cut_in_head(peer: Peer, body: bytes) -> bool:
    await peer.send(b"HTTP/1.1 2")
    return False


async def cut_in_body(peer: Peer, body: bytes) -> bool:
    await peer.send(ok(body)[:-1])
    return False


async def garbled(peer: Peer, body: bytes) -> bool:
    await peer.send(b"\x16\x03\x01 nonsense\r\n")
    return True


FAULTS = [
    fine,
    in_pieces,
    chunked,
    hesitant,
    last,
    last_but_silent,
    without_length,
    doubled,
    closed,
    reset,
    cut_in_head,
    cut_in_body,
    garbled,
]
Fault = Callable[[Peer, bytes], Awaitable[bool]]


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
@given(
    faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=12),
    methods=st.lists(st.sampled_from(["GET", "GET", "POST", "HEAD", "PUT"]), max_size=30),
    connections=st.integers(1, 4),
    width=st.integers(1, 5),
    stop_at=st.none() | st.integers(0, 15),
)
@settings(max_examples=40, deadline=None)
def test_the_ledger_balances(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    faults: list[Fault],
    methods: list[str],
    connections: int,
    width: int,
    stop_at: int | None,
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(play(faults, methods, connections, width, stop_at))


async def play(
    faults: list[Fault], methods: list[str], connections: int, width: int, stop_at: int | None
) -> None:
    plan = cycle(faults)

    async def script(peer: Peer) -> None:
        keep = True
        while keep:
            request = await peer.request()
            body = b"" if request.method == "HEAD" else request.target.encode()
            keep = await next(plan)(peer, body)

    async with RawBackend(script) as backend, asyncio.timeout(20):
        pool = Pool(*configured(backend.url, connections=connections))
        owners = [Owner(pool), Owner(pool)]
        todo = [(method, f"/{number}") for number, method in enumerate(methods)]
        calls = {owner: iter(todo[index::2]) for index, owner in enumerate(owners)}
        stopped: set[Owner] = set()

        def offer(owner: Owner, reply: Reply | None = None) -> None:
            following = next(calls[owner], None)
            if following and owner not in stopped:
                owner.send(*following)

        for owner in owners:
            owner.then = partial(offer, owner)
            for _ in range(width):
                offer(owner)
        if stop_at is not None:
            enough = min(stop_at, len(todo) // 2)
            await until(lambda: sum(len(owner.replies) for owner in owners) >= enough)
            stopped.add(owners[0])
            owners[0].lane.stop(lambda call: STOPPED)
        await until(lambda: not (pool.busy or pool.waiting or pool.connecting or pool._again))

        answered = Counter(r.call.target for owner in owners for r in owner.replies if r.call)
        assert set(answered.values()) <= {1}
        if not stopped:
            assert len(answered) == len(todo)
        for owner in owners:
            owner.free()
            owner.lane.close()
        assert pool.memory.held == 0
        await pool.close()
        received = Counter((request.method, request.target) for request in backend.requests)
        for (method, _), times in received.items():
            assert times <= (2 if method in ("GET", "HEAD") else 1)
        for owner in owners:
            for reply in owner.replies:
                assert reply.call
                if reply.failure is None and reply.call.method != "HEAD":
                    assert reply.body == reply.call.target.encode()
                if reply.failure is not None and not reply.failure.sent:
                    assert (reply.call.method, reply.call.target) not in received

"""A pool that is replaced: nothing it has is lost, nothing is kept."""

from __future__ import annotations

import asyncio

from gateway.upstream import Pool, Pools
from tests.support.ports import free_port
from tests.support.raw_backend import RawBackend, after_request, answering, gated, ok
from tests.upstream.conftest import MakePool, Owner, configured, until


async def test_idle_connections_close_at_once_and_busy_ones_after_their_call(
    pool_for: MakePool,
) -> None:
    gate = asyncio.Event()
    scripts = gated(gate), answering(ok())
    async with RawBackend(*scripts) as backend, pool_for(backend.url) as pool:
        owner = Owner(pool)
        owner.send()
        await backend.until(lambda: len(backend.requests) == 1)
        owner.send()
        await owner.count(1)
        await until(lambda: len(pool.idle) == 1)
        pool.wind_down()
        await backend.until(lambda: backend.open == 1)
        gate.set()
        await owner.count(2)
        await backend.until(lambda: backend.open == 0)
        owner.free()
        owner.lane.close()
        assert pool.empty


async def test_calls_that_follow_each_other_still_share_a_connection(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        pool.wind_down()
        owner = Owner(pool)
        owner.then = lambda reply: len(owner.replies) < 20 and owner.send()
        owner.send()
        await owner.count(20)
        assert len(backend.peers) == 1
        await backend.until(lambda: backend.open == 0)


async def test_who_comes_late_is_served(pool_for: MakePool) -> None:
    async with RawBackend(answering(ok())) as backend, pool_for(backend.url) as pool:
        pool.wind_down()
        assert (await Owner(pool).get()).status == 200
        await backend.until(lambda: backend.open == 0)


async def test_figures_are_of_all_pools_and_counts_go_on() -> None:
    gate = asyncio.Event()
    async with RawBackend(gated(gate)) as backend, RawBackend(answering(ok())) as other:
        old, new = Pool(*configured(backend.url)), Pool(*configured(other.url))
        pools = Pools(old)
        owner, owner_of_new = Owner(old), Owner(new)
        owner.send(), owner.send()
        await backend.until(lambda: len(backend.requests) == 2)
        pools.use(new)
        pools.use(new)
        assert (await owner_of_new.get()).status == 200
        await until(lambda: len(new.idle) == 1)
        assert (pools.busy, pools.waiting, dict(pools.connects)) == (2, 0, {"ok": 3})
        assert pools.connections == {"idle": 1, "busy": 2, "connecting": 0}
        gate.set()
        await owner.count(2)
        assert pools.held == old.memory.held + new.memory.held > 0
        owner.lane.close()
        await until(lambda: list(pools) == [new])
        await pools.close()


async def test_all_pools_are_closed_in_the_end() -> None:
    async with RawBackend(after_request()) as backend:
        pools = Pools(Pool(*configured(backend.url)))
        Owner(pools.current).send()
        await backend.until(lambda: len(backend.requests) == 1)
        pools.use(Pool(*configured(f"http://127.0.0.1:{free_port()}")))
        await pools.close()
        await backend.until(lambda: backend.open == 0)

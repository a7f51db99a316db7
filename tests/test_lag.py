"""The event loop's lag."""

from __future__ import annotations

import asyncio

from gateway.telemetry.lag import WINDOW, LoopLag


def test_a_peak_is_seen_for_one_to_two_windows_by_everybody() -> None:
    lag = LoopLag()
    lag.observe(0.5, now=1.0)
    lag.observe(0.1, now=2.0)
    assert (lag.peak, lag.latest) == (0.5, 0.1)
    lag.observe(0.1, now=WINDOW + 1)
    assert lag.peak == 0.5
    lag.observe(0.1, now=2 * WINDOW + 2)
    assert lag.peak == 0.1


async def test_a_loop_that_is_held_up_is_late() -> None:
    loop = asyncio.get_running_loop()
    lag, ticked = LoopLag(), asyncio.Event()
    told = lag.observe

    def observe(late: float, now: float) -> None:
        told(late, now)
        ticked.set()

    lag.observe = observe  # type: ignore[method-assign]
    lag.start()
    until = loop.time() + 0.2
    while loop.time() < until:
        pass
    await ticked.wait()
    lag.stop()
    assert lag.peak >= 0.09

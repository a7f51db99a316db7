"""What each worker gets of the limits that are the whole gateway's.

They are split to the last unit, so that all workers together never exceed them: the remainder goes
to the first ones. The kernel deals out connections, not work, so one worker may be at its bound
while another is idle; a bound that holds is worth that.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.config import RateLimit, Settings


def share(settings: Settings, place: int, places: int) -> Settings:
    """The settings of the worker at this place, counted from 0."""

    def part(whole: int) -> int:
        return whole // places + (place < whole % places)

    upstream, limits, client = settings.upstream, settings.limits, settings.client
    return replace(
        settings,
        upstream=replace(
            upstream, connections=part(upstream.connections), waiting=part(upstream.waiting)
        ),
        limits=replace(
            limits, batches=part(limits.batches), buffer_bytes=part(limits.buffer_bytes)
        ),
        client=replace(client, connections=part(client.connections)),
        rate_limit=_bucket(settings.rate_limit, places),
    )


def _bucket(limit: RateLimit | None, places: int) -> RateLimit | None:
    """Each worker has a bucket for the client, and one connection reaches one of them."""
    if limit is None:
        return None
    burst = max(1, limit.burst // places)
    return replace(limit, per_second=limit.per_second / places, burst=burst)

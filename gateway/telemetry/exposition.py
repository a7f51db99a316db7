"""Metrics as text, classic or OpenMetrics, without stopping the event loop.

The text is made by `prometheus_client` from a `Collector` over a snapshot. A thousand series are
20 ms of it, so that happens in a thread; and since a thread in pure Python lets go of the
interpreter only every 5 ms, and a loop asks for it again after every system call, the thread also
pauses of its own accord every few samples.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import NamedTuple

import prometheus_client
from prometheus_client import metrics_core, samples
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Sample

from gateway.telemetry.catalogue import METRICS, Metric
from gateway.telemetry.series import Distribution, Exemplar, Labels, Snapshot

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_RUN = 20
"""Samples between two pauses: a quarter of a millisecond of work."""
_PAUSE = 0.0001


class Scrape(NamedTuple):
    body: bytes
    content_type: str
    gzipped: bool


def negotiate(accept: str) -> str:
    """The content type for an `Accept`. One version of each: a scraper's own is not echoed."""
    return OPENMETRICS if "application/openmetrics-text" in accept else CLASSIC


def render(snapshot: Snapshot, content_type: str) -> bytes:
    collector = _Collector(snapshot)
    if content_type == OPENMETRICS:
        text: bytes = openmetrics.generate_latest(collector)  # type: ignore[no-untyped-call]
        return text
    return prometheus_client.generate_latest(collector)


class Exposition:
    """Answers scrapes. Those that ask for the same while it is being made share it."""

    def __init__(self, fetch: Callable[[], Awaitable[Snapshot]]) -> None:
        self._fetch = fetch
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._under_way: dict[tuple[str, bool], asyncio.Task[bytes]] = {}

    async def scrape(self, accept: str = "", accept_encoding: str = "") -> Scrape:
        content_type, gzipped = negotiate(accept), "gzip" in accept_encoding
        key = (content_type, gzipped)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._make(content_type, gzipped))
            task.add_done_callback(lambda _: self._under_way.pop(key))
            self._under_way[key] = task
        # A scraper that hangs up must not take the others' text with it.
        return Scrape(await asyncio.shield(task), content_type, gzipped)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _make(self, content_type: str, gzipped: bool) -> bytes:
        snapshot = await self._fetch()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _text, snapshot, content_type, gzipped)


def _text(snapshot: Snapshot, content_type: str, gzipped: bool) -> bytes:
    text = render(snapshot, content_type)
    return gzip.compress(text, 1) if gzipped else text


class _Collector:
    """The table, filled from a snapshot: a `prometheus_client` Collector."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[metrics_core.Metric]:
        for metric in METRICS:
            name = metric.name.removesuffix("_total")
            family = metrics_core.Metric(name, metric.help, metric.kind, metric.unit)
            # The library declares a list and iterates it once: given lazily, it can pause.
            family.samples = _paced(self._samples(metric))  # type: ignore[assignment]
            yield family

    def _samples(self, metric: Metric) -> Iterator[Sample]:
        for labels, value in self._snapshot.values.get(metric.name, {}).items():
            yield Sample(metric.name, _named(metric.labels, labels), value)
        for labels, found in self._snapshot.distributions.get(metric.name, {}).items():
            yield from _buckets(metric, labels, found)


def _paced(samples: Iterable[Sample]) -> Iterator[Sample]:
    for number, sample in enumerate(samples, 1):
        yield sample
        if not number % _RUN:
            time.sleep(_PAUSE)


def _buckets(metric: Metric, labels: Labels, found: Distribution) -> Iterator[Sample]:
    named = _named(metric.labels, labels)
    bounds = [*map(repr, metric.bounds), "+Inf"]
    for place, count in enumerate(accumulate(found.counts)):
        bucket = {**named, "le": bounds[place]}
        exemplar = _exemplar(found.exemplars.get(place))
        yield Sample(f"{metric.name}_bucket", bucket, count, exemplar=exemplar)
    yield Sample(f"{metric.name}_count", named, sum(found.counts))
    yield Sample(f"{metric.name}_sum", named, found.sum)


def _exemplar(seen: Exemplar | None) -> samples.Exemplar | None:
    return samples.Exemplar({"trace_id": seen.trace_id}, seen.value, seen.at) if seen else None


def _named(names: tuple[str, ...], values: Labels) -> dict[str, str]:
    # A lone surrogate in one label would make every scrape raise. None can get here; a scrape
    # that fails for the sake of one label would still be the worse mistake.
    return {
        name: value.encode(errors="replace").decode()
        for name, value in zip(names, values, strict=True)
    }

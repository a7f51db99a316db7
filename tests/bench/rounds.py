"""Interleaved rounds: A B C, A B C, ... so that what the machine does meanwhile hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.bench.contestants import Running
from tests.bench.load import LoadError, closed, once, rounds
from tests.bench.stats import median, percentile, spread
from tests.bench.workload import Work, WrongAnswer

CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Effort:
    """How long it may take: more rounds make the medians steadier."""

    rounds: int = 5
    seconds: float = 0.3
    """Of one sample; batches under way at its end are waited for and counted."""
    budget: float = 40.0
    """Seconds after which no further round begins, once there were two: some peers need long."""


@dataclass
class Samples:
    """What one contestant showed in one case, a value per round."""

    cpu: list[float] = field(default_factory=list)
    """Seconds per subrequest."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of every batch, all rounds together."""
    firsts: list[float] = field(default_factory=list)
    peak: int = 0
    """Bytes resident at most."""
    client_share: list[float] = field(default_factory=list)
    """The load's CPU seconds per second: near 1 it would be the limit."""

    @property
    def microseconds(self) -> float:
        return median(self.cpu) * 1e6

    def milliseconds(self, share: float) -> float:
        return percentile(self.latencies, share) * 1e3

    def as_dict(self) -> dict[str, float]:
        return {
            "cpu_us": self.microseconds,
            "cpu_spread": spread(self.cpu),
            "rounds": len(self.cpu),
            "batches": len(self.latencies),
            "p50_ms": self.milliseconds(0.5),
            "p90_ms": self.milliseconds(0.9),
            "p99_ms": self.milliseconds(0.99),
            "peak_mib": self.peak / 2**20,
            "client_share": median(self.client_share),
        }


async def interleave(
    contestants: Sequence[Running],
    work: Work,
    effort: Effort,
    *,
    clients: int = CLIENTS,
    trouble: Callable[[str], None] = lambda _: None,
) -> dict[str, Samples]:
    """Samples by contestant. One that answers wrongly is left out, and `trouble` is told."""
    found: dict[str, Samples] = {}
    out: set[str] = set()
    limit = time.monotonic() + effort.budget
    for number in range(effort.rounds):
        if number > 1 and time.monotonic() > limit:
            break
        for running in contestants:
            if running.name in out:
                continue
            try:
                if not number:
                    await _warmed(running, work, clients)
                    found[running.name] = Samples()
                await _sample(running, work, effort, clients, found[running.name])
            except (LoadError, WrongAnswer, OSError) as reason:
                trouble(f"{running.name} at {work.name}: {reason}")
                found.pop(running.name, None)
                out.add(running.name)
    return found


async def checked(running: Running, work: Work) -> None:
    """Raises `WrongAnswer` unless the contestant's answer is right."""
    request = work.request(running.contestant.format, running.address)
    client = await once(running.address, request)
    body = bytes(client.framing.body)
    if client.framing.status != 200:
        raise WrongAnswer(f"status {client.framing.status}: {body[:300]!r}")
    work.check(running.contestant.format, body)


async def _warmed(running: Running, work: Work, clients: int) -> None:
    """Right, and with its connections open, code compiled and buffers grown."""
    await checked(running, work)
    request = work.request(running.contestant.format, running.address)
    await rounds(running.address, request, clients=clients, each=1)


async def _sample(
    running: Running, work: Work, effort: Effort, clients: int, into: Samples
) -> None:
    request = work.request(running.contestant.format, running.address)
    running.process.forget_peak()
    before = running.process.cpu()
    load = await closed(running.address, request, clients=clients, seconds=effort.seconds)
    used = running.process.cpu() - before
    into.cpu.append(used / len(load.latencies) / work.batch)
    into.latencies += load.latencies
    into.firsts += load.firsts
    into.peak = max(into.peak, running.process.peak())
    into.client_share.append(load.client_cpu / load.seconds)

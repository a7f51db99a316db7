"""Two workers beside one: what two processors could do, by what each subrequest costs.

Load and backend share the processors with the workers here, so throughput itself would measure
them too. Capacity is counted instead: a worker is full when its processor is, so two can do as
much as the busier of them allows.
"""

from __future__ import annotations

from tests.bench.contestants import gateway
from tests.bench.load import closed
from tests.bench.machine import ALL, CONTESTANTS
from tests.bench.rounds import checked
from tests.bench.run import Run
from tests.bench.stats import median
from tests.bench.workload import Workload

WORK = Workload(20)
CLIENTS = 128
"""The kernel spreads connections over the workers by hash: of few, one would get most, and of more,
one would get more than the half of `limits.batches` that is its own."""
ROUNDS = 4


async def run(run: Run) -> None:
    one: list[float] = []
    two: list[float] = []
    shares: list[float] = []
    async with (
        run.site.running([gateway("one")], CONTESTANTS) as (single,),
        run.site.running([gateway("two", workers=2)], ALL) as (double,),
    ):
        for running in (single, double):
            await checked(running, WORK)
        for _ in range(ROUNDS):
            for running, costs in ((single, one), (double, two)):
                before = running.process.cpu_by_process()
                request = WORK.request("sugarcrm", running.address)
                load = await closed(running.address, request, clients=CLIENTS, seconds=1.0)
                after = running.process.cpu_by_process()
                used = sorted(after[pid] - before.get(pid, 0.0) for pid in after)
                costs.append(sum(used) / len(load.latencies) / WORK.batch)
                if running is double:
                    shares.append(used[-1] / sum(used))
    share = median(shares)
    run.verdict(
        "capacity of two workers by one's",
        median(one) / (median(two) * share),
        least=1.7,
        note=f"{median(one) * 1e6:.1f} and {median(two) * 1e6:.1f} us per subrequest, "
        f"the busier worker did {share:.0%}",
    )

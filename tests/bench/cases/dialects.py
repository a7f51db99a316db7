"""The other three formats beside SugarCRM's: the same calls in each one's words."""

from __future__ import annotations

from tests.bench.contestants import gateway
from tests.bench.run import Run, ratio
from tests.bench.workload import Workload

FORMATS = ("sugarcrm", "guidewire", "agendize", "truto")
WORKS = (Workload(100), Workload(100, "2kB"))


async def run(run: Run) -> None:
    found = {}
    names = [gateway(format, format) for format in FORMATS]
    async with run.site.running(names) as contestants:
        for work in WORKS:
            found[work] = await run.compare(contestants, work)
    for format in FORMATS[1:]:
        for work, by in found.items():
            share = ratio(by, format, "sugarcrm")
            run.verdict(f"{format}, {work.name}, against SugarCRM's format", share, most=1.3)

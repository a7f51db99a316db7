"""`python -m tests.bench`: runs the cases, prints the report, leaves it in `results/`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tests.bench import installing, machine, nginx
from tests.bench.cases import CASES, QUICK
from tests.bench.contestants import Site
from tests.bench.load import LoadError
from tests.bench.report import Report
from tests.bench.rounds import Effort
from tests.bench.run import Run, progress
from tests.bench.workload import WrongAnswer

RESULTS = Path(__file__).parent / "results"
PATIENCE = 600.0
"""Seconds for one case; the longest take three minutes."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    if options.list:
        print("\n".join(CASES))
        return 0
    if reason := nginx.missing(lua=True):
        print(f"the backend cannot run: {reason}", file=sys.stderr)
        return 1
    report = Report(machine.describe())
    if not options.offline:
        report.absent.update(installing.install())
    uvloop.run(_run(report, options))
    print(report.markdown())
    report.write(RESULTS)
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the headline alone, in a minute")
    parser.add_argument("--only", help="cases, separated by commas")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--rounds", type=int, help="interleaved rounds of each comparison")
    parser.add_argument("--seconds", type=float, help="of one sample")
    parser.add_argument("--offline", action="store_true", help="fetch no peers")
    options = parser.parse_args(argv)
    options.cases = options.only.split(",") if options.only else QUICK if options.quick else CASES
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    return options


async def _run(report: Report, options: argparse.Namespace) -> None:
    usual = Effort(rounds=1, seconds=0.25) if options.quick else Effort()
    effort = Effort(
        rounds=options.rounds or usual.rounds,
        seconds=options.seconds or usual.seconds,
    )
    with tempfile.TemporaryDirectory(prefix="bulk-gateway-bench-") as directory:
        site = Site(Path(directory))
        try:
            await site.ready()
            run = Run(site, report, effort, RESULTS, quick=options.quick)
            for name in options.cases:
                await _case(run, name)
        finally:
            site.close()
        report.absent.update(site.absent)


async def _case(run: Run, name: str) -> None:
    """One case that cannot be measured, or hangs, does not take the others with it."""
    began = time.monotonic()
    progress(f"== {name}")
    try:
        async with asyncio.timeout(PATIENCE):
            await CASES[name](run)
    except (LoadError, WrongAnswer, OSError, asyncio.IncompleteReadError) as trouble:
        run.trouble(f"{name}: {type(trouble).__name__}: {trouble}")
    progress(f"   {name} took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())

"""`make soak`: mixed load with random faults for a given time, and the books at its end."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.soak.ledger import Ledger
from tests.soak.run import soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: 600)")
    parser.add_argument("--seed", type=int, default=1, help="of what is random (default: 1)")
    arguments = parser.parse_args()

    async def pace(_: Ledger) -> None:
        await asyncio.sleep(arguments.seconds)

    report = asyncio.run(soak(pace, arguments.seed))
    print(*report.lines(), sep="\n")
    return 1 if report.mistakes else 0


sys.exit(main())

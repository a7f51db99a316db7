"""Fuzzes each subject for a while: `python -m tests.fuzz --seconds 60 answers truto`.

What breaks a promise is made small and put into tests/fuzz/corpus, where `make test` finds it from
then on.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from random import Random
from time import monotonic

from tests.fuzz import corpus
from tests.fuzz.hunt import Hunt
from tests.fuzz.subjects import SUBJECTS

SLOW = 1.0
"""Seconds of CPU that no input of a few thousand bytes may take."""


class TooSlow(Exception):
    """An input took longer than that."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("subjects", nargs="*", help=f"of {', '.join(SUBJECTS)}; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each subject")
    parser.add_argument("--seed", type=int, help="to do again what was done before")
    parser.add_argument("--keep", action="store_true", help="keep what showed something new, too")
    asked = parser.parse_args()
    if unknown := {*asked.subjects} - {*SUBJECTS}:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    seed = Random().randrange(2**32) if asked.seed is None else asked.seed
    print(f"seed {seed}, {asked.seconds:g} s each")
    print(f"{'subject':14} executions  a second  slowest ms  new entries  failures")
    broken = 0
    for name in asked.subjects or SUBJECTS:
        hunt = Hunt(name, SUBJECTS[name], Random(f"{seed} {name}"))
        broken += _fuzz(name, hunt, asked.seconds)
        for data in hunt.found if asked.keep else ():
            if len(data) <= corpus.LONGEST:
                corpus.keep(name, data)
    return 1 if broken else 0


def _fuzz(name: str, hunt: Hunt, seconds: float) -> int:
    """How many inputs broke a promise: 0, or the 1 that it stopped at."""
    failure = None
    began = monotonic()
    try:
        hunt.replay()
        while monotonic() < began + seconds:
            hunt.go_on()
            if hunt.slowest > SLOW:
                raise TooSlow(f"{hunt.slowest:.1f} s")
    except Exception as error:
        failure = error
    rate = hunt.executions / (monotonic() - began)
    failures = int(failure is not None)
    figures = f"{hunt.executions:10} {rate:9.0f} {hunt.slowest * 1000:11.1f} {len(hunt.found):12}"
    print(f"{name:14} {figures} {failures:9}", flush=True)
    if failure is not None:
        _report(name, hunt, failure)
    return failures


def _report(name: str, hunt: Hunt, failure: Exception) -> None:
    traceback.print_exception(failure, file=sys.stdout)
    found = hunt.tried if isinstance(failure, TooSlow) else hunt.broken()
    path = corpus.keep(name, found, f"to be mended: {type(failure).__name__}")
    print(f"\n{found!r}\nis kept in {path}; to see it again:")
    print(f"python -m pytest tests/fuzz/test_corpora.py -k 'kept and {name}'")


if __name__ == "__main__":
    sys.exit(main())

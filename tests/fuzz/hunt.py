"""One subject being fuzzed: kept inputs first, then ever more that are made of them.

What guides it are signs: words in which a subject says what it made of an input, a refusal's reason
or the way an answer ended. An input that shows a sign for the first time is built upon. That is
coarser than coverage, but costs nothing and needs no instrumented code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from time import thread_time

from tests.fuzz import corpus
from tests.fuzz.mutation import Mutator, Trees, smallest

Signs = frozenset[str]


@dataclass(frozen=True)
class Subject:
    run: Callable[[bytes], Signs]
    """Takes any bytes. Raises when they make it break a promise."""
    words: Sequence[bytes]
    seeds: Sequence[bytes]
    """What is well-formed; kept elsewhere for another reason, as golden cases are, or here."""
    json: bool = False
    """They are JSON documents, so half of what is made of them is JSON too."""


class Hunt:
    def __init__(self, name: str, subject: Subject, random: Random) -> None:
        self.executions = 0
        self.slowest = 0.0
        """Seconds of CPU."""
        self.tried = b""
        """The last input."""
        self.found: list[bytes] = []
        """What showed something new, and is not kept yet."""
        self._run = subject.run
        self._known: set[str] = set()
        self._kept = [*subject.seeds, *corpus.kept(name)]
        self._random = random
        self._makers: list[Mutator | Trees] = [Mutator(self._kept, subject.words, random)]
        if subject.json:
            self._makers.append(Trees(self._kept, subject.words, random))

    def replay(self) -> None:
        """Runs what is kept."""
        for data in self._kept:
            self._known |= self._timed(data)

    def go_on(self) -> None:
        """Makes one more, and runs that."""
        data = self._random.choice(self._makers).make()
        new = self._timed(data) - self._known
        if new:
            self._known |= new
            self.found.append(smallest(data, lambda shorter: new <= self._signs(shorter), 300))
            self._kept.append(self.found[-1])

    def broken(self) -> bytes:
        """A small input that breaks a promise, made of the last one, which did."""
        return smallest(self.tried, self._breaks)

    def _timed(self, data: bytes) -> Signs:
        self.tried = data
        self.executions += 1
        before = thread_time()
        signs = self._run(data)
        self.slowest = max(self.slowest, thread_time() - before)
        return signs

    def _signs(self, data: bytes) -> Signs:
        try:
            return self._run(data)
        except Exception:
            return frozenset()  # it will be found as what it is

    def _breaks(self, data: bytes) -> bool:
        try:
            self._run(data)
        except Exception:
            return True
        return False

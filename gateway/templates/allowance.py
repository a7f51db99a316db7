"""How much may be made of templates, and be looked at for it.

A document of a few kilobytes can name a value of a megabyte a thousand times, or have a thousand
runs look through a list; either would take the whole process.
"""

from __future__ import annotations

from gateway.errors import Exhausted, Unresolved

BYTES = 8 * 2**20
"""Made of one template: twice what a document may have by default."""
ADDRESS = 64 * 2**10
"""The same of an address: much more than may be sent."""
CONTEXT = 64 * 2**20
"""The same of all that JSONata sees in one batch."""
STEPS = 10_000
"""Members and elements looked at, each in one to three microseconds."""
MORE_BYTES, MORE_STEPS = 16 * 2**10, 200
"""What each text adds to what all of its batch may take. Of those that take no more there may be
any number: bodies of a loop over records, say, with sixty fields of each."""


class Allowance:
    """What is left for one text that is made, and for all of its batch. `make` and `look` raise
    Unresolved where the text has too little, and Exhausted where the batch has."""

    __slots__ = ("_batch", "_bytes", "_most", "_steps")

    def __init__(self, most: int = BYTES, batch: Allowance | None = None) -> None:
        self._most = self._bytes = most
        self._steps = STEPS
        self._batch = batch

    def of_text(self, most: int = BYTES) -> Allowance:
        """For one more text of the batch that this one is for."""
        self._most += MORE_BYTES
        self._bytes += MORE_BYTES
        self._steps += MORE_STEPS
        return Allowance(most, self)

    def make(self, size: int) -> None:
        """So many bytes are about to be written."""
        if size > self._bytes:
            raise self._refusal(f"filled in, it has more than {self._most} bytes")
        if self._batch is not None:
            self._batch.make(size)
        self._bytes -= size

    def look(self, count: int = 1) -> None:
        """So many values are about to be looked at."""
        if count > self._steps:
            raise self._refusal("what stands in its open places takes too many steps")
        if self._batch is not None:
            self._batch.look(count)
        self._steps -= count

    def _refusal(self, message: str) -> Unresolved:
        if self._batch is None:
            return Exhausted(f"{message} with those before it")
        return Unresolved(message)

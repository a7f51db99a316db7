"""Inputs that nearly are what they should be: known ones, a little broken.

A parser's mistakes lie close to what it accepts, so every input is made of a kept one, of words of
its language and of pieces of other kept ones. The same seed makes the same inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

LONGEST = 8192

_EDGES = (b"", b"0", b"-1", b"255", b"256", b"65536", b"4294967296", b"18446744073709551616", b"\0",
          b"\xff", b"\r\n", b"\n", b" ", b"\t", b"'", b'"', b"\\", b"/", b"%", b"..")  # fmt: skip


class Mutator:
    """Breaks bytes. `kept` may grow meanwhile, and what is new there is chosen more often."""

    def __init__(self, kept: Sequence[bytes], words: Sequence[bytes], random: Random) -> None:
        self._kept = kept
        self._words = (*words, *_EDGES)
        self._random = random
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip, self._noise, self._delete, self._repeat, self._insert, self._insert,
            self._replace, self._move, self._cross, self._cut,
        )  # fmt: skip

    def make(self) -> bytes:
        data = bytearray(self._one())
        for _ in range(1 + int(self._random.expovariate(0.4))):
            self._random.choice(self._ways)(data)
        return bytes(data[:LONGEST])

    def _one(self) -> bytes:
        if not self._kept:
            return b""
        recent = self._kept[-20:] if self._random.random() < 0.3 else self._kept
        return self._random.choice(recent)

    def _place(self, data: bytearray) -> int:
        return self._random.randrange(len(data) + 1)

    def _stretch(self, data: bytearray) -> slice:
        start = self._place(data)
        return slice(start, start + 1 + int(self._random.expovariate(0.1)))

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._place(data) - 1] ^= 1 << self._random.randrange(8)

    def _noise(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = self._random.randbytes(1 + int(self._random.expovariate(0.5)))

    def _delete(self, data: bytearray) -> None:
        del data[self._stretch(data)]

    def _repeat(self, data: bytearray) -> None:
        stretch = self._stretch(data)
        data[stretch] = data[stretch] * self._random.choice((2, 3, 20, 200))

    def _insert(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = self._random.choice(self._words)

    def _replace(self, data: bytearray) -> None:
        data[self._stretch(data)] = self._random.choice(self._words)

    def _move(self, data: bytearray) -> None:
        stretch = self._stretch(data)
        piece = data[stretch]
        del data[stretch]
        at = self._place(data)
        data[at:at] = piece

    def _cross(self, data: bytearray) -> None:
        other = self._one()
        data[self._place(data) :] = other[self._random.randrange(len(other) + 1) :]

    def _cut(self, data: bytearray) -> None:
        del data[self._place(data) :]


class Trees:
    """Breaks JSON documents: their shape, not their grammar."""

    def __init__(self, kept: Sequence[bytes], words: Sequence[bytes], random: Random) -> None:
        self._trees = [tree for data in kept if (tree := _tree(data)) is not None]
        self._words = [word.decode("utf-8", "replace") for word in words]
        self._random = random

    def make(self) -> bytes:
        tree = self._copy()
        for _ in range(1 + int(self._random.expovariate(0.3))):
            tree = self._changed(tree)
        return json.dumps(tree).encode()[:LONGEST]

    def _copy(self) -> Any:
        return json.loads(json.dumps(self._random.choice(self._trees)))

    def _changed(self, tree: Any) -> Any:
        """One change, at a place that is as likely deep as shallow."""
        if isinstance(tree, dict | list) and tree and self._random.random() < 0.8:
            key = self._random.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
            tree[key] = self._changed(tree[key])
            return tree
        return self._random.choice((self._other, self._inside, self._more, self._less))(tree)

    def _other(self, tree: Any) -> Any:
        """An edge, a piece of another document, or words."""
        choice = self._random.randrange(4)
        if choice == 0:
            return self._random.choice((None, True, 0, -1, 10**30, 1.5, "", [], {}, "\0", "\ud800"))
        return self._copy() if choice == 1 else self._text()

    def _text(self) -> str:
        return "".join(self._random.choices(self._words, k=self._random.choice((1, 1, 1, 2, 3))))

    def _inside(self, tree: Any) -> Any:
        return [tree] if self._random.random() < 0.5 else {self._text(): tree}

    def _more(self, tree: Any) -> Any:
        if isinstance(tree, list):
            tree.insert(self._random.randrange(len(tree) + 1), self._other(tree))
        elif isinstance(tree, dict):
            tree[self._text()] = self._other(tree)
        elif isinstance(tree, str):
            at = self._random.randrange(len(tree) + 1)
            return tree[:at] + self._text() + tree[at:]
        return tree

    def _less(self, tree: Any) -> Any:
        if isinstance(tree, dict) and tree:
            del tree[self._random.choice(list(tree))]
        elif isinstance(tree, list) and tree:
            del tree[self._random.randrange(len(tree))]
        elif isinstance(tree, str) and tree:
            at = self._random.randrange(len(tree))
            return tree[:at] + tree[at + 1 :]
        return tree


def _tree(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def smallest(data: bytes, still: Callable[[bytes], bool], tries: int = 2000) -> bytes:
    """A shorter input of which the same holds, found by leaving out ever smaller pieces."""
    size = len(data) // 2 or 1
    while size and tries > 0:
        at = 0
        while at < len(data) and tries > 0:
            tries -= 1
            shorter = data[:at] + data[at + size :]
            if still(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data

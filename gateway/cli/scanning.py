"""Finds values in a JSON text while it is still coming."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, TypeVar

Path = tuple[str | int, ...]
"""The keys and indexes that lead to a value."""


class Event(NamedTuple):
    """A wanted value has begun, or, with its bytes, ended."""

    path: Path
    value: bytes | None


class NotJson(ValueError):
    """What comes cannot be read."""


T = TypeVar("T")
Reading = Generator[Event | None, None, T]
"""Goes as far as it can and yields None where the text ends for now."""

_SOLID = re.compile(rb"[^ \t\r\n]")
_QUOTE = re.compile(rb'["\\]')
_NESTING = re.compile(rb'[\[\]{}"]')
_SCALAR_END = re.compile(rb"[ \t\r\n,\]}]")


class Scanner:
    """Takes a text piece by piece. Bytes of wanted values are kept until they end, others are not.

    It goes by brackets, quotes and commas: that a value is well-formed is for its reader to find.
    """

    def __init__(self, wanted: Callable[[Path], bool], leads: Callable[[Path], bool]) -> None:
        """`leads`: whether there may be a wanted value inside the one at this path."""
        self._wanted = wanted
        self._leads = leads
        self._text = bytearray()
        self._at = 0
        self._open: list[int] = []
        """Where values and keys began that have not ended."""
        self._reading = self._value(())

    def feed(self, data: bytes) -> Iterator[Event]:
        """What is found with these bytes. Raises NotJson."""
        self._text += data
        for event in self._reading:
            if event is None:
                break
            yield event
        self._forget()

    def _forget(self) -> None:
        done = min([self._at, *self._open])
        del self._text[:done]
        self._at -= done
        self._open = [begin - done for begin in self._open]

    # --- values ----------------------------------------------------------------------------------

    def _value(self, path: Path) -> Reading[None]:
        first = yield from self._next()
        wanted = self._wanted(path)
        if wanted:
            self._open.append(self._at)
            yield Event(path, None)
        if first == b"{" and self._leads(path):
            yield from self._object(path)
        elif first == b"[" and self._leads(path):
            yield from self._array(path)
        else:
            yield from self._skip(first)
        if wanted:
            yield Event(path, bytes(self._text[self._open.pop() : self._at]))

    def _object(self, path: Path) -> Reading[None]:
        self._at += 1
        while (mark := (yield from self._next())) != b"}":
            if mark == b",":
                self._at += 1
                continue
            if mark != b'"':
                raise NotJson
            key = yield from self._key()
            if (yield from self._next()) != b":":
                raise NotJson
            self._at += 1
            yield from self._value((*path, key))
        self._at += 1

    def _array(self, path: Path) -> Reading[None]:
        self._at += 1
        index = 0
        while (mark := (yield from self._next())) != b"]":
            if mark == b",":
                self._at += 1
                continue
            yield from self._value((*path, index))
            index += 1
        self._at += 1

    # --- tokens ----------------------------------------------------------------------------------

    def _next(self) -> Reading[bytes]:
        """The next byte that is no white space."""
        found = yield from self._search(_SOLID)
        self._at = found.start()
        return found[0]

    def _key(self) -> Reading[str]:
        self._open.append(self._at)
        yield from self._string()
        try:
            return str(json.loads(self._text[self._open.pop() : self._at]))
        except ValueError:
            raise NotJson from None

    def _string(self) -> Reading[None]:
        self._at += 1
        while (found := (yield from self._search(_QUOTE)))[0] == b"\\":
            self._at = found.end()
            while self._at == len(self._text):  # what is escaped has not come yet
                yield None
            self._at += 1
        self._at = found.end()

    def _skip(self, first: bytes) -> Reading[None]:
        """1. a string  2. an object or an array, whatever is in it  3. a number or a word"""
        if first == b'"':
            yield from self._string()
        elif first in (b"{", b"["):
            yield from self._skip_nested()
        elif first in (b",", b":", b"]", b"}"):
            raise NotJson
        else:
            found = yield from self._search(_SCALAR_END)
            self._at = found.start()

    def _skip_nested(self) -> Reading[None]:
        depth = 0
        while True:
            found = yield from self._search(_NESTING)
            if found[0] == b'"':
                self._at = found.start()
                yield from self._string()
                continue
            self._at = found.end()
            depth += 1 if found[0] in (b"{", b"[") else -1
            if not depth:
                return

    def _search(self, what: re.Pattern[bytes]) -> Reading[re.Match[bytes]]:
        while (found := what.search(self._text, self._at)) is None:
            self._at = len(self._text)
            yield None
        return found

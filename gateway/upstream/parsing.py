"""What the parser's owner has that is a `dict` and an exception of the parser's: classes of Python,
which stay so where `connection` is compiled."""

from __future__ import annotations

import httptools


class Names(dict[bytes, bytes]):
    """Field names seen, each kept once: a batch that waits holds them a thousand times. Bounded by
    forgetting everything, since the common ones are back with the next answer."""

    noticed = False
    """A field has come that changes how a body is read. The names of such are not kept, so that
    each is noticed."""

    def __missing__(self, name: bytes) -> bytes:
        if name.lower() in (b"transfer-encoding", b"content-encoding"):
            self.noticed = True
            return name
        if len(self) >= 1024:
            self.clear()
        self[name] = name
        return name


class Unacceptable(httptools.HttpParserError):
    """Stops the parser, as its own errors do; the connection's `_flaw` says why."""

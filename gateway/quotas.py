"""How much each client may ask: a bucket of tokens, one token a subrequest.

A bulk call of a hundred subrequests costs as much as a hundred calls, so nobody gets past a limit
by bundling (GHSA-775h-3xrc-c228). Each process counts for itself, by its part of the setting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from math import ceil
from time import monotonic

import msgspec

from gateway import headers
from gateway.batch import Failure
from gateway.config import RateLimit
from gateway.headers.names import Kind, kind
from gateway.reception import Outer

MOST = 16_384
"""Clients remembered, 5 MB of them. Beyond it those are forgotten that have been away longest,
which gives them a full bucket: whoever has so many addresses has as many buckets anyway."""

RATE_LIMITED = Failure(
    "http_request_denied", "rate_limited", status=429, message="too many subrequests"
)


class Bucket:
    """One client's tokens."""

    __slots__ = ("_at", "_quotas", "_tokens")

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._tokens = quotas.burst
        self._at = quotas.clock()

    def refusal(self) -> Failure | None:
        """Takes a token, or says when there will be one."""
        quotas, now = self._quotas, self._quotas.clock()
        self._tokens = min(quotas.burst, self._tokens + (now - self._at) * quotas.per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return None
        wait = ceil((1 - self._tokens) / quotas.per_second)
        return msgspec.structs.replace(RATE_LIMITED, retry_after=wait)


class Quotas:
    """The setting `rate_limit`, and what is left of it for whom."""

    def __init__(
        self,
        declared: RateLimit,
        proxies: headers.TrustedProxies,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.per_second = declared.per_second
        self.burst = float(declared.burst)
        self.clock = clock
        self._header = "" if declared.key == "address" else headers.normal(declared.key)
        self._proxies = proxies
        self._buckets: OrderedDict[bytes, Bucket] = OrderedDict()
        """Least recently used first."""

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, outer: Outer) -> Bucket:
        """The bucket of whoever makes this call."""
        # A digest, so that no credential stays in memory and no name is longer than another.
        key = blake2b(self._client(outer).encode("latin-1", "replace"), digest_size=16).digest()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self)
            if len(self._buckets) > MOST:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket

    def _client(self, outer: Outer) -> str:
        """The header's value, where there is exactly one and it may be believed; else the address.

        A key that clients make up is no limit: let it be one that something in front of us checks.
        """
        if self._header and (outer.trusted or kind(self._header) is not Kind.IDENTITY):
            named = outer.all(self._header)
            if len(named) == 1:
                return f"{self._header}: {named[0]}"
        return headers.caller(outer.headers, outer.peer, self._proxies)

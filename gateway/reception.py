"""A bulk call before anything is sent: who asks, what the settings say of it, its plan.

Nothing here acts or waits, so `explain` can tell what `endpoint` would do by doing the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway import headers, target
from gateway.batch import BulkCall, Dialect, Failure, Headers, Trace
from gateway.config import Limits, Settings
from gateway.config import settings as declared
from gateway.dialects import create
from gateway.planning.graph import plan
from gateway.planning.nouns import Context, Plan
from gateway.target import Endpoints, PathRules, Pattern

BULK_IN_BULK = Failure(
    "proxy_loop_detected", "bulk_in_bulk", message="a bulk call inside a bulk call"
)

LONGEST_ID = 128
"""Of a trusted peer's: every subrequest and every line of the log repeats it."""


def usable_id(given: str) -> bool:
    """Whether the id that a trusted peer gives a request can be its own."""
    return len(given) <= LONGEST_ID and given.isascii() and given.isprintable()


@dataclass(frozen=True, slots=True)
class Manners:
    """How outer headers become those of subrequests, alike for every endpoint (DESIGN part 6)."""

    name: str
    """In Via."""
    host: str
    """The setting `upstream.host`."""
    authority: str
    """The backend's own host and port."""
    policy: headers.HeaderPolicy
    proxies: headers.TrustedProxies


class Outer:
    """The outer request, as far as its head tells."""

    __slots__ = ("client", "given", "headers", "id", "peer", "scheme", "target", "trusted")

    def __init__(
        self, target: str, fields: Headers, peer: str | None, scheme: str, manners: Manners
    ) -> None:
        """`target` as it was received, `peer` the address at the connection's other end."""
        self.target = target
        self.headers = fields
        self.given = headers.by_name(fields)
        """The same, by name in normal form."""
        self.peer = peer
        self.scheme = scheme
        self.trusted = manners.proxies.trusted(peer)
        self.client = peer or "unix"
        given = self.first("x-request-id") if self.trusted else None
        if not (given and usable_id(given)):
            given = os.urandom(8).hex()
        self.id = given

    def first(self, name: str) -> str | None:
        values = self.given.get(name)
        return None if values is None else values[0]

    def all(self, name: str) -> Sequence[str]:
        return self.given.get(name, ())

    def origins(self) -> frozenset[str]:
        """The gateway's own public origins as this client knows them (DESIGN part 7).

        Both schemes: TLS may end in front of us, and what is rebased reaches the backend alone.
        """
        own = target.origins(self.first("host") or "")
        if self.trusted:
            own |= target.origins(self.first("x-forwarded-host") or "")
        return own


@dataclass(frozen=True, slots=True)
class Desk:
    """One path that takes bulk calls in one dialect."""

    entry: declared.Endpoint
    dialect: Dialect
    batch: declared.Batch
    limits: Limits
    manners: Manners

    @property
    def path(self) -> str:
        """The template."""
        return self.entry.path

    def plan(self, outer: Outer, path: str, params: Mapping[str, str], body: bytes) -> Plan:
        """`path` is the target's in normal form, `params` what the template found in it. Raises
        `Refused`."""
        bulk = BulkCall(
            path=path,
            query=outer.target.partition("?")[2],
            headers=outer.headers,
            body=body,
            params=params,
            origins=outer.origins(),
            max_subrequests=self.limits.subrequests,
            max_depth=self.limits.depth,
            header_policy=self.manners.policy,
        )
        return plan(self.dialect.parse(bulk))

    def context(self, outer: Outer, trace: Trace | None = None) -> Context:
        """What every subrequest of this call gets."""
        rules, manners = self.dialect.rules, self.manners
        inherited = headers.inherit(outer.headers, rules, manners.policy, trusted=outer.trusted)
        if trace is not None:
            inherited = headers.untraced(inherited)
        written = headers.managed(
            outer.given,
            host=manners.host,
            authority=manners.authority,
            peer=outer.peer,
            trusted=outer.trusted,
            scheme=outer.scheme,
            via=manners.name,
        )
        return Context(
            batch_id=outer.id,
            headers=inherited + written,
            rules=rules,
            idempotency_key=outer.first("idempotency-key"),
            trace=trace,
            width=self.batch.width,
        )


class Reception:
    """All that the settings say of bulk calls."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.manners = _manners(settings, name)
        self.paths = _paths(settings.paths)
        self._whatever_path = self.paths.whatever_path
        self.desks = tuple(self._desk(entry) for entry in settings.endpoints)
        self.endpoints = Endpoints((Pattern(desk.path), desk) for desk in self.desks)

    def refusal(self, method: str, target: str) -> Failure | None:
        """Why a subrequest may not be sent, by rules that hold for every dialect."""
        if self.endpoints.recursion(target):
            return BULK_IN_BULK
        return None if method in self._whatever_path else self.paths.refusal(method, target)

    def _desk(self, entry: declared.Endpoint) -> Desk:
        settings = self.settings
        return Desk(
            entry=entry,
            dialect=create(entry.dialect, entry.options),
            batch=settings.batch_for(entry),
            limits=settings.limits,
            manners=self.manners,
        )


def _manners(settings: Settings, name: str) -> Manners:
    return Manners(
        name=name,
        host=settings.upstream.host,
        authority=settings.upstream.authority,
        policy=headers.HeaderPolicy(
            frozenset(settings.headers.never_inherit),
            frozenset(settings.headers.never_from_subrequest),
            frozenset(settings.headers.odd_names),
        ),
        proxies=headers.TrustedProxies(map(str, settings.headers.trusted_proxies)),
    )


def _paths(rules: declared.Paths) -> PathRules:
    return PathRules(
        allow=tuple(map(Pattern, rules.allow)),
        deny=tuple(map(Pattern, rules.deny)),
        methods=frozenset(rules.methods),
        encoded_slash=rules.encoded_slash,
    )

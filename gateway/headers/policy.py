"""What the operator says about header fields: lists of names, and whose word is taken."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from gateway.headers.names import disguised, normal, odd

_LONGEST = 64
"""Of an address as text, with the name of an interface behind it."""


class HeaderPolicy(msgspec.Struct, frozen=True):
    """The operator's lists; given in any spelling, kept in normal form."""

    never_inherit: frozenset[str] = frozenset()
    """No subrequest has them from the bulk call."""
    never_from_subrequest: frozenset[str] = frozenset()
    """No subrequest brings them. They identify the caller to this backend, so `Connection` cannot
    name them away either, and no other spelling stands for them."""
    odd_names: frozenset[str] = frozenset()
    """Names with `_` or `.` that a subrequest may bring all the same, and a trusted peer."""
    spellings: frozenset[str] = frozenset()
    """The names of both lists as they are spelt but for case."""

    def __post_init__(self) -> None:
        spellings = {name.lower() for name in self.odd_names | self.never_from_subrequest}
        for field in ("never_inherit", "never_from_subrequest", "odd_names"):
            names = frozenset(normal(name) for name in getattr(self, field))
            msgspec.structs.force_setattr(self, field, names)
        listed_as_odd = {normal(spelling) for spelling in spellings if odd(spelling)}
        msgspec.structs.force_setattr(self, "odd_names", self.odd_names | listed_as_odd)
        msgspec.structs.force_setattr(self, "spellings", frozenset(spellings))

    def believes(self, spelling: str) -> bool:
        """Whether what a trusted peer says of the caller is its own word, by the field's name."""
        if normal(spelling) in self.odd_names:
            return not self._differs(spelling)
        return not disguised(spelling)

    def poses(self, spelling: str) -> bool:
        """Whether it only looks like one of `never_from_subrequest`: whoever writes `X-Tenant` in
        front of us hands `X_Tenant` on, and the other way round."""
        name = normal(spelling)
        if name not in self.never_from_subrequest:
            return False
        return self._differs(spelling) or (odd(spelling) and name not in self.odd_names)

    def _differs(self, spelling: str) -> bool:
        """Whether this name is listed with `_` or `.`, and not in this spelling."""
        name = normal(spelling)
        listed = {known for known in self.spellings if normal(known) == name}
        return any(map(odd, listed)) and spelling.lower() not in listed


class TrustedProxies:
    """The peers whose word about the caller is taken.

    Networks in CIDR form, or `unix` for every peer on a unix socket. Being on one is not enough
    in itself: the proxy at its other end may hand on what its own clients made up.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Raises ValueError for what is no network."""
        words = frozenset(entries)
        self._unix_peers = "unix" in words
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(word, strict=False) for word in sorted(words - {"unix"})
        )
        self._listed = lru_cache(1024)(self._lists)

    def trusted(self, peer: str | None) -> bool:
        """`peer` is the address at the connection's other end; nothing on a unix socket."""
        if not peer:
            return self._unix_peers
        return len(peer) <= _LONGEST and self._listed(peer)

    def _lists(self, peer: str) -> bool:
        if not self._networks:
            return False
        try:
            address = ip_address(peer.partition("%")[0])  # fe80::1%eth0
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped  # a v4 peer on a dual-stack listener
        return any(address in network for network in self._networks)

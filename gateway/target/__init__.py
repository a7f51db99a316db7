"""Where a subrequest goes: its address in one form, and what the operator's patterns make of it.

An address is read by several parties (these rules, a proxy behind us, the backend's router), and
attacks on such a chain are addresses that they read differently. So whatever two readers could
take for two things is refused, the rest is brought to the normal form of RFC 3986 6.2.2, and the
same bytes are checked and sent.
"""

from gateway.target.endpoints import Endpoints, rooted
from gateway.target.form import LONGEST, MISTAKES, normalise, origin, origins, rebase, segment
from gateway.target.patterns import Pattern, Routes
from gateway.target.rules import PathRules

__all__ = [
    "LONGEST",
    "MISTAKES",
    "Endpoints",
    "PathRules",
    "Pattern",
    "Routes",
    "normalise",
    "origin",
    "origins",
    "rebase",
    "rooted",
    "segment",
]

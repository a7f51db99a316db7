"""The backend: the only room that opens connections (DESIGN part 9)."""

from gateway.upstream.exchange import Exchange, Sink, is_event_stream
from gateway.upstream.lane import Lane, Taker, Verdict
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool
from gateway.upstream.pools import Pools
from gateway.upstream.probe import UNKNOWN, Probe
from gateway.upstream.wire import CHUNKED, checked, encode

__all__ = [
    "CHUNKED",
    "UNKNOWN",
    "Exchange",
    "Lane",
    "Origin",
    "Pool",
    "Pools",
    "Probe",
    "Sink",
    "Taker",
    "Verdict",
    "checked",
    "encode",
    "is_event_stream",
]

"""Who is at the far end of the proxies, by address."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from gateway.batch import Headers
from gateway.headers.policy import TrustedProxies

_WITH_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+):\d+|\[([^\]]*)\](?::\d+)?")
"""Some proxies add the port, and every connection has another."""

_ONE_SITE = 64
"""RFC 6177: whoever has one IPv6 address has all that share these bits of it."""


def caller(outer: Headers, peer: str | None, proxies: TrustedProxies) -> str:
    """What stands for the caller: an IPv4 address, an IPv6 network, or the name of neither.

    Every trusted proxy appends whom it heard. So the list is read from its end, and the first that
    is no trusted proxy is the caller; what stands before it is the caller's own word.
    """
    known = peer or "unix"
    if not proxies.trusted(peer):
        return _site(known)
    lists = [value for name, value in outer if name.lower() == "x-forwarded-for"]
    for entry in reversed(",".join(lists).split(",")):
        if entry := entry.strip():
            known = _bare(entry)
            if not proxies.trusted(known):
                break
    return _site(known)


def _bare(entry: str) -> str:
    match = _WITH_PORT.fullmatch(entry)
    return match[1] or match[2] if match else entry


def _site(text: str) -> str:
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), _ONE_SITE), strict=False))

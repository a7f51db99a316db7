"""Who is at the far end of the proxies."""

from __future__ import annotations

import pytest

from gateway.headers import TrustedProxies, caller

PROXIES = TrustedProxies(["10.0.0.0/8", "unix"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "who"),
    [
        # What an untrusted peer says counts for nothing.
        ("203.0.113.1", ["198.51.100.7"], "203.0.113.1"),
        ("203.0.113.1", [], "203.0.113.1"),
        # A trusted one's word does, read from its end.
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["6.6.6.6", "unknown, 10.0.0.2"], "unknown"),
        ("", ["198.51.100.7"], "198.51.100.7"),
        (None, ["198.51.100.7"], "198.51.100.7"),
        # Nobody but proxies: the farthest.
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["", " , "], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # Ports differ from connection to connection, the client does not.
        ("10.0.0.1", ["198.51.100.7:50123"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8:1:2:3::4]:50123"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["2001:db8:1:2:5::6"], "2001:db8:1:2::/64"),
        # One caller has 2^64 of these.
        ("2001:db8:1:2::9", [], "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("::1", [], "::/64"),
        ("::ffff:203.0.113.1", [], "203.0.113.1"),
    ],
)
def test_the_caller_is_the_nearest_that_is_no_trusted_proxy(
    peer: str | None, forwarded: list[str], who: str
) -> None:
    outer = tuple(("X-Forwarded-For", value) for value in forwarded)
    assert caller(outer, peer, PROXIES) == who


def test_a_list_under_another_spelling_is_the_callers_own_word() -> None:
    """A proxy appends to the field that it knows, and hands the other on."""
    outer = (("X-Forwarded-For", "198.51.100.7"), ("X_Forwarded_For", "6.6.6.6"))
    assert caller(outer, "10.0.0.1", PROXIES) == "198.51.100.7"


def test_a_unix_socket_that_nobody_trusts_is_one_caller() -> None:
    assert caller((("X-Forwarded-For", "1.2.3.4"),), "", TrustedProxies()) == "unix"

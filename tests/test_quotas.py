"""How much each client may ask."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway import headers, quotas
from gateway.config import RateLimit
from gateway.quotas import Quotas
from gateway.reception import Manners, Outer

PROXY = "10.0.0.1"
PROXIES = headers.TrustedProxies([PROXY])
MANNERS = Manners("us", "preserve", "backend", headers.HeaderPolicy(), PROXIES)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def outer(peer: str, *fields: tuple[str, str]) -> Outer:
    return Outer("/bulk", fields, peer, "http", MANNERS)


def taken(spend: Callable[[], object], of: int) -> int:
    """How many of so many were granted."""
    return sum(spend() is None for _ in range(of))


def test_a_client_has_its_burst_at_once_and_then_its_rate() -> None:
    clock = Clock()
    bucket = Quotas(RateLimit(per_second=2, burst=5), PROXIES, clock).bucket(outer("1.1.1.1"))
    assert taken(bucket.refusal, 20) == 5
    clock.now += 1.0
    assert taken(bucket.refusal, 20) == 2
    clock.now += 0.4
    assert taken(bucket.refusal, 20) == 0
    clock.now += 0.1
    assert taken(bucket.refusal, 20) == 1
    clock.now += 3600
    assert taken(bucket.refusal, 20) == 5


@pytest.mark.parametrize(("per_second", "wait"), [(50.0, 1), (1.0, 1), (0.4, 3), (0.001, 1000)])
def test_who_is_over_the_quota_is_told_when_to_come_back(per_second: float, wait: int) -> None:
    clock = Clock()
    limit = RateLimit(per_second=per_second, burst=1)
    bucket = Quotas(limit, PROXIES, clock).bucket(outer("1.1.1.1"))
    assert bucket.refusal() is None
    refused = bucket.refusal()
    assert refused is not None
    assert (refused.code, refused.error, refused.details) == (
        429,
        "http_request_denied",
        "rate_limited",
    )
    assert refused.retry_after == wait
    clock.now += wait
    assert bucket.refusal() is None


def same(one: Outer, other: Outer, key: str = "address") -> bool:
    buckets = Quotas(RateLimit(per_second=1, burst=1, key=key), PROXIES)
    return buckets.bucket(one) is buckets.bucket(other)


def test_a_client_is_its_address_whatever_it_says_of_itself() -> None:
    said = ("X-Forwarded-For", "2.2.2.2")
    assert same(outer("1.1.1.1"), outer("1.1.1.1", said))
    assert not same(outer("1.1.1.1"), outer("2.2.2.2"))
    assert same(outer(PROXY, said), outer("2.2.2.2"))


def test_a_client_can_be_a_headers_value_in_any_spelling_of_its_name() -> None:
    key = "X-Api-Key"
    one, two = outer("1.1.1.1", ("x-api-key", "a")), outer("1.1.1.1", ("X-Api-Key", "b"))
    assert not same(one, two, key)
    assert same(one, outer("2.2.2.2", ("X_API.KEY", "a")), key)


def test_without_exactly_one_such_header_it_is_the_address() -> None:
    key = "X-Api-Key"
    none, twice = outer("1.1.1.1"), outer("1.1.1.1", ("X-Api-Key", "a"), ("X-Api-Key", "b"))
    assert same(none, twice, key)
    assert not same(none, outer("2.2.2.2", ("X-Api-Key", "1.1.1.1")), key)


def test_an_identity_header_counts_only_where_a_trusted_proxy_wrote_it() -> None:
    key, named = "X-Consumer-Id", ("X-Consumer-Id", "7")
    assert same(outer("1.1.1.1"), outer("1.1.1.1", named), key)
    assert not same(outer(PROXY), outer(PROXY, named), key)


def test_no_more_clients_are_remembered_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quotas, "MOST", 3)
    buckets = Quotas(RateLimit(per_second=1, burst=1), PROXIES)
    regular = outer("1.1.1.1")
    kept = buckets.bucket(regular)
    for number in range(100):
        buckets.bucket(outer(f"2.2.2.{number}"))
        assert buckets.bucket(regular) is kept
    assert len(buckets) == 3

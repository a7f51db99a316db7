"""What browsers are told about pages of other origins."""

from __future__ import annotations

import pytest

from gateway.config import Cors as Declared
from gateway.cors import Cors

PAGE = "https://app.example"


def told(origin: str | None, *, preflight: bool = False, **declared: object) -> dict[str, str]:
    cors = Cors(Declared(**{"origins": (PAGE,), **declared}))  # type: ignore[arg-type]
    fields = cors.preflight(origin) if preflight else cors.fields(origin)
    assert len(dict(fields)) == len(fields)
    return dict(fields)


def test_an_allowed_page_is_named_and_caches_are_told_that_it_matters() -> None:
    fields = told(PAGE)
    assert fields["Access-Control-Allow-Origin"] == PAGE
    assert "X-Request-Id" in fields["Access-Control-Expose-Headers"]
    assert fields["Vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "https://evil.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://evil.example?https://app.example",
        f"{PAGE}, {PAGE}",
        f"{PAGE}\r\nX: 1",
    ],
)
@pytest.mark.parametrize("preflight", [False, True])
def test_any_other_origin_is_told_nothing(origin: str | None, preflight: bool) -> None:
    assert told(origin, preflight=preflight, credentials=True) == {"Vary": "Origin"}


def test_a_preflight_is_told_the_method_and_the_headers_that_may_be_sent() -> None:
    fields = told(PAGE, preflight=True, headers=("Authorization", "X-Tenant"))
    assert fields["Access-Control-Allow-Methods"] == "POST"
    assert fields["Access-Control-Allow-Headers"] == "Content-Type, Authorization, X-Tenant"
    assert int(fields["Access-Control-Max-Age"]) > 0
    assert "Access-Control-Expose-Headers" not in fields


def test_credentials_are_allowed_to_named_origins() -> None:
    assert told(PAGE, credentials=True)["Access-Control-Allow-Credentials"] == "true"
    assert "Access-Control-Allow-Credentials" not in told(PAGE)


@pytest.mark.parametrize("preflight", [False, True])
@pytest.mark.parametrize("origin", [None, PAGE, "null"])
def test_everybody_is_never_allowed_credentials(origin: str | None, preflight: bool) -> None:
    fields = told(origin, preflight=preflight, origins=("*", PAGE), credentials=True)
    assert fields["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in fields
    assert "Vary" not in fields


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_origin_may_be_written_otherwise_than_browsers_do(written: str, sent: str) -> None:
    assert told(sent, origins=(written,))["Access-Control-Allow-Origin"] == sent

"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.support.engine import outdated

# The same examples every time and no clock: a loaded machine must not fail a test. Fuzzing with
# fresh examples is a profile of its own.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what golden cases expect; read the diff as if someone else wrote it",
    )


def pytest_sessionstart() -> None:
    if words := outdated():
        pytest.exit(words, returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))

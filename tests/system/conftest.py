# SPDX-License-Identifier: GPL-2.0-only
"""Systems that the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hvhost import debs, system
from whole import Whole, booted, last_words


@pytest.fixture(scope="module", params=[
    pytest.param(suite, marks=pytest.mark.xdist_group(f"system {suite}"))
    for suite in debs.SUITES])
def suite(request: pytest.FixtureRequest) -> str:
    """Which Debian."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def running(suite: str) -> Iterator[Whole]:
    """A system with our packages, as its users found it after they had been installed."""
    with booted(system.installed(suite)) as whole:
        yield whole


@pytest.fixture
def whole(running: Whole) -> Iterator[Whole]:
    """It, ready before each test; and nobody has anything to complain of after it."""
    running.wait_ready()
    running.shell("systemctl reset-failed")
    running.host.complaints.clear()
    yield running
    last_words(running)
    assert running.host.complaints == []

# SPDX-License-Identifier: GPL-2.0-only
"""Systems that the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from desk import Desk, host_of
from hvhost import debs, system
from hvhost.vmms import Vmms
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


@pytest.fixture(scope="module")
def host(running: Whole, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vmms]:
    """The host's door."""
    with host_of(running, tmp_path_factory.mktemp("host")) as vmms:
        yield vmms


@pytest.fixture(scope="module")
def seat(running: Whole, host: Vmms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The first user's place."""
    with Desk(running, host, tmp_path_factory.mktemp("seat")) as made:
        yield made


@pytest.fixture
def desk(whole: Whole, seat: Desk) -> Desk:
    """The first user at his desktop, whatever he did before."""
    assert whole.vm.alive
    if not seat.is_connected:
        seat.connect()
        seat.wait_desktop()
    return seat

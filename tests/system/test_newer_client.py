# SPDX-License-Identifier: GPL-2.0-only
"""FreeRDP 3 as VMConnect, also where this machine's FreeRDP is the one before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from desk import Desk, exchange_text, log_in, newer_client, try_wrong_password
from hvhost.vmms import Vmms
from whole import Whole


@pytest.fixture(scope="module")
def seat(running: Whole, host: Vmms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A user's place, with that client."""
    with Desk(running, host, tmp_path_factory.mktemp("newer"), root=newer_client()) as made:
        yield made


def test_login(whole: Whole, host: Vmms, seat: Desk) -> None:
    """By CredSSP: not with a wrong password for the host; with the right one to a desktop."""
    try_wrong_password(whole, host, seat)
    log_in(whole, host, seat)
    assert "xfreerdp3" in seat.client.name
    exchange_text(seat)
    seat.paint()


def test_by_tls_alone(whole: Whole, seat: Desk) -> None:
    """To the same desktop."""
    server = seat.server()
    seat.client.leave()
    whole.wait_true("the session's node is gone", "test ! -e /dev/synthrdp0")
    seat.connect()
    seat.wait_desktop()
    assert seat.server() == server
    seat.paint()

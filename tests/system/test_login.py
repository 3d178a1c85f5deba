# SPDX-License-Identifier: GPL-2.0-only
"""The shortest way to a desktop, on one Debian: what `make check` has of the features."""

from __future__ import annotations

import pytest

from desk import Desk, exchange_text, log_in, try_wrong_password
from hvhost.vmms import Vmms
from whole import Whole

pytestmark = pytest.mark.parametrize("suite", ["bookworm"], indirect=True, scope="module")


def test_login(whole: Whole, host: Vmms, seat: Desk) -> None:
    """Not with a wrong password for the host; with the right one to a desktop that one can use."""
    try_wrong_password(whole, host, seat)
    log_in(whole, host, seat)
    exchange_text(seat)
    seat.paint()

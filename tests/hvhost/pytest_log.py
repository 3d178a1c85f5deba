# SPDX-License-Identifier: GPL-2.0-only
"""pytest plugin: a failing test prints what crossed the channels during it."""

from __future__ import annotations

import pytest

from hvhost.log import Log


def pytest_runtest_setup() -> None:
    """Each test prints only what happened since its own setup began."""
    for log in list(Log.live):
        log.clear()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Hang the logs on the report of a failed phase, before others see it."""
    if report.failed:
        report.sections += [(f"channels of {log.title}", text)
                            for log in list(Log.live) if (text := log.text())]

# SPDX-License-Identifier: GPL-2.0-only
"""What all tests share: grouping by guest, the tally of the last line, nothing skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hvhost import kernels
from hvhost.cache import PrepareError

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

pytest_plugins = ["hvhost.pytest_log"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """An option of the runner."""
    parser.addoption("--tally", type=Path, help="write the numbers of passed and failed tests here")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests of one kernel share a worker, and so its guest; other files go by themselves."""
    callspec = getattr(item, "callspec", None)
    kernel = [value for value in callspec.params.values() if value in kernels.NAMES
              ] if callspec else []
    if not item.get_closest_marker("xdist_group"):
        item.add_marker(pytest.mark.xdist_group(kernel[0] if kernel else item.path.name))


def pytest_exception_interact(call: pytest.CallInfo[object],
                              report: pytest.TestReport | pytest.CollectReport) -> None:
    """What is missing is said in a line, without a trace."""
    if call.excinfo and isinstance(call.excinfo.value, PrepareError):
        report.longrepr = str(call.excinfo.value)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Count tests, not their phases. What did not simply pass has failed, a skip too."""
    place: Path | None = config.getoption("--tally")
    if place is None:
        return
    stats = terminalreporter.stats
    failed = {report.nodeid for kind in ("failed", "error", "skipped", "xfailed", "xpassed")
              for report in stats.get(kind, ())}
    passed = {report.nodeid for report in stats.get("passed", ())} - failed
    place.write_text(json.dumps({"passed": len(passed), "failed": len(failed)}))

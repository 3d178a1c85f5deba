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


class Bulletin:
    """What fails is said at once: a run may go on for hours. All of it comes at the end. And so
    is what a test wants to be told, by record_property("told", ...)."""

    def __init__(self, reporter: TerminalReporter) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test."""
        for name, text in report.user_properties:
            if name == "told" and report.when == "call":
                self._reporter.ensure_newline()
                self._reporter.write_line(str(text))
        if report.failed:
            self._reporter.ensure_newline()
            self._reporter.write_line(f"failed: {report.nodeid}")
            for line in report.longreprtext.splitlines():
                if line.startswith("E "):
                    self._reporter.write_line(line)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Only the process that talks to the terminal has a bulletin."""
    plugins = session.config.pluginmanager
    reporter = plugins.get_plugin("terminalreporter")
    if reporter and not hasattr(session.config, "workerinput"):
        plugins.register(Bulletin(reporter), "bulletin")


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

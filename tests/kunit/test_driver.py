# SPDX-License-Identifier: GPL-2.0-only
"""The KUnit suites of the driver, in a guest whose kernel watches over them.

Debian's own kernels have no KUnit.
"""

from __future__ import annotations

from collections.abc import Iterator

import ktap
import pytest

from hvhost import kernels, linux
from hvhost.guest import Guest

SUITES = ("protocol", "pipe", "control")
TIMEOUT = 300.0
# Said under load by kernels with these checks, whatever runs in them.
NOISE = ("hpet increased min_delta_ns", "interrupt took [0-9]+ ns", "Test should be marked slow")


class Suites:
    """A guest, and what the suites came to in it."""

    def __init__(self, kernel: str) -> None:
        self._modules = kernels.modules(kernel, "CONFIG_HYPERV_SYNTHRDP_KUNIT_TEST=m",
                                        "CONFIG_HYPERV_SYNTHRDP_PROTOCOL_KUNIT_TEST=m")
        self._found: dict[str, dict[str, ktap.Case]] = {}
        self.complaints: dict[str, list[str]] = {}
        self.guest = Guest(kernels.kernel(kernel), smp=2)

    def results(self, suite: str) -> dict[str, ktap.Case]:
        """Load the suite's module, once, which runs it; then unload it."""
        if suite not in self._found:
            name = f"synthrdp_{suite}_test"
            self.guest.begin_test()
            for noise in NOISE:
                self.guest.allow_message(noise)
            self.guest.insmod(module=self._modules / f"{name}.ko", timeout=TIMEOUT)
            self.guest.rmmod(name)
            self._found[suite] = ktap.heard(self.guest)
            self.complaints[suite] = self.guest.end_test()
        return self._found[suite]


@pytest.fixture(scope="module", params=kernels.DEBUG, name="suites")
def run_guest(request: pytest.FixtureRequest) -> Iterator[Suites]:
    """A guest of each kernel."""
    made = Suites(request.param)
    yield made
    made.guest.kill()


@pytest.mark.parametrize(("suite", "case"), [(suite, case) for suite in SUITES
                                             for case in ktap.cases(suite)])
def test_case(suites: Suites, suite: str, case: str) -> None:
    """A case of SUITE_test.c."""
    ktap.check(suites.results(suite), case)


@pytest.mark.parametrize("suite", SUITES)
def test_nothing_else_said(suites: Suites, suite: str) -> None:
    """No report of KASAN, lockdep, and so on, while the suite ran."""
    suites.results(suite)
    assert not suites.complaints[suite]


@pytest.mark.parametrize("suites", [name for name in kernels.DEBUG if name in linux.THOROUGH],
                         indirect=True)
def test_no_leak(suites: Suites) -> None:
    """What the suites allocated is free again."""
    for suite in SUITES:
        suites.results(suite)
    leaks = suites.guest.leaks()
    # An address without a name is one in a module that has gone: of a suite.
    assert "synthrdp" not in leaks and " 0xffffffff" not in leaks, leaks

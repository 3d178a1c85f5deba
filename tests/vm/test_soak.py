# SPDX-License-Identifier: GPL-2.0-only
"""Random sessions on the kernels that look for trouble.

A few in `make check`; by thousands in `make check-debug`, with seeds of the day: they are part of
the tests' names, and are taken back by `make check-debug SEED=n`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from bench import Bench
from hvhost import kernels
from lab import Lab
from soak import Soak

SEED = int(os.environ.get("SYNTHRDP_SEED", "1"))
KERNELS = [pytest.param(name, marks=pytest.mark.xdist_group(f"random sessions on {name}"))
           for name in kernels.DEBUG]
RUNS, SESSIONS = (10, 500) if "SYNTHRDP_SEED" in os.environ else (1, 60)


@pytest.fixture(scope="session", params=KERNELS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The place of a guest with two processors."""
    made = Bench(request.param, smp=2)
    yield made
    made.drop()


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_random_sessions(lab: Lab, seed: int) -> None:
    """No wrong byte, no call that hangs, nothing said by the kernel, nothing left behind."""
    started = time.monotonic()
    soak = Soak(lab, seed, SESSIONS)
    try:
        soak.run()
    finally:
        print(f"seed {seed}, {time.monotonic() - started:.0f} s: {dict(soak.counts)}")


def test_no_leak(lab: Lab) -> None:
    """After all that, nothing that the driver allocated is lost."""
    leaks = lab.guest.leaks()
    # An address without a name is one in a module that was unloaded meanwhile.
    assert "synthrdp" not in leaks and " 0xffffffff" not in leaks, leaks

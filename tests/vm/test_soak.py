# SPDX-License-Identifier: GPL-2.0-only
"""Random sessions on the kernels that look for trouble.

A few in `make check`; by thousands in `make check-debug`, with seeds of the day: they are part of
the tests' names, and are taken back by `make check-debug SEED=n`.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest

from bench import Bench
from hvhost import kernels, linux
from lab import Lab
from soak import Soak

SEED = int(os.environ.get("SYNTHRDP_SEED", "1"))
KERNELS = [pytest.param(name, marks=pytest.mark.xdist_group(f"random sessions on {name}"))
           for name in kernels.DEBUG]
RUNS, SESSIONS = (10, 500) if "SYNTHRDP_SEED" in os.environ else (1, 60)
KINDS = {"poll", "edge", "threads", "none", "rescind", "unbind", "malformed", "killed"}
TROUBLE = {"switch", "answer_rudely", "say_something", "look", "unload_perhaps", "unload",
           "unloaded", "withdraw_control"}

DONE: defaultdict[str, Counter[str]] = defaultdict(Counter)     # on a kernel, in all runs


@pytest.fixture(scope="session", params=KERNELS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The place of a guest with two processors."""
    made = Bench(request.param, smp=2)
    yield made
    made.drop()


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_random_sessions(lab: Lab, seed: int, bench: Bench,
                         record_property: Callable[[str, object], None]) -> None:
    """No wrong byte, no call that hangs, nothing said by the kernel, nothing left behind."""
    started = time.monotonic()
    soak = Soak(lab, seed, SESSIONS)
    try:
        soak.run()
    finally:
        done = ", ".join(f"{count:,} {deed}" for deed, count in sorted(soak.counts.items()))
        record_property("told", f"{bench.kernel}, seed {seed}, {time.monotonic() - started:.0f} s:"
                                f" {done}")
        DONE[bench.kernel].update(soak.counts)


def test_random_sessions_were_of_all_kinds(lab: Lab, bench: Bench) -> None:
    """The dice are no excuse, but for the rarer trouble in a short run."""
    assert lab.control["state"] == "ready"
    assert (KINDS | TROUBLE if RUNS > 1 else KINDS) <= set(DONE[bench.kernel])
    assert DONE[bench.kernel]["sessions"] == RUNS * SESSIONS


@pytest.mark.parametrize("bench", [one for one in KERNELS if one.values[0] in linux.THOROUGH],
                         indirect=True)
def test_no_leak(lab: Lab) -> None:
    """After all that, nothing that the driver allocated is lost."""
    leaks = lab.guest.leaks()
    # An address without a name is one in a module that was unloaded meanwhile.
    assert "synthrdp" not in leaks and " 0xffffffff" not in leaks, leaks

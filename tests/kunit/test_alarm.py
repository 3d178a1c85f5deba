# SPDX-License-Identifier: GPL-2.0-only
"""The debug kernels raise an alarm at each kind of fault, and the tests hear it.

A check that is not there, or that nobody listens to, finds no faults either.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvhost import cache, kernels, linux
from hvhost.guest import Guest

ALARM = Path(__file__).resolve().parent / "alarm"
TIMEOUT = 60.0
# By the checks that a kernel has: what is said of each fault of alarm.c
ALARMS = {
    "debug": {
        # Before any other: after those lockdep does not trust itself.
        "lock_order": r"WARNING: possible circular locking dependency detected",
        "use_after_free": r"BUG: KASAN: (slab-)?use-after-free in use_after_free",
        "beyond_the_end": r"BUG: KASAN: slab-out-of-bounds in beyond_the_end",
        "shift_too_far": r"UBSAN: shift-out-of-bounds",
        "sleep_in_atomic": r"BUG: sleeping function called from invalid context",
        "processor_of_any": r"BUG: using smp_processor_id\(\) in preemptible",
        "free_active_timer": r"ODEBUG: free active .* timer_list",
        "free_after_put": r"ODEBUG: free active .* timer_list",
        "delete_twice": r"list_del corruption"},
    "kcsan": {
        "lock_order": r"WARNING: possible circular locking dependency detected",
        "race": r"BUG: KCSAN: data-race in count_on"},
}
CASES = [(kernel, fault) for kernel in kernels.DEBUG
         for fault in ALARMS[linux.BUILDS[kernel].checks]]


def _build(kernel: str, new: Path) -> None:
    shutil.copytree(ALARM, new)
    done = kernels.build_root(kernel).run(
        ["make", "-C", linux.BUILD, "M=/mnt/src", *linux.CHECKED, "modules"],
        binds={**linux.headers(kernel), new: "/mnt/src"})
    assert done.returncode == 0, done.stdout


def module(kernel: str) -> Path:
    """alarm.ko for this kernel."""
    key = cache.key(kernels.build_root(kernel).key, cache.tree_key(ALARM),
                    linux.kernel(kernel).name, linux.CHECKED)
    return cache.get(f"alarms/{kernel}", key, lambda new: _build(kernel, new),
                     f"the alarm for {kernel}", 10) / "alarm.ko"


@pytest.fixture(scope="module", name="guests")
def start_guests() -> Iterator[dict[str, Guest]]:
    """A guest of each kernel, which does not mind how many faults there were."""
    made: dict[str, Guest] = {}
    yield made
    for guest in made.values():
        guest.kill()


def alarms(guests: dict[str, Guest], kernel: str, fault: str) -> list[str]:
    """Commit the fault: what the test would have failed with."""
    if kernel not in guests:
        guests[kernel] = Guest(kernels.kernel(kernel), smp=2, append="kasan_multi_shot")
    guest = guests[kernel]
    guest.begin_test()
    guest.insmod(f"fault={fault}", module=module(kernel), timeout=TIMEOUT)
    guest.rmmod("alarm")
    return guest.end_test()


@pytest.mark.parametrize(("kernel", "fault"), CASES)
def test_alarm(guests: dict[str, Guest], kernel: str, fault: str) -> None:
    """It is heard."""
    heard = alarms(guests, kernel, fault)
    assert any(re.search(ALARMS[linux.BUILDS[kernel].checks][fault], line) for line in heard), heard


@pytest.mark.parametrize("kernel", [name for name in kernels.DEBUG
                                    if name in linux.THOROUGH])
def test_leak(guests: dict[str, Guest], kernel: str) -> None:
    """kmemleak says nothing by itself; it has to be asked."""
    alarms(guests, kernel, "leak")
    found = guests[kernel].leaks()
    assert "size 256" in found, found

# SPDX-License-Identifier: GPL-2.0-only
"""What has moved since another commit, and what only looks so."""

from __future__ import annotations

from collections.abc import Sequence

import figures

KINDS = ("kernel-moved", "user-moved", "syscalls", "interrupts", "hypercalls")


def results(*instructions: int) -> list[figures.Result]:
    """A load on a side, once for each figure."""
    return [{"side": "device", "load": "down 100", "total": 1_000_000, "packets": 10_000,
             "instructions": count, "user instructions": 7, "wakeups": 20,
             "signals_to_guest": 20, "packets_to_guest": 10_000, "packets_from_guest": 0,
             "counts": dict.fromkeys(KINDS, 3), "repeat": repeat}
            for repeat, count in enumerate(instructions)]


def moved(old: Sequence[int], new: Sequence[int]) -> list[str]:
    """The figures that are called moved, and how far."""
    lines = figures.moved(results(*old), results(*new)).splitlines()
    return [" ".join(line.split()[3:]) for line in lines[1:]]


def test_nothing_moved() -> None:
    """The same; and less than both commits' repeats differ, or than one in a hundred."""
    assert figures.moved(results(5000), results(5000)) == "Nothing moved beyond noise."
    assert moved((5000, 5100, 5200), (5200, 5300, 5400)) == []
    assert moved((5000, 5000, 5000), (5040, 5040, 5040)) == []


def test_something_moved() -> None:
    """By more than that; nothing else did."""
    assert moved((5000, 5100, 5200), (5500, 5600, 5700)) == ["instructions 5,100 5,600 +9.8%"]
    assert moved((5000,), (4000,)) == ["instructions 5,000 4,000 -20.0%"]

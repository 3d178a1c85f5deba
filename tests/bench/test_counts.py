# SPDX-License-Identifier: GPL-2.0-only
"""What the driver and the relay cost must not grow unnoticed: counts only, never time.

System calls, sleeps, signals and packets are what they have to be. Instructions are compared with
those of hv_sock in the same guest, so that another kernel moves both; `make bench` has the rest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import figures
from hvhost import kernels
from loads import Run, loads
from sides import RELAY, Machine, build_programs

KERNEL = "6.12"
LOADS = ("round trips", "down 1024", "down 16384", "both 16384", "desktop")
# The kernel's timer comes as it likes, and its instructions count.
MARGIN = {"instructions": 1.15}
OTHERS = 1.05
# The most that there may be, per MB or per round trip; what the columns mean: figures.py.
# Instructions: as a part of those of hv_sock.
MOST: dict[tuple[str, str], dict[str, float]] = {
    ("device", "round trips"): {"instructions": 1.0, "calls": 2.02, "sleeps": 1.01,
                                "signals in": 1.01, "hypercalls": 1.0},
    ("device", "down 1024"): {"instructions": 0.45, "copies": 2.01, "calls": 18, "sleeps": 17.5,
                              "signals in": 17.5, "hypercalls": 0.5},
    ("device", "down 16384"): {"instructions": 0.955, "copies": 2.01, "calls": 21.5,
                               "sleeps": 21, "signals in": 21, "hypercalls": 0.5},
    ("device", "both 16384"): {"instructions": 0.74, "copies": 2.01, "calls": 22, "sleeps": 11,
                               "signals in": 11},
    # How often its reader finds the ring empty depends on which of the two ends is faster.
    ("device", "desktop"): {"instructions": 0.55, "copies": 2.07, "calls": 730},
    ("relay", "round trips"): {"instructions": 2.35, "calls": 8.05, "sleeps": 3.05,
                               "signals in": 1.01, "hypercalls": 1.0},
    ("relay", "down 1024"): {"instructions": 0.82, "copies": 4.02, "calls": 88, "sleeps": 51,
                             "signals in": 17.5, "hypercalls": 0.5},
    ("relay", "down 16384"): {"instructions": 2.4, "copies": 4.02, "calls": 106, "sleeps": 63,
                              "signals in": 21, "hypercalls": 0.5},
    ("relay", "both 16384"): {"instructions": 2.4, "copies": 4.02, "calls": 136, "sleeps": 46,
                              "signals in": 11},
}


@pytest.fixture(scope="module")
def results() -> Iterator[list[figures.Result]]:
    """All loads on the sides that are looked at."""
    with tempfile.TemporaryDirectory() as folder:
        programs = build_programs(RELAY, Path(folder))
    machine = Machine(KERNEL, kernels.module(KERNEL), programs)
    found = []
    try:
        for side in ("hv_sock", "device", "relay"):
            with getattr(machine, side)() as road:
                for load in loads(side):
                    if load.name in LOADS:
                        found.append({"side": side, "load": load.name,
                                      **Run(machine, [road], load).measure().plain()})
        yield found
    finally:
        machine.close()


@pytest.mark.parametrize(("side", "load"), MOST)
def test_counts(results: list[figures.Result], side: str, load: str) -> None:
    """No more than what was measured, and a few percent."""
    def value(one: str, heading: str) -> float:
        return figures.cell(results, one, load, heading).middle

    measured = {heading: value(side, heading) for heading in MOST[side, load]}
    measured["instructions"] /= value("hv_sock", "instructions")
    grown = {heading: (round(found, 3), most) for heading, found in measured.items()
             if found > (most := MOST[side, load][heading]) * MARGIN.get(heading, OTHERS)}
    assert not grown, f"measured and what may be: {grown}\n{figures.table(results)}"

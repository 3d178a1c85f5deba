# SPDX-License-Identifier: GPL-2.0-only
"""A host without rules: what `make fuzz` found worth keeping, once more."""

from __future__ import annotations

import pytest

from inputs import CORPUS, load
from lab import Lab
from play import Control, Seat, Tally


@pytest.mark.parametrize("control", (False, True), ids=("data", "control"))
def test_corpus(lab: Lab, control: bool) -> None:
    """Nothing but data is read, nobody hangs, and each time a sane session works afterwards."""
    lab.allow_complaints()
    tally = Tally()
    play = Control(lab, tally).play if control else Seat(lab, 1, tally).play
    known = [given for given in load(CORPUS) if given.control == control]
    for given in known:
        print(given.line())             # the last one is the one that failed
        play(given)
    assert tally.sessions == len(known) > 50


def test_a_flood_of_sessions(lab: Lab) -> None:
    """CreateSession over and over: counted, and that is all."""
    Control(lab, Tally()).flood(5000)

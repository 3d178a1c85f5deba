# SPDX-License-Identifier: GPL-2.0-only
"""The KUnit suite of the wire format, under User Mode Linux."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import ktap

UML = Path(__file__).with_name("uml")
TIMEOUT = 120.0         # to build two files, link, and run


@pytest.fixture(scope="module", name="found")
def run_suite() -> dict[str, ktap.Case]:
    """What all cases came to."""
    done = subprocess.run([UML, "--raw_output"], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, errors="replace", timeout=TIMEOUT, check=False)
    found = ktap.results(done.stdout.splitlines())
    assert found, f"nothing ran:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return found


@pytest.mark.parametrize("case", ktap.cases("protocol"))
def test_protocol(found: dict[str, ktap.Case], case: str) -> None:
    """A case of protocol_test.c."""
    ktap.check(found, case)

# SPDX-License-Identifier: GPL-2.0-only
"""KUnit's results: which cases a suite has by its source, and what KTAP says of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from hvhost.guest import Guest

DRIVER = Path(__file__).resolve().parents[2] / "drivers" / "hv" / "synthrdp"
CASE = re.compile(r"^\tKUNIT_CASE(?:_PARAM)?\((\w+)", re.MULTILINE)
RESULT = re.compile(r"    (ok|not ok) \d+ (?:- )?(\w+)(.*)")


@dataclass
class Case:
    """A case's result, and the lines that came before it."""

    ok: bool
    text: list[str] = field(default_factory=list)


def cases(suite: str) -> list[str]:
    """The cases of the suite in SUITE_test.c."""
    return CASE.findall((DRIVER / f"{suite}_test.c").read_text())


def results(lines: list[str]) -> dict[str, Case]:
    """All cases that ran, by name. One that was skipped has not passed."""
    found: dict[str, Case] = {}
    text: list[str] = []
    for line in lines:
        text.append(line)
        if match := RESULT.fullmatch(line.rstrip()):
            verdict, name, rest = match.groups()
            found[name] = Case(verdict == "ok" and "SKIP" not in rest, text)
            text = []
    return found


def heard(guest: Guest) -> dict[str, Case]:
    """What the suites came to that a guest has run."""
    return results([line for message in guest.kernel_messages()
                    for line in message.text.splitlines()])


def check(found: dict[str, Case], case: str) -> None:
    """Fail unless the case ran and passed."""
    assert case in found, f"{case} did not run"
    assert found[case].ok, "\n".join(found[case].text)

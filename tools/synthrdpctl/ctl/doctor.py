# SPDX-License-Identifier: GPL-2.0-only
"""The doctor: a table of checks, each a small function that finds one thing and its cure.

A check returns None where all is well, Found, Unknown where it could not look, or MOOT where
there is nothing to look at, mostly because another check has found why.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from .facts import DRIVER, Ended, Status, look
from .system import System

SCHEMA_VERSION = 1
ERROR, WARNING, NOTE = "error", "warning", "note"
MODPROBE = [f"{place}/modprobe.d/*.conf" for place in
            ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")]
ALIAS = "synthrdp-server.service"               # ours, unless another server takes that name
UNITS = (ALIAS, "synthrdp-ready.service", "synthrdp-xrdp.service", "xrdp.service",
         "xrdp-sesman.service", "synthrdp-relay@*.service", "systemd-journald.service")
PROPERTIES = "Id,LoadState,ActiveState,Result,UnitFileState,Names"


@dataclass(frozen=True)
class Found:
    """Something that is not as it should be."""

    finding: str
    cure: str
    quote: tuple[str, ...] = ()
    severity: str = ERROR


@dataclass(frozen=True)
class Unknown:
    """Why a check could not look."""

    why: str


class Moot:
    """There is nothing to look at."""


MOOT: Final = Moot()
Outcome = Found | Unknown | Moot | None


@dataclass(frozen=True)
class Unit:
    """What systemd knows of a unit."""

    name: str
    load: str
    active: str
    result: str
    file: str
    names: str = ""

    @property
    def exists(self) -> bool:
        """Whether there is such a unit at all."""
        return self.load not in ("", "not-found")

    @property
    def how(self) -> str:
        """Its state, for people."""
        if self.load == "masked":
            return "masked"
        if not self.exists:
            return "not installed"
        return self.active + (f" ({self.result})" if self.active == "failed" else "")


class Scene:
    """What several checks look at, each looked at once."""

    def __init__(self, system: System) -> None:
        self.system = system

    @functools.cached_property
    def status(self) -> Status:
        """What there is."""
        return look(self.system)

    @functools.cached_property
    def release(self) -> str:
        """The running kernel."""
        return self.system.read("/proc/sys/kernel/osrelease") or "?"

    @functools.cached_property
    def command_line(self) -> dict[str, str]:
        """What the kernel was told at its start; the last word counts."""
        words = (word.partition("=") for word in (self.system.read("/proc/cmdline") or "").split())
        return {name.replace("-", "_"): value for name, _, value in words}

    @functools.cached_property
    def modprobe(self) -> list[tuple[str, list[str]]]:
        """Lines about the driver in modprobe's configuration, in words: (file, words)."""
        found = [(name, line.split()) for name, line in self.system.config(*MODPROBE)]
        return [(name, words) for name, words in found
                if len(words) > 1 and words[1].replace("-", "_") == DRIVER]

    @functools.cached_property
    def modules(self) -> dict[str, list[str]]:
        """The driver's files by the kernel that they are for."""
        found: dict[str, list[str]] = {}
        for name in self.system.glob(f"/lib/modules/*/**/{DRIVER}.ko*"):
            found.setdefault(name.split("/")[3], []).append(name)
        return found

    @functools.cached_property
    def has_module(self) -> bool:
        """Whether there is a driver for this kernel, loaded or not."""
        return self.status.module.loaded or self.release in self.modules

    @functools.cached_property
    def units(self) -> dict[str, Unit]:
        """systemd's units that matter."""
        found = {}
        text = self.system.output("systemctl", "show", f"--property={PROPERTIES}", *UNITS) or ""
        for block in text.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            unit = Unit(*(values.get(name, "") for name in PROPERTIES.split(",")))
            found[unit.name] = unit
        return found

    def unit(self, name: str) -> Unit:
        """One of them, which need not exist."""
        return self.units.get(name, Unit(name, "", "", "", ""))

    @functools.cached_property
    def server_unit(self) -> Unit:
        """The one with whose life the guest is ready."""
        return next((unit for unit in self.units.values() if ALIAS in unit.names.split()),
                    self.unit(ALIAS))

    @functools.cached_property
    def last_end(self) -> Ended | None:
        """How the last session ended."""
        return self.status.ended[-1] if self.status.ended else None

    def ended_by(self, pattern: str) -> Ended | None:
        """The last session, if it ended for such a reason."""
        last = self.last_end
        return last if last and re.search(pattern, last.reason) else None

    @functools.cached_property
    def has_xrdp(self) -> bool:
        """Whether xrdp is installed."""
        return bool(self.system.glob("/usr/sbin/xrdp", "/usr/local/sbin/xrdp"))


CheckFunction = Callable[[Scene], Outcome]


@dataclass(frozen=True)
class Check:
    """A row of the table.

    The title says what is well. After a finding of a gate all else is moot. What a check reads
    must have been readable, or nobody knows that all is well.
    """

    id: str
    title: str
    gate: bool
    reads: tuple[str, ...]
    function: CheckFunction


class Table:
    """Some rows, entered by decorators: check = Table(), and @check("id", "title")."""

    def __init__(self) -> None:
        self.rows: list[Check] = []

    def __call__(self, name: str, title: str, *, gate: bool = False, reads: tuple[str, ...] = ()
                 ) -> Callable[[CheckFunction], CheckFunction]:
        def enter(function: CheckFunction) -> CheckFunction:
            self.rows.append(Check(name, title, gate, reads, function))
            return function
        return enter


@dataclass(frozen=True)
class Diagnosis:
    """What came of all checks, in their order."""

    results: list[tuple[Check, Outcome]]
    unread: list[str]

    @property
    def findings(self) -> list[tuple[Check, Found]]:
        """What was found."""
        return [(row, outcome) for row, outcome in self.results if isinstance(outcome, Found)]

    @property
    def is_ill(self) -> bool:
        """Whether there is something to cure."""
        return any(found.severity != NOTE for _, found in self.findings)

    def json(self) -> dict[str, Any]:
        """For `doctor --json`."""
        return {"version": SCHEMA_VERSION,
                "findings": [{"id": row.id, **asdict(found)} for row, found in self.findings],
                "checks": [{"id": row.id, "title": row.title, **_verdict(outcome)}
                           for row, outcome in self.results],
                "unread": self.unread}


def _verdict(outcome: Outcome) -> dict[str, str | None]:
    if isinstance(outcome, Unknown):
        return {"result": "unknown", "why": outcome.why}
    words = {Found: "found", Moot: "moot", type(None): "well"}
    return {"result": words[type(outcome)], "why": None}


def examine(system: System, rows: Iterable[Check]) -> Diagnosis:
    """All checks, in order."""
    scene, closed = Scene(system), False
    results: list[tuple[Check, Outcome]] = []
    for row in rows:
        outcome = MOOT if closed else row.function(scene)
        if outcome is None and (unread := [what for what in row.reads if what in system.unread]):
            outcome = Unknown(f"{unread[0]} is not readable")
        results.append((row, outcome))
        closed = closed or (row.gate and isinstance(outcome, Found))
    return Diagnosis(results, list(system.unread))


def first(outcomes: Iterator[Outcome]) -> Outcome:
    """The first that is something."""
    return next((outcome for outcome in outcomes if outcome is not None), None)

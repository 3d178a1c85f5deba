# SPDX-License-Identifier: GPL-2.0-only
"""What a guest has had to do: counted by QEMU (x-count-events), read while the guest is idle."""

from __future__ import annotations

import re
import time
from typing import Final


from hvhost.vm import VM, VMError

# A processor with counters, on which kernels copy by REP MOVSB, as on those of today (FSRM).
CPU: Final = "hv-avic=on,x-count-events=on,x-force-features=on,fsrm=on"
LOOK: Final = 0.004
TIMEOUT: Final = 60.0

Counts = dict[str, int]


class Counters:
    """Those of a guest with one processor."""

    def __init__(self, machine: VM) -> None:
        self._vm = machine
        self._path = self._vm.qmp("query-cpus-fast")[0]["qom-path"]

    def read(self) -> Counts:
        """All of them at this moment."""
        text: str = self._vm.qmp("qom-get", path=self._path, property="x-events")
        return {name: int(value) for name, value in (word.split("=") for word in text.split())}

    def _asleep(self) -> bool:
        """Whether the processor is halted, with no interrupt on its way to it."""
        def says(command: str) -> str:
            answer: str = self._vm.qmp("human-monitor-command",
                                       **{"command-line": f"info {command}"})
            return answer
        return "HLT=1" in says("registers") and bool(re.search(r"IRR\s+\(none\)", says("lapic")))

    def settled(self) -> Counts:
        """All of them once the guest has nothing more to do.

        That nothing moves is not enough: a busy machine may have no time for its processor.
        """
        deadline = time.monotonic() + TIMEOUT
        before = self.read()
        while True:
            time.sleep(LOOK)
            asleep, after = self._asleep(), self.read()
            if asleep and after == before:
                return after
            if time.monotonic() > deadline:
                raise VMError(f"the guest is never idle: {before} {after}")
            before = after


def instructions(counts: Counts, who: str = "") -> int:
    """Instructions of kernel and programs, or of one of them.

    QEMU counts each round of a REP instruction. Here it is one instruction, and one more for
    each 8 bytes that it copied, whatever the size of a round.
    """
    whose = (who,) if who else ("kernel", "user")
    return sum(counts[f"{one}-insns"] - counts[f"{one}-rounds"] + counts[f"{one}-moved"] // 8
               for one in whose)


def difference(after: Counts, before: Counts) -> Counts:
    """What came to it in between."""
    return {name: after[name] - before[name] for name in after}

# SPDX-License-Identifier: GPL-2.0-only
"""A desktop session as it was recorded: when packets went, which way, and how large they were.

Of what was in them nothing is kept. tests/bench/record makes one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RECORDED: Final = Path(__file__).with_name("desktop.mix")
STEP: Final = struct.Struct("<Ii")      # as guest/peer.c has it
HEAD: Final = """\
# SPDX-License-Identifier: GPL-2.0-only
# A desktop session on VMBus: milliseconds since its beginning, and bytes of data in a packet:
# as they are to the guest, negative from it. Recorded by tests/bench/record, which says of what.
"""


@dataclass(frozen=True)
class Step:
    """A packet."""

    ms: int                     # after the beginning
    size: int                   # negative from the guest

    def packed(self, *, timed: bool) -> bytes:
        """For the peer, to be done at its time or at once."""
        return STEP.pack(self.ms if timed else 0, self.size)


def load(path: Path = RECORDED) -> tuple[Step, ...]:
    """What was recorded."""
    return tuple(Step(*map(int, line.split())) for line in path.read_text("ascii").splitlines()
                 if not line.startswith("#"))


def save(steps: Sequence[Step], path: Path = RECORDED) -> None:
    """Keep it."""
    path.write_text(HEAD + "".join(f"{step.ms} {step.size}\n" for step in steps), "ascii")

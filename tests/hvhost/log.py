# SPDX-License-Identifier: GPL-2.0-only
"""What crossed the channels, and when: kept for a failing test to print."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

HEAD = 32               # bytes of each packet that are kept
ENTRIES = 20_000        # older ones are dropped, and counted


@dataclass(frozen=True)
class Entry:
    """One thing that happened: `way` is ">" to the guest, "<" from it, "-" neither."""

    at: float
    channel: str
    way: str
    what: str
    size: int
    head: bytes

    def __str__(self) -> str:
        line = f"{self.at:9.4f} {self.channel:8} {self.way} {self.what}"
        if self.size:
            line += f" [{self.size}] {self.head.hex(' ', 4)}"
            line += "" if self.size <= len(self.head) else " ..."
        return line


class Log:
    """A bounded list of entries; all live logs are known to the pytest plugin."""

    live: ClassVar[weakref.WeakSet[Log]] = weakref.WeakSet()

    def __init__(self, title: str) -> None:
        self.title = title
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=ENTRIES)
        self._added = 0
        Log.live.add(self)

    def now(self) -> float:
        """Seconds since the log began: the clock of all its entries."""
        return time.monotonic() - self._start

    def add(self, channel: str, way: str, what: str, data: bytes = b"") -> float:
        """Note one event, return its time."""
        entry = Entry(self.now(), channel, way, what, len(data), data[:HEAD])
        with self._lock:
            self._entries.append(entry)
            self._added += 1
        return entry.at

    def clear(self) -> None:
        """Forget the entries, not the clock: a new test begins."""
        with self._lock:
            self._entries.clear()
            self._added = 0

    def entries(self) -> list[Entry]:
        """The entries that are kept, oldest first."""
        with self._lock:
            return list(self._entries)

    def text(self, last: int = 100) -> str:
        """The last entries, one per line."""
        with self._lock:
            kept = list(self._entries)[-last:]
            left_out = self._added - len(kept)
        lines = [f"({left_out} earlier entries left out)"] if left_out else []
        return "\n".join(lines + [str(entry) for entry in kept])

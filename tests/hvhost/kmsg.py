# SPDX-License-Identifier: GPL-2.0-only
"""Kernel messages: what a record of /dev/kmsg says, and which of them a test must answer for.

Every message of the kernel at level warning or worse fails the test during which it came,
unless the test said that it may (`allow`) or must (`expect`) come. What stock kernels say
while they boot is nobody's fault and not looked at; that ends when the guest is handed out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

WARNING = 4
RECORD = re.compile(r"(\d+),(\d+),(\d+),[^;]*;([^\n]*)")
ALWAYS_ALLOWED = (
    # An out-of-tree module without a signature, once per boot.
    r"\w+: loading out-of-tree module taints kernel\.",
    r"\w+: module verification failed: signature and/or required key missing"
    r" - tainting kernel",
    # An emulated machine on a busy one loses time.
    r"^hrtimer: interrupt took \d+ ns",
    r"^clocksource: ",
    r"^workqueue: \S+ .*hogged CPU for",
)
# What makes a kernel unfit for further tests, whatever level it is said at.
FATAL = re.compile(r"BUG:|Oops|WARNING: |general protection fault|Kernel panic|KASAN|UBSAN|"
                   r"possible (circular|recursive) locking|inconsistent lock state|"
                   r"suspicious RCU usage|blocked for more than|soft lockup|rcu.*detected.*stall|"
                   r"refcount_t:|list_(add|del) corruption|ODEBUG")
KCSAN = re.compile("BUG: KCSAN: ")
KCSAN_END = "=================================================================="
IN_MODULE = re.compile(r"\+0x[0-9a-f]+/0x[0-9a-f]+ \[\w+\]")
# Bits of /proc/sys/kernel/tainted that say that something went wrong.
TAINTS = {1: "module forced", 4: "machine check", 5: "bad page", 7: "oops", 9: "warning",
          14: "soft lockup"}


@dataclass(frozen=True)
class Message:
    """One kernel message."""

    level: int
    sequence: int
    time: float
    text: str

    def __str__(self) -> str:
        return f"<{self.level}>[{self.time:12.6f}] {self.text}"


def parse(record: str) -> Message | None:
    """The message in a record of /dev/kmsg; None for one that a user's program wrote."""
    match = RECORD.match(record)
    if not match:
        return Message(WARNING, 0, 0.0, f"not a record of /dev/kmsg: {record!r}")
    priority, sequence, time = (int(group) for group in match.groups()[:3])
    if priority >> 3:
        return None
    text = re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), match[4])
    return Message(priority & 7, sequence, time / 1e6, text)


def taints(value: int) -> list[str]:
    """What the bad bits of the taint mask mean."""
    return [name for bit, name in TAINTS.items() if value >> bit & 1]


def _without_races_of_others(messages: Iterable[Message]) -> Iterator[Message]:
    """Leave out what KCSAN reports of the kernel itself: where no frame is in a module."""
    report: list[Message] = []
    for message in messages:
        if report or KCSAN.match(message.text):
            report.append(message)
            if not message.text.startswith(KCSAN_END):
                continue
            if any(IN_MODULE.search(line.text) for line in report):
                yield from report
            report = []
        elif not message.text.startswith(KCSAN_END):
            yield message
    yield from report


def complaints(messages: Iterable[Message], expected: Iterable[str],
               allowed: Iterable[str]) -> list[str]:
    """What is wrong with the messages that came during a test."""
    expected = list(expected)
    may = [re.compile(pattern) for pattern in (*ALWAYS_ALLOWED, *allowed, *expected)]
    messages = list(_without_races_of_others(messages))
    bad = [f"unexpected kernel message: {message}" for message in messages
           if (message.level <= WARNING or FATAL.search(message.text))
           and not any(pattern.search(message.text) for pattern in may)]
    return bad + [f"the kernel never said: {pattern}" for pattern in expected
                  if not any(re.search(pattern, message.text) for message in messages)]

# SPDX-License-Identifier: GPL-2.0-only
"""The loads: what the host has the peer do, in steps that go the same way each time.

How many packets a guest finds when it wakes up depends on how fast the host is compared to an
emulated processor, which says nothing. So the processor is stopped while the host fills the one
ring and empties the other, and then goes on until it has nothing more to do. One step is one
wake-up with as much work as the rings hold, or as little as one packet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import mix
from counts import Counts, difference, instructions
from sides import Machine, Road

COMMAND: Final = struct.Struct("<IIQ")      # operation, bytes of a write, bytes in all
DOWN, UP, ECHO, MIX, KEYS = 1, 2, 3, 4, 5
PERIOD: Final = 65536
MB: Final = 1e6
READY, GO, DONE = b"ready", b"go", b"done"


def _pattern() -> bytes:
    """What is sent; guest/peer.c makes the same."""
    random, made = 1, bytearray()
    for _ in range(PERIOD):
        random = (random * 1103515245 + 12345) & 0xffffffff
        made.append(random >> 16 & 0xff)
    return bytes(made) * 2


PATTERN: Final = _pattern()


def pattern(size: int) -> bytes:
    """What has been sent after so many bytes."""
    return (PATTERN[:PERIOD] * (size // PERIOD + 1))[:size]


@dataclass(frozen=True)
class Load:
    """Bytes to move, in packets of one size or as they were recorded."""

    name: str
    operation: int
    size: int
    total: int
    at_once: int = 1 << 30          # packets of a step, if the rings hold as many
    recorded: tuple[mix.Step, ...] = ()

    def down(self) -> list[int]:
        """Sizes of the packets to the guest."""
        if self.recorded:
            return [step.size for step in self.recorded if step.size > 0]
        if self.operation == UP:
            return []
        return _cut(self.total, self.size)

    def up(self) -> list[int]:
        """Sizes of the writes that come from the guest."""
        if self.recorded:
            return [-step.size for step in self.recorded if step.size < 0]
        if self.operation == DOWN:
            return []
        return _cut(self.total, self.size)

    def command(self, *, timed: bool = False) -> bytes:
        """What the peer is told."""
        steps = b"".join(step.packed(timed=timed) for step in self.recorded)
        return COMMAND.pack(self.operation, self.size, len(steps) or self.total) + steps


def _cut(total: int, size: int) -> list[int]:
    whole, rest = divmod(total, size)
    return [size] * whole + [rest] * bool(rest)


@dataclass(frozen=True)
class Figures:
    """What a load has cost a guest."""

    total: int                      # bytes, in both directions
    packets: int                    # of the load's own size
    counts: Counts
    signals_to_guest: int
    signals_from_guest: int
    packets_to_guest: int
    packets_from_guest: int
    wakeups: int                    # times a program went to sleep

    def instructions(self, who: str = "") -> int:
        """See counts.py."""
        return instructions(self.counts, who)

    def plain(self) -> dict[str, Any]:
        """To be kept as JSON."""
        return asdict(self) | {"instructions": self.instructions(),
                               "user instructions": self.instructions("user")}


def wakeups(pids: list[int]) -> int:
    """Runs in the guest: how often programs have gone to sleep."""
    found = 0
    for pid in pids:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            found += sum(int(line.split()[1]) for line in file if line.startswith("voluntary"))
    return found


class Run:
    """One load on one road, or on several at once."""

    def __init__(self, machine: Machine, roads: Sequence[Road], load: Load, *,
                 hosted: bool = True) -> None:
        self._machine, self._roads, self._load = machine, roads, load
        self._hosted = hosted       # else the guest does it by itself
        self._came = [bytearray() for _ in roads]
        self._to_send = [load.down() for _ in roads]
        self._sent = [0 for _ in roads]     # bytes
        self._pids = [pid for road in roads for pid in road.pids]

    def measure(self) -> Figures:
        """Do it."""
        load, counters = self._load, self._machine.counters
        for road in self._roads:
            road.session.write(load.command())
            if (answer := road.receive(len(READY))) != READY:
                raise ValueError(f"the peer says {answer!r}")
        slept = self._machine.guest.run(wakeups, self._pids)
        counters.settled()
        stats = [road.session.channel.stats() for road in self._roads]
        before = counters.read()
        for road in self._roads:
            road.session.write(GO)
        counters.settled()
        if self._hosted:
            self._steps()
        else:
            self._came[0] += self._roads[0].receive(len(DONE))
        after = counters.settled()
        later = [road.session.channel.stats() for road in self._roads]
        slept = self._machine.guest.run(wakeups, self._pids) - slept
        for came in self._came:
            self._check(came)
        packets = [*load.down(), *load.up()] * len(self._roads)

        def both(name: str) -> int:
            return sum(getattr(new, name) - getattr(old, name) for new, old in zip(later, stats))
        return Figures(
            sum(packets), len(packets), difference(after, before), both("signals_to_guest"),
            both("signals_from_guest"), both("packets_to_guest"), both("packets_from_guest"), slept)

    def _steps(self) -> None:
        """Until all is sent and received."""
        vm, idle = self._machine.guest.vm, 0
        wanted = len(DONE) + sum(self._load.up())
        while any(len(came) < wanted for came in self._came):
            vm.qmp("stop")
            try:
                moved = [self._exchange(number) for number in range(len(self._roads))]
                for road in self._roads:
                    road.session.channel.wait_placed()
            finally:
                vm.qmp("cont")
            self._machine.counters.settled()
            idle = 0 if any(moved) else idle + 1
            if idle > 3:
                raise TimeoutError(f"{self._load.name}: the guest sleeps; {self._sent} bytes were"
                                   f" sent, {[len(came) for came in self._came]} came")

    def _exchange(self, number: int) -> bool:
        """Take what a guest has sent, and fill its ring if that is empty."""
        road, sizes = self._roads[number], self._to_send[number]
        news = road.take()
        self._came[number] += news
        write, read = road.indices(1)
        packets = min(self._load.at_once, road.fits(sizes)) if write == read else 0
        for size in sizes[:packets]:
            at = self._sent[number] % PERIOD
            road.session.write(PATTERN[at:at + size])
            self._sent[number] += size
        del sizes[:packets]
        return bool(news) or packets > 0

    def _check(self, came: bytes) -> None:
        """Every byte."""
        body, done = came[:-len(DONE)], came[-len(DONE):]
        if done != DONE or body != pattern(len(body)):
            raise ValueError(f"{self._load.name}: wrong bytes came from the guest")


# -- which of them

SIDES: Final = ("device", "hv_sock", "uio", "relay", "uio_relay", "copies", "pair")
BOUNDS: Final = ("copies", "pair")      # sides without a host
SIZES: Final = (100, 1024, 8192, 16384)
ROUND_TRIPS: Final = 200
MOST_PACKETS: Final = 4000              # of one load
ONE_BY_ONE: Final = "down 16384, one by one"        # tells what a wake-up costs
DESKTOP: Final = "desktop"                          # as fast as it goes


def desktop() -> Load:
    """The recorded session."""
    return Load(DESKTOP, MIX, 0, 0, recorded=mix.load())


def loads(side: str) -> list[Load]:
    """The loads for a side."""
    found = [Load("round trips", ECHO, 64, 64 * ROUND_TRIPS, at_once=1)]
    for size in SIZES:
        total = min(2_000_000, size * MOST_PACKETS)
        found += [Load(f"down {size}", DOWN, size, total), Load(f"up {size}", UP, size, total),
                  Load(f"both {size}", ECHO, size, total // 2)]
    if side not in BOUNDS:
        found += [Load(ONE_BY_ONE, DOWN, SIZES[-1], 500_000, at_once=1), desktop()]
    return found[side == "copies":]     # which has nobody to go to and come back from

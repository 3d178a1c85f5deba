# SPDX-License-Identifier: GPL-2.0-only
"""What is no load: sessions beside each other, rest, memory, beginnings, and time."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from counts import difference, instructions
from hvhost.cache import say
from loads import DONE, DOWN, ECHO, GO, PATTERN, PERIOD, READY, UP, COMMAND, Load, Run, wakeups
from sides import ACCEPTED, REQUEST, SESSIONS, Machine, Road, wait_exists

IDLE: Final = 60.0              # seconds
MANY: Final = 100               # data channels on one guest
BESIDE: Final = Load("beside", DOWN, 16384, 1_000_000)
TRIPS: Final = 300
ROUNDS: Final = 3               # of all roads in turn
BULK: Final = 8_000_000
CYCLES: Final = 50

Found = dict[str, Any]


def measures(kernel: str, module: Path, programs: dict[str, bytes]) -> Found:
    """All of them."""
    found: Found = {}
    machine = Machine(kernel, module, programs)
    try:
        for measure in (memory, beginnings, rest, beside, times, bulk, sizes):
            say(f"{measure.__doc__}")
            found[measure.__name__] = measure(machine)
    finally:
        machine.close()
    say(f"{many.__doc__}")
    machine = Machine(kernel, module, programs, channels=MANY)
    try:
        found["many"] = many(machine)
    finally:
        machine.close()
    return found


# -- sessions beside each other

def beside(machine: Machine) -> Found:
    """instructions per MB with 1 to 5 sessions at once"""
    return {side: {str(count): _per_mb(machine, side, count) for count in range(1, SESSIONS + 1)}
            for side in ("device", "relay")}


def _per_mb(machine: Machine, side: str, count: int) -> float:
    with ExitStack() as stack:
        roads = [stack.enter_context(getattr(machine, side)(number))
                 for number in range(1, count + 1)]
        figures = Run(machine, roads, BESIDE).measure()
    return figures.instructions() / (figures.total / 1e6)


def many(machine: Machine) -> Found:
    """100 open sessions: what one costs among them, and what all do"""
    _per_mb(machine, "device", 1)       # the first in a guest costs twice as much
    alone = _per_mb(machine, "device", 1)
    with ExitStack() as stack:
        before = machine.guest.run(free_memory)
        roads = [stack.enter_context(machine.device(number)) for number in range(1, MANY + 1)]
        taken = before - machine.guest.run(free_memory)
        one = Run(machine, roads[-1:], BESIDE).measure()
        every = Run(machine, roads, Load("many", DOWN, 16384, 200_000)).measure()
    return {"alone": alone, "one of them": one.instructions() / (one.total / 1e6),
            "all of them": every.instructions() / (every.total / 1e6),
            "KiB each with program": taken / MANY}


# -- rest

def rest(machine: Machine) -> Found:
    """a minute of rest, without a session and with one"""
    def quiet() -> dict[str, int]:
        before = machine.counters.settled()
        time.sleep(IDLE)
        return difference(machine.counters.settled(), before)

    without = quiet()
    with machine.relay() as road:
        slept, stats = machine.guest.run(wakeups, road.pids), road.session.channel.stats()
        counts = quiet()
        later = road.session.channel.stats()
        slept = machine.guest.run(wakeups, road.pids) - slept
    return {"without": without, "with": counts, "wake-ups": slept,
            "signals": later.signals_to_guest - stats.signals_to_guest
            + later.signals_from_guest - stats.signals_from_guest}


# -- memory

def free_memory() -> int:
    """Runs in the guest: the most KiB that are free of several looks."""
    found = []
    for _ in range(10):
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as caches:
            caches.write("3")
        time.sleep(0.05)
        with open("/proc/meminfo", encoding="ascii") as file:
            found.append(next(int(line.split()[1]) for line in file if line.startswith("MemFree")))
    return max(found)


def memory_of_nodes(count: int) -> list[int]:
    """Runs in the guest: free memory before, with all nodes open, and closed again."""
    def opened() -> list[int]:
        return [os.open(f"/dev/synthrdp{number}", os.O_RDWR) for number in range(count)]

    for fd in opened():             # what is kept from the first time on
        os.close(fd)
    found = [free_memory()]
    fds = opened()
    found.append(free_memory())
    for fd in fds:
        os.close(fd)
    return [*found, free_memory()]


def resident(pid: int) -> dict[str, int]:
    """Runs in the guest: memory of a process, in KiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {name: int(words.split()[0]) for name, _, words in
                (line.partition(":") for line in file) if name in ("RssAnon", "RssFile")}


def memory(machine: Machine) -> Found:
    """memory of a session, of the relay, of what is not there"""
    with ExitStack() as stack:
        before = machine.guest.run(free_memory)
        for number in range(1, SESSIONS + 1):
            stack.enter_context(machine.host.open_session(number))
            machine.guest.run(wait_exists, f"/dev/synthrdp{number - 1}")
        nodes = before - machine.guest.run(free_memory)
        closed, opened, again = machine.guest.run(memory_of_nodes, SESSIONS)
    with machine.relay() as road:
        relay = machine.guest.run(resident, road.pids[1])
    return {"KiB of an open node": (closed - opened) / SESSIONS,
            "KiB left by its closing": (closed - again) / SESSIONS,
            "KiB of a node": nodes / SESSIONS, "KiB of the relay": relay}


def sizes(machine: Machine) -> Found:
    """size of code"""
    return {"bytes of the module": machine.guest.run(module_size),
            "bytes of the relay, linked statically":
                machine.guest.run(os_size, "/run/synthrdp-relay")}


def module_size() -> int:
    """Runs in the guest."""
    with open("/proc/modules", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("hv_synthrdp "))


def os_size(path: str) -> int:
    """Runs in the guest."""
    return os.stat(path).st_size


# -- beginnings

def load(image: bytes) -> float:
    """Runs in the guest: loads a module; seconds."""
    libc = ctypes.CDLL(None, use_errno=True)
    begin = time.monotonic()
    if libc.syscall(175, image, ctypes.c_ulong(len(image)), b""):
        raise OSError(ctypes.get_errno(), "init_module")
    return time.monotonic() - begin


def open_and_close(times: int) -> float:
    """Runs in the guest: sessions of a program that does nothing; seconds of each."""
    begin = time.monotonic()
    for _ in range(times):
        os.close(os.open("/dev/synthrdp0", os.O_RDWR))
    return (time.monotonic() - begin) / times


def beginnings(machine: Machine) -> Found:
    """how long it takes until something begins"""
    guest = machine.guest
    assert guest.module
    guest.rmmod()
    machine.host.forget_requests()
    found: Found = {"load, ms": 1e3 * guest.run(load, guest.module.read_bytes())}
    machine.host.wait_request()
    with machine.host.open_session(1):
        guest.run(wait_exists, "/dev/synthrdp0")
        counts = machine.counters.settled()
        guest.run(open_and_close, 1)
        once = machine.counters.settled()
        seconds = guest.run(open_and_close, CYCLES + 1)
        spent = instructions(difference(machine.counters.settled(), once))
        found["open and close, instructions"] = (spent - instructions(
            difference(once, counts))) / CYCLES
        found["open and close, ms"] = 1e3 * seconds
    with machine.watching() as session_of:
        parts: list[tuple[float, float]] = []
        for turn in range(20):
            begin = machine.log.now()
            with session_of(turn % SESSIONS + 1) as session:
                opened = session.wait_opened().at
                session.write(REQUEST)
                if (answer := session.read_exact(len(ACCEPTED))) != ACCEPTED:
                    raise ValueError(f"the server says {answer.hex()}")
                parts.append((1e3 * (opened - begin), 1e3 * (machine.log.now() - opened)))
    found["offer to open, ms"] = sorted(opening for opening, _ in parts)
    found["open to answer, ms"] = sorted(answering for _, answering in parts)
    return found


# -- time: only to be compared with what was measured in the same minute

def times(machine: Machine) -> Found:
    """round trips by the clock, of all roads in turn"""
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for side in ("device", "hv_sock", "uio", "relay", "uio_relay"):
            with getattr(machine, side)() as road:
                found.setdefault(side, []).extend(_trips(road))
    return {side: sorted(round(1e6 * one) for one in each) for side, each in found.items()}


def _begin(road: Road, operation: int, size: int, total: int) -> None:
    road.session.write(COMMAND.pack(operation, size, total))
    if (answer := road.receive(len(READY))) != READY:
        raise ValueError(f"the peer says {answer!r}")
    road.session.channel.auto_grant(True)
    road.session.write(GO)


def _trips(road: Road) -> list[float]:
    _begin(road, ECHO, 64, 64 * TRIPS)
    found = []
    for _ in range(TRIPS):
        begin = time.perf_counter()
        road.session.write(PATTERN[:64])
        road.session.read_exact(64)
        found.append(time.perf_counter() - begin)
    road.session.read_exact(len(DONE))
    return found


def bulk(machine: Machine) -> Found:
    """packets and signals when both ends go as fast as they can"""
    found: Found = {}
    for side in ("device", "hv_sock", "uio"):
        for name, operation in (("down", DOWN), ("up", UP)):
            with getattr(machine, side)() as road:
                chan = road.session.channel
                before, begin = chan.stats(), time.perf_counter()
                _begin(road, operation, 16384, BULK)
                for at in range(0, BULK if operation == DOWN else 0, 16384):
                    size = min(16384, BULK - at)
                    road.session.write(PATTERN[at % PERIOD:at % PERIOD + size])
                came = road.session.read_exact(BULK if operation == UP else 0)
                road.session.read_exact(len(DONE))
                seconds, after = time.perf_counter() - begin, chan.stats()
                if came != (PATTERN[:PERIOD] * (len(came) // PERIOD + 1))[:len(came)]:
                    raise ValueError("wrong bytes came from the guest")
            found[f"{side}, {name}"] = {
                "MB/s": BULK / 1e6 / seconds,
                "packets": after.packets_to_guest - before.packets_to_guest
                if operation == DOWN else after.packets_from_guest - before.packets_from_guest,
                "signals to the guest": after.signals_to_guest - before.signals_to_guest,
                "signals from the guest": after.signals_from_guest - before.signals_from_guest}
    return found

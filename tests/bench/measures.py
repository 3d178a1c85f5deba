# SPDX-License-Identifier: GPL-2.0-only
"""What is no load: sessions beside each other, rest, memory, beginnings, and time."""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from counts import difference, instructions
from hvhost.cache import say
from loads import (DONE, DOWN, ECHO, GO, KEYS, PATTERN, PERIOD, READY, UP, Load, Run, desktop,
                   pattern, wakeups)
from sides import (ACCEPTED, RELAY, REQUEST, SESSIONS, Machine, Road, build_relay, run,
                   wait_exists)

IDLE: Final = 60.0              # seconds
MANY: Final = 100               # data channels on one guest
BESIDE: Final = Load("beside", DOWN, 16384, 1_000_000)
TRIPS: Final = 300
ROUNDS: Final = 3               # of all roads in turn
BULK: Final = 8_000_000
CYCLES: Final = 50
CALLS: Final = 20_000
KEY: Final = 64                 # bytes of a keystroke, and of the answer
STROKES: Final = 100
BETWEEN: Final = 0.01           # seconds from an answer to the next key
ANSWER: Final = struct.Struct("<II")    # begins an answer, and each write beside: is it one, size
TIMED: Final = ("device", "hv_sock", "uio", "relay", "uio_relay")

Found = dict[str, Any]


def measures(kernel: str, module: Path, programs: dict[str, bytes]) -> Found:
    """All of them."""
    found: Found = {}
    machine = Machine(kernel, module, programs)
    try:
        for measure in (memory, beginnings, rest, beside, times, keystrokes, bulk, recorded,
                        call, sizes):
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

def interrupts_of_bus() -> int:
    """Runs in the guest: interrupts that VMBus has had."""
    with open("/proc/interrupts", encoding="ascii") as file:
        return sum(int(word) for line in file if line.lstrip().startswith("HYP:")
                   for word in line.split()[1:] if word.isdigit())


def rest(machine: Machine) -> Found:
    """a minute of rest, without a session and with one"""
    def quiet() -> dict[str, int]:
        bus, before = machine.guest.run(interrupts_of_bus), machine.counters.settled()
        time.sleep(IDLE)
        found = difference(machine.counters.settled(), before)
        return found | {"of the bus": machine.guest.run(interrupts_of_bus) - bus}

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


def ask_often(times: int) -> None:
    """Runs in the guest: system calls that do next to nothing."""
    for _ in range(times):
        os.getppid()


def call(machine: Machine) -> Found:
    """a system call by itself: what io_uring could save of each"""
    before = machine.counters.settled()
    machine.guest.run(ask_often, 1)
    between = machine.counters.settled()
    machine.guest.run(ask_often, CALLS + 1)
    after = machine.counters.settled()
    spent = [instructions(difference(late, early), "kernel")
             for late, early in ((after, between), (between, before))]
    return {"instructions of the kernel": (spent[0] - spent[1]) / CALLS}


def sizes(machine: Machine) -> Found:
    """size of code"""
    assert machine.guest.module
    with tempfile.TemporaryDirectory() as folder:
        build_relay(RELAY, Path(folder))
        return {"bytes of the module": _sections(machine.guest.module),
                "bytes of the relay": _sections(Path(folder, "synthrdp-relay")),
                "bytes of the module, loaded": machine.guest.run(module_size)}


def _sections(file: Path) -> dict[str, int]:
    """By kind, as size(1) counts them."""
    kinds, sizes_of = (line.split()[:3] for line in run("size", str(file)).splitlines())
    return dict(zip(kinds, map(int, sizes_of)))


def module_size() -> int:
    """Runs in the guest."""
    with open("/proc/modules", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("hv_synthrdp "))


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
        started = machine.log.now()
        for turn in range(20):
            begin = machine.log.now()
            with session_of(turn % SESSIONS + 1) as session:
                opened = session.wait_opened().at
                session.write(REQUEST)
                if (answer := session.read_exact(len(ACCEPTED))) != ACCEPTED:
                    raise ValueError(f"the server says {answer.hex()}")
                parts.append((1e3 * (opened - begin), 1e3 * (machine.log.now() - opened)))
    found["sessions in a second"] = len(parts) / (machine.log.now() - started)
    found["offer to open, ms"] = sorted(opening for opening, _ in parts)
    found["open to answer, ms"] = sorted(answering for _, answering in parts)
    return found


# -- time: only to be compared with what was measured in the same minute

def times(machine: Machine) -> Found:
    """round trips by the clock, of all roads in turn"""
    found: dict[str, list[list[int]]] = {}
    for _ in range(ROUNDS):
        for side in TIMED:
            with getattr(machine, side)() as road:
                found.setdefault(side, []).append(
                    sorted(round(1e6 * one) for one in _trips(road)))
    return found


def _begin(road: Road, load: Load, *, auto_grant: bool = True) -> None:
    road.session.write(load.command(timed=True))
    if (answer := road.receive(len(READY))) != READY:
        raise ValueError(f"the peer says {answer!r}")
    road.session.channel.auto_grant(auto_grant)
    road.session.write(GO)


def _trips(road: Road) -> list[float]:
    _begin(road, Load("trips", ECHO, 64, 64 * TRIPS))
    found = []
    for _ in range(TRIPS):
        begin = time.perf_counter()
        road.session.write(PATTERN[:64])
        road.session.read_exact(64)
        found.append(time.perf_counter() - begin)
    road.session.read_exact(len(DONE))
    return found


def keystrokes(machine: Machine) -> Found:
    """keys and their answers by the clock, without and with all that fits beside them"""
    found: dict[str, list[list[float]]] = {}
    for _ in range(ROUNDS):
        for side in TIMED:
            for name, size in (("alone", 0), ("under bulk", 16384)):
                with getattr(machine, side)() as road:
                    times, ahead = map(sorted, zip(*_strokes(road, size)))
                found.setdefault(f"{side}, {name}, us", []).append(times)
                if size:
                    found.setdefault(f"{side}, KiB before the answer", []).append(ahead)
    return found


def _strokes(road: Road, size: int) -> Iterator[tuple[int, float]]:
    """Of each key: the time until its answer, and how much else came in between."""
    _begin(road, Load("keys", KEYS, size, KEY * STROKES), auto_grant=False)
    held = bytearray()

    def record() -> tuple[int, int]:
        """The next from the guest. Its ring is all that packets wait in."""
        while len(held) < ANSWER.size or len(held) < ANSWER.unpack_from(held)[1]:
            if not road.session.channel.granted:
                road.session.channel.grant(1)
            held.extend(road.session.read_packet())
        is_key, length = ANSWER.unpack_from(held)
        del held[:length]
        return is_key, length

    for _ in range(STROKES):
        until = time.perf_counter() + BETWEEN
        while size and time.perf_counter() < until:
            if record()[0]:
                raise ValueError("an answer came without a key")
        begin, ahead = time.perf_counter(), 0
        road.session.write(ANSWER.pack(1, KEY).ljust(KEY))
        while not (came := record())[0]:
            ahead += came[1]
        yield round(1e6 * (time.perf_counter() - begin)), ahead / 1024


def recorded(machine: Machine) -> Found:
    """the recorded desktop session, each packet at its time"""
    return {side: _replayed(machine, side) for side in TIMED}


def _replayed(machine: Machine, side: str) -> dict[str, int]:
    """What it takes a guest."""
    load = desktop()
    with getattr(machine, side)() as road, ThreadPoolExecutor(1) as other:
        slept, stats = machine.guest.run(wakeups, road.pids), road.session.channel.stats()
        before = machine.counters.settled()
        _begin(road, load)
        came = other.submit(road.session.read_exact, sum(load.up()) + len(DONE), timeout=600.0)
        begin, sent = time.monotonic(), 0
        for step in load.recorded:
            if step.size > 0:
                time.sleep(max(begin + step.ms / 1e3 - time.monotonic(), 0))
                at = sent % PERIOD
                road.session.write(PATTERN[at:at + step.size])
                sent += step.size
        data = came.result()
        counts = difference(machine.counters.settled(), before)
        later = road.session.channel.stats()
        slept = machine.guest.run(wakeups, road.pids) - slept
    if data != pattern(len(data) - len(DONE)) + DONE:
        raise ValueError("wrong bytes came from the guest")
    return {"instructions": instructions(counts), "calls": counts["syscalls"], "sleeps": slept,
            "hypercalls": counts["hypercalls"],
            "signals in": later.signals_to_guest - stats.signals_to_guest,
            "signals out": later.signals_from_guest - stats.signals_from_guest,
            "packets out": later.packets_from_guest - stats.packets_from_guest}


def bulk(machine: Machine) -> Found:
    """packets and signals when both ends go as fast as they can"""
    found: Found = {}
    for side in ("device", "hv_sock", "uio"):
        for name, operation in (("down", DOWN), ("up", UP)):
            with getattr(machine, side)() as road:
                chan = road.session.channel
                before, begin = chan.stats(), time.perf_counter()
                _begin(road, Load(name, operation, 16384, BULK))
                for at in range(0, BULK if operation == DOWN else 0, 16384):
                    size = min(16384, BULK - at)
                    road.session.write(PATTERN[at % PERIOD:at % PERIOD + size])
                came = road.session.read_exact(BULK if operation == UP else 0)
                road.session.read_exact(len(DONE))
                seconds, after = time.perf_counter() - begin, chan.stats()
                if came != pattern(len(came)):
                    raise ValueError("wrong bytes came from the guest")
            found[f"{side}, {name}"] = {
                "MB/s": BULK / 1e6 / seconds,
                "packets": after.packets_to_guest - before.packets_to_guest
                if operation == DOWN else after.packets_from_guest - before.packets_from_guest,
                "signals to the guest": after.signals_to_guest - before.signals_to_guest,
                "signals from the guest": after.signals_from_guest - before.signals_from_guest}
    return found

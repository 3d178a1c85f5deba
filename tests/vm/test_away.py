# SPDX-License-Identifier: GPL-2.0-only
"""A host that is away for half a minute: nobody in the guest spins, and all goes on afterwards.

The guests of all kernels wait at the same time, and mostly wait.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from bench import KERNELS, Bench
from guestside import Pattern
from hvhost.log import Log
from hvhost.synthrdp import SynthRdpHost
from lab import MAX_DATA, Lab
from test_write import fill

AWAY = 30.0
# What nobody who waits comes near to, however slow the machine.
MOST_INTERRUPTS = 10 * AWAY
MOST_BUSY = AWAY / 3


def used() -> tuple[int, float, float]:
    """Runs in the guest: interrupts of the hypervisor's, processor time of kernel threads and
    of everybody, in seconds."""
    tick = os.sysconf("SC_CLK_TCK")
    with open("/proc/interrupts", encoding="ascii") as file:
        interrupts = next(int(line.split()[1]) for line in file if line.split()[0] == "HYP:")
    threads = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="ascii") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue            # gone
        if int(fields[6]) & 0x200000:           # PF_KTHREAD
            threads += int(fields[11]) + int(fields[12])
    with open("/proc/stat", encoding="ascii") as file:
        busy = file.readline().split()[1:]
    everybody = sum(int(field) for field in busy) - int(busy[3]) - int(busy[4])     # idle, iowait
    return interrupts, threads / tick, everybody / tick


def stay_away(kernel: str) -> str:
    """One guest, whose host does not read, withdraws a channel, and hangs up."""
    bench = Bench(kernel)
    try:
        lab = bench.lab()
        with lab.test():
            return _stay_away(lab)
    finally:
        bench.drop()


def _stay_away(lab: Lab) -> str:
    # Its rings are full both ways.
    full, writer = lab.opened(1, auto_grant=False)
    written = fill(writer, 1)
    full.write(Pattern(2).piece(0, 6 * MAX_DATA))
    writing = writer.begin("write", Pattern(1).piece(written, 1000))
    # Its channel is withdrawn, and offered again after the time.
    gone, reader = lab.opened(2)
    reading = reader.begin("read", 100)
    # Its program disconnects from an open channel, as that of the control channel does.
    orphan, orphaned = lab.opened(3)
    waiting = orphaned.begin("read", 100)
    for call in (writing, reading, waiting):
        call.wait_blocked()
    gone.end()
    assert reading.result() == b""
    orphan.channel.close()
    lab.host.close()

    before = lab.guest.run(used)
    time.sleep(AWAY)
    after = lab.guest.run(used)
    interrupts, threads, everybody = (late - early for late, early in zip(after, before))
    assert interrupts < MOST_INTERRUPTS
    assert threads < MOST_BUSY
    assert everybody < MOST_BUSY

    lab.host = SynthRdpHost(lab.guest.vm.channel_socket, Log("the host that returned"))
    full.channel.auto_grant(True)
    assert writing.result() == 1000
    Pattern(1).check(0, full.read_exact(written + 1000))
    assert writer.read_all(6 * MAX_DATA) == Pattern(2).piece(0, 6 * MAX_DATA)
    reader.close()
    gone.offer()
    lab.wait_node(1)
    reader.open(1)
    gone.wait_opened()
    gone.write(b"again")
    assert reader.read(100) == b"again"
    orphan = lab.session(3, offer=False, announce="never")
    orphan.wait_opened()
    orphan.write(b"found")
    assert waiting.result() == b"found"
    orphaned.write(b"thanks")
    assert orphan.read_exact(6) == b"thanks"
    lab.renegotiate()
    lab.wait_state("ready")
    return f"{interrupts} interrupts, {threads:.2f} s of kernel threads, {everybody:.2f} s in all"


def test_the_host_is_away() -> None:
    """On each kernel."""
    with ThreadPoolExecutor() as pool:
        for kernel, found in zip(KERNELS, pool.map(stay_away, KERNELS)):
            print(f"{kernel}: {found}")

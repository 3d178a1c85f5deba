# SPDX-License-Identifier: GPL-2.0-only
"""What the project needs to know of a real host, fit to be passed on.

Names of hosts and users, addresses and the kernel's command line are not collected. The
instance GUID of a network device is its hardware address on some hosts, so of devices other
than SynthRdp's only class and driver are printed.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Iterator

from .facts import CONTROL_CLASS, DATA_CLASS, DEVICES, MODULE
from .system import System, printable

DMI = ("sys_vendor", "product_name", "product_version", "bios_version", "bios_date")
CPUID, LEAVES = "/dev/cpu/0/cpuid", range(0x40000000, 0x40000007)
NO_CPUID = "(root only; try: modprobe cpuid)"
HIDDEN = (
    (r"\b([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b", "<hardware address>"),
    (r"(?<![\d.])(\d{1,3}\.){3}\d{1,3}(?![\d.])", "<address>"),
    (r"tcp:\S*:(\d+)", r"tcp:<host>:\1"),
    (r"/home/[^/ ]*", "/home/<user>"),
)


def report(system: System) -> Iterator[str]:
    """Its lines."""
    offers = {name: (system.read(f"{DEVICES}/{name}/class_id") or "").strip("{}")
              for name in system.names(DEVICES)}
    own = [name for name, kind in offers.items() if kind in (CONTROL_CLASS, DATA_CLASS)]
    others = [name for name in offers if name not in own]
    for line in _lines(system, offers, own, others):
        for pattern, instead in HIDDEN:
            line = re.sub(pattern, instead, line)
        for name in others:
            line = line.replace(name, "<instance>")
        yield printable(line)


def _lines(system: System, offers: dict[str, str], own: list[str], others: list[str]
           ) -> Iterator[str]:
    yield "synthrdpctl report 1"
    yield from _kernel(system)
    yield from _machine(system)
    yield from _kernel_log(system)
    yield from ("", "== offers of other devices, by class and driver")
    kinds = Counter(f"{{{offers[name]}}} {_driver(system, name)}" for name in others)
    yield from (f"{count:7} {kind}" for kind, count in sorted(kinds.items()))
    for name in own:
        yield from ("", f"== offer {name}", f"driver: {_driver(system, name)}")
        yield from _attributes(system, f"{DEVICES}/{name}")
    yield from _own(system)
    if system.unread:
        yield from ("", "== not readable: run this as root", *system.unread)


def _kernel(system: System) -> Iterator[str]:
    names = os.uname()
    yield from ("", "== kernel", " ".join((names.sysname, names.release, names.version,
                                           names.machine)))
    yield from (line for line in (system.read("/etc/os-release") or "").splitlines()
                if line.startswith("PRETTY_NAME="))
    loaded = (line.split()[0] for line in (system.read("/proc/modules") or "").splitlines())
    yield from sorted(name for name in loaded if name.startswith("hv_"))


def _machine(system: System) -> Iterator[str]:
    yield from ("", "== machine")
    yield from (f"{name}: {system.read(f'/sys/class/dmi/id/{name}') or '(none)'}" for name in DMI)
    # Who the hypervisor says it is, its build, its features.
    for leaf in LEAVES:
        yield f"cpuid {leaf:x}: {_cpuid(system, leaf)}"


def _cpuid(system: System, leaf: int) -> str:
    try:
        fd = os.open(system.path(CPUID), os.O_RDONLY)
    except OSError:
        return NO_CPUID
    try:
        words = struct.unpack("4I", os.pread(fd, 16, leaf))
    except (OSError, struct.error):
        return NO_CPUID
    finally:
        os.close(fd)
    return " ".join(f"{word:08x}" for word in words)


def _kernel_log(system: System) -> Iterator[str]:
    yield from ("", "== kernel log")
    log = system.kernel_log
    yield from [line for line in log if re.search("hv_vmbus|Hyper-V", line)][:100]
    yield from [line for line in log if "synthrdp" in line][-200:]


def _driver(system: System, name: str) -> str:
    return system.link(f"{DEVICES}/{name}/driver") or "none"


def _attributes(system: System, place: str) -> Iterator[str]:
    """All attributes below a directory, whatever this kernel and driver have."""
    top = system.path(place).resolve()
    for directory, below, files in os.walk(top):
        below[:] = sorted(name for name in below if name != "power")
        for name in sorted(files):
            if name == "uevent" or os.path.islink(os.path.join(directory, name)):
                continue
            shown = os.path.relpath(os.path.join(directory, name), top)
            try:
                with open(os.path.join(directory, name), errors="replace") as file:
                    yield f"{shown}: {' '.join(file.read().split())}"
            except OSError as error:        # some can only be written, some fail while closed
                yield f"{shown}: ({error.strerror})"


def _own(system: System) -> Iterator[str]:
    yield from ("", "== driver")
    if system.exists(MODULE):
        yield from (line for line in _attributes(system, MODULE)
                    if re.match(r"(version|srcversion|parameters/.*|taint):", line))
    else:
        yield "hv_synthrdp is not loaded"
    for name in system.glob("/dev/synthrdp*"):
        if seen := system.stat(name):
            yield f"{name}: mode {seen.st_mode & 0o7777:04o}, user {seen.st_uid}, " \
                  f"group {seen.st_gid}"
    yield from ("", "== relay", *(said.text for said in system.relay_log[-100:]))

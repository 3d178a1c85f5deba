# SPDX-License-Identifier: GPL-2.0-only
"""Disks for guests: a directory as a file system."""

from __future__ import annotations

from pathlib import Path

from hvhost import cache, roots

TRACERS = ("trace-cmd", "bpftrace", "dash", "coreutils")
TRACERS_SIZE = "400M"


def make(tree: Path, new: Path, size: str) -> None:
    """Make the disk `new` of what is in `tree`. For a cache entry."""
    cache.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, new, size],
              f"making a disk of {tree.name}")


def attached(*drives: tuple[Path, str]) -> list[str]:
    """What QEMU must be told of disks, each with how it is to be used: /dev/nvme0n1 and so on."""
    arguments = ["-device", "nvme,id=disks,serial=disks"]
    for number, (disk, how) in enumerate(drives, 1):
        arguments += ["-drive", f"if=none,id=disk{number},format=raw,file={disk},{how}",
                      "-device", f"nvme-ns,bus=disks,drive=disk{number},nsid={number}"]
    return arguments


def tracers() -> Path:
    """A disk with the programs that show tracepoints, of the oldest of the suites."""
    def build(new: Path) -> None:
        whole = new.with_name(new.name + ".whole")
        try:
            roots.unpack("bookworm", TRACERS, whole, dependencies=True)
            for place in ("dev", "proc", "sys", "tmp"):
                (whole / place).mkdir()
            make(whole, new, TRACERS_SIZE)
        finally:
            cache.remove(whole)
    named = roots.versions("bookworm", TRACERS)
    key = cache.key((f"{name}={version}" for name, version in named.items()), TRACERS_SIZE)
    return cache.get("disks/tracers", key, build, "the disk with trace-cmd and bpftrace", 20)

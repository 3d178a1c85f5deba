# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the machine itself: packages, units, what is left of other ways, disks, journal."""

from __future__ import annotations

import os
import re

from .doctor import ERROR, MOOT, NOTE, WARNING, Found, Outcome, Scene, Table

PACKAGES = ("hv-synthrdp-dkms", "synthrdp", "xrdp", "xorgxrdp")
OWN_UNITS = [f"/etc/systemd/system/synthrdp-{name}.service" for name in
             ("relay@", "relay@*", "xrdp", "ready")]
ROOM = 16 << 20                 # bytes that a disk should have free
PLACES = ("/", "/run", "/tmp", "/var", "/var/log", "/home", "/root")
WRITTEN = ("/run", "/tmp", "/var/log", "/home")     # by each session
JOURNAL_UNIT = "systemd-journald.service"
JOURNAL_CONFIG = ("/etc/systemd/journald.conf", "/etc/systemd/journald.conf.d/*.conf")
XRDP_INI, SESMAN_INI = "/etc/xrdp/xrdp.ini", "/etc/xrdp/sesman.ini"
# What the recipe over Hyper-V sockets (linux-vm-tools) leaves, by a pattern of a line.
LEFT_BY_RECIPE = (
    (XRDP_INI, r"port\s*=.*vsock:|use_vsock\s*=\s*(true|yes|1)$"),
    (XRDP_INI, r"crypt_level\s*=\s*none"),
    (SESMAN_INI, r".*=\s*startubuntu"),
    ("/etc/modules", r"hv_sock$"),
    ("/etc/modules-load.d/*.conf", r"hv_sock$"),
    ("/etc/modprobe.d/*.conf", r"blacklist\s+vmw_vsock_vmci_transport"),
)

check = Table()


@check("package-half", "the packages are whole")
def package_half(scene: Scene) -> Outcome:
    """dpkg was interrupted, or a script of a package failed."""
    done = scene.system.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n",
                            *PACKAGES)
    if done is None:
        return MOOT
    # Desired, what there is, and an error: installed, removed, and unknown are whole.
    half = [words[1] for line in done.stdout.splitlines() if len(words := line.split()) == 2
            and not re.fullmatch(r".[inc]", words[0])]
    if not half:
        return None
    return Found(f"Installed half way only: {', '.join(half)}.",
                 "dpkg --configure -a, then apt install --fix-broken; what they say is why.")


@check("unit-changed", "its units are as they were installed")
def unit_changed(scene: Scene) -> Outcome:
    """Which is the administrator's right; but whoever looks for a fault should know."""
    if not scene.system.systemd:
        return MOOT
    names = scene.system.glob(*OWN_UNITS, *(f"{unit}.d/*.conf" for unit in OWN_UNITS))
    found = [name for name in dict.fromkeys(names) if scene.system.link(name) != "null"]
    if not found:
        return None
    unit = found[0].split("/")[4].removesuffix(".d")
    return Found(f"The administrator has changed {unit}.", f"systemctl cat {unit} shows what it"
                 f" is now; systemctl revert {unit} takes the change back.", tuple(found), NOTE)


@check("old-recipe", "nothing is left of the recipe over Hyper-V sockets")
def old_recipe(scene: Scene) -> Outcome:
    """It does no harm here. But the ordinary xrdp speaks in the clear then."""
    found = [f"{name}: {line}" for place, pattern in LEFT_BY_RECIPE
             for name, line in scene.system.config(place) if re.match(pattern, line)]
    if not found:
        return None
    return Found("The recipe over Hyper-V sockets has left settings, which are not needed any"
                 " more; with crypt_level=none the ordinary xrdp does not encrypt.",
                 f"In {XRDP_INI} set port=3389, security_layer=negotiate and crypt_level=high"
                 " again, and remove the other lines; its *_orig files are not what was there"
                 " before.", tuple(found), NOTE)


@check("read-only", "what sessions write to can be written to")
def read_only(scene: Scene) -> Outcome:
    """After an error of the disk, mostly."""
    for place in WRITTEN:
        try:
            disk = os.statvfs(scene.system.path(place))
        except OSError:
            continue
        if disk.f_flag & os.ST_RDONLY:
            said = scene.system.kernel_said("[Rr]emounting filesystem read-only")
            return Found(f"The file system of {place} is mounted read-only.",
                         f"dmesg says whether the disk has errors; once it is sound: mount -o"
                         f" remount,rw {place}, and see to /etc/fstab.",
                         (said.string,) if said else ())
    return None


@check("disk-full", "there is room on the disks")
def disk_full(scene: Scene) -> Outcome:
    """Without it neither sockets nor sessions come about."""
    seen = set()
    for place in PLACES:
        try:
            at = scene.system.path(place)
            device, disk = os.stat(at).st_dev, os.statvfs(at)
        except OSError:
            continue
        if device in seen or disk.f_flag & os.ST_RDONLY:
            continue
        seen.add(device)
        free = disk.f_bavail * disk.f_frsize
        inodes = disk.f_files and not disk.f_favail
        if free < min(ROOM, disk.f_blocks * disk.f_frsize // 20) or inodes:
            return Found(f"The disk of {place} is full: {free >> 10} KiB free"
                         + (", and no inode." if inodes else "."),
                         "Make room there; journalctl --vacuum-size=100M and apt clean often help.",
                         (), WARNING if free and not inodes else ERROR)
    return None


@check("journal", "the journal keeps what is said")
def journal(scene: Scene) -> Outcome:
    """Without it nobody can say why a session has ended."""
    if not scene.system.systemd:
        return MOOT
    unit = scene.unit(JOURNAL_UNIT)
    if unit.exists and unit.active != "active":
        return Found(f"The journal is not kept: {JOURNAL_UNIT} is {unit.how}.",
                     f"systemctl restart {JOURNAL_UNIT}; if that fails, see whether there is room"
                     " in /var/log/journal and /run/log/journal.", (), WARNING)
    stored = [(name, line) for name, line in scene.system.config(*JOURNAL_CONFIG)
              if re.match(r"Storage\s*=", line)]
    if stored and re.match(r"Storage\s*=\s*none", stored[-1][1]):
        return Found(f"The journal is not kept: {stored[-1][0]} says so.",
                     f"Storage=volatile or persistent there, then systemctl restart"
                     f" {JOURNAL_UNIT}.", (stored[-1][1],), WARNING)
    return None

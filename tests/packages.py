# SPDX-License-Identifier: GPL-2.0-only
"""The Debian packages that tests and demo need on this machine, in one list."""

from __future__ import annotations

import os
import platform

from hvhost.cache import PrepareError, run, say

# What builds kernels, modules and QEMU is not here: that happens in roots of their own.
TESTS = ("clang", "cpio", "debian-archive-keyring", "e2fsprogs", "gcc", "git", "groff-base",
         "gss-ntlmssp", "libc6-dev", "libclang-rt-dev", "make", "mandoc", "mmdebstrap", "openssl",
         "perl", "python3-docutils", "python3-gssapi", "python3-jsonschema", "python3-pytest",
         "python3-pytest-xdist", "rpm", "rpmlint", "shellcheck", "systemd", "tshark", "valgrind",
         "zsh")
FREERDP = "freerdp2-x11" if platform.freedesktop_os_release().get(
    "VERSION_CODENAME") == "bookworm" else "freerdp3-x11"
DEMO = ("debian-archive-keyring", "e2fsprogs", "kmod", "mmdebstrap", "openssl", "socat", "xclip",
        "xdotool", "xvfb", FREERDP)
BENCH = ("python3-matplotlib",)


def install(packages: tuple[str, ...] = TESTS) -> None:
    """Install those that are missing, saying which."""
    table = run(["dpkg-query", "--showformat=${Package} ${db:Status-Status}\\n", "--show"],
                "asking dpkg what is installed")
    there = {name for name, status in (line.split() for line in table.splitlines())
             if status == "installed"}
    missing = [name for name in packages if name not in there]
    if not missing:
        return
    if os.geteuid():
        raise PrepareError(f"these packages are missing: {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = [*apt, "install", "--no-install-recommends", *missing]
    try:
        run(command, "installing packages", env=environment)
    except PrepareError:        # the lists may be older than the archive
        run([*apt, "update"], "apt-get update", env=environment)
        run(command, "installing packages", env=environment)

# SPDX-License-Identifier: GPL-2.0-only
"""The Debian root with the tools that read the sources: they say the same on each machine."""

from __future__ import annotations

import functools

from hvhost import roots

# A released suite: in sid a new tool with new opinions may come any day.
SUITE = "trixie"
CROSS = "aarch64-linux-gnu"
PACKAGES = (
    "codespell", "cppcheck", "groff-base", "make", "gcc", "libc6-dev", "mandoc", "mypy", "pylint",
    "python3-flake8", "python3-gssapi", "python3-jsonschema", "python3-pytest",
    "python3-typeshed", "shellcheck", "systemd", "udev",
    "coccinelle", "libpython3.13",      # which it wants for the kernel's semantic patches
    f"gcc-{CROSS}", "flex", "bison", "bc",      # a kernel tree for another machine
    "clang", "llvm", "lld", "libelf-dev", "sparse")     # and by another compiler


@functools.lru_cache(maxsize=None)
def root() -> roots.Root:
    """Where the tools are."""
    return roots.root(roots.Spec("lint", SUITE, PACKAGES, seconds=120))

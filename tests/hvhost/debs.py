# SPDX-License-Identifier: GPL-2.0-only
"""The project's Debian packages, built in a Debian root as `make deb` builds them anywhere."""

from __future__ import annotations

import re
from pathlib import Path

from hvhost import cache, kernels, roots

SUITES = ("bookworm", "trixie")
SOURCES = (*kernels.SOURCES, "COPYING", "README.md", "debian", "dkms.conf", "tools")
PACKAGES = ("build-essential", "debhelper", "dh-dkms", "dkms", "lintian", "fakeroot", "udev",
            "systemd", "linux-headers-cloud-amd64", "python3", "xrdp", "xorgxrdp")
VERSIONED = ("debian/changelog", "dkms.conf", "tools/synthrdpctl/ctl/__init__.py")
# Left by others on behalf of a package that has been purged, as they do for every package.
LEFT = ("/var/cache/", "/var/lib/dpkg/", "/var/log/", "/var/lib/systemd/deb-systemd-helper",
        "/var/lib/dkms/mok.", "/run/", "/etc/passwd-", "/etc/group-", "/etc/shadow-",
        "/etc/gshadow-", "/usr/share/doc")
BUILD_SECONDS = 60
SOURCE = "/mnt/src"


def root(suite: str) -> roots.Root:
    """Where packages are built and, in a copy, installed: with all that they depend on."""
    return roots.root(roots.Spec("package", suite, PACKAGES, seconds=150))


def build(suite: str, other: str = "") -> Path:
    """The directory that `make deb` leaves the packages in; from the cache or built.

    With another version they are packages to be upgraded to.
    """
    where = root(suite)
    key = cache.key(where.key, other, cache.tree_key(*(
        kernels.TOP / source for source in SOURCES if (kernels.TOP / source).exists())))
    return cache.get(f"deb/{suite}" + (f"-{other}" if other else ""), key,
                     lambda new: _build(where, new, other),
                     f"the packages for {suite}", BUILD_SECONDS)


def _build(where: roots.Root, new: Path, other: str) -> None:
    tree = new.with_name(new.name + ".tree")
    try:
        cache.remove(tree)
        kernels.copy_sources(tree, SOURCES)
        for name in VERSIONED if other else ():
            text = (tree / name).read_text()
            (tree / name).write_text(text.replace(version(), other))
        cache.run(where.command(["make", "deb"], cwd=SOURCE, binds={tree: SOURCE}),
                  "make deb", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                                   "HOME": "/tmp", "NAME": "", "EMAIL": ""})
        (tree / "build/deb").rename(new)
    finally:
        cache.remove(tree)


def version() -> str:
    """The project's version, as dkms.conf has it."""
    found = re.search(r'^PACKAGE_VERSION="(.*)"$', (kernels.TOP / "dkms.conf").read_text(),
                      re.MULTILINE)
    assert found
    return found[1]

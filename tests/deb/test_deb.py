# SPDX-License-Identifier: GPL-2.0-only
"""The Debian packages: what is in them, and what they do to a system and take back.

Installed in a root without systemd running: what they do to a running one is for the whole
systems to show.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvhost import cache, debs, kernels, roots

MODULE, TOOLS = "hv-synthrdp-dkms", "synthrdp"
INSTALLED = "ii"


@pytest.fixture(scope="module", params=debs.SUITES, name="suite")
def _suite(request: pytest.FixtureRequest) -> str:
    """Which Debian."""
    suite: str = request.param
    return suite


@pytest.fixture(scope="module", name="packages")
def _packages(suite: str) -> Path:
    """The directory of the packages."""
    return debs.build(suite)


def deb(packages: Path, name: str) -> Path:
    """One package's file."""
    found, = packages.glob(f"{name}_*.deb")
    return found


class System:
    """A Debian that packages are installed on."""

    def __init__(self, root: roots.Root, packages: Path) -> None:
        self.root = root
        self._packages = packages

    @property
    def release(self) -> str:
        """The kernel that there are headers of."""
        headers, = (self.root.path / "usr/lib/modules").glob("*/build")
        return headers.parent.name

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return self.root.run(argv, binds={self._packages: "/mnt/deb"}, writable=True)

    def dpkg(self, *argv: str) -> str:
        """Run dpkg there, which succeeds; returns what it said."""
        done = self.run("dpkg", *argv)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self, *names: str) -> str:
        """Install or upgrade to what was built."""
        return self.dpkg("--install", *(f"/mnt/deb/{deb(self._packages, name).name}"
                                        for name in names))

    def state(self, name: str) -> str:
        """dpkg's word on a package."""
        return self.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name).stdout.strip()

    def files(self) -> set[str]:
        """All names there are."""
        names = self.run("find", "/", "-xdev", "-path", "/mnt", "-prune", "-o", "-print").stdout
        return {name for name in names.splitlines() if not name.startswith(debs.LEFT)}

    def modules(self) -> list[Path]:
        """The driver, as DKMS has installed it."""
        return list((self.root.path / "usr/lib/modules").glob("*/updates/dkms/hv_synthrdp.ko*"))


@pytest.fixture
def system(suite: str, packages: Path, tmp_path: Path) -> Iterator[System]:
    """A fresh Debian with headers, compiler and xrdp."""
    original = debs.root(suite)
    copy = tmp_path / "root"
    cache.run(["cp", "-a", "--reflink=auto", original.path, copy], "copying a Debian root")
    try:
        yield System(roots.Root(copy, original.key), packages)
    finally:
        cache.remove(copy)


def test_one_version() -> None:
    """The packages' is dkms.conf's, from which the relay takes it."""
    first = (kernels.TOP / "debian/changelog").read_text().partition("\n")[0]
    assert re.match(rf"hv-synthrdp \({re.escape(debs.version())}-\d+\) ", first), first


def test_lintian(suite: str, packages: Path) -> None:
    """No errors, no warnings."""
    changes, = packages.glob("*.changes")
    done = debs.root(suite).run(["lintian", "--allow-root", "--profile", "debian", "--fail-on",
                                 "error,warning", f"/mnt/deb/{changes.name}"],
                                binds={packages: "/mnt/deb"})
    assert done.returncode == 0, done.stdout


def test_install_and_purge(system: System) -> None:
    """A module for the kernel and a relay that runs; at the end all is as it was."""
    system.run("depmod", system.release)        # as a kernel's own installation does
    before = system.files()
    system.install(MODULE, TOOLS)
    assert [system.state(name) for name in (MODULE, TOOLS)] == [INSTALLED] * 2
    assert len(system.modules()) == 1
    for program in ("synthrdp-relay", "synthrdpctl"):
        assert debs.version() in system.run(f"/usr/sbin/{program}", "--version").stdout
    assert system.run("/usr/sbin/synthrdpctl", "disable").returncode == 0   # notes it in a file
    assert system.run("getent", "passwd", "synthrdp").returncode == 0
    system.dpkg("--remove", TOOLS, MODULE)
    assert system.modules() == []
    system.dpkg("--purge", TOOLS, MODULE)
    after = system.files()
    assert (sorted(after - before), sorted(before - after)) == ([], [])


def test_configuration_is_kept(system: System) -> None:
    """What the administrator wrote survives an upgrade and a removal, not a purge."""
    place = system.root.path / "etc/synthrdp/relay.conf"
    system.install(TOOLS)
    place.write_text("SERVER=tcp:localhost:3390\n")
    system.install(TOOLS)
    assert place.read_text() == "SERVER=tcp:localhost:3390\n"
    system.dpkg("--remove", TOOLS)
    assert place.exists()
    system.dpkg("--purge", TOOLS)
    assert not place.exists()


def test_xrdp_that_comes_later(system: System) -> None:
    """We are told of it, and of the end of our own installation."""
    system.install(TOOLS)
    told = [line.split() for line in system.run("dpkg-query", "--control-show", TOOLS,
                                                "triggers").stdout.splitlines()
            if line.startswith("interest")]
    by_file, by_name = (name for _, name in told)
    assert {how for how, _ in told} == {"interest-noawait"}     # or xrdp would wait for us
    assert system.run("dpkg", "-S", by_file).stdout == f"xrdp: {by_file}\n"
    assert f"dpkg-trigger --no-await {by_name} " in system.run(
        "dpkg-query", "--control-show", TOOLS, "postinst").stdout
    assert system.state(TOOLS) == INSTALLED
    system.dpkg("--purge", TOOLS)


@contextmanager
def other_headers(system: System, config: str) -> Iterator[None]:
    """Instead of the kernel's own: those of a kernel for which nothing can be built."""
    headers = system.root.path / "usr/lib/modules" / system.release / "build"
    hidden = headers.readlink()
    headers.unlink()
    (headers / "include").mkdir(parents=True)
    (headers / ".config").write_text(config)
    (headers / "Makefile").write_text("modules:\n\t@echo 'no such compiler' >&2; exit 1\n")
    try:
        yield
    finally:
        cache.remove(headers)
        headers.symlink_to(hidden)


def see_mended(system: System) -> None:
    """One command is enough."""
    again = system.run("dpkg-reconfigure", MODULE)
    assert again.returncode == 0, again.stdout
    assert len(system.modules()) == 1
    system.dpkg("--purge", MODULE)


def test_module_that_does_not_build(system: System) -> None:
    """dpkg stays whole and says why."""
    with other_headers(system, "CONFIG_HYPERV=m\n"):
        said = system.install(MODULE)
        assert "the module was not built" in said
        assert system.state(MODULE) == INSTALLED
        log = re.search(r"/var/lib/dkms/\S*make\.log", said)
        assert log and "no such compiler" in (system.root.path / log[0].lstrip("/")).read_text()
        assert system.modules() == []
    see_mended(system)


def test_kernel_that_is_excluded(system: System) -> None:
    """It has no VMBus: that is said, nothing is tried to be built, and nothing fails."""
    with other_headers(system, "# CONFIG_HYPERV is not set\n"):
        said = " ".join(system.install(MODULE).split())
        assert "BUILD_EXCLUSIVE directive which does not match this kernel" in said
        assert "no such compiler" not in said and "the module was not built" not in said
        assert system.state(MODULE) == INSTALLED
        assert system.modules() == []
    see_mended(system)

# SPDX-License-Identifier: GPL-2.0-only
"""`make install` and `make uninstall`, and the RPM packages: the same files as Debian's packages
have, where another distribution wants them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hvhost import debs, kernels

SUITE = debs.SUITES[0]
SOURCE, DESTINATION = "/mnt/src", "/mnt/dest"
MODULE = re.compile(r"usr/src/hv-synthrdp-[^/]*/(.*)|lib/modules/.*/(hv_synthrdp\.ko)")
# By the name that it has here: where the distributions differ.
ELSEWHERE = {"site-functions": "vendor-completions"}
SCRIPTS = ("PREIN", "POSTIN", "PREUN", "POSTUN")


def tools(names: set[str]) -> set[str]:
    """Of a package's files or an installation's those that are neither documents nor the driver,
    by the same names everywhere.
    """
    found = {name.lstrip("./").removesuffix(".gz") for name in names if not name.endswith("/")}
    for here, there in ELSEWHERE.items():
        found = {name.replace(here, there) for name in found}
    return {name for name in found if not MODULE.match(name)
            and not re.match(r"usr/(share/(doc|lintian|licenses)|lib/\.build-id)/", name)}


def driver(names: set[str]) -> set[str]:
    """What DKMS gets."""
    return {match[1] for name in names if (match := MODULE.match(name.lstrip("./"))) and match[1]
            and not name.endswith("/")}


def of_debian() -> set[str]:
    """The files of both packages, directories with a slash."""
    names: set[str] = set()
    for package in debs.build(SUITE).glob("*synthrdp*_*.deb"):
        if "-dbgsym_" in package.name:
            continue
        listed = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True,
                                check=True).stdout
        names |= {line.split()[5] for line in listed.splitlines()}
    return names


def below(place: Path) -> set[str]:
    """All files there."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir()}


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    """The sources, to build in."""
    kernels.copy_sources(tmp_path / "tree", (*debs.SOURCES, "rpm"))
    return tmp_path / "tree"


def test_make_install(tree: Path, tmp_path: Path) -> None:
    """All that the packages have, and a module; all of it is taken back, but for what the
    administrator has changed and what was there before.
    """
    there = tmp_path / "dest"
    others = {"usr/share/man/man8/other.8", "lib/modules/6.1/updates/dkms/hv_synthrdp.ko"}
    for name in others:
        (there / name).parent.mkdir(parents=True)
        (there / name).touch()

    def make(target: str) -> None:
        done = debs.root(SUITE).run(
            ["sh", "-ec", f"make {target} KDIR=$(echo /usr/lib/modules/*/build)"
             f" DESTDIR={DESTINATION}"], cwd=SOURCE, binds={tree: SOURCE, there: DESTINATION})
        assert done.returncode == 0, done.stdout

    make("install")
    found = below(there) - others
    assert sum(name.endswith("/hv_synthrdp.ko") for name in found) == 1
    ours = {name for name in found if not name.startswith("lib/modules/")}
    assert tools(ours) == tools(of_debian())
    assert "ctl/main.py" in " ".join(ours)
    (there / "etc/synthrdp/relay.conf").write_text("SERVER=tcp:localhost:3390\n")
    make("install")
    assert (there / "etc/synthrdp/relay.conf").read_text() == "SERVER=tcp:localhost:3390\n"
    make("uninstall")
    left = {name for name in below(there) if "/modules." not in name}
    assert left == {*others, "etc/synthrdp/relay.conf"}
    assert not list(there.rglob("usr/**/synthrdp*"))


def test_rpm(tree: Path) -> None:
    """They are built; rpmlint says nothing; their files are Debian's; their scripts are sound."""
    subprocess.run(["make", "-s", "rpm"], cwd=tree, check=True, capture_output=True, text=True)
    packages = list((tree / "build/rpm").rglob("*.rpm"))
    assert len(packages) == 3
    lint = subprocess.run(["rpmlint", "-c", tree / "rpm/rpmlint.toml", *packages,
                           tree / "rpm/hv-synthrdp.spec"], capture_output=True, text=True,
                          check=False)
    assert lint.returncode == 0 and " 0 errors, 0 warnings" in lint.stdout, lint.stdout
    names: set[str] = set()
    for package in packages:
        if package.name.endswith(".src.rpm"):
            continue
        names |= set(ask(package, "[%{FILEMODES:perms} %{FILENAMES}\n]").splitlines())
        for script in SCRIPTS:
            text = ask(package, f"%{{{script}}}")
            if text != "(none)":
                subprocess.run(["shellcheck", "--shell=sh", "-"], input=text, text=True, check=True)
    files = {name.split(" ", 1)[1] for name in names if not name.startswith("d")}
    assert tools(files) == tools(of_debian())
    assert driver(files) == driver(of_debian())


def ask(package: Path, what: str) -> str:
    """What rpm knows of a package."""
    return subprocess.run(["rpm", "-qp", "--qf", what, package], capture_output=True, text=True,
                          check=True).stdout


def test_one_version() -> None:
    """The spec's is dkms.conf's, too."""
    spec = (kernels.TOP / "rpm/hv-synthrdp.spec").read_text()
    assert re.findall(r"^Version: +(\S+)$", spec, re.MULTILINE) == [debs.version()]
    assert f"- {debs.version()}-1\n" in spec


def test_no_made_up_address() -> None:
    """A user who is sent to a page finds it: none at .invalid, which there never is (RFC 2606)."""
    for name in ("rpm/hv-synthrdp.spec", "debian/control", "README.md"):
        assert not re.search(r"https?://\S*\.invalid\b", (kernels.TOP / name).read_text()), name

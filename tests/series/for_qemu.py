# SPDX-License-Identifier: GPL-2.0-only
"""The patches of the emulated host as a series for QEMU: those that tests/qemu/build uses."""

from __future__ import annotations

import re
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hvhost import cache, roots
from series import repository
from series.repository import TOP, Repository, Sender

HERE: Final = Path(__file__).resolve().parent / "qemu"
PATCHES: Final = TOP / "tests" / "qemu" / "patches"
LAST: Final = HERE / "maintainers.patch"    # after the patches: what is not built needs no build
TIMEOUT: Final = 3 * 3600.0     # of a whole build on a machine that has other things to do
QUESTION: Final = "does MAINTAINERS need updating?"     # answered by QEMU's get_maintainer

# Devices as tests/qemu/build wants them, as far as they have come.
BUILD: Final = """
cd /mnt/qemu
mak=configs/devices/x86_64-softmmu/series.mak
for device in {devices}; do
    ! grep -rqx --include=Kconfig "config $device" hw || echo "CONFIG_$device=y"
done > /tmp/series.mak
cmp -s /tmp/series.mak $mak || cp /tmp/series.mak $mak
cd /mnt/build
[ -e build.ninja ] || ../qemu/configure --meson=/usr/bin/meson --with-git-submodules=ignore \\
    --static --target-list=x86_64-softmmu --without-default-features \\
    --without-default-devices --with-devices-x86_64=series --enable-tcg --enable-kvm \\
    --enable-fdt=system --disable-debug-info
ninja qemu-system-x86_64
"""


def _builder() -> Any:
    """tests/qemu/build as a module."""
    loader = SourceFileLoader("qemu_build", str(PATCHES.parent / "build"))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    loader.exec_module(module)
    return module


def version() -> str:
    """Debian's, of the source that the patches are for."""
    builder = _builder()
    found: str = roots.versions(builder.SUITE, tuple(builder.FIRMWARE))["qemu-system-data"]
    return found


def source() -> Path:
    """That source, unpacked."""
    builder = _builder()

    def unpack(new: Path) -> None:
        new.mkdir()
        builder.fetch(version(), new)
        cache.run(roots.root(builder.ROOT).command(
            ["sh", "-euc", "dpkg-source --no-check --no-copy -x *.dsc source"], cwd="/mnt/new",
            binds={new: "/mnt/new"}), "unpacking the source of QEMU")
        for path in [*new.iterdir()]:
            if path.name != "source":
                cache.remove(path)
    return cache.get("series/qemu-source", cache.key(version()), unpack, "the source of QEMU",
                     20) / "source"


def changed() -> list[str]:
    """QEMU's files that the patches change."""
    text = "".join(path.read_text() for path in (*PATCHES.glob("*.patch"), LAST))
    names = {*re.findall(r"^--- a/(\S+)$", text, re.MULTILINE)}
    return sorted(name for name in names if (source() / name).exists())


class Series:
    """The patches, applied one after the other and signed off by the sender."""

    def __init__(self, tree: Path, who: Sender) -> None:
        self.repository = Repository(tree, who)
        self.base = self.repository.commit("QEMU\n", *changed())
        self.commits = []
        for name in (PATCHES / "series").read_text().split():
            self.repository.git("am", "-q", "--signoff", "--keep-cr", str(PATCHES / name))
            self.commits.append(self.repository.git("rev-parse", "HEAD").strip())
        message, _, diff = LAST.read_text().partition("\n---\n")
        self.repository.git("apply", "-", stdin=diff)
        self.commits.append(self.repository.commit(message + "\n", "MAINTAINERS"))

    def mails(self, into: Path) -> list[Path]:
        """The series as files, the cover letter first."""
        cover = (HERE / "cover.patch").read_text().replace("@BASE@", version())
        return self.repository.mails(self.base, into, cover, "RFC PATCH")


def sketch(tree: Path) -> None:
    """The files that the series changes, and no more: for what needs no whole tree."""
    for name in changed():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((source() / name).read_bytes())


def remarks(mails: list[Path], tree: Path) -> list[str]:
    """What QEMU's checkpatch has to say of the patches, and what MAINTAINERS misses."""
    scripts = source() / "scripts"
    found = []
    for mail in mails:
        said = repository.check(["perl", scripts / "checkpatch.pl", "--no-tree", "--terse",
                                 "--no-summary", mail], cwd=tree)
        found += [f"{mail.name}: {line}" for line in said if QUESTION not in line]
    return found + repository.without_maintainer(mails, (tree / "MAINTAINERS").read_text())


def make(into: Path, who: Sender) -> None:
    """Make the series, and build it patch by patch."""
    with repository.linked(source()) as tree:
        series = Series(tree, who)
        patches = series.mails(into)[1:]
        repository.report(patches, remarks(patches, tree))
        series.repository.build_each(series.commits, lambda: build(tree))


def build(tree: Path) -> None:
    """Build QEMU as the tree is."""
    into = cache.directory() / "series" / "qemu"
    builder = _builder()
    into.mkdir(parents=True, exist_ok=True)
    script = BUILD.format(devices=" ".join(builder.DEVICES))
    cache.run(roots.root(builder.ROOT).command(
        ["sh", "-euc", script], binds={tree: "/mnt/qemu", into: "/mnt/build"}),
        "building the series", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                                    "LC_ALL": "C.UTF-8", "HOME": "/tmp"},
        timeout=TIMEOUT)

# SPDX-License-Identifier: GPL-2.0-only
"""The kernels that the tests run on: Debian's cloud images, and builds against their headers."""

from __future__ import annotations

import functools
import lzma
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hvhost import cache, linux, roots
from hvhost.cache import PrepareError

TOP = Path(__file__).resolve().parents[2]
SUITES = {"6.1": "bookworm", "6.12": "trixie", "sid": "sid"}
# Those to test on; besides Debian's own there are those that linux.py builds.
NAMES = tuple(os.environ.get("SYNTHRDP_KERNELS", " ".join(SUITES)).split())
# Those of them that look for trouble, or else one that does
DEBUG = tuple(name for name in NAMES if name in linux.BUILDS) or ("debug-6.1",)
BOOT_MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev",
                "virtio_pci", "virtio_console")     # what the agent's channel needs, in order
# Those that are kept, where not built in
MODULES = (*BOOT_MODULES, "hv_vmbus", "uio", "uio_hv_generic", "vsock", "hv_sock")
SOURCES = ("Kbuild", "Kconfig", "Makefile", "drivers")
JOBS = "-j2"


@dataclass(frozen=True)
class Kernel:
    """A kernel image with a few of its modules."""

    name: str
    release: str
    path: Path
    patience: int = 1           # how much longer than others it may take to boot
    append: str = ""            # to its command line

    @property
    def vmlinuz(self) -> Path:
        """The bootable image."""
        return self.path / "vmlinuz"

    def module(self, name: str) -> Path | None:
        """A module file, not compressed; None when the kernel has it built in."""
        path = self.path / f"{name}.ko"
        return path if path.exists() else None


@functools.lru_cache(maxsize=None)
def kernel(name: str) -> Kernel:
    """The kernel `name`."""
    if name in linux.BUILDS:
        path = linux.kernel(name)
        return Kernel(name, (path / "release").read_text(), path, patience=3,
                      append=linux.APPEND[linux.BUILDS[name].suite])
    suite = SUITES[name]
    if not cache.entry(f"kernels/{suite}", _kernel_key(suite)):
        roots.refresh(suite, roots.FRESH)
    key = _kernel_key(suite)
    path = cache.get(f"kernels/{suite}", key, lambda new: _unpack_kernel(suite, new),
                     f"the kernel image of {suite}", 10)
    return Kernel(name, (path / "release").read_text(), path)


def _packages(suite: str) -> list[str]:
    """The packages that the image consists of: one until 6.12, then three."""
    images = roots.dependencies(suite, "linux-image-cloud-amd64", r"linux-image-\d.*")
    return [*images, *roots.dependencies(suite, images[0], r"linux-(binary|modules)-\d.*")]


def _kernel_key(suite: str) -> str:
    named = roots.versions(suite, _packages(suite))
    return cache.key((f"{name}={version}" for name, version in named.items()), MODULES)


def _unpack_kernel(suite: str, new: Path) -> None:
    whole = new.with_name(new.name + ".whole")
    try:
        cache.remove(whole)
        roots.unpack(suite, _packages(suite), whole)
        modules, = (whole / "usr/lib/modules").iterdir()
        image, = [*(whole / "boot").glob("vmlinuz-*"), *modules.glob("vmlinuz")]
        new.mkdir()
        image.rename(new / "vmlinuz")
        (new / "release").write_text(modules.name)
        for module in MODULES:
            for file in modules.rglob(f"{module}.ko*"):
                data = file.read_bytes()
                (new / f"{module}.ko").write_bytes(
                    lzma.decompress(data) if file.suffix == ".xz" else data)
    finally:
        cache.remove(whole)


def build_root(name: str) -> roots.Root:
    """The Debian root that holds the kernel's headers and that suite's own compiler."""
    if name in linux.BUILDS:
        return linux.root(linux.BUILDS[name].suite)
    return roots.root(roots.Spec(
        "build", SUITES[name],
        ("linux-headers-cloud-amd64", "make", "gcc", "clang", "sparse", "libc6-dev"), seconds=60))


def headers(root: roots.Root) -> str:
    """KDIR inside a build root."""
    try:
        path, = (root.path / "usr/src").glob("linux-headers-*-cloud-amd64")
    except ValueError as error:
        raise PrepareError(f"not exactly one kernel's headers in {root.path}/usr/src") from error
    return f"/usr/src/{path.name}"


def make(name: str, tree: Path, *arguments: str) -> str:
    """Run the top-level make on a copy of the sources in `tree`; return what it printed."""
    root = build_root(name)
    if name in linux.BUILDS:
        kdir, binds = linux.BUILD, linux.headers(name)
        arguments = (*linux.CHECKED, *arguments)
    else:
        kdir, binds = headers(root), {}
    done = root.run(["make", JOBS, f"KDIR={kdir}", *arguments],
                    cwd="/mnt/src", binds={**binds, tree: "/mnt/src"})
    if done.returncode:
        raise BuildError(f"make {' '.join(arguments)} for {name} failed:\n{done.stdout}")
    return done.stdout


class BuildError(Exception):
    """The project's own code does not build."""


def copy_sources(to: Path, names: Sequence[str] = SOURCES) -> None:
    """Copy what the module is built from, leaving out what a build by hand left there."""
    leavings = shutil.ignore_patterns("*.o", "*.ko", "*.mod", "*.mod.c", ".*.cmd", "*.a",
                                      "Module.symvers", "modules.order")
    to.mkdir(exist_ok=True)
    for name in names:
        source = TOP / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=leavings)
        elif source.exists():
            shutil.copy(source, to / name)


@functools.lru_cache(maxsize=None)
def module(name: str) -> Path:
    """The project's hv_synthrdp.ko for the kernel `name`, from the cache or built."""
    return modules(name) / "hv_synthrdp.ko"


def modules(name: str, *arguments: str) -> Path:
    """A directory with the modules that `make modules ARGUMENTS` gives."""
    key = cache.key(build_root(name).key, cache.tree_key(*(
        TOP / source for source in SOURCES if (TOP / source).exists())), arguments,
        [linux.kernel(name).name, *linux.CHECKED] if name in linux.BUILDS else [])
    return cache.get(f"modules/{name}", key, lambda new: _build(name, new, arguments),
                     f"the modules for {name}", 20)


def _build(name: str, new: Path, arguments: Sequence[str]) -> None:
    tree = new.with_name(new.name + ".tree")
    try:
        cache.remove(tree)
        copy_sources(tree)
        make(name, tree, "modules", *arguments)
        new.mkdir()
        for built in tree.rglob("*.ko"):
            built.rename(new / built.name)
    finally:
        cache.remove(tree)

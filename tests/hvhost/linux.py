# SPDX-License-Identifier: GPL-2.0-only
"""Kernels built from Debian's linux-source: with the checks that Debian's images leave out.

A configuration is `make allnoconfig` with fragments from tests/kunit. An option that a kernel
does not take is an error: no check goes missing in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hvhost import cache, roots
from hvhost.cache import PrepareError

TOP = Path(__file__).resolve().parents[2]
DRIVER = TOP / "drivers" / "hv" / "synthrdp"
CONFIGS = TOP / "tests" / "kunit"
LINUX, BUILD, KUNIT = "/mnt/linux", "/mnt/build", "/mnt/kunit"      # inside the root
JOBS = "-j2"
TIMEOUT = 3 * 3600.0
# UML wants a home to write to.
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/tmp"}
PACKAGES = ("linux-source", "make", "gcc", "libc6-dev", "flex", "bison", "bc", "libelf-dev",
            "python3", "xz-utils")
# Code of hardware that no guest has. Its Kconfig and Makefiles stay.
UNUSED = [f"{place}/{file}" for place in (
    "sound/*", "drivers/gpu/*", "drivers/media/*", "drivers/net/*", "drivers/staging/*",
    "drivers/scsi/*", "drivers/infiniband/*") for file in ("*.c", "*.h")]
# A kernel tree with the driver in it: its directory is mounted there.
HOOKS = {"drivers/Kconfig": 'source "drivers/hv/synthrdp/Kconfig"',
         "drivers/Makefile": "obj-y += hv/synthrdp/"}
# Until 6.17 the bus was called HYPERV; the driver's Kconfig knows its present name.
OLD_HOOKS = {"drivers/hv/Kconfig": "config HYPERV_VMBUS\n\tdef_tristate HYPERV"}


# What they are told as they start. In the newest, caches keep stale pointers to what they gave
# out in arrays ("sheaves"), where kmemleak takes them for uses: no leak is found. Caches that
# check themselves (F) have none.
APPEND = {"bookworm": "kunit.enable=1",
          "sid": "kunit.enable=1 kunit.autorun=1 slab_debug=F,kmalloc-*"}


@dataclass(frozen=True)
class Build:
    """A kernel to build: of which suite's source, with which checks."""

    suite: str
    checks: str

    @property
    def wanted(self) -> str:
        """Its configuration."""
        return "".join((CONFIGS / f"{fragment}.config").read_text()
                       for fragment in ("guest", self.suite, self.checks))


UML = "bookworm"        # the suite whose source User Mode Linux is built from
# KCSAN not in the newest: what sid's gcc makes with it, that kernel's objtool refuses.
BUILDS = {"debug-6.1": Build("bookworm", "debug"), "debug-sid": Build("sid", "debug"),
          "kcsan": Build("bookworm", "kcsan")}
# Those that have KASAN, kmemleak and allocations that can be made to fail
THOROUGH = [name for name, build in BUILDS.items() if build.checks == "debug"]

# What a module must be built with to be checked by UBSAN: in 6.1 one has to ask for it.
CHECKED = ("UBSAN_SANITIZE=y",)


def root(suite: str) -> roots.Root:
    """The Debian root with the suite's linux-source and what it is built with."""
    return roots.root(roots.Spec("linux", suite, PACKAGES, seconds=90))


def source(suite: str) -> Path:
    """The suite's newest kernel source, the driver's place in it prepared."""
    hooks = {**HOOKS, **(OLD_HOOKS if suite == "bookworm" else {})}

    def unpack(new: Path) -> None:
        new.mkdir()
        _run(suite, ["sh", "-euc", 'tar -xf /usr/src/linux-source-*.tar.xz -C "$0"'
                     ' --strip-components=1 "$@"', LINUX,
                     *(f"--exclude=linux-source-*/{pattern}" for pattern in UNUSED)],
             {new: LINUX}, "unpacking the kernel source")
        (new / "drivers/hv/synthrdp").mkdir()
        for name, line in hooks.items():
            with (new / name).open("a", encoding="ascii") as file:
                file.write(line + "\n")
    key = cache.key(root(suite).key, UNUSED, hooks.values())
    return cache.get(f"linux/{suite}", key, unpack, f"the kernel source of {suite}", 40)


def places(suite: str, build: Path) -> dict[Path, str]:
    """What to mount for a build in the directory `build`."""
    return {source(suite): LINUX, DRIVER: f"{LINUX}/drivers/hv/synthrdp", build: BUILD,
            CONFIGS: KUNIT}


def kernel(name: str) -> Path:
    """The kernel of BUILDS: vmlinuz, release, its modules, and build to build more against."""
    build = BUILDS[name]
    key = cache.key(root(build.suite).key, UNUSED, build.wanted)
    return cache.get(f"kernels/{name}", key, lambda new: _build(build, new),
                     f"the kernel {name}", 400)


def uml() -> Path:
    """A build directory of the suite of the wire format under User Mode Linux, by kunit.py."""
    config = (CONFIGS / "uml.config").read_bytes()

    def build(new: Path) -> None:
        new.mkdir()
        _run(UML, kunit("build"), places(UML, new), "building User Mode Linux")
        cache.remove(new / "drivers/hv/synthrdp")       # of the driver as it is today
    return cache.get("kernels/uml", cache.key(root(UML).key, UNUSED, config), build,
                     "User Mode Linux", 60)


def kunit(verb: str, *arguments: str) -> list[str]:
    """A command of the kernel's own kunit.py, for UML."""
    return ["env", "-C", LINUX, "python3", "tools/testing/kunit/kunit.py", verb,
            f"--build_dir={BUILD}", f"--kunitconfig={KUNIT}/uml.config",
            JOBS.replace("-j", "--jobs="), *arguments]


def headers(name: str) -> dict[Path, str]:
    """What to mount to build a module for the kernel `name` against BUILD."""
    return {source(BUILDS[name].suite): LINUX, kernel(name) / "build": BUILD}


def _build(build: Build, new: Path) -> None:
    here = new / "build"
    here.mkdir(parents=True)
    (here / "wanted.config").write_text(build.wanted)
    binds = places(build.suite, here)
    make = ["make", "-s", "-C", LINUX, f"O={BUILD}", JOBS]
    _run(build.suite, [*make, f"KCONFIG_ALLCONFIG={BUILD}/wanted.config", "allnoconfig"], binds,
         "configuring the kernel")
    if refused := _refused(build.wanted, (here / ".config").read_text()):
        raise PrepareError(f"the kernel does not take {', '.join(refused)}")
    _run(build.suite, [*make, "bzImage", "modules"], binds, "building the kernel")
    (here / "arch/x86/boot/bzImage").rename(new / "vmlinuz")
    (new / "release").write_text((here / "include/config/kernel.release").read_text().strip())
    for module in here.rglob("*.ko"):
        module.rename(new / module.name)
    for file in here.rglob("*"):
        if file.name.startswith((".tmp_", "vmlinux")) or (
                file.suffix in (".o", ".a") and "scripts" not in file.parts):
            file.unlink()


def _refused(wanted: str, got: str) -> list[str]:
    """The options that did not become what was wanted; one that is off may be left out."""
    options = dict(line.split("=", 1) for line in got.splitlines() if line.startswith("CONFIG_"))
    pairs = (line.split("=", 1) for line in wanted.splitlines() if line.startswith("CONFIG_"))
    return [f"{name}={value}" for name, value in pairs if options.get(name, "n") != value]


def _run(suite: str, argv: Sequence[str], binds: dict[Path, str], what: str) -> str:
    return cache.run(root(suite).command(argv, binds=binds), what, timeout=TIMEOUT, env=ENV)

# SPDX-License-Identifier: GPL-2.0-only
"""Dropped into a kernel tree unchanged, the driver builds there: as a module, with its tests, and
built in; and for arm64, whose pages may be larger than Hyper-V's. Sparse and clang read the tests
here: Debian's kernels, whose headers they would be built with, have no KUnit.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hvhost import cache, lint, linux, roots
from test_module_build import CANARY, GCC

PLACE = "drivers/hv/synthrdp"
BUS = ("SMP=y", "PCI=y", "ACPI=y", "MODULES=y", "FTRACE=y", "HYPERV=y", "HYPERV_VMBUS=y", "KUNIT=m")
X86 = ("64BIT=y", "HYPERVISOR_GUEST=y", "PARAVIRT=y", "ENABLE_DEFAULT_TRACERS=y", *BUS)
ARM64 = ("EFI=y", "ENABLE_DEFAULT_TRACERS=y", *BUS)
FORMS = {"y": ("HYPERV_SYNTHRDP=y",),
         "m": ("HYPERV_SYNTHRDP=m", "HYPERV_SYNTHRDP_KUNIT_TEST=m",
               "HYPERV_SYNTHRDP_PROTOCOL_KUNIT_TEST=m")}
# Of the objects, which there must be.
BUILT = {"y": {"built-in.a"}, "m": {"hv_synthrdp.o", "synthrdp_control_test.o",
                                    "synthrdp_pipe_test.o", "synthrdp_protocol_test.o"}}


@dataclass(frozen=True)
class Tree:
    """A kernel tree, and what it is built for."""

    suite: str
    options: tuple[str, ...] = X86
    arguments: tuple[str, ...] = ()

    @property
    def root(self) -> roots.Root:
        """Where it is built."""
        return lint.root() if self.arguments else linux.root(self.suite)

    def make(self, build: Path, driver: Path, options: tuple[str, ...], target: str) -> str:
        """Configure it, and make the target; what that says."""
        (build / "wanted").write_text("".join(f"CONFIG_{option}\n" for option in options))
        make = " ".join(("make", "-C", linux.LINUX, f"O={linux.BUILD}", linux.JOBS,
                         *self.arguments))
        script = (f"{make} -s KCONFIG_ALLCONFIG={linux.BUILD}/wanted allnoconfig\n"
                  f"{make} W=1 {target}")
        binds = {linux.source(self.suite): linux.LINUX, driver: f"{linux.LINUX}/{PLACE}",
                 build: linux.BUILD}
        return cache.run(self.root.command(["sh", "-euc", script], binds=binds),
                         f"building in the kernel tree of {self.suite}", env=linux.ENV)

    def prepared(self) -> Path:
        """A build directory with all that does not depend on the driver."""
        def prepare(new: Path) -> None:
            new.mkdir()
            self.make(new, linux.DRIVER, self.options, "prepare")
        key = cache.key(self.root.key, linux.source(self.suite).name, self.options, self.arguments)
        return cache.get("lint/prepared", key, prepare,
                         f"a kernel tree of {self.suite}, configured", 40)

    def build(self, form: str) -> dict[str, str]:
        """What is said, the resulting configuration and the objects, of the driver with a canary
        in the place of its own that has a fault.
        """
        def build(new: Path) -> None:
            with tempfile.TemporaryDirectory(prefix="tree-") as directory:
                driver, here = Path(directory) / "driver", Path(directory) / "build"
                shutil.copytree(linux.DRIVER, driver)
                (driver / "canary.c").write_text(CANARY)
                with (driver / "Makefile").open("a") as makefile:
                    makefile.write("hv_synthrdp-y += canary.o\n")
                shutil.copytree(self.prepared(), here, symlinks=True)
                said = self.make(here, driver, (*self.options, *FORMS[form]), f"{PLACE}/")
                objects = " ".join(path.name for path in (here / PLACE).glob("*.[oa]"))
                new.write_text(json.dumps({"said": said, "objects": objects,
                                           "config": (here / ".config").read_text()}))
        key = cache.key(self.prepared().name, cache.tree_key(linux.DRIVER), FORMS[form], CANARY)
        kept: dict[str, str] = json.loads(cache.get(
            "lint/tree", key, build, f"the driver in the kernel tree of {self.suite}",
            20).read_text())
        return kept


CROSS = ("ARCH=arm64", f"CROSS_COMPILE={lint.CROSS}-")
# The newest kernel's headers say __typeof_unqual__, which a released sparse does not know.
TREES = {"oldest": Tree("bookworm"), "newest": Tree("sid"),
         "sparse": Tree("bookworm", arguments=GCC),
         "clang": Tree("sid", arguments=("CC=clang",)),
         "arm64": Tree("sid", (*ARM64, "ARM64_4K_PAGES=y"), CROSS),
         "arm64-64k": Tree("sid", (*ARM64, "ARM64_64K_PAGES=y"), CROSS)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TREES)
def test_builds_in_a_kernel_tree(name: str, form: str) -> None:
    """Configured by Kconfig, compiled by the kernel's own Makefiles, without a warning."""
    tree = TREES[name]
    built = tree.build(form)
    config = built["config"].splitlines()
    assert [option for option in (*tree.options, *FORMS[form])
            if f"CONFIG_{option}" not in config] == []
    assert BUILT[form] <= set(built["objects"].split())
    said = [line for line in built["said"].splitlines() if re.search("warning|error", line, re.I)]
    assert [line for line in said if not re.search(r"canary\.c|^1 warning generated", line)] == []
    assert any("unused-but-set-variable" in line for line in said)


@pytest.mark.parametrize("form", FORMS)
def test_sparse_was_run(form: str) -> None:
    """On every object's source, and the planted fault was found."""
    said = TREES["sparse"].build(form)["said"]
    pattern = rf"^  %s +(?:{linux.LINUX}/)?{PLACE}/(\w+)\.[co]$"
    checked, compiled = (re.findall(pattern % what, said, re.MULTILINE)
                         for what in ("CHECK", r"CC(?: \[M\])?"))
    assert sorted(checked) == sorted(compiled) != []
    assert {name[:-2] for name in BUILT[form] if name.endswith("_test.o")} <= {
        f"synthrdp_{name}" for name in checked}
    assert any("canary.c" in line and "incorrect type in return expression" in line
               for line in said.splitlines())

# SPDX-License-Identifier: GPL-2.0-only
"""The module builds for each kernel without a warning of gcc, clang, modpost or sparse."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from hvhost import cache, kernels

DRIVER = "drivers/hv/synthrdp"
# Shows that all were run on the same terms, and do find things: what sparse minds, and what the
# compilers mind at W=1.
CANARY = """// SPDX-License-Identifier: GPL-2.0-only
#include <linux/types.h>

u32 synthrdp_canary(__le32 wire);

u32 synthrdp_canary(__le32 wire)
{
\tint unused;

\tunused = 1;
\treturn wire;
}
"""
# From 7.0 on the kernel asks a script whether sparse is recent, and goes without a check if
# not; Debian's headers lack the script. Given here, KBUILD_CHECKSRC stays as it is.
GCC = ("C=2", "KBUILD_CHECKSRC=2", "CF=-D__CHECK_ENDIAN__")
# The headers are configured for gcc: this is what they would ask for that clang has not.
CLANG = ("CC=clang", "CONFIG_CC_IS_CLANG=y", "CONFIG_CLANG_VERSION=140000", "CONFIG_CC_IS_GCC=",
         "CONFIG_GCC_VERSION=0", "CONFIG_CC_IMPLICIT_FALLTHROUGH=-Wimplicit-fallthrough",
         "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=", "CONFIG_FTRACE_MCOUNT_USE_CC=",
         "CONFIG_UBSAN_BOUNDS_STRICT=",
         # And what clang 14 has not, which 6.1 is built with.
         "CONFIG_INIT_STACK_ALL_ZERO=", "CONFIG_RETHUNK=", "CONFIG_SLS=")


# What clang says of the kernel, and make of clang.
FOREIGN = r"/usr/src/|In file included from|\d* ?warnings? generated|warning: the compiler differs"


def make(kernel: str, arguments: tuple[str, ...]) -> str:
    """What `make` prints about the driver and the canary; kept."""
    def run(new: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="module-") as directory:
            tree = Path(directory)
            kernels.copy_sources(tree)
            (tree / DRIVER / "canary.c").write_text(CANARY)
            with (tree / DRIVER / "Makefile").open("a") as makefile:
                makefile.write("hv_synthrdp-y += canary.o\n")
            new.write_text(kernels.make(kernel, tree, "modules", "W=1", "-O", *arguments))
    key = cache.key(kernels.build_root(kernel).key,
                    cache.tree_key(*(kernels.TOP / name for name in kernels.SOURCES)),
                    CANARY, arguments)
    return cache.get("lint/module", key, run, f"the module for {kernel}", 15).read_text()


@pytest.fixture(params=kernels.NAMES, name="kernel")
def _kernel(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def complaints(output: str) -> list[str]:
    """The lines that name a place in the driver, or are warnings of the build itself."""
    return [line for line in output.splitlines()
            if re.search(rf"{DRIVER}/\S+:\d+|warning:|WARNING:|ERROR:", line)
            and not re.match(FOREIGN, line)]


@pytest.mark.parametrize("compiler", [GCC, CLANG], ids=["gcc", "clang"])
def test_no_warning(kernel: str, compiler: tuple[str, ...]) -> None:
    """Of the compiler with W=1, objtool, modpost or sparse, but for those that were planted."""
    said = complaints(make(kernel, compiler))
    assert [line for line in said if "canary.c" not in line] == []
    assert any("canary.c" in line and "unused-but-set-variable" in line for line in said), said


def test_sparse_was_run(kernel: str) -> None:
    """On every source file, and the planted fault was found."""
    output = make(kernel, GCC)
    checked = set(re.findall(rf"^  CHECK +\S*{DRIVER}/(\S+)$", output, re.MULTILINE))
    compiled = {name + ".c" for name in
                re.findall(rf"^  CC \[M\] +\S*{DRIVER}/(\w+)\.o$", output, re.MULTILINE)}
    assert checked == compiled, output
    assert {"main.c", "control.c", "data.c", "pipe.c", "protocol.c", "canary.c"} <= checked
    canary = [line for line in complaints(output) if "canary.c" in line]
    assert any("incorrect type in return expression" in line for line in canary), canary

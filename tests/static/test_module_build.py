# SPDX-License-Identifier: GPL-2.0-only
"""The module builds for each kernel without a warning of gcc, of modpost or of sparse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvhost import kernels

DRIVER = "drivers/hv/synthrdp"
# Shows that sparse was run on the same terms and does find things.
CANARY = """// SPDX-License-Identifier: GPL-2.0-only
#include <linux/types.h>

u32 synthrdp_canary(__le32 wire);

u32 synthrdp_canary(__le32 wire)
{
\treturn wire;
}
"""


@pytest.fixture(scope="module", params=kernels.NAMES)
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `make` prints, with all that gcc can warn of, and sparse."""
    tree: Path = tmp_path_factory.mktemp("tree")
    kernels.copy_sources(tree)
    (tree / DRIVER / "canary.c").write_text(CANARY)
    with (tree / DRIVER / "Makefile").open("a") as makefile:
        makefile.write("hv_synthrdp-y += canary.o\n")
    # From 7.0 on the kernel asks a script whether sparse is recent, and goes without a check
    # if not; Debian's headers lack the script. Given here, KBUILD_CHECKSRC stays as it is.
    return kernels.make(request.param, tree, "modules", "W=1", "C=2", "KBUILD_CHECKSRC=2",
                        "CF=-D__CHECK_ENDIAN__")


def complaints(output: str) -> list[str]:
    """The lines that name a place in the driver, or are warnings of the build itself."""
    return [line for line in output.splitlines()
            if re.search(rf"{DRIVER}/\S+:\d+|warning:|WARNING:|ERROR:", line)]


def test_no_warning(output: str) -> None:
    """Of gcc with W=1, modpost or sparse, but for the one that was planted."""
    assert [line for line in complaints(output) if "canary.c" not in line] == []


def test_sparse_was_run(output: str) -> None:
    """On every source file, and the planted fault was found."""
    checked = set(re.findall(rf"^  CHECK +\S*{DRIVER}/(\S+)$", output, re.MULTILINE))
    compiled = {name + ".c" for name in
                re.findall(rf"^  CC \[M\] +\S*{DRIVER}/(\w+)\.o$", output, re.MULTILINE)}
    assert checked == compiled, output
    assert {"main.c", "control.c", "data.c", "pipe.c", "protocol.c", "canary.c"} <= checked
    canary = [line for line in complaints(output) if "canary.c" in line]
    assert any("incorrect type in return expression" in line for line in canary), canary

# SPDX-License-Identifier: GPL-2.0-only
"""Dropped into a kernel tree unchanged, the driver builds there, as a module and built in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvhost import cache, linux

OPTIONS = ("64BIT=y", "SMP=y", "PCI=y", "ACPI=y", "HYPERVISOR_GUEST=y", "PARAVIRT=y", "MODULES=y",
           "FTRACE=y", "ENABLE_DEFAULT_TRACERS=y", "HYPERV=y", "HYPERV_VMBUS=y")
PLACE = "drivers/hv/synthrdp"


@pytest.fixture(scope="module", params=["bookworm", "sid"], name="suite")
def _suite(request: pytest.FixtureRequest) -> str:
    """Whose kernel: the oldest and the newest."""
    suite: str = request.param
    return suite


@pytest.fixture(scope="module")
def build(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build directory that both forms share."""
    return tmp_path_factory.mktemp(suite)


@pytest.mark.parametrize("how", ["y", "m"])
def test_builds_in_a_kernel_tree(suite: str, build: Path, how: str) -> None:
    """Configured by Kconfig, compiled by the kernel's own Makefiles, without a warning."""
    options = (*OPTIONS, f"HYPERV_SYNTHRDP={how}")
    (build / "wanted").write_text("".join(f"CONFIG_{option}\n" for option in options))
    make = f"make -s -C {linux.LINUX} O={linux.BUILD} {linux.JOBS}"
    script = f"{make} KCONFIG_ALLCONFIG={linux.BUILD}/wanted allnoconfig && {make} W=1 {PLACE}/"
    said = cache.run(linux.root(suite).command(["sh", "-euc", script],
                                               binds=linux.places(suite, build)),
                     f"building the driver in the kernel tree of {suite}",
                     env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp"})
    assert f"CONFIG_HYPERV_SYNTHRDP={how}\n" in (build / ".config").read_text()
    assert [line for line in said.splitlines() if re.search(rf"{PLACE}.*(warning|error)", line)
            ] == []
    wanted = "hv_synthrdp.o" if how == "m" else "built-in.a"
    assert (build / PLACE / wanted).stat().st_size > 0
    assert "MODULE" in (build / PLACE / ".main.o.cmd").read_text() or how == "y"

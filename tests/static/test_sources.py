# SPDX-License-Identifier: GPL-2.0-only
"""What goes for all files alike."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tree import TOP, interpreter, text, tracked

# debian/copyright speaks for what is beside it.
NO_LICENCE_LINE = ("COPYING", "*.patch", "*.png", "series", ".gitignore", "debian/*",
                   "debian/source/*", "debian/tests/control")


def test_licences() -> None:
    """Every file says its licence within the first lines."""
    def exempt(name: str) -> bool:
        return any(Path(name).match(pattern) for pattern in NO_LICENCE_LINE)
    assert [name for name in tracked() if not exempt(name) and
            not re.search(r"SPDX-License-Identifier: GPL-2\.0",
                          "\n".join(text(name).split("\n")[:5]))] == []


def test_kernel_versions_are_in_compat_only() -> None:
    """All other files build for all kernels alike."""
    assert [name for name in tracked() if name.startswith("drivers/")
            and re.search(r"\bLINUX_VERSION_CODE\b|\bKERNEL_VERSION\(|linux/version\.h",
                          text(name))] == ["drivers/hv/synthrdp/compat.h"]


def test_scripts_can_be_run() -> None:
    """What has an interpreter is executable, and nothing else is."""
    assert [name for name in tracked()
            if bool(interpreter(name)) != os.access(TOP / name, os.X_OK)] == []


def test_nothing_large() -> None:
    """Sources only."""
    assert [name for name in tracked() if (TOP / name).stat().st_size > 300_000] == []

# SPDX-License-Identifier: GPL-2.0-only
"""What tools can say about the sources: style, types, licences."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tree import TOP, interpreter, text, tracked, written_in

# debian/copyright speaks for what is beside it.
NO_LICENCE_LINE = ("COPYING", "*.patch", "*.png", "series", ".gitignore", "debian/*",
                   "debian/source/*")


def run(*argv: str | Path, cwd: Path = TOP, **environment: str) -> None:
    """Run a checker; what it has to say fails the test."""
    done = subprocess.run([str(arg) for arg in argv], cwd=cwd, env={**os.environ, **environment},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stdout.strip(), pytrace=False)


def _python_rooms() -> dict[str, list[str]]:
    """Python by directory: one at a time, for there may be a conftest in each."""
    rooms: dict[str, list[str]] = {}
    for name in written_in(".py", "python3"):
        rooms.setdefault(os.path.dirname(name), []).append(name)
    return rooms


@pytest.mark.parametrize("room", _python_rooms())
def test_mypy(room: str) -> None:
    """Python's types, strictly."""
    rooms = _python_rooms()
    path = [TOP / other for other in rooms if not (TOP / other / "__init__.py").exists()]
    run("mypy", "--strict", "--scripts-are-modules", "--no-error-summary",
        f"--cache-dir={TOP}/build/mypy", *rooms[room], MYPYPATH=":".join(map(str, path)))


@pytest.mark.parametrize("name", written_in(".sh", "sh", "bash", "dash"))
def test_shellcheck(name: str) -> None:
    """Shell scripts."""
    run("shellcheck", name)


@pytest.mark.parametrize("name", written_in(".py", "python3"))
def test_python_lines(name: str) -> None:
    """At most 100 columns, no tabs, nothing at the end."""
    bad = [f"{name}:{number}: {line}" for number, line in enumerate(text(name).split("\n"), 1)
           if len(line) > 100 or "\t" in line or line != line.rstrip()]
    assert bad == []


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

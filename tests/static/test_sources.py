# SPDX-License-Identifier: GPL-2.0-only
"""What tools can say about the sources: style, types, licences."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hvhost import cache, roots
from tree import TOP, interpreter, text, tracked, written_in

# What checkpatch says of files that must be as they are.
EXEMPT = {
    # Out of tree a driver must ask which kernel it is built for; in one place.
    "drivers/hv/synthrdp/compat.h": ("LINUX_VERSION_CODE", "CONSTANT_COMPARISON"),
    # The form that every trace header has.
    "drivers/hv/synthrdp/trace.h": ("OPEN_ENDED_LINE", "PARENTHESIS_ALIGNMENT"),
    # The macro's argument is a name.
    "drivers/hv/synthrdp/pipe.h": ("MACRO_ARG_REUSE", "MACRO_ARG_PRECEDENCE"),
}
# kzalloc_obj() is not in the older of the kernels that the driver builds for.
EXEMPT_ALL = ("ALLOC_WITH_SIZEOF",)
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


def _unpack_checkpatch(package: str, new: Path) -> None:
    whole = new.with_name(new.name + ".whole")
    try:
        roots.unpack("sid", (package,), whole)
        tar, = (whole / "usr/src").glob("linux-source-*.tar.xz")
        new.mkdir()
        names = [f"{package}/scripts/{name}" for name in
                 ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch")]
        cache.run(["tar", "-xf", tar, "-C", new, "--strip-components=2", "--occurrence=1", *names],
                  "unpacking checkpatch")
    finally:
        cache.remove(whole)


@pytest.fixture(scope="session", name="checkpatch")
def _checkpatch() -> Path:
    """checkpatch.pl of the newest kernel; it is in no smaller package than the whole source."""
    package, = roots.dependencies("sid", "linux-source", r"linux-source-[\d.]+")
    key = cache.key(package, roots.versions("sid", (package,))[package])
    return cache.get("checkpatch", key, lambda new: _unpack_checkpatch(package, new),
                     "checkpatch", 60) / "checkpatch.pl"


@pytest.mark.parametrize("name", [name for name in tracked() if name.endswith((".c", ".h"))])
def test_checkpatch(name: str, checkpatch: Path, tmp_path: Path) -> None:
    """Kernel style, the tools' C too."""
    ignored = ",".join((*EXEMPT_ALL, *EXEMPT.get(name, ())))
    # Elsewhere, for it leaves a file in the current directory.
    run("perl", checkpatch, "--no-tree", "--strict", "--terse", "--show-types", "--no-summary",
        f"--ignore={ignored}", "-f", TOP / name, cwd=tmp_path)


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

# SPDX-License-Identifier: GPL-2.0-only
"""The tools that read the sources: in a Debian root, so that they say the same on each machine.

Each is given a copy of the files that it is to read, with faults planted beside them: one that
has nothing to say of those was not at work. What it said is kept, under a key of what it read.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hvhost import cache, linux, roots
from tree import TOP

# A released suite: in sid a new tool with new opinions comes any day.
SUITE = "trixie"
CROSS = "aarch64-linux-gnu"
PACKAGES = (
    "codespell", "cppcheck", "mypy", "pylint", "python3-flake8", "python3-pytest", "shellcheck",
    "coccinelle", "groff-base", "mandoc", "systemd", "udev",
    # And what a kernel tree is configured with, also for another machine.
    "make", "gcc", "libc6-dev", f"gcc-{CROSS}", "flex", "bison", "bc")
SOURCE = "/mnt/src"


@functools.lru_cache(maxsize=None)
def root() -> roots.Root:
    """Where the tools are."""
    return roots.root(roots.Spec("lint", SUITE, PACKAGES, seconds=120))


@functools.lru_cache(maxsize=None)
def checkpatch() -> Path:
    """checkpatch.pl of the newest kernel; it is in no smaller package than the whole source."""
    return linux.source("sid") / "scripts/checkpatch.pl"


def said(argv: Sequence[str], names: Iterable[str], planted: Mapping[str, str], *,
         binds: Mapping[Path, str] | None = None, env: Mapping[str, str] | None = None,
         ) -> list[str]:
    """The lines that a command printed about the files `names` and those that are `planted`."""
    def run(new: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lint-") as directory:
            tree = Path(directory)
            for name in names:
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TOP / name, tree / name)
            for name, text in planted.items():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).write_text(text)
            done = root().run(argv, cwd=SOURCE, binds={tree: SOURCE, **(binds or {})}, env=env)
        silent = done.returncode and not done.stdout.strip()
        new.write_text(f"{argv[0]}: status {done.returncode}" if silent else done.stdout)
    names = list(names)
    read = [part for name in names for part in (name, (TOP / name).read_bytes())]
    key = cache.key(root().key, argv, *read, planted, planted.values(), map(str, binds or {}),
                    (env or {}).values())
    kept = cache.get(f"lint/{Path(argv[0]).name}", key, run, f"what {argv[0]} says", 20)
    return [line for line in kept.read_text().splitlines() if line.strip()]


def remarks(lines: Iterable[str], planted: Mapping[str, str]) -> list[str]:
    """The lines that are about something else than what was `planted`: by file the words that
    the tool must have said of it.
    """
    found = []
    unseen = dict(planted)
    for line in lines:
        about = next((name for name in planted if name in line), None)
        if about is None:
            found.append(line)
        elif planted[about] in line:
            unseen.pop(about, None)
    return found + [f"{name}: the planted fault was not found: {words}"
                    for name, words in unseen.items()]

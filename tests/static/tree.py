# SPDX-License-Identifier: GPL-2.0-only
"""The files of the project, as git knows them."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from hvhost.cache import PrepareError

TOP = Path(__file__).resolve().parents[2]


def git(*arguments: str) -> str:
    """What git prints."""
    # The tree may belong to somebody else than root, who runs the tests.
    done = subprocess.run(["git", "-c", f"safe.directory={TOP}", *arguments], cwd=TOP,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        raise PrepareError(f"{TOP} is to be checked as git knows it: {done.stderr.strip()}")
    return done.stdout


@functools.lru_cache(maxsize=None)
def tracked() -> tuple[str, ...]:
    """All files that git tracks, as far as they exist."""
    return tuple(name for name in git("ls-files", "-z").split("\0")
                 if name and (TOP / name).is_file())


def text(name: str) -> str:
    """A file's text."""
    return (TOP / name).read_text(errors="replace")


def interpreter(name: str) -> str:
    """The program in a script's first line; empty for other files."""
    first = text(name).partition("\n")[0]
    return first.split("/")[-1].removeprefix("env ") if first.startswith("#!") else ""


def written_in(suffix: str, *programs: str) -> list[str]:
    """The files of a language, by their suffix or interpreter."""
    return [name for name in tracked()
            if name.endswith(suffix) or interpreter(name).split(" ")[0] in programs]

# SPDX-License-Identifier: GPL-2.0-only
"""Have tools read the sources, and hear what they say.

Each is given a copy of the files that it is to read, with faults planted beside them: one that
has nothing to say of those was not at work. What it said is kept, under a key of what it read.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from hvhost import cache, lint, linux
from tree import TOP

SOURCE = "/mnt/src"


@functools.lru_cache(maxsize=None)
def checkpatch() -> Path:
    """checkpatch.pl of the newest kernel; it is in no smaller package than the whole source."""
    return linux.source("sid") / "scripts/checkpatch.pl"


def consult(tool: str, script: str, names: Iterable[str], texts: Mapping[str, str],
            judge: Callable[[list[str]], list[str]], binds: Mapping[Path, str] | None = None,
            ) -> None:
    """Have a script read the files `names`, and others with these texts; what `judge` makes of
    the lines that it prints are remarks. With any of them the lines are not kept: they may be
    those of a tool that was interrupted.
    """
    names = list(names)

    def run(new: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lint-") as directory:
            tree = Path(directory)
            for name in {*names, *texts}:
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
            for name in names:
                shutil.copy2(TOP / name, tree / name)
            for name, text in texts.items():
                (tree / name).write_text(text)
            done = lint.root().run(["sh", "-uc", script], cwd=SOURCE,
                                   binds={tree: SOURCE, **(binds or {})})
        silent = done.returncode and not done.stdout.strip()
        new.write_text(f"{tool}: status {done.returncode}" if silent else done.stdout)
        accept(judge(lines(new)))

    def lines(kept: Path) -> list[str]:
        return [line for line in kept.read_text().splitlines() if line.strip()]

    read = [part for name in names for part in (name, (TOP / name).read_bytes())]
    key = cache.key(lint.root().key, script, *read, texts, texts.values(), map(str, binds or {}))
    accept(judge(lines(cache.get(f"lint/{tool}", key, run, f"what {tool} says", 20))))


def check(tool: str, script: str, names: Iterable[str], planted: Mapping[str, tuple[str, str]],
          texts: Mapping[str, str] | None = None) -> None:
    """Have a tool find what was planted, by file its text and what must be said, and no more."""
    faults = {name: text for name, (text, _) in planted.items()}
    words = {name: words for name, (_, words) in planted.items()}
    consult(tool, script, names, {**(texts or {}), **faults},
            lambda lines: unplanted(lines, words))


def accept(remarks: Iterable[str]) -> None:
    """Fail if there are any, with all of them."""
    if lines := list(remarks):
        pytest.fail("\n".join(lines), pytrace=False)


def unplanted(lines: Iterable[str], planted: Mapping[str, str]) -> list[str]:
    """The lines that are not about a file that a fault was planted in; and those faults of which
    nothing was said in the words expected.
    """
    found = []
    unseen = dict(planted)
    for line in lines:
        about = next((name for name in planted
                      if re.search(rf"(?:^|[ /]){re.escape(name)}:", line)), None)
        if about is None:
            found.append(line)
        elif planted[about] in line:
            unseen.pop(about, None)
    return found + [f"not seen: the fault planted in {name}, {words}"
                    for name, words in unseen.items()]

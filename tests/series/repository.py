# SPDX-License-Identifier: GPL-2.0-only
"""A series on its way to a maintainer: commits in a repository of their own, then mails."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hvhost import cache
from hvhost.cache import PrepareError

TOP = Path(__file__).resolve().parents[2]
# Nothing of the user's own settings: a series is the same whoever makes it, but for his name.
PLAIN = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
         "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Sender:
    """Who makes the series, and answers for it: his line is below each patch."""

    name: str
    email: str

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"


def sender() -> Sender:
    """From git's configuration, as it is in this tree."""
    def setting(name: str) -> str:
        done = subprocess.run(["git", "-c", f"safe.directory={TOP}", "config", name], cwd=TOP,
                              stdout=subprocess.PIPE, text=True, check=False)
        if not done.stdout.strip():
            raise PrepareError(f"a series is signed off by whoever makes it: git config {name} …")
        return done.stdout.strip()
    return Sender(setting("user.name"), setting("user.email"))


class Repository:
    """A tree under git, in which only the files that a series touches are tracked."""

    def __init__(self, tree: Path, who: Sender) -> None:
        self.tree = tree
        self._who = who
        self.git("init", "-q", "-b", "series")

    def git(self, *arguments: str, stdin: str | None = None) -> str:
        """Run git; what it printed."""
        done = subprocess.run(
            ["git", "-c", f"safe.directory={self.tree}", "-c", f"user.name={self._who.name}",
             "-c", f"user.email={self._who.email}", *arguments], cwd=self.tree, env=PLAIN,
            input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise PrepareError(f"git {arguments[0]}: {done.stdout.strip()}")
        return done.stdout

    def commit(self, message: str, *files: str) -> str:
        """Commit files as they are now, signed off; the commit's name."""
        self.git("add", "-f", "--", *files)
        self.git("commit", "-q", "--signoff", "-F", "-", stdin=message)
        return self.git("rev-parse", "HEAD").strip()

    def mails(self, base: str, into: Path, cover: str, prefix: str) -> list[Path]:
        """One file for each commit since `base`, and before them the letter `cover`, whose
        first line is its subject."""
        cache.remove(into)
        into.mkdir(parents=True)
        self.git("format-patch", "-q", "--cover-letter", "--no-signature", "--zero-commit",
                 f"--subject-prefix={prefix}", "-o", str(into), f"{base}..HEAD")
        letter, *patches = sorted(into.glob("*.patch"))
        subject, _, body = cover.partition("\n")
        letter.write_text(letter.read_text().replace("*** SUBJECT HERE ***", subject.strip())
                          .replace("*** BLURB HERE ***", body.strip()))
        return [letter, *patches]

    def build_each(self, commits: Sequence[str], build: Callable[[], None]) -> None:
        """Build the tree as it is at each commit."""
        for number, commit in enumerate(commits, 1):
            self.git("checkout", "-q", commit)
            started = time.monotonic()
            build()
            cache.say(f"{number}/{len(commits)} builds, {time.monotonic() - started:.0f} s: "
                      + self.git("log", "-1", "--format=%s").strip())


@contextmanager
def linked(source: Path) -> Iterator[Path]:
    """A tree of links to the files of another, for as long as a series is made in it."""
    with cache.lock("series/tree", "a series"):
        tree = cache.directory() / "series" / "tree"
        cache.remove(tree)
        try:
            cache.run(["cp", "-al", source, tree], "linking the sources")
            yield tree
        finally:
            cache.remove(tree)


def report(mails: Sequence[Path], remarks: Sequence[str]) -> None:
    """What there is; remarks are an error."""
    if remarks:
        raise PrepareError("\n".join(["there are remarks:", *remarks]))
    lines = [line for mail in mails for line in mail.read_text(errors="replace").splitlines()]
    added = sum(line.startswith("+") and not line.startswith("+++ ") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("--") for line in lines)
    cache.say(f"{len(mails)} patches, {added} lines added, {removed} removed; no remarks")


def check(argv: Sequence[str | Path], cwd: Path) -> list[str]:
    """What a checker of patches has to say, line by line."""
    done = subprocess.run([str(arg) for arg in argv], cwd=cwd, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)
    return [line for line in done.stdout.splitlines() if line.strip()]


def without_maintainer(mails: Sequence[Path], maintainers: str) -> list[str]:
    """A remark for each new file that no pattern in a file MAINTAINERS, or a part of it, has."""
    patterns = re.findall(r"^F:\s+(\S+)$", maintainers, re.MULTILINE)
    new = [name for mail in mails for name in re.findall(
        r"^--- /dev/null\n\+\+\+ b/(\S+)$", mail.read_text(), re.MULTILINE)]
    return [f"{name} has no maintainer" for name in new if not any(
        name.startswith(pattern) if pattern.endswith("/") else Path(name).match(pattern)
        for pattern in patterns)]

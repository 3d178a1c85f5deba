# SPDX-License-Identifier: GPL-2.0-only
"""The machine, as far as it can be looked at: files, programs, logs.

Whoever asks is not told off for what may not be read: that is noted in `unread`, and the
answer is as if it were not there. Tests put a directory in the place of "/"; programs are then
still taken from PATH.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20.0                  # for a program to answer
TAIL = 256 * 1024               # of a log file, which may be of any size
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSLOGS = ("/var/log/syslog", "/var/log/daemon.log", "/var/log/messages")
DENIED = (errno.EACCES, errno.EPERM)
RELAY = "synthrdp-relay"
# What `unread` calls what is no file.
KERNEL_LOG, JOURNAL = "the kernel's log", "the journal"
OTHERS_FILES = "open files of other users' processes"


@dataclass(frozen=True)
class Said:
    """A line of a log, and when it was said, in seconds since 1970, if that is known."""

    text: str
    at: float | None = None


def printable(text: str) -> str:
    """Text that does nothing to a terminal: logs hold what users and hosts made them hold."""
    return "".join(char if char.isprintable() else "?" for char in text.replace("\t", " "))


class System:
    """The machine, or the directory that stands for it."""

    def __init__(self, root: str | None = None) -> None:
        self.root = Path(root or os.environ.get("SYNTHRDP_ROOT") or "/")
        self.unread: dict[str, None] = {}       # a set that keeps its order

    # -- files

    def path(self, name: str | Path) -> Path:
        """Where a file is really."""
        return self.root / str(name).lstrip("/")

    def exists(self, name: str | Path) -> bool:
        """Whether there is such a file."""
        try:
            return self.path(name).exists()
        except OSError as error:
            self._note(str(name), error)
            return False

    def read(self, name: str | Path) -> str | None:
        """A file's text, without blanks around it; None where there is none to read."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError as error:
            self._note(str(name), error)
            return None

    def number(self, name: str | Path) -> int | None:
        """A file's text as a number."""
        text = self.read(name)
        return int(text) if text and re.fullmatch(r"-?\d+", text) else None

    def names(self, name: str | Path) -> list[str]:
        """What a directory holds."""
        try:
            return sorted(os.listdir(self.path(name)))
        except OSError as error:
            self._note(str(name), error)
            return []

    def glob(self, *patterns: str) -> list[str]:
        """Files by their absolute names with wildcards."""
        found = []
        for pattern in patterns:
            found += ["/" + str(path.relative_to(self.root))
                      for path in self.root.glob(pattern.lstrip("/"))]
        return sorted(found)

    def link(self, name: str | Path) -> str | None:
        """The name of what a symbolic link leads to."""
        path = self.path(name)
        return path.resolve().name if path.is_symlink() else None

    def stat(self, name: str | Path) -> os.stat_result | None:
        """A file's own data."""
        try:
            return self.path(name).stat()
        except OSError as error:
            self._note(str(name), error)
            return None

    def tail(self, name: str, owner: int | None = None) -> list[str]:
        """The last lines of a log file, which must be its owner's: his home is his to link."""
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK |
                         (0 if owner is None else os.O_NOFOLLOW))
            with open(fd, "rb") as file:
                seen = os.fstat(fd)
                if not stat.S_ISREG(seen.st_mode) or owner not in (None, seen.st_uid):
                    return []
                file.seek(max(0, seen.st_size - TAIL))
                return [printable(line) for line in
                        file.read(TAIL).decode(errors="replace").splitlines()]
        except OSError as error:
            self._note(name, error)
            return []

    def config(self, *patterns: str) -> list[tuple[str, str]]:
        """Files that consist of lines with comments: (file, line)."""
        return [(name, line.strip()) for name in self.glob(*patterns)
                for line in (self.read(name) or "").splitlines()
                if line.strip() and line.strip()[0] not in "#;"]

    def _note(self, what: str, error: OSError) -> None:
        if error.errno in DENIED:
            self.unread[what] = None

    # -- programs

    def run(self, *argv: str, seconds: float = SECONDS
            ) -> subprocess.CompletedProcess[str] | None:
        """Run a program; None when there is none, or it does not end."""
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
        environment.setdefault("PATH", PATH)
        try:
            return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", check=False, timeout=seconds, env=environment)
        except (OSError, subprocess.TimeoutExpired):
            return None

    def output(self, *argv: str) -> str | None:
        """What a program prints, if it succeeds."""
        done = self.run(*argv)
        return done.stdout.strip() if done and not done.returncode else None

    @functools.cached_property
    def systemd(self) -> bool:
        """Whether systemd runs this machine."""
        return self.exists("/run/systemd/system")

    # -- logs

    @functools.cached_property
    def kernel_log(self) -> list[str]:
        """What the kernel said since it started, or as much as is still there."""
        if lines := self._kmsg():
            return lines
        if text := self.output("journalctl", "-q", "-k", "-b", "-o", "cat", "--no-pager"):
            return [printable(line) for line in text.splitlines()]
        self.unread[KERNEL_LOG] = None
        return []

    def _kmsg(self) -> list[str]:
        """Records of /dev/kmsg: each read(2) has one, and what follows a blank is not text."""
        try:
            fd = os.open(self.path("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return []
        records = bytearray()
        with open(fd, "rb", buffering=0) as file:
            while True:
                try:
                    if not (record := file.read(8192)):
                        break
                except BrokenPipeError:         # older ones were overwritten meanwhile
                    continue
                except OSError:
                    break
                records += record
        lines = records.decode(errors="replace").splitlines()
        return [printable(line.partition(";")[2]) for line in lines if line[:1].isdigit()]

    def kernel_said(self, pattern: str) -> re.Match[str] | None:
        """The last line of the kernel's log in which a pattern is found."""
        found = (re.search(pattern, line) for line in reversed(self.kernel_log))
        return next(filter(None, found), None)

    @functools.cached_property
    def relay_log(self) -> list[Said]:
        """What relays said since the machine started."""
        if self.systemd:
            return self.journal("-t", RELAY)
        found = []
        for name in SYSLOGS:
            for line in self.tail(name) if self.exists(name) else ():
                if text := re.search(rf" {RELAY}(?:\[\d+\])?: (.*)", line):
                    found.append(Said(text[1]))
        return found

    def journal(self, *match: str) -> list[Said]:
        """The last lines of the journal that match."""
        done = self.run("journalctl", "-q", "-b", "-o", "json", "--no-pager", "-n", "300", *match)
        # Without a complaint it is only that nothing was found.
        if done is None or (done.returncode and done.stderr):
            self.unread[JOURNAL] = None
            return []
        found = list(_journal_lines(done.stdout.splitlines()))
        # It is empty for those who may not read it.
        if not found and os.geteuid() and not self._in_journal_group():
            self.unread[JOURNAL] = None
        return found

    def _in_journal_group(self) -> bool:
        groups = set(os.getgroups())
        return any(entry.gid in groups for name in ("systemd-journal", "adm")
                   if (entry := self.group(name)))

    # -- accounts

    def user(self, name: str) -> Account | None:
        """An account of this machine."""
        for fields in self._database("/etc/passwd", 7):
            if fields[0] == name:
                return Account(name, int(fields[2]), int(fields[3]), fields[5])
        return None

    def group(self, name: str) -> Account | None:
        """A group, as if it were an account."""
        for fields in self._database("/etc/group", 4):
            if fields[0] == name:
                return Account(name, -1, int(fields[2]), "")
        return None

    def groups(self, account: Account) -> set[int]:
        """All groups of an account."""
        return {account.gid, *(int(fields[2]) for fields in self._database("/etc/group", 4)
                               if account.name in fields[3].split(","))}

    def _database(self, name: str, size: int) -> Iterable[Sequence[str]]:
        lines = (line.split(":") for line in (self.read(name) or "").splitlines())
        return [fields for fields in lines if len(fields) == size and fields[2].isdigit()]


@dataclass(frozen=True)
class Account:
    """A line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str


def _journal_lines(lines: Iterable[str]) -> Iterable[Said]:
    for line in lines:
        try:
            entry = json.loads(line)
            text, at = entry["MESSAGE"], int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(text, list):              # what is not UTF-8 comes as numbers
            text = bytes(text).decode(errors="replace")
        if isinstance(text, str):
            yield Said(printable(text), at)

# SPDX-License-Identifier: GPL-2.0-only
"""The cache directory: what is slow to make is made once, under a key of all it depends on.

An entry is a file or a directory at KIND/KEY. It is built under a temporary name beside
its place, under a lock, and renamed when whole: an entry that exists is complete.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

KEEP = 2                        # entries of a kind that are kept however old
UNUSED = 24 * 3600.0            # further ones go when nobody asked for them so long


class PrepareError(Exception):
    """An expected failure while preparing; its text is one line that says what to do."""


def directory() -> Path:
    """The cache directory, made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(os.environ.get("SYNTHRDP_CACHE") or Path(base) / "hv_synthrdp").absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepareError(f"cannot make the cache directory {path}: {error.strerror}"
                           " (SYNTHRDP_CACHE names another)") from error
    return path


def say(text: str) -> None:
    """A progress line."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def key(*parts: str | bytes | Iterable[str]) -> str:
    """A key of these parts: equal only for equal parts in the same order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else (
            part if isinstance(part, str) else "\0".join([*part, ""])).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:20]


def tree_key(*paths: Path) -> str:
    """A key of the names, modes and contents of all files in and below `paths`."""
    parts: list[str | bytes] = []
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                parts += [str(file.relative_to(path.parent)),
                          oct(file.stat().st_mode & 0o111), file.read_bytes()]
    return key(*parts)


def entry(kind: str, name: str) -> Path | None:
    """The entry, when it is there."""
    path = directory() / kind / name
    if not path.exists():
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return path


def get(kind: str, name: str, build: Callable[[Path], None], what: str, seconds: int,
        unused: float = UNUSED) -> Path:
    """The entry, made by `build(path)` when it is missing (in about `seconds`)."""
    if found := entry(kind, name):
        return found
    place = directory() / kind / name
    with lock(f"{kind}/{name}", what):
        if found := entry(kind, name):
            return found
        say(f"building {what}, about {seconds} s")
        started = time.monotonic()
        new = place.with_name(f".new-{name}")
        remove(new)
        try:
            build(new)
            new.rename(place)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise PrepareError(full(what)) from error
            raise
        finally:
            remove(new)
        say(f"built {what} in {time.monotonic() - started:.0f} s")
    prune(place.parent, unused)
    return place


def full(what: str) -> str:
    """What to say when the disk is full."""
    return (f"no space left for {what} below {directory()}"
            " (empty it, or name another place in SYNTHRDP_CACHE)")


@contextlib.contextmanager
def lock(name: str, what: str) -> Iterator[None]:
    """Hold a lock against other processes; it goes with the process."""
    path = directory() / "locks" / (name.replace("/", "-") + ".lock")
    path.parent.mkdir(exist_ok=True)
    path.parent.parent.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that makes {what}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prune(kind: Path, unused: float = UNUSED) -> None:
    """Remove entries that nobody asked for lately, save the newest few; what builds left that
    were killed; and locks that nobody took lately."""
    def used(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0
    paths = sorted(kind.iterdir(), key=used, reverse=True)
    entries = [path for path in paths if not path.name.startswith(".")]
    leavings = [path for path in paths if path.name.startswith(".new-")]
    locks = (directory() / "locks").iterdir()
    old = [path for path in entries[KEEP:] if used(path) < time.time() - unused]
    for path in [*old, *(path for path in [*leavings, *locks]
                         if used(path) < time.time() - UNUSED)]:
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run(argv: Sequence[str | Path], what: str, *, cwd: Path | None = None,
        env: Mapping[str, str] | None = None, timeout: float = 1800) -> str:
    """Run a command, return what it printed; a failure is a PrepareError with its last lines.

    The output of the last failure stays in the cache directory's last-failure.log.
    """
    try:
        # What this process starts ends with it, even when it is killed.
        done = subprocess.run(["setpriv", "--pdeathsig", "TERM", *map(str, argv)],
                              cwd=cwd, env=env, timeout=timeout, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", check=False)
    except subprocess.TimeoutExpired as error:
        raise PrepareError(f"{what}: {argv[0]} took more than {timeout:.0f} s") from error
    if done.returncode == 0:
        return done.stdout
    if done.returncode == 127 and "failed to execute" in done.stdout:
        raise PrepareError(f"{what}: {argv[0]} is not installed")
    if "No space left on device" in done.stdout or shutil.disk_usage(directory()).free < 1 << 20:
        raise PrepareError(full(what))
    log = directory() / "last-failure.log"
    with contextlib.suppress(OSError):
        log.write_text(done.stdout)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("E:", "error:", "Error"))] or lines
    raise PrepareError(f"{what} failed ({' / '.join(telling[-2:])}); all of it in {log}")

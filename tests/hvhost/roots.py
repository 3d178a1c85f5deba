# SPDX-License-Identifier: GPL-2.0-only
"""Debian directories of any suite: configured roots to run things in, and unpacked packages.

    root = roots.root(roots.Spec("build", "sid", ("make", "gcc")))
    root.run(["make", "-C", "/mnt/src"], binds={source: "/mnt/src"})

A root is kept in the cache under a key of its suite, its packages and the versions that the
archive has of the packages named (not of all they depend on: sid moves every day). The
archive's lists are private to the cache and refreshed once a day, or when something is to
be built. Without a network what is there is used, and that is said.

The archive's address is the one this machine's apt uses; all suites are below it.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvhost import cache
from hvhost.cache import PrepareError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DAY = 24 * 3600.0
FRESH = 3600.0                  # lists older than this are not built from
RETRY = 600.0                   # after a failure to fetch, lists are left alone so long
WITH_SECURITY = ("bookworm", "trixie")
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")

# Prepares the root's mounts in a mount namespace of its own, then becomes the command.
ENTER = """
root=$1; writable=$2; cwd=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/mnt"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
shift
[ "$writable" = yes ] || mount -o remount,bind,ro "$root"
exec chroot "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$cwd" "$@"
"""


@dataclass(frozen=True)
class Root:
    """A configured Debian root directory."""

    path: Path
    key: str

    def command(self, argv: Sequence[str], *, cwd: str = "/",
                binds: Mapping[Path, str] | None = None, writable: bool = False,
                becomes: bool = False) -> list[str]:
        """The command line that runs `argv` in the root.

        `binds` maps directories of this machine to places below /mnt, where they are
        writable. All mounts are private and end with the command, as do its children.
        The root itself is read-only unless `writable`: only do that to a copy. A process
        that `becomes` the command gets its signals, and leaves its children alone.
        """
        mounts = [arg for here, there in (binds or {}).items() for arg in (str(here), there)]
        children = [] if becomes else ["--pid", "--fork", "--kill-child"]
        return ["unshare", "--mount", *children, "--propagation",
                "private", "/bin/sh", "-euc", ENTER, "enter", str(self.path),
                "yes" if writable else "no", cwd, *mounts, "--", *argv]

    def run(self, argv: Sequence[str], *, cwd: str = "/", binds: Mapping[Path, str] | None = None,
            env: Mapping[str, str] | None = None, writable: bool = False, timeout: float = 600,
            ) -> subprocess.CompletedProcess[str]:
        """Run `argv` in the root (see `command`); stderr is in the result's stdout."""
        return subprocess.run(
            self.command(argv, cwd=cwd, binds=binds, writable=writable),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/tmp",
                 "DEBIAN_FRONTEND": "noninteractive", **(env or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=timeout, check=False)


@dataclass(frozen=True)
class Spec:
    """What a root holds: Debian's essential packages, `packages`, and what they depend on.

    `setup` is a shell script that is run in the root at the end. No recommended packages,
    no documentation.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    setup: str = ""
    seconds: int = 60

    def key(self) -> str:
        """What the root depends on."""
        named = versions(self.suite, self.packages)
        return cache.key(self.suite, sorted(f"{name}={version}" for name, version
                                            in named.items()), self.setup)


def root(spec: Spec) -> Root:
    """The root of `spec`, from the cache or built."""
    kind = f"roots/{spec.suite}-{spec.name}"
    if not cache.entry(kind, spec.key()):
        refresh(spec.suite, FRESH)
    key = spec.key()
    path = cache.get(kind, key, lambda new: _bootstrap(spec, new),
                     f"the Debian root “{spec.name}” of {spec.suite}", spec.seconds)
    return Root(path, key)


def _bootstrap(spec: Spec, new: Path) -> None:
    argv = ["mmdebstrap", "--mode=root", "--variant=essential", "--format=directory",
            '--aptopt=Apt::Install-Recommends "false"', "--dpkgopt=force-unsafe-io",
            *(f"--aptopt={line}" for line in _acquire_options()),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
            f"--include={','.join(spec.packages)}"]
    if spec.setup:
        script = new.with_name(new.name + ".setup")
        script.write_text(spec.setup)
        argv += [f'--customize-hook=chroot "$1" /bin/sh -eu < {script}']
    try:
        cache.run([*argv, spec.suite, str(new), *sources(spec.suite)],
                  f"the Debian root “{spec.name}” of {spec.suite}")
        new.chmod(0o755)
    finally:
        new.with_name(new.name + ".setup").unlink(missing_ok=True)


def unpack(suite: str, packages: Sequence[str], new: Path, *, dependencies: bool = False) -> None:
    """Unpack packages (and what they depend on) into the directory `new`; no script of theirs
    is run. For a cache entry whose key holds `versions(suite, packages)`.
    """
    debs = new.with_name(new.name + ".debs")
    try:
        download(suite, packages, debs, dependencies=dependencies)
        new.mkdir()
        for place in ("bin", "sbin", "lib", "lib64"):
            (new / "usr" / place).mkdir(parents=True)
            (new / place).symlink_to(f"usr/{place}")
        for deb in sorted(debs.glob("*.deb")):
            cache.run(["/bin/sh", "-euc", 'dpkg-deb --fsys-tarfile "$0" |'
                       ' tar -x --keep-directory-symlink -C "$1"', deb, new],
                      f"unpacking {deb.name}")
    finally:
        cache.remove(debs)


def download(suite: str, packages: Sequence[str], new: Path, *, dependencies: bool = False) -> None:
    """Fetch packages (and what they depend on) into the directory `new`."""
    cache.remove(new)
    (new / "partial").mkdir(parents=True)
    verb = ["install", "--download-only"] if dependencies else ["download"]
    cache.run(["apt-get", *_apt_options(suite), "-q", "-y", "--no-install-recommends",
               "-o", f"Dir::Cache::Archives={new}", *verb, *packages],
              f"downloading {', '.join(packages)} of {suite}", cwd=new)


def versions(suite: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions that the archive has of these packages."""
    found = {package.partition("=")[0]: "" for package in packages}
    for stanza in _show(suite, tuple(sorted(set(packages)))).split("\n\n"):
        fields = _fields(stanza)
        if "Version" in fields:
            found[fields["Package"]] = found[fields["Package"]] or fields["Version"]
    if missing := [name for name, version in found.items() if not version]:
        raise PrepareError(f"Debian's {suite} has no package {', '.join(missing)}")
    return found


def dependencies(suite: str, package: str, pattern: str) -> list[str]:
    """The names matching `pattern` among the packages that `package` depends on."""
    depends = _fields(_show(suite, (package,))).get("Depends", "")
    names = (word.split()[0] for word in re.split(r"[,|]", depends) if word.strip())
    return [name for name in names if re.fullmatch(pattern, name)]


def _fields(stanza: str) -> dict[str, str]:
    pairs = (line.partition(": ") for line in stanza.splitlines() if not line.startswith(" "))
    return {name: value for name, _, value in pairs}


@functools.lru_cache(maxsize=None)
def _show(suite: str, packages: tuple[str, ...]) -> str:
    """apt's word on packages; kept beside the lists, for apt takes a second or more each time."""
    refresh(suite, DAY)
    kept = cache.directory() / "apt" / suite / "shown" / cache.key(packages)
    if kept.exists():
        return kept.read_text()
    text = cache.run(["apt-cache", *_apt_options(suite), "show", "--no-all-versions", *packages],
                     f"looking up {', '.join(packages)} in Debian's {suite}")
    kept.parent.mkdir(exist_ok=True)
    new = kept.with_name(f"{kept.name}.{os.getpid()}.{threading.get_ident()}")
    new.write_text(text)
    new.rename(kept)
    return text


def refresh(suite: str, age: float) -> None:
    """Fetch the lists of a suite if they are older than `age` seconds."""
    here = cache.directory() / "apt" / suite
    stamp, failed = here / "fetched", here / "failed"
    if _age(stamp) < age:
        return
    with cache.lock(f"apt/{suite}", f"the package lists of {suite}"):
        if _age(stamp) < age or (stamp.exists() and _age(failed) < RETRY):
            return
        for place in ("lists/partial", "cache/archives/partial", "parts"):
            (here / place).mkdir(parents=True, exist_ok=True)
        (here / "status").touch()
        (here / "sources.list").write_text("".join(line + "\n" for line in sources(suite)))
        try:
            # Any: without it apt-get takes a failed download for a success.
            cache.run(["apt-get", *_apt_options(suite), "-q", "-o",
                       "APT::Update::Error-Mode=any", "update"],
                      f"fetching the package lists of Debian's {suite}")
        except PrepareError as error:
            if not stamp.exists():
                raise
            cache.say(f"{error}; going on with lists that are {_age(stamp) / 3600:.0f} hours old")
            failed.touch()
            return
        cache.remove(here / "shown")
        stamp.touch()
        _show.cache_clear()


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime if path.exists() else float("inf")


def _apt_options(suite: str) -> list[str]:
    here = cache.directory() / "apt" / suite
    options = {"Dir::State": here, "Dir::State::Lists": here / "lists",
               "Dir::State::status": here / "status", "Dir::Cache": here / "cache",
               "Dir::Cache::pkgcache": "pkgcache.bin", "Dir::Cache::srcpkgcache":
               "srcpkgcache.bin", "Acquire::GzipIndexes": "false",
               "Dir::Etc::SourceList": here / "sources.list", "Dir::Etc::SourceParts":
               here / "parts", "Acquire::Languages": "none", "APT::Sandbox::User": "root",
               "Acquire::Retries": "2", "APT::Update::Post-Invoke-Success": ""}
    return [arg for name, value in options.items() for arg in ("-o", f"{name}={value}")]


@functools.lru_cache(maxsize=None)
def sources(suite: str) -> list[str]:
    """The lines of a sources.list for a suite."""
    if not KEYRING.exists():
        raise PrepareError("the package debian-archive-keyring is not installed")
    table = cache.run(["apt-get", "indextargets", "--format", "$(LABEL)|$(SITE)",
                       "Created-By: Packages"], "asking apt for the archive's address")
    sites = dict(line.split("|", 1) for line in reversed(table.splitlines()))
    if "Debian" not in sites:
        raise PrepareError("apt knows no Debian archive here: add one to sources.list,"
                           " and run apt-get update")
    signed = f"deb [signed-by={KEYRING}]"
    lines = [f"{signed} {sites['Debian']} {suite} main"]
    if suite in WITH_SECURITY and "Debian-Security" in sites:
        lines.append(f"{signed} {sites['Debian-Security']} {suite}-security main")
    return lines


def _acquire_options() -> list[str]:
    """What this machine's apt is told about proxies and the age of archives."""
    dump = cache.run(["apt-config", "dump"], "reading apt's configuration")
    return re.findall(r'^(Acquire::(?:https?|Check-[\w-]+)\b.*";)$', dump, re.MULTILINE)

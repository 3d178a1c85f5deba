# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs of a test guest: a pruned Python of Debian's, the agent, boot modules.

What Python needs is found by asking it: the agent's and the tests' modules are imported in
a root of that Debian, and the files that were loaded are what goes in. Nothing else is in
the guest, not even a shell: tests are Python functions.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from hvhost import cache, roots
from hvhost.kernels import BOOT_MODULES, Kernel

AGENT = Path(__file__).resolve().parents[1] / "guest" / "agent.py"
PACKAGES = ("python3-minimal", "libpython3-stdlib")
# What functions that run in the guest may import.
MODULES = ("__future__ argparse array base64 collections contextlib ctypes dataclasses datetime "
           "enum errno fcntl functools gc glob hashlib io itertools json marshal mmap os pathlib "
           "platform pwd queue random re resource select shutil signal socket stat string struct "
           "subprocess sys tempfile textwrap threading time traceback types typing uuid zlib"
           ).split()
DIRECTORIES = ("boot", "dev", "proc", "root", "run", "sys", "tmp")
# Prints the files that were loaded, and compiles those that are source. OpenSSL stays out:
# hashlib has hashes of its own.
FIND = f"""
import sys
sys.modules["_hashlib"] = None
import encodings.ascii, encodings.latin_1, encodings.utf_8, {', '.join(MODULES)}
import os, py_compile
files = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
files += [line.split()[-1] for line in open("/proc/self/maps") if "/usr/" in line]
for file in sorted(set(files)):
    print(file)
    if file.endswith(".py"):
        py_compile.compile(file, "/mnt/pyc" + file + "c", doraise=True,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
py_compile.compile("/mnt/guest/agent.py", "/mnt/pyc/agent.pyc", "/agent.py", doraise=True,
                   invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""
INIT = b"""#!/usr/bin/python3 -ISE
import agent
agent.main()
"""


def initramfs(kernel: Kernel) -> Path:
    """The initramfs for a kernel, from the cache or built."""
    modules = [path for name in BOOT_MODULES if (path := kernel.module(name))]
    key = cache.key(_userland_key(), kernel.path.name, Path(__file__).read_bytes())

    def build(new: Path) -> None:
        archive = Cpio()
        for place, module in enumerate(modules):
            archive.file(f"boot/{place}-{module.name}", module.read_bytes())
        new.write_bytes(_userland().read_bytes() + archive.close())
    return cache.get(f"initramfs/{kernel.name}", key, build,
                     f"the test guest's initramfs for {kernel.name}", 1)


def _userland_key() -> str:
    return cache.key(roots.Spec("guest", "bookworm", PACKAGES).key(),
                     Path(__file__).read_bytes(), AGENT.read_bytes())


def _userland() -> Path:
    return cache.get("initramfs/userland", _userland_key(), _build_userland,
                     "the test guest's Python", 30)


def _build_userland(new: Path) -> None:
    root = roots.root(roots.Spec("guest", "bookworm", PACKAGES))
    compiled = new.with_name(new.name + ".pyc")
    compiled.mkdir()
    try:
        done = root.run(["python3", "-ISEB", "-c", FIND],
                        binds={compiled: "/mnt/pyc", AGENT.parent: "/mnt/guest"})
        if done.returncode:
            raise cache.PrepareError(f"the guest's Python lacks something: {done.stdout.strip()}")
        archive = Cpio()
        for directory in DIRECTORIES:
            archive.directory(directory)
        for name in done.stdout.split():
            path = root.path / name[1:]
            if path.suffix == ".py":
                # Sourceless: a .pyc in the place of its .py is loaded without further looks.
                archive.file(name[1:] + "c", (compiled / (name[1:] + "c")).read_bytes())
                continue
            archive.file(name[1:], path.read_bytes(), 0o755)
            for alias in path.parent.iterdir() if ".so" in path.name else ():
                if alias.is_symlink() and alias.resolve() == path.resolve():
                    archive.link(str(alias.relative_to(root.path)), path.name)
        archive.file("usr/lib/python3.11/agent.pyc", (compiled / "agent.pyc").read_bytes())
    finally:
        shutil.rmtree(compiled)
    archive.link("usr/bin/python3", "python3.11")
    archive.link("lib64/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    archive.link("lib", "usr/lib")
    archive.file("init", INIT, 0o755)
    new.write_bytes(archive.close())


class Cpio:
    """Writes a "newc" cpio archive as the kernel reads it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._seen: set[str] = set()

    def _add(self, name: str, mode: int, data: bytes) -> None:
        if name in self._seen:
            return
        self._seen.add(name)
        encoded = name.encode() + b"\0"
        fields = (len(self._seen), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        self._data += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._data += bytes(-len(self._data) % 4) + data
        self._data += bytes(-len(self._data) % 4)

    def _parents(self, name: str) -> None:
        if parent := os.path.dirname(name):
            self.directory(parent)

    def directory(self, name: str) -> None:
        """A directory, and those above it."""
        self._parents(name)
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """A file."""
        self._parents(name)
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self._parents(name)
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def close(self) -> bytes:
        """The archive's bytes."""
        self._add("TRAILER!!!", 0, b"")
        return bytes(self._data)

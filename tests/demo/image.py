# SPDX-License-Identifier: GPL-2.0-only
"""The guest's disks: a Debian desktop, and on top of it what this project installs.

The desktop does not depend on the project, so it is made once. What does is a
tar archive on a disk of its own, which the guest unpacks before systemd starts.
"""
from __future__ import annotations

import io
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from hvhost import cache, disks, kernels, roots

KERNEL = "6.1"
SUITE = kernels.SUITES[KERNEL]
USER = PASSWORD = "demo"
GUEST = Path(__file__).resolve().parent / "guest"
SOURCES = (*kernels.SOURCES, "tools")
SIZE = "1200M"
PACKAGES = (
    "systemd-sysv", "udev", "kmod", "dbus", "dbus-user-session", "libpam-systemd",
    "linux-image-cloud-amd64", "xrdp", "xorgxrdp", "x11-xserver-utils", "xauth", "xterm", "xclip",
    "fonts-dejavu-core", "procps", "iproute2", "netbase", "openbox", "tint2")

# Fontconfig's cache is made last and once all directories have times of whole seconds: mke2fs
# drops the rest, and a cache that looks stale is made again by every X program that starts.
SETUP = f"""
useradd --create-home --shell /bin/bash {USER}
echo {USER}:{PASSWORD} | chpasswd
echo hyperv-guest >/etc/hostname
echo 127.0.0.1 localhost hyperv-guest >/etc/hosts
systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer
cat >/sbin/demo-init <<'END'
{(GUEST / "demo-init").read_text()}END
chmod +x /sbin/demo-init
rm -rf /boot/initrd.img-* /var/cache/fontconfig/*
find /usr/share/fonts /usr/local/share/fonts /var/cache/fontconfig \
    -exec touch -h -d @1700000000 {{}} +
fc-cache --system-only
"""


@dataclass(frozen=True)
class Desktop:
    """A Debian desktop: its file system, and the kernel to boot it with."""

    root: roots.Root
    disk: Path

    @property
    def modules(self) -> Path:
        """The kernel's modules."""
        modules, = (self.root.path / "usr/lib/modules").iterdir()
        return modules

    @property
    def release(self) -> str:
        """The kernel's release."""
        return self.modules.name

    @property
    def vmlinuz(self) -> Path:
        """The kernel."""
        return self.root.path / "boot" / f"vmlinuz-{self.release}"


def desktop() -> Desktop:
    """The desktop, from the cache or built."""
    root = roots.root(roots.Spec("desktop", SUITE, PACKAGES, SETUP, 90))
    disk = cache.get("demo/disks", cache.key(root.key, SIZE),
                     lambda new: disks.make(root.path, new, SIZE), "the desktop's disk", 7)
    return Desktop(root, disk)


def project(guest: Desktop) -> Path:
    """What the project installs into that desktop, as a tar archive; from the cache or built."""
    build_root = kernels.build_root(KERNEL)
    key = cache.key(build_root.key, guest.root.key, cache.tree_key(
        *(kernels.TOP / source for source in SOURCES), GUEST))
    return cache.get("demo/project", key, lambda new: _install(guest, new),
                     "the module and the relay for the demo", 40)


def _install(guest: Desktop, new: Path) -> None:
    tree = new.with_name(new.name + ".tree")
    try:
        cache.remove(tree)
        kernels.copy_sources(tree, SOURCES)
        kernels.make(KERNEL, tree, "install", "DESTDIR=/mnt/src/installed")
        installed = tree / "installed"
        _index_modules(guest, installed)
        with tarfile.open(new, "w") as archive:
            archive.add(installed, ".", filter=_of_root)
            _add_own(archive)
    finally:
        cache.remove(tree)


def _index_modules(guest: Desktop, installed: Path) -> None:
    """depmod for the desktop's modules and those installed, without touching the desktop."""
    place = Path("lib/modules") / guest.release
    if not (installed / place).is_dir():
        raise cache.PrepareError(
            f"the module was not built for the desktop's kernel {guest.release}: the archive has a"
            " new kernel, try again")
    both = installed.with_name("both")
    (both / place).parent.mkdir(parents=True)
    cache.run(["cp", "-al", guest.modules, both / place], "depmod")
    shutil.copytree(installed / place, both / place, dirs_exist_ok=True)
    cache.run(["depmod", "-b", both, guest.release], "depmod")
    for index in (both / place).glob("modules.*"):
        shutil.copy(index, installed / place)


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    # The guest's own is a link.
    member.name = member.name.replace("./lib", "./usr/lib", 1)
    return member


def _add_own(archive: tarfile.TarFile) -> None:
    """The demo's own files."""
    def add(name: str, path: str, mode: int = 0o644, owner: int = 0) -> None:
        data = (GUEST / name).read_bytes()
        member = tarfile.TarInfo(path)
        member.size, member.mode = len(data), mode
        member.uid = member.gid = owner
        archive.addfile(member, io.BytesIO(data))

    def link(path: str, target: str) -> None:
        member = tarfile.TarInfo(path)
        member.type, member.linkname = tarfile.SYMTYPE, target
        archive.addfile(member)

    units = "./etc/systemd/system"
    add("demo-shell.service", f"{units}/demo-shell.service")
    link(f"{units}/sysinit.target.wants/demo-shell.service", "../demo-shell.service")
    add("autologin.conf", f"{units}/serial-getty@ttyS2.service.d/autologin.conf")
    link(f"{units}/getty.target.wants/serial-getty@ttyS2.service",
         "/usr/lib/systemd/system/serial-getty@.service")
    add("xsession", f"./home/{USER}/.xsession", 0o755, 1000)

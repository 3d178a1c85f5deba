# SPDX-License-Identifier: GPL-2.0-only
"""Whole Debian systems: disks with systemd, xrdp, a light desktop, and all that DKMS needs.

    system.image("trixie")              as its user has it before he installs our packages
    system.installed("trixie")          the same once he has
    system.installed("trixie", True)    with large desktops

Neither needs a network: apt's sources are empty.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from hvhost import cache, debs, disks, roots

USER = PASSWORD = "demo"
GUEST = Path(__file__).resolve().parents[1] / "guest"
LATER = "99.0"                  # a version to be upgraded to
STALE = 3600.0                  # disks of former packages go: a gigabyte each
SIZE, LARGE = "3G", "6G"        # of files with holes
PACKAGES = (
    "apt", "systemd-sysv", "udev", "kmod", "dbus", "dbus-user-session", "libpam-systemd",
    "linux-image-cloud-amd64", "linux-headers-cloud-amd64", "dkms", "python3", "xrdp", "xorgxrdp",
    "x11-xserver-utils", "xauth", "xterm", "xclip", "fonts-dejavu-core", "procps", "iproute2",
    "netbase", "openbox", "tint2", "fuse3")
MORE = {"bookworm": (), "trixie": ("login", "pipewire", "pipewire-pulse", "wireplumber",
                                   "pipewire-module-xrdp")}
# What people use, with what is known to put itself between a user and his desktop: agents of
# polkit, and keyrings.
DESKTOPS = ("colord", "gnome-keyring", "kde-config-screenlocker", "kscreen", "kwin-x11",
            "libpam-gnome-keyring", "libpam-kwallet5", "plasma-desktop", "plasma-workspace",
            "polkitd", "powerdevil", "upower", "wmctrl", "xfce4")
AGENT = {"bookworm": "policykit-1-gnome", "trixie": "mate-polkit"}      # for Xfce
UNITS = "/etc/systemd/system"
FILES = {                       # our own: where, and its mode
    "test-shell.service": (f"{UNITS}/test-shell.service", "644"),
    "autologin.conf": (f"{UNITS}/serial-getty@ttyS2.service.d/autologin.conf", "644"),
    "xsession": (f"/home/{USER}/.xsession", "755"),
}

# With a machine's own number, or systemd takes each boot for the first.
# Fontconfig's cache is made last and once all directories have times of whole seconds: mke2fs
# drops the rest, and a cache that looks stale is made again by every X program that starts.
SETUP = f"""
useradd --create-home --shell /bin/bash {USER}
echo {USER}:{PASSWORD} | chpasswd
echo hyperv-guest >/etc/hostname
echo 127.0.0.1 localhost hyperv-guest >/etc/hosts
echo 5f0e1c5d2b7a4c8e9d3f6a1b0c2d4e6f >/etc/machine-id
{"".join(f'''mkdir -p {Path(place).parent}
cat >{place} <<'END'
{(GUEST / name).read_text()}END
chmod {mode} {place}
''' for name, (place, mode) in FILES.items())}
systemctl enable --quiet test-shell.service serial-getty@ttyS2.service
systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer
rm -rf /boot/initrd.img-* /etc/apt/sources.list /etc/apt/sources.list.d/* \
    /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap /var/cache/fontconfig/*
find /usr/share/fonts /usr/local/share/fonts /var/cache/fontconfig \
    -exec touch -h -d @1700000000 {{}} +
fc-cache --system-only
"""


@dataclass(frozen=True)
class Image:
    """A Debian system: its file system, and the kernel to boot it with."""

    suite: str
    root: roots.Root
    disk: Path

    @property
    def release(self) -> str:
        """The kernel's release."""
        modules, = (self.root.path / "usr/lib/modules").glob("*/kernel")
        return modules.parent.name

    @property
    def vmlinuz(self) -> Path:
        """The kernel."""
        return self.root.path / "boot" / f"vmlinuz-{self.release}"


def image(suite: str) -> Image:
    """The system without our packages, from the cache or built."""
    root = root_of(suite)
    disk = cache.get(f"systems/{suite}", cache.key(root.key, SIZE),
                     lambda new: disks.make(root.path, new, SIZE),
                     f"the disk of a system with {suite}", 15)
    return Image(suite, root, disk)


def installed(suite: str, desktops: bool = False) -> Image:
    """The system with our packages, installed by apt; from the cache or built."""
    root, packages = root_of(suite, desktops), debs.build(suite)
    name, size = ("-desktops", LARGE) if desktops else ("", SIZE)
    disk = cache.get(f"systems/{suite}{name}-installed",
                     cache.key(root.key, size, packages.name),
                     lambda new: _install(root, packages, new, size),
                     f"the disk of a system with {suite} and our packages",
                     150 if desktops else 45, STALE)
    return Image(suite, root, disk)


def root_of(suite: str, desktops: bool = False) -> roots.Root:
    """What the disks are made of; from the cache or built."""
    packages = (*PACKAGES, *MORE[suite])
    if desktops:
        return roots.root(roots.Spec("desktops", suite, (*packages, *DESKTOPS, AGENT[suite]),
                                     SETUP, 400))
    return roots.root(roots.Spec("system", suite, packages, SETUP, 150))


def _install(root: roots.Root, packages: Path, new: Path, size: str) -> None:
    tree = new.with_name(new.name + ".tree")
    try:
        cache.remove(tree)
        cache.run(["cp", "-a", "--reflink=auto", root.path, tree], "copying a Debian root")
        command = roots.Root(tree, root.key).command(
            ["sh", "-c", "apt-get install --yes /mnt/deb/*.deb"], binds={packages: "/mnt/deb"},
            writable=True)
        said = cache.run(command, "installing our packages",
                         env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                              "DEBIAN_FRONTEND": "noninteractive"})
        if not list(tree.glob("usr/lib/modules/*/updates/dkms/hv_synthrdp.ko*")):
            raise cache.PrepareError(f"DKMS did not build the module: {said[-2000:]}")
        disks.make(tree, new, size)
    finally:
        cache.remove(tree)


def repository(suite: str) -> Path:
    """A disk with packages to be installed from: ours in `now`, ours of a later version in
    `later`, and the archive's xrdp in `xrdp`; from the cache or built.
    """
    sources = {"now": debs.build(suite), "later": debs.build(suite, LATER)}
    archive = roots.versions(suite, ["xrdp"])

    def build(new: Path) -> None:
        tree = new.with_name(new.name + ".tree")
        try:
            cache.remove(tree)
            tree.mkdir()
            for name, packages in sources.items():
                (tree / name).mkdir()
                for package in packages.glob("*.deb"):
                    shutil.copy(package, tree / name)
            roots.download(suite, ["xrdp"], tree / "xrdp")
            disks.make(tree, new, "20M")
        finally:
            cache.remove(tree)

    key = cache.key(*(packages.name for packages in sources.values()), archive["xrdp"])
    return cache.get(f"systems/{suite}-repository", key, build,
                     f"the disk of packages for {suite}", 5)

# SPDX-License-Identifier: GPL-2.0-only
"""The same packages where systemd is not: plain init, and the script that is shipped for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import documents
from hvhost import cache, debs, disks, kernels, system
from hvhost.machine import CONTROL_FOLDER
from whole import NODE, Whole, booted

pytestmark = pytest.mark.xdist_group(f"system {debs.SUITES[0]}")

SUITE = debs.SUITES[0]
SCRIPT = "/etc/init.d/synthrdp"
COMMAND = documents.examples("administration.rst", "sh")["sysvinit"]
# By a shell, as the disk is not the root's. Debian's kernels leave /dev to an initrd or to init;
# and the second disk may come a moment after the first.
INIT = ('rw init=/bin/sh -- -c "mount -t devtmpfs devtmpfs /dev;'
        ' until mount -t ext4 -o ro /dev/nvme0n2 /mnt; do sleep 0.2; done;'
        ' exec /mnt/plain-init"')


@pytest.fixture(name="plain", scope="module")
def _plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A system whose first process is a script of a few lines."""
    tmp_path: Path = tmp_path_factory.mktemp("plain")
    tree = tmp_path / "tree"
    (tree / "tools/sysvinit").mkdir(parents=True)
    for source, place in (("tests/guest/plain-init", "plain-init"),
                          ("tools/sysvinit/synthrdp", "tools/sysvinit/synthrdp")):
        cache.run(["install", "-m", "755", kernels.TOP / source, tree / place], f"copying {source}")
    disks.make(tree, tmp_path / "disk", "4M")
    with booted(system.installed(SUITE), [tmp_path / "disk"], INIT) as whole:
        yield whole


def last_words(plain: Whole) -> str:
    """What is to be read of a test that fails: there is no journal."""
    return plain.shell.run("tail -n 20 /var/log/xrdp*.log; ps ax; dmesg | tail -n 20")[1]


def test_sessions(plain: Whole) -> None:
    """Two at a time; the switch is on while the script has started what is needed, and then off."""
    whole = plain
    assert whole.shell("cat /proc/1/comm") == "plain-init"
    assert whole.host.control.opening == 0
    status, said = whole.shell.run(f"cd /mnt && ( {'; '.join(COMMAND.splitlines())} ) 2>&1", 180)
    assert status == 0, said + last_words(whole)
    whole.wait_ready()
    whole.shell("synthrdpctl doctor")
    assert whole.shell("stat -c %U $(readlink -f /run/synthrdp/xrdp.sock)") == "xrdp"
    streams = [whole.greet(), whole.greet()]
    assert whole.shell(f"stat -c '%A %U %G' {NODE}") == "crw-rw---- root synthrdp"
    relays = whole.shell("ps -o user= -C synthrdp-relay").split()
    assert relays == ["synthrdp"] * 3
    assert "2 data" in whole.shell("synthrdpctl status")
    for stream in streams:
        stream.end()
    whole.wait_true("the nodes are gone", "test ! -e /dev/synthrdp0 -a ! -e /dev/synthrdp1")
    with whole.told_otherwise():
        whole.shell(f"{SCRIPT} stop", 120)
    assert whole.shell.run("pgrep -x synthrdp-relay")[0] == 1
    assert whole.host.complaints == []
    assert whole.shell(f"cat {CONTROL_FOLDER}/enabled") == "0"


def test_broken_configuration(plain: Whole) -> None:
    """The script fails with a reason, and the host is told of nothing."""
    plain.shell("echo rubbish >/etc/xrdp/xrdp.ini")
    status, said = plain.shell.run(f"{SCRIPT} start 2>&1", 120)
    assert status and "xrdp.ini: line 1" in said
    assert plain.host.control.opening == 0

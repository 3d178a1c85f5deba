# SPDX-License-Identifier: GPL-2.0-only
"""The script for plain init, in a Debian without systemd running. The control device and modprobe
are made up; all else is real.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import documents
from hvhost import debs, kernels

SOURCE = "/mnt/src"
CONTROL = "/sys/bus/vmbus/devices/99221fa0-24ad-11e2-be98-001aa01bbf6e/synthrdp"
# Over what is there, which stays as it is.
PREPARE = f"""
mount -t tmpfs tmpfs /run
for place in etc usr var; do
    mkdir /run/$place-upper /run/$place-work
    mount -t overlay -o lowerdir=/$place,upperdir=/run/$place-upper,workdir=/run/$place-work \\
        overlay /$place
done
mount -t tmpfs tmpfs /sys
mkdir -p {CONTROL}
echo 0 >{CONTROL}/enabled
ln -sf /bin/true /usr/sbin/modprobe
make -s tools_install PREFIX=/usr
install tools/sysvinit/synthrdp /etc/init.d/synthrdp
mkdir -p /run/xrdp/sockdir
touch /run/xrdp/xrdp.pid
enabled() {{ test "$(cat {CONTROL}/enabled)" = "$1"; }}
alive() {{ kill -0 "$(cat /run/synthrdp/$1.pid)"; }}
words() {{ tr '\\0' ' ' <"/proc/$(cat /run/synthrdp/$1.pid)/cmdline"; }}
# start-stop-daemon has become the relay.
begun() {{ until words relay | grep -q ^/usr/sbin/synthrdp-relay; do sleep 0.1; done; }}
owner() {{ stat -c %U "/proc/$(cat /run/synthrdp/$1.pid)"; }}
"""
STEPS = {
    "start": f"""
rm /etc/init.d/synthrdp
{documents.examples("administration.rst", "sh")["sysvinit"]}
begun
enabled 1
test -S /run/synthrdp/xrdp.sock
test "$(owner xrdp)" = xrdp
test "$(owner relay)" = synthrdp
test "$(words relay)" = \
    "/usr/sbin/synthrdp-relay --watch --server=unix:/run/synthrdp/xrdp.sock "
""",
    "restart": """
/etc/init.d/synthrdp start
before=$(cat /run/synthrdp/xrdp.pid)
/etc/init.d/synthrdp restart
test "$(cat /run/synthrdp/xrdp.pid)" != "$before"
enabled 1
alive xrdp
alive relay
""",
    "stop": """
/etc/init.d/synthrdp start
relay=$(cat /run/synthrdp/relay.pid)
/etc/init.d/synthrdp stop
enabled 0
test ! -e /run/synthrdp/xrdp.sock
! kill -0 "$relay"
/etc/init.d/synthrdp stop
""",
    "disabled": """
touch /etc/synthrdp/disabled
/etc/init.d/synthrdp start
alive relay
enabled 0
""",
    "options": """
echo SERVER=tcp:localhost:3390 >/etc/synthrdp/relay.conf
/etc/init.d/synthrdp start
begun
words relay | grep " --server=tcp:localhost:3390 "
""",
    "no server": """
printf '#!/bin/sh\nexit 1\n' >/usr/sbin/xrdp
ln -sf /bin/true /usr/bin/sleep
/etc/init.d/synthrdp start 2>/run/said && exit 1
grep 'xrdp does not listen at /run/synthrdp/xrdp.sock' /run/said
enabled 0
""",
    "broken configuration": """
echo rubbish >/etc/xrdp/xrdp.ini
/etc/init.d/synthrdp start && exit 1
enabled 0
test ! -e /run/synthrdp/relay.pid
""",
}


@pytest.fixture(name="tree", scope="module")
def _tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, with the relay built."""
    tree: Path = tmp_path_factory.mktemp("plain") / "tree"
    kernels.copy_sources(tree, debs.SOURCES)
    done = debs.root(debs.SUITES[0]).run(["make", "-s", "relay"], cwd=SOURCE, binds={tree: SOURCE})
    assert done.returncode == 0, done.stdout
    return tree


@pytest.mark.parametrize("step", STEPS)
def test_script(tree: Path, step: str) -> None:
    """What runs, as whom, and what the host is told."""
    done = debs.root(debs.SUITES[0]).run(["sh", "-euxc", PREPARE + STEPS[step]], cwd=SOURCE,
                                         binds={tree: SOURCE}, timeout=240)
    assert done.returncode == 0, done.stdout

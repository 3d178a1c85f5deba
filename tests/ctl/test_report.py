# SPDX-License-Identifier: GPL-2.0-only
"""synthrdpctl report: what it collects, and what it must not."""

from __future__ import annotations

import os

import pytest

from fakeroot import (CONTROL, CONTROL_CLASS, DATA, ENDED, NETWORK, NETWORK_CLASS, Guest)


@pytest.fixture(name="report")
def _report(guest: Guest) -> str:
    """The report of a guest whose logs have what it should not have."""
    guest.kernel_said(
        "Command line: root=UUID=private host=private",
        f"hv_vmbus: channel {NETWORK} is open",
        f"hv_netvsc {NETWORK} eth0: private",
        "hv_vmbus: something about 00:0d:3a:12:34:56 and 192.168.1.20",
        "hv_synthrdp: ready")
    guest.relay_said(ENDED.replace("unix:/run/synthrdp/xrdp.sock", "tcp:private:3389"),
                     "/dev/synthrdp0: /home/private/x")
    guest.write("etc/os-release", 'NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    guest.write("proc/modules", "hv_vmbus 1 2 -\nhv_synthrdp 1 0 -\next4 1 0 -\n")
    guest.write(f"sys/devices/{CONTROL}/channels/14/interrupts", "42\n")
    guest.write(f"sys/devices/{CONTROL}/power/private", "1\n")
    guest.write(f"sys/devices/{CONTROL}/uevent", "private\n")
    guest.write("dev/cpu/0/cpuid", b"")
    done = guest.run("report")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("line", [
    f"Linux {os.uname().release} {os.uname().version} {os.uname().machine}",
    'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
    "hv_synthrdp",
    "sys_vendor: (none)",
    "cpuid 40000000: (root only; try: modprobe cpuid)",
    "Hyper-V: Host Build 10.0.20348.859-0-0",
    "hv_vmbus: Vmbus version:5.3",
    "hv_synthrdp: ready",
    f"      1 {{{NETWORK_CLASS}}} hv_netvsc",
    f"== offer {CONTROL}",
    "driver: hv_synthrdp",
    f"class_id: {{{CONTROL_CLASS}}}",
    "channels/14/interrupts: 42",
    "synthrdp/state: ready",
    f"== offer {DATA}",
    "synthrdp/synthrdp0/rx_bytes: 123456",
    "parameters/enabled: N",
    "/dev/synthrdp0: mode 0660, user 0, group 990",
    "hv_vmbus: channel <instance> is open",
    "hv_vmbus: something about <hardware address> and <address>",
    "/dev/synthrdp0: ended after 63.4 s, 1900 bytes to tcp:<host>:3389, 250000 from it:"
    " the client left",
    "/dev/synthrdp0: /home/<user>/x",
])
def test_collected(report: str, line: str) -> None:
    """What the project needs to know is there."""
    assert line in report.splitlines()


@pytest.mark.parametrize("word", ["private", NETWORK, "192.168", "00:0d:3a", "ext4"])
def test_not_collected(report: str, word: str) -> None:
    """What is nobody's business is not."""
    assert word not in report


def test_elsewhere(guest: Guest) -> None:
    """It runs through where there is nothing to report, too, and says what it could not read."""
    guest.remove("sys")
    guest.remove("dev/kmsg")
    guest.program("journalctl", "echo denied >&2; exit 1")
    done = guest.run("report")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hv_synthrdp is not loaded" in done.stdout
    assert done.stdout.endswith("run this as root\nthe kernel's log\nthe journal\n")

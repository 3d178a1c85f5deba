# SPDX-License-Identifier: GPL-2.0-only
"""tools/synthrdp-report: what it collects, and what it must not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from relaykit import TOP

REPORT = TOP / "tools" / "synthrdp-report"
CONTROL = "99221fa0-24ad-11e2-be98-001aa01bbf6e"
DATA = "99221fa1-24ad-11e2-be98-001aa01bbf6e"
NETWORK = "000d3a12-3456-000d-3a12-3456000d3a12"
CLASSES = {
    CONTROL: "{f8e65716-3cb3-4a06-9a60-1889c5cccab5}",
    DATA: "{f9e9c0d3-b511-4a48-8046-d38079a8830c}",
    NETWORK: "{f8615163-df3e-46c5-913f-f2d2f965ed0e}",
}
KERNEL_LOG = f"""\
Command line: root=UUID=private host=private
Hyper-V: Host Build 10.0.20348.859-0-0
hv_vmbus: Vmbus version:5.3
hv_vmbus: channel {NETWORK} is open
hv_netvsc {NETWORK} eth0: private
hv_vmbus: something about 00:0d:3a:12:34:56 and 192.168.1.20
hv_synthrdp: ready
"""
RELAY_LOG = "/dev/synthrdp0: ended after 1.0 s, 19 bytes to tcp:private:3389, 19 from it: the end\n"


@pytest.fixture
def report(tmp_path: Path) -> str:
    """The report of a made-up guest, whose log has what it should not have."""
    root, tools = tmp_path / "root", tmp_path / "bin"
    bus = root / "sys/bus/vmbus"
    (bus / "devices").mkdir(parents=True)
    for number, (instance, class_id) in enumerate(CLASSES.items()):
        device = root / "sys/devices" / instance
        channel = device / f"channels/{number}"
        channel.mkdir(parents=True)
        (device / "class_id").write_text(class_id + "\n")
        (device / "device_id").write_text(f"{{{instance}}}\n")
        (channel / "interrupts").write_text(f"{number}42\n")
        (bus / "devices" / instance).symlink_to(device)
    driver = bus / "drivers/hv_synthrdp"
    driver.mkdir(parents=True)
    (root / "sys/devices" / CONTROL / "driver").symlink_to(driver)
    attributes = root / "sys/devices" / CONTROL / "synthrdp"
    attributes.mkdir()
    (attributes / "state").write_text("ready\n")
    node = root / "sys/devices" / DATA / "synthrdp/synthrdp0"
    node.mkdir(parents=True)
    (node / "rx_bytes").write_text("1234\n")
    module = root / "sys/module/hv_synthrdp/parameters"
    module.mkdir(parents=True)
    (module / "enabled").write_text("Y\n")
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (root / "proc").mkdir()
    (root / "proc/modules").write_text("hv_vmbus 1 2 -\nhv_synthrdp 1 0 -\next4 1 0 -\n")
    tools.mkdir()
    for name, text in (("dmesg", KERNEL_LOG), ("journalctl", RELAY_LOG)):
        (tools / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        (tools / name).chmod(0o755)
    environment = dict(os.environ, SYNTHRDP_REPORT_ROOT=str(root),
                       PATH=f"{tools}:{os.environ['PATH']}")
    run = subprocess.run([REPORT], env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@pytest.mark.parametrize("line", [
    f"Linux {os.uname().release} {os.uname().version} {os.uname().machine}",
    'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
    "hv_synthrdp",
    "Hyper-V: Host Build 10.0.20348.859-0-0",
    "hv_vmbus: Vmbus version:5.3",
    "hv_synthrdp: ready",
    "      1 {f8615163-df3e-46c5-913f-f2d2f965ed0e} none",
    f"== offer {CONTROL}",
    "driver: hv_synthrdp",
    f"class_id: {CLASSES[CONTROL]}",
    "channels/0/interrupts: 042",
    "synthrdp/state: ready",
    f"== offer {DATA}",
    "driver: none",
    f"device_id: {{{DATA}}}",
    "channels/1/interrupts: 142",
    "synthrdp/synthrdp0/rx_bytes: 1234",
    "parameters/enabled: Y",
    "hv_vmbus: channel <instance> is open",
    "hv_vmbus: something about <hardware address> and <address>",
    "/dev/synthrdp0: ended after 1.0 s, 19 bytes to tcp:<host>:3389, 19 from it: the end",
])
def test_collected(report: str, line: str) -> None:
    """What the project needs to know is there."""
    assert line in report.splitlines()


@pytest.mark.parametrize("word", [
    "private", NETWORK, "192.168", "00:0d:3a", "242", "ext4",
])
def test_not_collected(report: str, word: str) -> None:
    """What is nobody's business is not."""
    assert word not in report


def test_machine_without_hyper_v(tmp_path: Path) -> None:
    """It runs through where there is nothing to report, too."""
    run = subprocess.run([REPORT], env=dict(os.environ, SYNTHRDP_REPORT_ROOT=str(tmp_path)),
                         capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "hv_synthrdp is not loaded" in run.stdout


@pytest.mark.parametrize("argument,status", [("--help", 0), ("--foo", 2)])
def test_usage(argument: str, status: int) -> None:
    """It takes no arguments, and says what it is."""
    run = subprocess.run([REPORT, argument], capture_output=True, text=True, check=False)
    assert run.returncode == status
    assert run.stdout.startswith("synthrdp-report: ") and "set -eu" not in run.stdout


def test_shell_is_tidy() -> None:
    """shellcheck has nothing to say."""
    run = subprocess.run(["shellcheck", REPORT], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")

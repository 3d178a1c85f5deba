# SPDX-License-Identifier: GPL-2.0-only
"""The guest tells its host that it is ready while a server stands behind the relay, and only
then, whatever becomes of that; and a session's life is five lines of the journal.
"""

from __future__ import annotations

import base64
import re

from hvhost import kernels
from hvhost.machine import CONTROL_FOLDER
from whole import NODE, READY, RELAY, SERVER, Whole

ADDRESS = "unix:/run/synthrdp/xrdp.sock"
LIFE = (f"{NODE}: opened",
        rf"{NODE}: request for protocols 0x0000000b, flags 0x00; the server is asked for 0",
        rf"{NODE}: connected to {ADDRESS}",
        rf"{NODE}: the server accepts",
        rf"{NODE}: ended after \d+\.\d s, \d+ bytes to {ADDRESS}, \d+ from it: .+")


def test_boot(whole: Whole) -> None:
    """Nobody has typed anything: the module is loaded, host and guest agree, all is well."""
    assert whole.host.wait_request().major == 1
    assert whole.failed() == []
    assert whole.shell("systemctl is-active xrdp xrdp-sesman").split() == ["active"] * 2
    assert ":3389" in whole.shell("ss -Hltn")
    assert whole.shell.run("grep -rsl synthrdp /etc/modules-load.d /usr/lib/modules-load.d")[0]
    whole.shell("synthrdpctl status")
    whole.shell("synthrdpctl doctor")


def test_session(whole: Whole) -> None:
    """Its relay is nobody else's, its node is the group's, and it says what there was."""
    stream = whole.greet()
    assert whole.shell(f"stat -c '%A %U %G' {NODE}") == "crw-rw---- root synthrdp"
    status, said = whole.shell.run(f"runuser -u demo -- head -c 1 {NODE} 2>&1")
    assert status and "Permission denied" in said
    process = whole.show(RELAY, "MainPID")
    assert whole.shell(f"ps -o user= -p {process}") == "synthrdp"
    whole.farewell(stream)
    lines = whole.journal(f"_PID={process}")
    assert len(lines) == len(LIFE), lines
    for line, pattern in zip(lines, LIFE):
        assert re.fullmatch(pattern, line), lines
    assert whole.show(RELAY, "Result") == "success"


def test_server_dies(whole: Whole) -> None:
    """The host is told at once, and again when systemd has started the next one."""
    process = whole.show(SERVER, "MainPID")
    with whole.told_otherwise():
        whole.shell(f"systemctl kill --signal=KILL {SERVER}")
    whole.wait_ready()
    assert whole.show(SERVER, "MainPID") != process
    whole.farewell(whole.greet())


def test_server_masked(whole: Whole) -> None:
    """The administrator wants none: the host is told so, and nothing fails."""
    with whole.told_otherwise():
        whole.shell(f"systemctl mask --now --quiet {SERVER}")
    status, said = whole.shell.run(f"systemctl start {READY} 2>&1")
    assert status and "masked" in said
    assert whole.host.control.opening == 0
    assert whole.failed() == []
    assert whole.shell.run("synthrdpctl doctor")[0] == 3
    whole.shell(f"systemctl unmask --quiet {SERVER}; systemctl start {READY}")
    whole.wait_ready()


def test_ordinary_server_restarts(whole: Whole) -> None:
    """With xrdp restarts ours, as the directory of their sockets does: the session is over."""
    stream = whole.greet()
    with whole.told_otherwise():
        whole.shell("systemctl restart xrdp")
    assert stream.read(1, 60) == b""
    whole.farewell(stream)
    whole.wait_ready()
    whole.farewell(whole.greet())
    assert whole.failed() == []


def test_ordinary_server_stopped(whole: Whole) -> None:
    """With xrdp ours stops, and all come back with the unit that says ready."""
    with whole.told_otherwise():
        whole.shell("systemctl stop xrdp")
    # xrdp-sesman of Debian 12 calls it a failure to be stopped.
    assert [unit for unit in whole.failed() if "synthrdp" in unit] == []
    assert "The server is not running" in whole.doctor()
    whole.shell(f"systemctl start {READY}")
    whole.wait_ready()
    whole.farewell(whole.greet())
    whole.shell("systemctl -q is-active xrdp")


def test_relay_killed(whole: Whole) -> None:
    """The host sees the session end, systemd says what became of the relay; the next one works."""
    stream = whole.greet()
    whole.shell(f"systemctl kill --signal=KILL {RELAY}")
    assert stream.read(1, 60) == b""
    whole.wait_true("systemd has noticed", f"systemctl -q is-failed {RELAY}")
    assert whole.show(RELAY, "Result") == "signal"
    whole.farewell(stream)
    whole.farewell(whole.greet())
    assert whole.failed() == []


def test_switched_off(whole: Whole) -> None:
    """By the program for that; and on again."""
    with whole.told_otherwise():
        whole.shell("synthrdpctl disable")
    whole.shell(f"systemctl restart {SERVER}")
    assert whole.shell(f"cat {CONTROL_FOLDER}/enabled") == "0"
    assert whole.host.control.opening == 0
    whole.shell("synthrdpctl enable")
    whole.wait_ready()


def test_stopped(whole: Whole) -> None:
    """What was stopped stays so: the change which that makes starts nothing again."""
    whole.shell("systemctl daemon-reload")
    with whole.told_otherwise():
        whole.shell(f"systemctl stop {READY}")
    whole.shell("udevadm settle; sleep 5")
    assert whole.show(READY, "ActiveState") == "inactive"
    whole.shell(f"systemctl start {READY}")


def test_of_the_package(whole: Whole) -> None:
    """The test that Debian would run of the package, as it is."""
    script = base64.b64encode((kernels.TOP / "debian/tests/installed").read_bytes()).decode()
    said = whole.shell(f"echo {script} | base64 -d >/run/installed && sh /run/installed 2>&1")
    assert "hv_synthrdp.ko" in said


# The last one: what it removes the others need.
def test_removal(running: Whole) -> None:
    """First of all the host is told; then all goes, but for the ordinary xrdp."""
    running.wait_ready()
    ordinary = running.show("xrdp", "MainPID")
    stream = running.greet()
    with running.told_otherwise():
        running.shell("apt-get remove --yes synthrdp hv-synthrdp-dkms", 300)
    assert stream.read(1, 60) == b""
    running.farewell(stream)
    assert running.failed() == []
    assert running.show("xrdp", "MainPID") == ordinary
    assert running.shell.run("command -v synthrdp-relay")[0]

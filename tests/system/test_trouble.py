# SPDX-License-Identifier: GPL-2.0-only
"""A system in trouble: what becomes of sessions, who says so, and the way back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hvhost import system
from whole import READY, RELAY, SERVER, Whole, booted, last_words

IDLE_SECONDS = 30.0
DROP_IN = f"/etc/systemd/system/{RELAY}.d"
# All that root may have: most of it without writing it, the rest block by block.
FILL = ("fallocate -l $(( $(stat -f -c '%f * %S' /) - (8 << 20) )) /filled;"
        " dd if=/dev/zero of=/filled oflag=append conv=notrunc bs=4k 2>/dev/null; sync")
JOURNAL = "systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket"


def findings(whole: Whole) -> dict[str, str]:
    """What the doctor finds, by its name: the finding, the cure and what it quotes."""
    found = json.loads(whole.shell.run("synthrdpctl doctor --json")[1])["findings"]
    return {each["id"]: " ".join((each["finding"], each["cure"], *each["quote"]))
            for each in found}


@contextmanager
def done(whole: Whole, command: str, undo: str) -> Iterator[None]:
    """Something is done to the system, and undone whatever comes of it: others need it."""
    whole.shell(command)
    try:
        yield
    finally:
        whole.shell(undo)


def test_nobody_connects(whole: Whole) -> None:
    """On Azure the control device is there and nobody comes: nothing is said, nothing is done."""
    def seen() -> tuple[list[str], list[str]]:
        return ([whole.show(unit, "CPUUsageNSec") for unit in (SERVER, READY)],
                whole.journal("-b", "-u", "'synthrdp-*'"))

    before = seen()
    time.sleep(IDLE_SECONDS)
    assert seen() == before
    assert whole.shell.run("pgrep -x synthrdp-relay")[0] == 1


def test_overridden(whole: Whole) -> None:
    """The administrator's drop-in breaks the relay: systemd says so, and the doctor; without it
    all is well again.
    """
    gone = "printf '[Service]\\nExecStart=\\nExecStart=/usr/sbin/gone\\n'"
    with done(whole, f"mkdir -p {DROP_IN} && {gone} >{DROP_IN}/local.conf &&"
                     " systemctl daemon-reload",
              f"rm -r {DROP_IN}; systemctl daemon-reload; systemctl reset-failed"):
        session = whole.host.open_session(1)
        whole.wait_true("the relay has failed", f"systemctl -q is-failed {RELAY}")
        found = findings(whole)
        session.end()
        session.channel.close()
        whole.wait_true("the node is gone", "test ! -e /dev/synthrdp0")
    assert f"{RELAY} is failed" in found["relay-failing"]
    assert f"{DROP_IN}/local.conf" in found["unit-changed"]
    assert any("/usr/sbin/gone" in line for line in whole.journal("-b", "-u", RELAY))
    whole.farewell(whole.greet())


def test_full_disk(whole: Whole) -> None:
    """Sessions go on, and begin, and the server starts; the doctor says what is the matter."""
    stream = whole.greet()
    with done(whole, FILL, "rm /filled"):
        whole.farewell(stream)
        with whole.told_otherwise():
            whole.shell(f"systemctl restart {SERVER}")
        whole.wait_ready()
        whole.farewell(whole.greet())
        assert "The disk of / is full" in findings(whole)["disk-full"]
    assert "disk-full" not in findings(whole)
    assert whole.failed() == []


def test_journal_hangs(whole: Whole) -> None:
    """A session does not wait for who takes what its relay says; that is not lost either."""
    with done(whole, "systemctl kill --signal=STOP systemd-journald",
              "systemctl kill --signal=CONT systemd-journald"):
        stream = whole.greet()
        process = whole.show(RELAY, "MainPID")
        whole.farewell(stream)
    whole.wait_true("the journal has it", f"journalctl -q _PID={process} | grep -q 'ended after'")


def test_journal_gone(whole: Whole) -> None:
    """Nor does it mind that there is nobody. The doctor does."""
    # Masked: sysinit.target, which each unit needs, would bring it back.
    with done(whole, f"systemctl mask --quiet --runtime --now {JOURNAL} 2>&1",
              f"systemctl unmask --quiet --runtime {JOURNAL}; systemctl start {JOURNAL}"):
        whole.farewell(whole.greet())
        assert whole.shell.run("pgrep -x systemd-journal")[0] == 1
        assert "journal" in findings(whole)
    assert "journal" not in findings(whole)
    assert whole.failed() == []


def test_read_only_root(suite: str) -> None:
    """Debian's xrdp does not start where it cannot open its log: so the guest is not ready, and
    the doctor names the cause. Nothing else is missing once that is mended.
    """
    with booted(system.installed(suite), append="ro") as whole:
        try:
            whole.wait_true("all that starts has been started",
                            "! systemctl is-system-running | grep -q 'starting\\|initializing'")
            assert whole.shell("findmnt -no OPTIONS /").split(",")[0] == "ro"
            assert whole.host.control.opening == 0
            found = findings(whole)
            assert "mount -o remount,rw" in found["read-only"]
            assert "xrdp" in found["server-down"] and "xrdp" in found["switched-off"]
            whole.shell("mount -o remount,rw / && systemctl reset-failed &&"
                        f" systemctl start {READY}")
            whole.wait_ready()
            whole.farewell(whole.greet())
            assert [unit for unit in whole.failed() if "rdp" in unit] == []
        finally:
            last_words(whole)

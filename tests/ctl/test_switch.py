# SPDX-License-Identifier: GPL-2.0-only
"""synthrdpctl enable, disable and end."""

from __future__ import annotations

import re
import subprocess
import sys
import threading

import pytest

from fakeroot import CONTROL, DEVICES, PROGRAM, RELAY_PID, Guest

SWITCH = f"{DEVICES}/{CONTROL}/synthrdp/enabled"
NOTE = "etc/synthrdp/disabled"
CALLED = "called"


def called(guest: Guest) -> list[str]:
    """What systemctl was asked to do, but for questions."""
    lines = (guest.data / CALLED).read_text().splitlines()
    return [line for line in lines if not line.startswith(("show ", "is-active "))]


def switch(guest: Guest) -> str:
    """What was written to the switch, or is there."""
    return guest.path(SWITCH).read_text().strip()


def on_systemctl(guest: Guest, script: str) -> None:
    """What systemctl does when it is told to do something."""
    (guest.data / "systemctl-does").write_text(
        f'case "$1" in start|stop|restart) {script};; esac\n')


def test_disable(guest: Guest) -> None:
    """The unit is stopped, the switch is off, and it is written down by whom."""
    done = guest.run("disable", SUDO_USER="alice")
    assert (done.stdout, done.stderr, done.returncode) == (
        "off; sessions that are open go on\n", "", 0)
    assert called(guest) == ["stop synthrdp-ready.service"]
    assert switch(guest) == "0"
    note = guest.path(NOTE).read_text()
    assert re.fullmatch(r"disabled by alice as root, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\n", note)
    assert note.strip() in guest.run("status").stdout

    guest.run("disable", SUDO_USER="bob")
    assert guest.path(NOTE).read_text() == note, "who was first counts"


def test_disable_without_device(guest: Guest) -> None:
    """It holds for the device to come."""
    guest.withdraw()
    done = guest.run("disable")
    assert done.returncode == 0 and "/etc/synthrdp/disabled" in done.stdout
    assert guest.path(NOTE).exists()


def test_unit_heeds_the_note() -> None:
    """The unit that would switch on again looks for the note."""
    unit = (PROGRAM.parents[1] / "xrdp" / "synthrdp-ready.service").read_text()
    assert f"ConditionPathExists=!/{NOTE}\n" in unit


def test_enable(guest: Guest) -> None:
    """The note goes, the unit is started, and the host's yes is waited for."""
    guest.run("disable")
    (guest.data / CALLED).unlink()
    guest.state("disabled", "0")
    state = guest.path(SWITCH).with_name("state")
    on_systemctl(guest, f"(sleep 1; echo ready >{state}) >/dev/null 2>&1 &")
    done = guest.run("enable")
    assert (done.stdout, done.stderr, done.returncode) == (
        "on, and the host has agreed\n", "", 0)
    assert called(guest) == ["start synthrdp-ready.service"]
    assert not guest.path(NOTE).exists() and switch(guest) == "1"


def test_enable_rejected(guest: Guest) -> None:
    """A no of the host's is not waited for."""
    guest.state("rejected")
    done = guest.run("enable")
    assert done.returncode == 1 and "the state is rejected" in done.stderr


def test_enable_without_unit(guest: Guest) -> None:
    """Then the switch itself is written."""
    (guest.data / "load-state").write_text("not-found\n")
    guest.state("ready", "0")
    assert guest.run("enable").returncode == 0
    assert called(guest) == [] and switch(guest) == "1"


def test_without_systemd(guest: Guest) -> None:
    """The same."""
    guest.remove("run/systemd")
    guest.state("ready", "0")
    assert guest.run("enable").returncode == 0
    assert switch(guest) == "1"
    assert guest.run("disable").returncode == 0
    assert switch(guest) == "0"
    assert not (guest.data / CALLED).exists()


def test_enable_fails_with_its_unit(guest: Guest) -> None:
    """The server does not start: systemd's word, and the switch stays off."""
    guest.state("disabled", "0")
    on_systemctl(guest, "echo 'A dependency job failed.' >&2; exit 1")
    done = guest.run("enable")
    assert done.returncode == 1
    assert done.stderr == ("synthrdpctl: systemctl start synthrdp-ready.service: A dependency job"
                           " failed.\n")
    assert switch(guest) == "0"


def test_enable_without_device(guest: Guest) -> None:
    """The doctor knows more."""
    guest.withdraw()
    done = guest.run("enable")
    assert done.returncode == 1 and "synthrdpctl doctor" in done.stderr


def test_read_only_root(guest: Guest) -> None:
    """A clear word, and nothing done by halves."""
    etc = guest.path("etc")
    subprocess.run(["mount", "--bind", "-o", "ro", etc, etc], check=True)
    try:
        done = guest.run("disable")
        assert (done.returncode, done.stderr) == (
            1, f"synthrdpctl: cannot write /{NOTE}: Read-only file system\n")
        assert called_or_none(guest) == [] and switch(guest) == "1"
    finally:
        subprocess.run(["umount", etc], check=True)


def called_or_none(guest: Guest) -> list[str]:
    """The same where systemctl may not have been called at all."""
    return called(guest) if (guest.data / CALLED).exists() else []


@pytest.mark.parametrize("name", ["0", "synthrdp0", "/dev/synthrdp0"])
def test_end(guest: Guest, name: str) -> None:
    """systemd stops the relay; that is waited for."""
    on_systemctl(guest, f"(sleep 0.5; rm -r {guest.path(f'proc/{RELAY_PID}')}) >/dev/null 2>&1 &")
    done = guest.run("end", name)
    assert (done.stdout, done.stderr, done.returncode) == ("synthrdp0: ended\n", "", 0)
    assert called(guest) == ["stop synthrdp-relay@synthrdp0.service"]
    assert not guest.path(f"proc/{RELAY_PID}").exists()


def test_end_without_systemd(guest: Guest) -> None:
    """The process gets a signal: it is a real one."""
    guest.remove("run/systemd")
    guest.remove(f"proc/{RELAY_PID}")
    script = ("import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print();"
              " signal.pause()")
    with subprocess.Popen([sys.executable, "-uc", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        guest.process(process.pid, ["synthrdp-relay", "--watch"], "/dev/synthrdp0")

        def bury() -> None:
            process.wait(30)
            guest.remove(f"proc/{process.pid}")
        grave = threading.Thread(target=bury)
        grave.start()
        assert guest.run("end", "0").stdout == "synthrdp0: ended\n"
        grave.join()
        assert process.returncode == 7


@pytest.mark.parametrize("name,words", [
    ("1", "there is no synthrdp1; there is: synthrdp0"),
    ("synthrdp", "names no session"),
    ("../0", "names no session"),
    ("-1", "names no session"),
])
def test_end_of_nothing(guest: Guest, name: str, words: str) -> None:
    """What is not there cannot be ended."""
    done = guest.run("end", name)
    assert done.returncode == 5 and words in done.stderr


def test_end_of_unserved(guest: Guest) -> None:
    """A device without a relay."""
    guest.remove(f"proc/{RELAY_PID}")
    done = guest.run("end", "0")
    assert done.returncode == 5 and "nobody serves synthrdp0" in done.stderr


@pytest.mark.parametrize("arguments", [["disable"], ["enable"], ["end", "0"]])
def test_root_only(arguments: list[str]) -> None:
    """Others are told so, with a status of its own, before anything is done."""
    script = ("import os, sys; sys.path.insert(0, sys.argv[1]); import ctl.main, ctl.facts;"
              " os.setuid(65534); session = ctl.facts.Session('synthrdp0', None, True, 1);"
              " ctl.switch.find = lambda *_: session; sys.exit(ctl.main.main(sys.argv[2:]))")
    done = subprocess.run([sys.executable, "-c", script, PROGRAM.parent, *arguments],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (4, "synthrdpctl: only root may do this\n")


def test_off_whatever_systemd_says(guest: Guest) -> None:
    """The switch comes first."""
    on_systemctl(guest, "echo 'Connection timed out' >&2; exit 1")
    done = guest.run("disable")
    assert done.returncode == 1 and "Connection timed out" in done.stderr
    assert switch(guest) == "0" and guest.path(NOTE).exists()

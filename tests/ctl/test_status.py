# SPDX-License-Identifier: GPL-2.0-only
"""synthrdpctl status and sessions: what they show, to people and to programs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fakeroot import CONTROL, DATA, DEVICES, ENDED, PROGRAM, SOCKET, Guest

SCHEMAS = PROGRAM.parent
READY = """\
Enhanced Session: ready: the host may start sessions
  host      Hyper-V, build 10.0.20348.859, VMBus 5.3
  module    hv_synthrdp loaded
  control   driver hv_synthrdp, ready, protocol 1.0, 3 sessions announced
  switch    on
  server    unix:/run/synthrdp/xrdp.sock, listening
  devices   control, 1 data

SESSION               AGE  FROM HOST    TO HOST  SERVER
synthrdp0       2 h 3 min     123 kB    34.6 MB  unix:/run/synthrdp/xrdp.sock

ENDED                  AT        AFTER  REASON
synthrdp0    Jun 15 15:06    1 min 3 s  the client left
"""
ELSEWHERE = """\
Enhanced Session: this is not a Hyper-V guest
  module    not loaded
  server    unix:/run/synthrdp/xrdp.sock, nobody listens there
`synthrdpctl doctor` says what to do about it.
"""


def schema(name: str) -> Any:
    """One of the schemas that are installed."""
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text())


def test_screen(guest: Guest) -> None:
    """All is well, and one session is open."""
    done = guest.run("status")
    assert (done.stdout, done.stderr, done.returncode) == (READY, "", 0)


def test_sessions(guest: Guest) -> None:
    """The same two tables by themselves; in the order of numbers."""
    for number in (10, 2):
        guest.session(number, f"5e55{number:04}-0000-4000-8000-000000000000", 5000 + number)
    lines = guest.run("sessions").stdout.splitlines()
    assert [line.split()[0] for line in lines if line] == [
        "SESSION", "synthrdp0", "synthrdp2", "synthrdp10", "ENDED", "synthrdp0"]


def test_no_sessions(guest: Guest) -> None:
    """It says so."""
    guest.no_session()
    guest.relay_said()
    assert guest.run("sessions").stdout == "no sessions\n"


def test_not_hyperv(guest: Guest) -> None:
    """A machine that has nothing of it at all."""
    guest.remove("sys")
    guest.server_down()
    guest.remove(f"proc/{4711}")
    guest.relay_said()
    done = guest.run("status")
    assert (done.stdout, done.returncode) == (ELSEWHERE, 3)


def test_bare_machine(tmp_path: Path) -> None:
    """Not even a /proc."""
    done = subprocess.run([PROGRAM, "status"], capture_output=True, text=True, check=False,
                          env={"PATH": str(tmp_path), "SYNTHRDP_ROOT": str(tmp_path)},
                          executable=PROGRAM)
    assert done.returncode == 3 and "not a Hyper-V guest" in done.stdout and not done.stderr


@pytest.mark.parametrize("state", ["disabled", "opening", "negotiating", "rejected", "failed"])
def test_states(guest: Guest, state: str) -> None:
    """The driver's state is the guest's; only ready is success."""
    guest.state(state)
    found = guest.json("status")
    assert (found["state"], found["control"]["version"]) == (state, None)
    assert guest.run("status").returncode == 3


def test_other_states(guest: Guest) -> None:
    """Why there is no state."""
    guest.bind(CONTROL, "uio_hv_generic")
    assert guest.json("status")["state"] == "other-driver"
    guest.bind(CONTROL, None)
    guest.remove(f"{DEVICES}/{CONTROL}/synthrdp")
    assert guest.json("status")["state"] == "no-driver"
    guest.remove("sys/module/hv_synthrdp")
    assert guest.json("status")["state"] == "no-module"
    guest.remove(f"{DEVICES}/{CONTROL}")
    assert guest.json("status")["state"] == "not-offered"


def test_json(guest: Guest) -> None:
    """It is as its schema says, in a guest where all is well and in one where nothing is there."""
    found = guest.json("status")
    jsonschema.Draft202012Validator.check_schema(schema("status"))
    jsonschema.validate(found, schema("status"))
    assert found["sessions"] == [{
        "device": "synthrdp0", "instance": DATA, "served": True, "pid": 4711,
        "program": "synthrdp-relay", "server": f"unix:{SOCKET}", "age": 7384.0,
        "bytes_from_host": 123456, "bytes_to_host": 34567890}]
    assert found["ended"][0]["at"] == "2025-06-15T15:06:40Z"
    for name in guest.root.iterdir():
        guest.remove(name.name)
    jsonschema.validate(guest.json("status"), schema("status"))


@pytest.mark.parametrize("where", [[], ["host"], ["control"], ["server"], ["sessions", 0]])
def test_schema_is_strict(guest: Guest, where: list[Any]) -> None:
    """Neither a field more nor one less passes."""
    for more in (True, False):
        found = guest.json("status")
        part = found
        for step in where:
            part = part[step]
        if more:
            part["more"] = 1
        else:
            part.popitem()
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(found, schema("status"))


def test_unserved(guest: Guest) -> None:
    """A session that nobody serves, and one that something else than a relay has open."""
    guest.remove("proc/4711")
    assert "(nobody serves it)" in guest.run("status").stdout
    guest.process(12, ["/usr/bin/cat"], "/dev/synthrdp0")
    session, = guest.json("status")["sessions"]
    assert (session["program"], session["server"]) == ("cat", None)
    assert "(cat)" in guest.run("status").stdout


def test_watching_relay(guest: Guest) -> None:
    """One that serves all: its children have its arguments, and the node open."""
    guest.remove("proc/4711")
    arguments = ["synthrdp-relay", "--watch", "--server", "tcp:[::1]:3390"]
    guest.process(20, arguments)
    guest.process(21, arguments, "/dev/synthrdp0")
    session, = guest.json("status")["sessions"]
    assert (session["pid"], session["server"]) == (21, "tcp:[::1]:3390")


def test_without_systemd(guest: Guest) -> None:
    """What relays said is in syslog's file then."""
    guest.remove("run/systemd")
    guest.write("var/log/syslog", f"Jun 15 15:00:00 host synthrdp-relay[4711]: {ENDED}\nrubbish\n")
    ended, = guest.json("status")["ended"]
    assert (ended["reason"], ended["at"]) == ("the client left", None)
    assert guest.run("status").returncode == 0


def test_hostile_text(guest: Guest) -> None:
    """What others wrote does nothing to the terminal."""
    guest.relay_said(ENDED.replace("the client left", "\x1b]0;owned\x07\x1b[31m\u009b2Jred"))
    guest.process(30, ["synthrdp-relay", "--device=/dev/synthrdp0", "--server=\x1b[31m"],
                  "/dev/synthrdp0")
    guest.remove("proc/4711")
    shown = guest.run("status").stdout
    assert "\x1b" not in shown and "\x07" not in shown and "\u009b" not in shown
    assert "?]0;owned??[31m?2Jred" in shown


def test_colours(guest: Guest) -> None:
    """On a terminal only, and not where they are not wanted; the words are the same."""
    assert "\x1b[1;32mready" in guest.on_terminal("status")
    assert guest.on_terminal("status", NO_COLOR="1") == READY
    assert guest.on_terminal("status", TERM="dumb") == READY
    assert "\x1b" not in guest.run("status", TERM="xterm").stdout


def test_watch(guest: Guest) -> None:
    """The screen again and again; ^C ends it."""
    assert guest.on_terminal("status", "--watch=0.1").count("\x1b[H\x1b[2J") >= 2


def test_watch_json(guest: Guest) -> None:
    """A document in each line, with what has changed; its reader may leave."""
    environment = {"PATH": f"{guest.programs}:/usr/bin:/bin", "SYNTHRDP_ROOT": str(guest.root)}
    with subprocess.Popen([PROGRAM, "status", "--json", "--watch=0.1"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment) as program:
        assert program.stdout and program.stderr
        assert json.loads(program.stdout.readline())["state"] == "ready"
        guest.state("failed")
        end = time.monotonic() + 30
        while json.loads(program.stdout.readline())["state"] != "failed":
            assert time.monotonic() < end
        program.stdout.close()
        assert program.wait(30) == 128 + signal.SIGPIPE
        assert program.stderr.read() == ""


def test_unprivileged(guest: Guest) -> None:
    """Who may not read everything is told what, and sees the rest; relays tell of themselves."""
    guest.path(f"proc/{4711}/fd").chmod(0)
    guest.path("dev/kmsg").chmod(0)
    guest.program("journalctl", "echo denied >&2; exit 1")
    for place in (guest.root, *guest.root.parents):         # so that others reach it
        if place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
    # The program may be in a place that others cannot reach: it is handed in.
    script = ("import os, sys; sys.path.insert(0, sys.argv[1]); import ctl.main, json, "
              "argparse, subprocess, pwd; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
              " sys.exit(ctl.main.main(sys.argv[2:]))")
    done = subprocess.run(
        [sys.executable, "-c", script, PROGRAM.parent, "status", "--json"], capture_output=True,
        text=True, check=False, env={"PATH": f"{guest.programs}:/usr/bin:/bin",
                                     "SYNTHRDP_ROOT": str(guest.root)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    session, = found["sessions"]
    assert (session["pid"], session["server"]) == (4711, f"unix:{SOCKET}")
    assert (found["host"]["build"], found["host"]["hyperv"]) == (None, True)
    assert found["unread"] == ["the kernel's log", "open files of other users' processes",
                               "the journal"]


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["status", "--jso"], ["status", "--watch=0"], ["status", "--watch=never"],
    ["end"], ["sessions", "more"]])
def test_usage(guest: Guest, arguments: list[str]) -> None:
    """A wrong command line is told so, with status 2."""
    done = guest.run(*arguments)
    assert done.returncode == 2 and done.stderr.startswith("usage: synthrdpctl")


def test_help_and_version(guest: Guest) -> None:
    """Both are there."""
    assert "doctor" in guest.run("--help").stdout
    assert guest.run("--version").stdout.startswith("synthrdpctl 0.")

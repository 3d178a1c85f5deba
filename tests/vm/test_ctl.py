# SPDX-License-Identifier: GPL-2.0-only
"""synthrdpctl with the driver itself: what the made-up guests of its own tests cannot show."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hvhost.guest import Job
from hvhost.synthrdp import ACCEPT, CONTROL, REJECT, Session, say
from lab import CONTROL_FOLDER, DRIVER, Lab, wait_until

SOURCE = Path(__file__).resolve().parents[2] / "tools" / "synthrdpctl"
PLACE = "/run/synthrdpctl"
SERVER = "/run/server"
RELAY = "/usr/sbin/synthrdp-relay"
GROUP = 990
CONFIG = {"/etc/passwd": f"root:x:0:0::/:/x\nsynthrdp:x:{GROUP}:{GROUP}::/:/x\n".encode(),
          "/etc/group": f"synthrdp:x:{GROUP}:\n".encode(),
          "/etc/synthrdp/relay.conf": f"SERVER=unix:{SERVER}\n".encode()}
REQUEST = bytes.fromhex("030000130ee00000000000010008000b000000")
ANSWER = bytes.fromhex("030000130ed000000000000200080000000000")
AMISS, NOT_THERE = 3, 5


# In the guest

def install(files: dict[str, bytes]) -> None:
    """What a package would install, as far as it is needed."""
    for name, data in files.items():
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "wb") as file:
            file.write(data)
    os.chmod(RELAY, 0o755)


def ctl(*arguments: str) -> tuple[int, str, str]:
    """Run it: its status, and what it printed. A Python of its own would take seconds here."""
    sys.path.insert(0, PLACE)
    main = __import__("ctl.main").main.main
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main(arguments)
    return status, output.getvalue(), errors.getvalue()


def serve() -> tuple[int, str]:
    """A relay and its server, until the relay ends: its status, and what it said last."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SERVER)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SERVER)
    os.chmod(SERVER, 0o666)
    listener.listen()
    listener.settimeout(20)
    with subprocess.Popen([RELAY, "--device=/dev/synthrdp0", f"--server=unix:{SERVER}"],
                          stderr=subprocess.PIPE) as relay:
        server, _ = listener.accept()
        server.recv(100)
        server.sendall(ANSWER)
        while server.recv(100):
            pass
        server.close()
        log = relay.communicate(timeout=20)[1].decode()
    listener.close()
    return relay.returncode, log.splitlines()[-1]


def make_old(node: str) -> None:
    """As if it had been there for a minute."""
    os.utime(node, (time.time() - 60, time.time() - 60))


def own(node: str) -> None:
    """What udev's rule does."""
    os.chown(node, 0, GROUP)
    os.chmod(node, 0o660)


def fill(place: str, full: bool) -> None:
    """A small file system, full to the last byte, or away with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not full:
        failed = libc.umount2(place.encode(), 2)
    else:
        failed = libc.mount(b"tmpfs", place.encode(), b"tmpfs", 0, b"size=256k")
        with contextlib.suppress(OSError), open(f"{place}/big", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    if failed:
        raise OSError(ctypes.get_errno(), "mount")


def put_module(there: bool) -> None:
    """A module's file, as far as the doctor looks at it."""
    place = f"/lib/modules/{os.uname().release}"
    if there:
        os.makedirs(place, exist_ok=True)
        for name, text in (("hv_synthrdp.ko", ""), ("modules.dep", "x/hv_synthrdp.ko:\n")):
            with open(f"{place}/{name}", "w", encoding="ascii") as file:
                file.write(text)
    else:
        os.unlink(f"{place}/hv_synthrdp.ko")


# On the host

@pytest.fixture(autouse=True)
def installed(lab: Lab, program: bytes) -> None:
    """It is in the guest, with its relay."""
    files = {f"{PLACE}/{path.relative_to(SOURCE)}": path.read_bytes()
             for path in SOURCE.glob("ctl/*.py")}
    lab.guest.run(install, {**files, **CONFIG, RELAY: program})


def run(lab: Lab, *arguments: str) -> tuple[int, str, str]:
    """Run it in the guest."""
    return lab.guest.run(ctl, *arguments, timeout=90)


def status(lab: Lab) -> Any:
    """All that it knows."""
    return json.loads(run(lab, "status", "--json")[1])


def findings(lab: Lab) -> dict[str, str]:
    """What the doctor finds, and what he says of it; nobody serves RDP here unless a test does."""
    code, text, _ = run(lab, "doctor", "--json")
    found = {each["id"]: " ".join((each["finding"], each["cure"], *each["quote"]))
             for each in json.loads(text)["findings"]}
    assert code == (AMISS if found else 0)
    return found


def served(lab: Lab) -> tuple[Session, Job]:
    """A session with its relay at work."""
    session = lab.session()
    lab.guest.run(own, "/dev/synthrdp0")
    job = lab.guest.start(serve)
    session.wait_opened()
    session.write(REQUEST)
    assert session.read_exact(len(ANSWER)) == ANSWER
    return session, job


def test_session(lab: Lab) -> None:
    """One that is open: status, the doctor's clean bill, and its end."""
    session, job = served(lab)
    found = status(lab)
    assert (found["state"], found["control"]["version"]) == ("ready", "1.0")
    assert found["server"] == {"address": f"unix:{SERVER}", "listening": True}
    assert {device["kind"]: device["driver"] for device in found["devices"]} == {
        "control": "hv_synthrdp", "data": "hv_synthrdp"}
    one, = found["sessions"]
    assert one["instance"] == "99221fa1-24ad-11e2-be98-001aa01bbf6e"
    assert (one["device"], one["served"], one["program"], one["server"]) == (
        "synthrdp0", True, "synthrdp-relay", f"unix:{SERVER}")
    assert (one["bytes_from_host"], one["bytes_to_host"]) == (len(REQUEST), len(ANSWER))
    assert 0 <= one["age"] < 600
    assert found["unread"] == []

    code, text, _ = run(lab, "doctor")
    assert code == 0 and text.endswith("\nNothing found that needs a cure.\n"), text
    code, text, _ = run(lab, "status")
    assert code == 0 and text.startswith("Enhanced Session: ready"), text

    assert run(lab, "end", "0") == (0, "synthrdp0: ended\n", "")
    session.wait_closed()
    code, said = job.result()
    assert code == 0 and said.endswith("stopped by signal 15")
    assert run(lab, "end", "0")[0] == NOT_THERE
    lab.guest.run(make_old, "/dev/synthrdp0")
    assert "Nobody serves synthrdp0" in findings(lab)["relay-failing"]


def test_switch(lab: Lab) -> None:
    """Off, which the host notices and the doctor names; and on again."""
    assert run(lab, "disable") == (0, "off; sessions that are open go on\n", "")
    lab.host.control.wait_closed()
    assert lab.control["state"] == "disabled"
    assert status(lab)["switch"]["disabled_by"].startswith("disabled by root, ")
    assert "disabled by root" in findings(lab)["switched-off"]

    lab.host.forget_requests()
    assert run(lab, "enable") == (0, "on, and the host has agreed\n", "")
    lab.host.wait_request()
    assert run(lab, "status")[0] == 0

    lab.allow_complaints()
    lab.host.answer_with(REJECT)
    run(lab, "disable")
    code, _, errors = run(lab, "enable")
    assert code == 1 and "the state is rejected" in errors
    lab.host.answer_with(ACCEPT)
    assert run(lab, "enable")[0] == 0


def test_doctor_on_the_conversation(lab: Lab) -> None:
    """A host that says no, one that says nonsense, and one that takes its offer back."""
    lab.allow_complaints()
    lab.host.answer_with(REJECT)
    lab.renegotiate()
    lab.wait_state("rejected")
    assert "the host rejects protocol version 1.0" in findings(lab)["rejected"]

    lab.host.answer_with(say(b"bad"))
    lab.renegotiate()
    lab.wait_state("failed")
    assert "malformed message from the host" in findings(lab)["unanswered"]

    lab.host.control.rescind()
    lab.host.control.wait_released()
    assert status(lab)["state"] == "not-offered"
    assert {"not-offered", "old-host"} & set(findings(lab))
    lab.host.answer_with(ACCEPT)
    lab.host.control.offer()
    lab.wait_state("ready")


def test_doctor_on_the_guest(lab: Lab) -> None:
    """Causes inside it: no server, a node without udev's rule, a full disk, no driver."""
    lab.session()
    lab.guest.run(make_old, "/dev/synthrdp0")
    found = findings(lab)
    assert set(found) == {"server-down", "node-permissions", "relay-failing"}
    assert f"unix:{SERVER}" in found["server-down"]
    assert "mode 0600" in found["node-permissions"]
    lab.sessions[-1].end()
    lab.wait_no_nodes()

    lab.guest.run(fill, "/tmp", True)
    assert "/tmp is full: 0 KiB free" in findings(lab)["disk-full"]
    lab.guest.run(fill, "/tmp", False)
    assert "disk-full" not in findings(lab)

    lab.write(f"{DRIVER}/unbind", str(CONTROL))
    wait_until("the driver lets go", lambda: not lab.guest.exists(CONTROL_FOLDER))
    assert status(lab)["state"] == "no-driver"
    cure = findings(lab)["device-held"]
    assert f"echo {CONTROL} > {DRIVER}/bind" in cure
    lab.write(f"{DRIVER}/bind", str(CONTROL))
    lab.wait_state("ready")

    lab.guest.run(put_module, True)
    lab.unload()
    assert status(lab)["state"] == "no-module"
    assert "modprobe hv_synthrdp" in findings(lab)["module-unloaded"]
    lab.guest.run(put_module, False)
    assert "make install" in findings(lab)["module-missing"]
    lab.guest.insmod()
    lab.wait_state("ready")

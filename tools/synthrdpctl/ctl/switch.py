# SPDX-License-Identifier: GPL-2.0-only
"""Switching on and off, and ending a session."""

from __future__ import annotations

import os
import pwd
import re
import signal
import time
from pathlib import Path

from .facts import CONTROL, DEVICES, DISABLED, NODES, SWITCH, Session, look, sessions
from .system import RELAY, System

READY_UNIT = "synthrdp-ready.service"
SWITCH_SECONDS = 15.0           # the host has 10 to answer
REFUSAL_SECONDS = 2.0           # a refusal of before is still to be seen for a moment
UNIT_SECONDS = 120.0            # systemd's own limit is 90
END_SECONDS = 20.0              # the relay has 5 to deliver what is in flight, the driver 3


class Refused(Exception):
    """It cannot be done; the text says why."""


class NotPermitted(Refused):
    """It can be done, by root."""


class NotThere(Refused):
    """There is no such session."""


def disable(system: System) -> str:
    """Off, and off it stays: the note keeps the unit from switching on again."""
    _need_root(system)
    note = system.path(DISABLED)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        if not note.exists():
            note.write_text(f"disabled by {_who()}, {time.strftime('%Y-%m-%d %H:%M:%S %Z')}\n")
    except OSError as error:
        raise Refused(f"cannot write {DISABLED}: {error.strerror}") from error
    there = system.exists(SWITCH)
    if there:
        _write(system, "0")
    if _has_unit(system):
        _systemctl(system, "stop", READY_UNIT)
    return ("off; sessions that are open go on" if there else
            f"off once there is a control device; noted in {DISABLED}")


def enable(system: System) -> str:
    """On, once there is a server, and wait for the host's yes."""
    _need_root(system)
    try:
        system.path(DISABLED).unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"cannot remove {DISABLED}: {error.strerror}") from error
    if not system.exists(SWITCH):
        raise Refused("there is no control device of hv_synthrdp: `synthrdpctl doctor` says why")
    if _has_unit(system):
        _systemctl(system, "start", READY_UNIT)
    _write(system, "1")         # again, maybe: after a refusal that asks the host anew
    return _wait_ready(system)


def _wait_ready(system: System) -> str:
    begun = time.monotonic()
    state = f"{DEVICES}/{CONTROL}/synthrdp/state"
    while (found := system.read(state)) != "ready":
        if time.monotonic() - begun > (REFUSAL_SECONDS if found == "rejected" else SWITCH_SECONDS):
            raise Refused(f"switched on, but the state is {found}: `synthrdpctl doctor` says why")
        time.sleep(0.1)
    return "on, and the host has agreed"


def end(system: System, name: str) -> str:
    """End a session: its relay delivers what is in flight, and goes."""
    session = find(system, name)
    _need_root(system)
    if not session.served:
        raise NotThere(f"nobody serves {session.device}: there is no session to end")
    unit = f"{RELAY}@{session.device}.service"
    if system.systemd and system.output("systemctl", "is-active", unit) == "active":
        _systemctl(system, "stop", unit)
    elif session.pid is not None:
        try:
            os.kill(session.pid, signal.SIGTERM)
        except OSError as error:
            raise Refused(f"cannot end process {session.pid}: {error.strerror}") from error
    _wait_end(system, session)
    return f"{session.device}: ended"


def _wait_end(system: System, session: Session) -> None:
    limit = time.monotonic() + END_SECONDS
    while any(other.device == session.device and other.pid == session.pid and other.served
              for other in sessions(system)):
        if time.monotonic() > limit:
            raise Refused(f"{session.device}: process {session.pid} ({session.program}) still has"
                          f" it open after {END_SECONDS:.0f} s")
        time.sleep(0.1)


def find(system: System, name: str) -> Session:
    """A session by the number, name or path of its device."""
    match = re.fullmatch(r"(?:/dev/)?(?:synthrdp)?(\d+)", name)
    if not match:
        raise NotThere(f"{name} names no session: give 0, synthrdp0 or /dev/synthrdp0")
    device = f"synthrdp{match[1]}"
    if not system.exists(f"{NODES}/{device}"):
        there = [session.device for session in look(system).sessions]
        raise NotThere(f"there is no {device}; there is: {', '.join(there) or 'no session'}")
    return next(found for found in sessions(system) if found.device == device)


def _who() -> str:
    """Root, and who that was before."""
    before = os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER")
    try:
        now = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        now = str(os.geteuid())
    return f"{before} as {now}" if before else now


def _need_root(system: System) -> None:
    if os.geteuid() and system.root == Path("/"):
        raise NotPermitted("only root may do this")


def _has_unit(system: System) -> bool:
    return system.systemd and system.output(
        "systemctl", "show", "-P", "LoadState", READY_UNIT) not in (None, "not-found")


def _systemctl(system: System, *arguments: str) -> None:
    done = system.run("systemctl", *arguments, seconds=UNIT_SECONDS)
    if done is None or done.returncode:
        said = done.stderr.strip() if done else "no answer"
        raise Refused(f"systemctl {' '.join(arguments)}: {said}")


def _write(system: System, text: str) -> None:
    try:
        fd = os.open(system.path(SWITCH), os.O_WRONLY)
        with open(fd, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise Refused(f"cannot write to {SWITCH}: {error.strerror}") from error

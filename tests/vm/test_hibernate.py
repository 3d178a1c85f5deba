# SPDX-License-Identifier: GPL-2.0-only
"""Suspend to disk, and resume in another QEMU, whose host knows nothing of the first."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from errno import ENODEV, ENOSPC
from pathlib import Path

import pytest

from bench import SLEEPERS, Bench
from guestside import Pattern
from hvhost.synthrdp import Session
from lab import Lab
from test_write import fill
from user import HUP, IN, User, raises_errno

MEGABYTES = 512         # of swap space
SECONDS = 60            # to fall asleep lightly, and wake up
# A kernel says so of channels that the new host does not offer.
MISSING = r"not present after resume|Some vmbus device is missing after suspending"


@pytest.fixture(scope="module", params=SLEEPERS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The place of one kernel's guest with a disk."""
    with tempfile.NamedTemporaryFile(prefix="disk-") as disk:
        disk.truncate(MEGABYTES << 20)
        made = Bench(request.param, disk=Path(disk.name))
        yield made
        made.drop()


def check_works(session: Session, user: User) -> None:
    """A word each way."""
    session.wait_opened()
    session.write(b"to the guest")
    assert user.read(100) == b"to the guest"
    user.write(b"to the host")
    assert session.read_exact(11) == b"to the host"


def check_ended(user: User, tail: bytes = b"") -> None:
    """All that had arrived can be read, then there is the end."""
    assert user.read_all(len(tail) + 1) == tail
    assert user.poll() & (IN | HUP) == IN | HUP
    with raises_errno(ENODEV):
        user.write(b"x")


def test_switched_off_stays_off(lab: Lab) -> None:
    """Over hibernation, too; and can be switched on."""
    lab.guest.make_swap(MEGABYTES)
    lab.switch(False)
    lab.hibernate()
    lab.host.no_request_for(1)
    assert lab.control["state"] == "disabled"
    lab.switch(True)
    lab.wait_state("ready")


def test_sessions_end_and_others_begin(lab: Lab) -> None:
    """Five users read, write, or look away: for each the session ends, as if the host had ended
    it. The next host offers one of the channels at once, and the others for later sessions; each
    node goes, and comes when its channel does, which is what starts a relay."""
    lab.guest.make_swap(MEGABYTES)
    pairs = [lab.opened(which, auto_grant=False) for which in (1, 2, 3, 4, 5)]
    sessions, users = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    tail = Pattern(1).piece(0, 20_000)
    sessions[0].write(tail, sizes=900)
    sessions[0].channel.wait_placed()
    reading = users[1].begin("read", 10)
    fill(users[2], 2)
    writing = users[2].begin("write", b"x")
    sessions[3].write(b"read before")
    assert users[3].read(100) == b"read before"
    for call in (reading, writing):
        call.wait_blocked()
    listener = lab.user()
    listener.do("uevents_begin")
    lab.guest.expect_message(MISSING)

    lab.hibernate(5)
    for session in sessions:
        session.wait_closed()
    assert reading.result() == b""
    with raises_errno(ENODEV):
        writing.result()
    check_ended(users[0], tail)
    for user in users[1:]:
        check_ended(user)
        user.close()

    lab.host.wait_request()
    lab.wait_state("ready")
    seen: list[dict[str, str]] = []         # in whatever order the kernel works
    for which, action in ((1, "remove"), (5, "add")):
        event = {"ACTION": action, "DEVNAME": f"synthrdp{which - 1}"}
        if not any(event.items() <= other.items() for other in seen):
            seen += listener.do("uevents", event, 20)
    assert lab.nodes() == ["synthrdp4"]
    check_works(lab.sessions[-1], users[4].open(4))
    # Its number is free, though the old file is still open.
    check_works(lab.session(1), users[1].open(0))
    listener.do("uevents", {"ACTION": "add", "DEVNAME": "synthrdp0"}, 20)
    for which in (2, 3, 4):
        lab.session(which).end()


def test_no_room_on_the_disk(lab: Lab) -> None:
    """Hibernation fails half-way, with all devices asleep by then: all goes on but the session."""
    lab.guest.make_swap(1)
    lab.guest.allow_message("PM: (Image saving failed|Cannot get swap writer)")
    session, user = lab.opened()
    session.write(b"unread")
    session.channel.wait_placed()
    with raises_errno(ENOSPC):
        lab.guest.hibernate()
    session.wait_closed()
    check_ended(user, b"unread")
    user.close()
    lab.host.wait_request()
    lab.wait_state("ready")
    lab.wait_node()
    check_works(session, user.open())


def test_suspend_to_idle_changes_nothing(lab: Lab) -> None:
    """The session goes on: processors and devices keep what they have."""
    session, user = lab.opened()
    for state in ("freeze", "mem"):
        reading = user.begin("read", 100)
        reading.wait_blocked()
        sleeping = lab.guest.start(suspend_to_idle, state)
        for _ in range(SECONDS):
            if sleeping.done():
                break
            time.sleep(1)
            lab.guest.vm.type(b"x")
        sleeping.result()
        assert lab.control["state"] == "ready"
        session.write(b"good morning")
        assert reading.result() == b"good morning"
        user.write(b"well slept")
        assert session.read_exact(10) == b"well slept"
    lab.guest.expect_message(r"PM: suspend exit")


def suspend_to_idle(state: str) -> None:
    """Runs in the guest: until somebody types."""
    for path, text in (("/sys/power/mem_sleep", "s2idle"),
                       ("/sys/class/tty/ttyS0/power/wakeup", "enabled"),
                       ("/sys/power/state", state)):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

# SPDX-License-Identifier: GPL-2.0-only
"""What the driver tells those who look: its tracepoints, and few words in the kernel log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENODEV, EPROTO

import pytest

from documents import TRACEPOINTS
from hvhost.synthrdp import (
    ACCEPT, ERROR, MALFORMED_MESSAGES, MALFORMED_PACKETS, MESSAGE, REJECT, UNKNOWN_MESSAGE, Answer,
    create_session, say, version_response)
from lab import MAX_DATA, Lab, wait_until
from user import LONG, OUT, raises_errno

TRACING = "/sys/kernel/tracing"
EVENTS = f"{TRACING}/events/synthrdp"
BURST, INTERVAL = 10, 5.0           # of the kernel's own limit on what is repeated
REPETITIONS = 40


def forget(path: str) -> None:
    """Runs in the guest: what was traced before is of no interest."""
    with open(path, "w", encoding="ascii"):
        pass


def fields_of_events(folder: str) -> dict[str, list[str]]:
    """Runs in the guest: the fields that each event has of its own."""
    found = {}
    for name in os.listdir(folder):
        if os.path.isdir(os.path.join(folder, name)):
            with open(os.path.join(folder, name, "format"), encoding="ascii") as file:
                names = re.findall(r"field:[^;]*?(\w+)(?:\[\d+\])?;", file.read())
            found[name] = [field for field in names if not field.startswith("common_")]
    return found


@contextmanager
def traced(lab: Lab) -> Iterator[list[str]]:
    """What the driver's tracepoints say meanwhile, as `event: fields`; there at the end."""
    found: list[str] = []
    lab.guest.run(forget, f"{TRACING}/trace")
    lab.guest.write(f"{EVENTS}/enable", "1")
    try:
        yield found
    finally:
        lab.guest.write(f"{EVENTS}/enable", "0")
        text = lab.guest.read(f"{TRACING}/trace")
        found += re.findall(r"^ .*?: synthrdp_(\w+: .*?) *$", text, re.MULTILINE)
    assert not re.search("LOST|buffer overrun", text), text


def only(found: list[str], *events: str) -> list[str]:
    """What these events said."""
    return [line for line in found if line.partition(":")[0] in events]


def test_a_session(lab: Lab) -> None:
    """Opened, a packet each way, closed. Packets say whose they are."""
    with traced(lab) as found:
        session, user = lab.opened(2)
        session.write(b"hello")
        assert user.read(100) == b"hello"
        user.write(b"goodbye")
        assert session.read_exact(7) == b"goodbye"
        user.close()
    own = [re.sub(r"relid=\d+", "relid=R", line) for line in found if "number=1 " in line + " "]
    assert own == ["session_open: number=1 error=0",
                   "packet: number=1 relid=R rx size=5",
                   "packet: number=1 relid=R tx size=7",
                   "session_hang_up: number=1 reason=closed unread=0",
                   "session_close: number=1"]
    # Of the control channel: CreateSession.
    assert [line for line in only(found, "packet") if "number=-1 " in line and "rx size=24" in line]


@pytest.mark.parametrize("reason", ["withdrawn", "unbound", "malformed"])
def test_a_hang_up_says_why(lab: Lab, reason: str) -> None:
    """And how much there was still to read; the node is closed later."""
    lab.allow_complaints()
    with traced(lab) as found:
        session, user = lab.opened()
        session.write(b"not yet read")
        session.channel.wait_placed()
        if reason == "withdrawn":
            session.end()
        elif reason == "unbound":
            lab.unbind(1)
        else:
            session.send(MALFORMED_PACKETS["pipe type 0"])
        assert user.read_all(12) == b"not yet read"
        wait_until("the session is over", lambda: user.poll(OUT) & ~OUT)
        user.close()
        if reason == "unbound":
            lab.bind(1)
    ends = only(found, "session_hang_up", "session_close")
    # A reader meets what is malformed only when it has read all that is before it.
    unread = 0 if reason == "malformed" else 12
    assert ends == [f"session_hang_up: number=0 reason={reason} unread={unread}",
                    "session_close: number=0"]


def test_a_refusal(lab: Lab) -> None:
    """An opening that fails says so, and no session follows."""
    with traced(lab) as found:
        session = lab.session()
        session.channel.set_open_status(1)
        with raises_errno(ENODEV):
            lab.user().open()
        session.channel.set_open_status(0)
    assert [line for line in found if line.startswith("session")] == [
        f"session_open: number=0 error=-{ENODEV}"]


def test_a_writer_waits_and_goes_on(lab: Lab) -> None:
    """With what is left to write; and whether a signal ended its sleep."""
    with traced(lab) as found:
        session, user = lab.opened(auto_grant=False)
        call = user.begin("write", bytes(4 * MAX_DATA))
        call.wait_blocked()
        session.channel.grant(1)
        assert call.result() == 4 * MAX_DATA
        call = user.begin("write", bytes(MAX_DATA))
        call.wait_blocked()
        call.signal()
        with raises_errno(4):
            call.result()
        session.channel.auto_grant(True)
    waits = only(found, "tx_wait", "tx_wake")
    assert waits == [f"tx_wait: number=0 left={MAX_DATA}", "tx_wake: number=0 error=0",
                     f"tx_wait: number=0 left={MAX_DATA}", "tx_wake: number=0 error=-512"]


def test_states_and_their_reasons(lab: Lab) -> None:
    """Each change, once, with what brought it about."""
    lab.allow_complaints()
    with traced(lab) as found:
        lab.host.answer_with(REJECT)
        lab.renegotiate()
        lab.wait_state("rejected")
        lab.host.answer_with(say(version_response(major=2)), ACCEPT)
        lab.renegotiate()
        lab.host.wait_request()
        lab.host.wait_request()
        lab.wait_state("ready")
    on = ["disabled -> opening: switched on", "opening -> negotiating: channel opened"]
    assert [line.removeprefix("state: ") for line in only(found, "state")] == [
        "ready -> disabled: switched off", *on,
        "negotiating -> rejected: the host rejects protocol version 1.0",
        "rejected -> disabled: switched off", *on,
        "negotiating -> failed: the host agrees to a version not asked for",
        "failed -> opening: next try", on[1], "negotiating -> ready: the host agrees"]


@pytest.mark.parametrize("answer, wanted", {
    "accept": (ACCEPT, "type=version-response size=17 verdict=accept"),
    "reject": (REJECT, "type=version-response size=17 verdict=reject"),
    "create": (say(create_session(1)), "type=create-session size=24 verdict=create-session"),
    "unknown": (say(UNKNOWN_MESSAGE), "type=0x4d size=12 verdict=unknown"),
    "short": (say(b"\x02\0\0"), "type=0xffffffff size=3 verdict=bad-header"),
    "size": (say(version_response()[:16]), "type=version-response size=16 verdict=bad-size"),
    "type": (say(b"\x01" + bytes(15)), "type=version-request size=16 verdict=bad-type"),
    "version": (say(version_response(minor=1)),
                "type=version-response size=17 verdict=bad-version"),
    "error": (say(MESSAGE.pack(ERROR, 8)), "type=error size=8 verdict=error"),
}.values())
def test_messages_and_verdicts(lab: Lab, answer: Answer, wanted: str) -> None:
    """Each message both ways, with what it was taken for."""
    lab.allow_complaints()
    with traced(lab) as found:
        lab.host.answer_with(answer, ACCEPT)
        lab.renegotiate()
        lab.host.wait_request()
        wait_until("the answer is traced", lambda: wanted in lab.guest.read(f"{TRACING}/trace"))
    messages = only(found, "request", "message")
    assert messages[:2] == ["request: type=version-request size=16", f"message: {wanted}"]
    lab.renegotiate()


def test_events_are_those_of_the_document(lab: Lab) -> None:
    """Names and fields, both ways."""
    assert lab.guest.run(fields_of_events, EVENTS) == TRACEPOINTS


# -- the kernel log

def said(lab: Lab) -> list[tuple[float, str]]:
    """What the driver has said during this test, and when. DEBUG_KOBJECT_RELEASE names each object
    that goes, in words of its own.
    """
    return [(line.time, line.text) for line in lab.guest.kernel_messages()
            if "synthrdp" in line.text and not line.text.startswith("kobject: ")]


def test_a_host_cannot_fill_the_log_by_sessions(lab: Lab) -> None:
    """Nonsense in one session after another: the kernel's limit holds."""
    lab.allow_complaints()
    user = lab.user()
    session = lab.session()
    for _ in range(REPETITIONS):
        user.open()
        session.wait_opened()
        session.send(MALFORMED_PACKETS["pipe type 0"])
        with raises_errno(EPROTO):
            user.read(1)
        user.close()
        session.wait_closed()
    times = [time for time, text in said(lab) if "malformed packet" in text]
    assert times
    # Any such stretch of time touches two of the kernel's intervals at the most.
    assert max(sum(begin <= time < begin + INTERVAL for time in times)
               for begin in times) <= 2 * BURST


@pytest.mark.parametrize("what", ["malformed message", "out of turn", "version not asked for",
                                  "error message", "rejects", "cannot open"])
def test_a_host_cannot_fill_the_log_by_the_control_channel(lab: Lab, what: str) -> None:
    """Each cause is told once, though the device itself goes and comes."""
    answers = {"malformed message": MALFORMED_MESSAGES["short header"],
               "out of turn": say(create_session(1)),
               "version not asked for": MALFORMED_MESSAGES["another version"],
               "error message": MALFORMED_MESSAGES["error message"], "rejects": REJECT,
               "cannot open": ACCEPT}
    lab.allow_complaints()
    control = lab.host.control
    lab.host.answer_with(answers[what])
    control.set_open_status(int(what == "cannot open"))
    lab.renegotiate()
    state = "rejected" if what == "rejects" else "failed"
    for _ in range(10):
        lab.wait_state(state)
        control.rescind()
        control.wait_released()
        lab.wait_state(None)
        control.offer()
    lab.wait_state(state)
    control.set_open_status(0)
    lab.host.answer_with(ACCEPT)
    lab.renegotiate()
    lines = [text for _, text in said(lab)]
    assert len(lines) == 1 and what in lines[0], lines


def test_a_user_cannot_fill_the_log(lab: Lab) -> None:
    """Whatever a user does wrong, and however often: the driver has nothing to say."""
    session, user = lab.opened()
    other = lab.user()
    for _ in range(REPETITIONS):
        with raises_errno(16):
            other.open()
        with raises_errno(14):
            user.do("write_at", user.fd, 1, 100)
        with raises_errno(29):
            user.do("seek", user.fd)
    session.end()
    for _ in range(REPETITIONS):
        with raises_errno(ENODEV):
            user.write(b"x")
        user.poll(OUT, LONG)
    user.close()
    assert said(lab) == []

# SPDX-License-Identifier: GPL-2.0-only
"""A host that talks nonsense: every kind of it ends a channel, and nothing else."""

from __future__ import annotations

import struct
from errno import EPROTO

import pytest

from hvhost.synthrdp import (
    ACCEPT, ACCEPTED_UNASKED, MALFORMED_MESSAGES, MALFORMED_PACKETS, REJECT, SILENCE,
    UNKNOWN_MESSAGE, Answer, Session, create_session, say, version_response)
from lab import Lab, wait_until
from user import ERR, HUP, IN, LONG, OUT, raises_errno

INDICES = {"write": 0, "read": 4}      # of a ring: where they are


@pytest.fixture(autouse=True)
def complaints(lab: Lab) -> None:
    """The driver says what is wrong with the host."""
    lab.allow_complaints()


def spoil(session: Session, name: str) -> None:
    """Write what cannot be to an index of the ring to the host."""
    channel = session.channel
    channel.poke((INDICES[name], struct.pack("<I", 1 << 31)), opening=channel.opening)


def test_nonsense_is_told_once(lab: Lab) -> None:
    """One clear line, not one for each call. (First: the message's rate is limited.)"""
    session, user = lab.opened()
    session.send(MALFORMED_PACKETS["pipe type 0"])
    for _ in range(5):
        with raises_errno(EPROTO):
            user.read(1)
    lines = [line for line in lab.guest.kernel_messages() if "malformed" in line.text]
    assert len(lines) == 1


@pytest.mark.parametrize("kind", MALFORMED_PACKETS)
def test_a_session_ends_with_nonsense(lab: Lab, kind: str) -> None:
    """What was good comes first, then EPROTO; no byte of the rest; the next opener is well."""
    session, user = lab.opened()
    session.write(b"good before", sizes=3)
    session.send(MALFORMED_PACKETS[kind])
    session.write(b"never to be seen")
    assert user.read_all(11) == b"good before"
    with raises_errno(EPROTO):
        user.read(100)
    with raises_errno(EPROTO):
        user.write(b"x")
    assert user.poll() == IN | HUP | ERR
    assert lab.counters()["rx_malformed"] == 1
    user.close()
    session.wait_closed()

    user.open()
    session.wait_opened()
    session.write(b"good again")
    assert user.read(100) == b"good again"


@pytest.mark.parametrize("name", ["read", "write"])
@pytest.mark.parametrize("found_by", ["write", "poll"])
def test_a_session_ends_with_a_spoilt_ring(lab: Lab, name: str, found_by: str) -> None:
    """An index of the ring to the host that cannot be: all who look at the session hear of it."""
    session, user = lab.opened()
    sleeper = user.begin("read", 100)
    sleeper.wait_blocked()
    spoil(session, name)
    if found_by == "write":
        with raises_errno(EPROTO):
            user.write(b"x")
    else:
        assert user.poll(OUT) & (OUT | HUP) == HUP
    with raises_errno(EPROTO):
        sleeper.result()
    assert user.poll() == IN | HUP | ERR
    with raises_errno(EPROTO):
        user.write(b"x")


def test_what_came_before_a_spoilt_ring(lab: Lab) -> None:
    """Can still be read."""
    session, user = lab.opened()
    session.write(b"good before")
    session.channel.wait_placed()
    spoil(session, "read")
    with raises_errno(EPROTO):
        user.write(b"x")
    assert user.read_all(11) == b"good before"
    with raises_errno(EPROTO):
        user.read(1)


def test_nonsense_wakes_everybody(lab: Lab) -> None:
    """A sleeping reader and a sleeping poll."""
    session, user = lab.opened()
    reader = user.begin("read", 10)
    poller = user.begin("poll", IN, LONG)
    reader.wait_blocked()
    poller.wait_blocked()
    session.send(MALFORMED_PACKETS["pipe partial"])
    with raises_errno(EPROTO):
        reader.result()
    assert poller.result() == IN | HUP | ERR


def test_nonsense_in_one_session_leaves_the_others_alone(lab: Lab) -> None:
    """Each channel has its own fate."""
    bad, user = lab.opened(1)
    good, other = lab.opened(2)
    bad.send(MALFORMED_PACKETS["size huge"])
    with raises_errno(EPROTO):
        user.read(1)
    good.write(b"fine")
    assert other.read(10) == b"fine"
    assert lab.control["state"] == "ready"


@pytest.mark.parametrize("kind", MALFORMED_MESSAGES)
def test_a_message_that_is_none(lab: Lab, kind: str) -> None:
    """As an answer, and once ready: the control channel closes, and starts anew."""
    lab.host.answer_with(MALFORMED_MESSAGES[kind], ACCEPT)
    lab.renegotiate()
    lab.wait_state("failed")
    lab.renegotiate()
    lab.wait_state("ready")
    lab.host.say(MALFORMED_MESSAGES[kind])
    lab.wait_state("failed")
    lab.renegotiate()


@pytest.mark.parametrize("message", [
    ACCEPT, REJECT, say(version_response(ACCEPTED_UNASKED))], ids=["yes", "no", "yes, unasked"])
def test_a_second_answer(lab: Lab, message: Answer) -> None:
    """The host has said yes: whatever it answers again is out of turn."""
    lab.host.say(message)
    lab.wait_state("failed")
    lab.host.answer_with(ACCEPT + message, ACCEPT)
    lab.renegotiate()
    lab.wait_state("failed")
    lab.renegotiate()


def test_a_session_before_the_answer(lab: Lab) -> None:
    """CreateSession has no place before the guest is ready."""
    lab.host.answer_with(say(create_session(1)) + ACCEPT, ACCEPT)
    lab.renegotiate()
    lab.wait_state("failed")
    lab.renegotiate()


def test_a_message_of_unknown_type_is_ignored(lab: Lab) -> None:
    """Counted, and nothing else: a later host may have more to say."""
    before = int(lab.control["rx_unknown"])
    lab.host.say(say(UNKNOWN_MESSAGE), say(UNKNOWN_MESSAGE[:8]))
    wait_until("both are counted", lambda: int(lab.control["rx_unknown"]) == before + 2)
    assert lab.control["state"] == "ready"
    lab.host.answer_with(say(UNKNOWN_MESSAGE) + ACCEPT)
    lab.renegotiate()
    lab.wait_state("ready")


def test_the_size_field_is_not_relied_on(lab: Lab) -> None:
    """The pipe says how long a message is; what hosts write there is not known for all."""
    for size in (0, 16, 18, 0xffffffff):
        lab.host.answer_with(say(version_response(size=size)))
        lab.renegotiate()
        lab.wait_state("ready")


def test_nonsense_is_told_once_for_each_cause(lab: Lab) -> None:
    """The kernel log names what is wrong, and does not fill up with it."""
    bad = MALFORMED_MESSAGES["one byte short"]
    lab.host.answer_with(bad, bad, ACCEPT)
    lab.renegotiate()
    for _ in range(3):
        lab.host.wait_request()
    lab.wait_state("ready")
    lines = [line for line in lab.guest.kernel_messages() if "malformed message" in line.text]
    assert len(lines) == 1


def test_sessions_do_not_care_for_the_control_channel(lab: Lab) -> None:
    """An open session goes on whatever becomes of the control channel."""
    session, user = lab.opened()
    lab.host.answer_with(SILENCE, ACCEPT)
    lab.host.say(MALFORMED_MESSAGES["error message"])
    lab.wait_state("failed")
    session.write(b"still here")
    assert user.read(100) == b"still here"
    lab.renegotiate()
    lab.wait_state("negotiating")
    user.write(b"so am I")
    assert session.read_exact(7) == b"so am I"
    lab.renegotiate()

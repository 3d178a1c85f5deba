# SPDX-License-Identifier: GPL-2.0-only
"""The control channel: negotiation, its retries, and the switch."""

from __future__ import annotations

from errno import EINVAL

import pytest

from hvhost.channel import Timeout
from hvhost.synthrdp import (
    ACCEPT, ACCEPTED_UNASKED, CONTROL, REJECT, SILENCE, Answer, create_session, late, say,
    version_response)
from lab import CONTROL_FOLDER, Lab, wait_until
from user import raises_errno

BAD = say(b"bad")       # shorter than any message


@pytest.fixture(autouse=True)
def complaints(lab: Lab) -> None:
    """The driver says what is wrong with the host."""
    lab.allow_complaints()


def test_ready(lab: Lab) -> None:
    """The host is asked for 1.0, once; its yes makes the guest ready, and is announced."""
    user = lab.user()
    user.do("uevents_begin")
    lab.renegotiate()
    request = lab.host.wait_request()
    assert (request.major, request.minor) == (1, 0)
    events = user.do("uevents", {"SYNTHRDP_STATE": "ready"}, 10)
    states = [event["SYNTHRDP_STATE"] for event in events if "SYNTHRDP_STATE" in event]
    assert states == ["disabled", "opening", "negotiating", "ready"]
    assert lab.control["version"] == "1.0"
    lab.host.no_request_for(0.3)


@pytest.mark.parametrize("answer", [
    REJECT, say(version_response(ACCEPTED_UNASKED)), say(version_response(3)),
    say(version_response(255)), late(0.5, REJECT),
], ids=["no", "yes, unasked", "3", "255", "late"])
def test_rejected(lab: Lab, answer: Answer) -> None:
    """Only 2 means yes. Anything else closes the channel until somebody switches on anew."""
    lab.host.answer_with(answer, ACCEPT)
    lab.renegotiate()
    lab.wait_state("rejected")
    assert lab.control["version"] == "none"
    lab.host.wait_request()
    lab.host.no_request_for(1.5)
    lab.switch(True)
    lab.wait_state("ready")


def test_a_late_answer_is_good_enough(lab: Lab) -> None:
    """The host has 10 seconds."""
    lab.host.answer_with(late(2))
    lab.renegotiate()
    lab.wait_state("negotiating")
    lab.wait_state("ready")


def test_a_host_that_never_answers(lab: Lab) -> None:
    """10 s for an answer, then a pause of 1 s, and the next request."""
    lab.host.answer_with(SILENCE, ACCEPT)
    lab.renegotiate()
    first = lab.host.wait_request()
    lab.wait_state("failed", 15)
    second = lab.host.wait_request()
    assert 10.5 < second.at - first.at < 13
    lab.wait_state("ready")


def test_retries_take_their_time(lab: Lab) -> None:
    """1, 2, 4 seconds after a failure, and from 1 again once it was ready."""
    lab.host.answer_with(BAD, BAD, BAD, ACCEPT)
    lab.renegotiate()
    times = [lab.host.wait_request().at for _ in range(4)]
    pauses = [after - before for before, after in zip(times, times[1:])]
    for pause, wanted in zip(pauses, (1, 2, 4)):
        assert wanted * 0.95 < pause < wanted + 1.5, pauses
    lab.wait_state("ready")

    lab.host.say(BAD)
    lab.wait_state("failed")
    failed = lab.host.log.now()
    assert lab.host.wait_request().at - failed < 2
    lab.wait_state("ready")


def test_what_comes_late_does_not_hurry_the_next_try(lab: Lab) -> None:
    """Nonsense followed by more messages: the channel is closing, nobody listens."""
    lab.host.answer_with(BAD + ACCEPT * 200, ACCEPT)
    lab.renegotiate()
    first = lab.host.wait_request()
    assert lab.host.wait_request().at - first.at > 0.95
    lab.wait_state("ready")


def test_a_host_that_refuses_the_channel(lab: Lab) -> None:
    """Tried again, until it lets the guest in."""
    lab.host.control.set_open_status(1)
    try:
        lab.renegotiate()
        lab.wait_state("failed")
    finally:
        lab.host.control.set_open_status(0)
    lab.wait_state("ready")


def test_the_control_channel_is_drained(lab: Lab) -> None:
    """More messages than the ring holds, and the guest still listens."""
    before = int(lab.control["sessions"])
    for _ in range(5000):
        lab.host.say(say(create_session(1)))
    wait_until("all are noted", lambda: int(lab.control["sessions"]) == before + 5000, 20)
    assert lab.control["state"] == "ready"


def test_switched_off_and_on(lab: Lab) -> None:
    """Off closes the channel, and has done so when the write returns; on is a fresh start."""
    lab.host.control.wait_opened()
    for off, on in (("0", "1"), ("n", "y"), ("off", "on")):
        lab.write(f"{CONTROL_FOLDER}/enabled", off)
        assert lab.control["state"] == "disabled"
        assert lab.control["enabled"] == "0"
        lab.host.control.wait_closed()
        lab.host.forget_requests()
        lab.host.no_request_for(0.2)
        lab.write(f"{CONTROL_FOLDER}/enabled", on)
        lab.host.wait_request()
        lab.wait_state("ready")
        assert lab.control["enabled"] == "1"


def test_the_switch_takes_nothing_else(lab: Lab) -> None:
    """EINVAL, and nothing changes."""
    with raises_errno(EINVAL):
        lab.write(f"{CONTROL_FOLDER}/enabled", "maybe")
    assert lab.control["state"] == "ready"


@pytest.mark.parametrize("state, answer", [
    ("negotiating", SILENCE), ("rejected", REJECT), ("failed", BAD), ("ready", ACCEPT)])
def test_switched_off_in_each_state(lab: Lab, state: str, answer: Answer) -> None:
    """Off is off: no retry is left behind; and on works from there."""
    lab.host.answer_with(answer, ACCEPT)
    lab.renegotiate()
    lab.host.wait_request()         # which may be later than the state that goes with it
    lab.wait_state(state)
    lab.switch(False)
    assert lab.control["state"] == "disabled"
    lab.host.forget_requests()
    lab.host.no_request_for(1.5)
    lab.switch(True)
    lab.wait_state("ready")


def test_switched_on_when_on_is_a_fresh_start_only_if_needed(lab: Lab) -> None:
    """A guest that is ready stays so."""
    lab.switch(True)
    lab.host.no_request_for(0.3)
    assert lab.control["state"] == "ready"


def test_switched_off_leaves_sessions_alone(lab: Lab) -> None:
    """Their users notice nothing."""
    session, user = lab.opened()
    lab.switch(False)
    session.write(b"still")
    assert user.read(10) == b"still"
    other, other_user = lab.opened(2, announce="never")
    other.write(b"even new ones")
    assert other_user.read(100) == b"even new ones"
    lab.switch(True)
    lab.wait_state("ready")
    user.write(b"and after")
    assert session.read_exact(9) == b"and after"


def test_switched_many_times(lab: Lab) -> None:
    """As fast as it goes; the last word counts."""
    for _ in range(30):
        lab.switch(False)
        lab.switch(True)
    lab.wait_state("ready")
    lab.switch(False)
    lab.host.forget_requests()
    with pytest.raises(Timeout):
        lab.host.wait_request(0.3)
    lab.switch(True)


def test_the_control_device_may_go_and_come(lab: Lab) -> None:
    """Rescinded when ready, while negotiating, and between two tries; offered again."""
    for state, answer in (("ready", ACCEPT), ("negotiating", SILENCE), ("failed", BAD),
                          ("rejected", REJECT)):
        lab.host.answer_with(answer, ACCEPT)
        lab.renegotiate()
        lab.wait_state(state)
        lab.host.control.rescind()
        lab.host.control.wait_released()
        lab.wait_state(None)
        lab.host.control.offer()
        lab.wait_state("ready")


def test_the_control_device_unbound_and_bound(lab: Lab) -> None:
    """By hand, in sysfs."""
    lab.unbind(CONTROL)
    lab.wait_state(None)
    lab.bind(CONTROL)
    lab.wait_state("ready")

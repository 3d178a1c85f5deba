# SPDX-License-Identifier: GPL-2.0-only
"""Ends: the host's, the user's, the administrator's, at any moment."""

from __future__ import annotations

import time
from errno import EAGAIN, ENODEV

from guestside import Pattern
from lab import MAX_DATA, Lab, wait_until
from streams import HostReader, HostWriter
from test_write import fill
from user import HUP, IN, LONG, User, raises_errno

BULK = 1 << 30      # more than any test lets through


def test_bulk_both_ways_at_once(lab: Lab) -> None:
    """Neither direction waits for the other, and every byte is at its place."""
    session, user = lab.opened()
    total = 4 << 20
    reading = user.begin("read_pattern", 1, 0, total, 33_333)
    writing = user.begin("write_pattern", 2, 0, total, 44_444)
    reader = HostReader(session, 2)
    writer = HostWriter(session, 1, total)
    assert reading.result(120) == total
    assert writing.result(120) == total
    user.close()
    assert reader.end() == total
    writer.end()


def test_the_host_ends_in_the_middle_of_bulk(lab: Lab) -> None:
    """Every byte that arrives is the right one, up to the end on either side."""
    session, user = lab.opened()
    reading = user.begin("read_pattern", 1, 0, BULK, 33_333)
    writing = user.begin("write_pattern", 2, 0, BULK, 44_444)
    reader = HostReader(session, 2)
    writer = HostWriter(session, 1, BULK)
    wait_until("bulk flows", lambda: min(reader.got, lab.counters()["rx_bytes"]) > 1 << 20)
    session.end()
    assert 1 << 20 < reading.result() <= writer.end()
    assert writing.result() + MAX_DATA >= reader.end()


def test_the_user_ends_in_the_middle_of_bulk(lab: Lab) -> None:
    """Killed: what it had written before reaches the host if the host reads."""
    session, user = lab.opened()
    user.begin("read_pattern", 1, 0, BULK, 33_333)
    user.begin("write_pattern", 2, 0, BULK, 44_444)
    reader = HostReader(session, 2)
    writer = HostWriter(session, 1, BULK)
    wait_until("bulk flows", lambda: reader.got > 1 << 20 and writer.sent > 1 << 20)
    before = lab.counters()["tx_bytes"]
    user.kill()
    got = reader.end()
    writer.end()
    assert got >= before
    assert got == lab.counters()["tx_bytes"]


def end_after(lab: Lab, user: User, seconds: float) -> None:
    """A session with bulk both ways that the host ends after a moment.

    When the host has taken a packet and the channel before write(2) returned,
    that may say ENODEV.
    """
    session = lab.session()
    user.open()
    session.wait_opened()
    reading = user.begin("read_pattern", 1, 0, BULK, 33_333)
    writing = user.begin("write_pattern", 2, 0, BULK, 44_444)
    reader = HostReader(session, 2)
    writer = HostWriter(session, 1, BULK)
    time.sleep(seconds)
    session.end()
    assert reading.result() <= writer.end()
    assert writing.result() + MAX_DATA >= reader.end()
    user.close()


def test_the_host_ends_at_any_moment(lab: Lab) -> None:
    """From at once to in full flow."""
    user = lab.user()
    for moment in range(8):
        end_after(lab, user, moment * 0.007)


def test_the_host_comes_and_goes_under_open_and_close(lab: Lab) -> None:
    """Whatever the user is at just then, there is no other answer than these."""
    session = lab.session()
    user = lab.user()
    call = user.call("open_close_until_stopped", "/dev/synthrdp0")
    for moment in range(20 // lab.guest.kernel.patience):
        time.sleep(moment * 0.005)
        session.end()
        session.offer()
    lab.wait_node()
    for _ in range(6):
        session.wait_opened()
    user.do("stop")
    outcomes = call.result()
    assert outcomes["done"] > 0
    assert set(outcomes) <= {"done", "ENODEV", "ENOENT", "ENXIO"}, outcomes


def test_what_was_written_before_close_arrives(lab: Lab) -> None:
    """close(2) waits for the host to read it."""
    session, user = lab.opened(auto_grant=False)
    filled = fill(user, 1)
    call = user.begin("close")
    call.wait_blocked()
    session.channel.auto_grant(True)
    assert session.read_to_end() == Pattern(1).piece(0, filled)
    call.result(2)


def test_close_gives_up_on_a_host_that_does_not_read(lab: Lab) -> None:
    """After 3 seconds."""
    session, user = lab.opened(auto_grant=False)
    user.write(b"never read")
    begin = time.monotonic()
    user.close()
    assert 2.5 < time.monotonic() - begin < 5 * lab.guest.kernel.patience
    session.wait_closed()


def test_close_with_nothing_written_does_not_wait(lab: Lab) -> None:
    """Nothing to flush, nothing to wait for, though the host reads nothing."""
    session, user = lab.opened(auto_grant=False)
    session.write(b"unread")
    begin = time.monotonic()
    user.close()
    assert time.monotonic() - begin < 2.5
    session.wait_closed()


def test_the_host_ends_while_everybody_sleeps(lab: Lab) -> None:
    """A reader, a writer and a poll at once: each wakes up with its own answer."""
    session, user = lab.opened(auto_grant=False)
    fill(user, 1)
    reader = user.begin("read", 10)
    writer = user.begin("write", b"x")
    poller = user.begin("poll", IN, LONG)
    for call in (reader, writer, poller):
        call.wait_blocked()
    session.end()
    assert reader.result() == b""
    assert poller.result() == IN | HUP
    with raises_errno(ENODEV):
        writer.result()


def test_the_host_ends_while_close_waits(lab: Lab) -> None:
    """There is nobody left to wait for."""
    session, user = lab.opened(auto_grant=False)
    user.write(b"never read")
    call = user.begin("close")
    call.wait_blocked()
    session.end()
    call.result(2)


def test_the_host_ends_while_nobody_looks(lab: Lab) -> None:
    """A file may be held for long after."""
    session, user = lab.opened()
    session.end()
    session.offer()
    lab.wait_node()
    assert user.read(1) == b""
    user.close()


def test_unbound_under_its_users(lab: Lab) -> None:
    """By hand, in sysfs: as if the host had ended it; and it may be bound again."""
    session, user = lab.opened()
    session.write(b"before")
    session.channel.wait_placed()
    poller = user.begin("poll", HUP, LONG)
    poller.wait_blocked()
    lab.unbind(1)
    session.wait_closed()
    assert poller.result() & HUP
    assert user.read(10) == b"before"
    assert user.read(10) == b""
    lab.wait_node(0, False)
    lab.bind(1)
    lab.wait_node()
    again = lab.user().open()
    session.wait_opened()
    session.write(b"x")
    assert again.read(1) == b"x"


def test_a_node_in_use_holds_the_module(lab: Lab) -> None:
    """rmmod says so, and harms nobody."""
    session, user = lab.opened()
    with raises_errno(EAGAIN):
        lab.unload()
    session.write(b"unharmed")
    assert user.read(10) == b"unharmed"


def test_an_ended_session_holds_the_module_until_it_is_closed(lab: Lab) -> None:
    """The code that its file runs must stay."""
    session, user = lab.opened()
    session.end()
    with raises_errno(EAGAIN):
        lab.unload()
    assert user.read(1) == b""


def test_the_module_comes_before_or_after_the_offers(lab: Lab) -> None:
    """Unloaded with a session on offer, which is there again with the module."""
    session = lab.session()
    lab.guest.rmmod()
    assert lab.nodes() == []
    other = lab.session(2, announce="never", offer=False)
    other.offer()
    lab.guest.insmod()
    lab.wait_state("ready")
    for which, offered in ((1, session), (2, other)):
        lab.wait_node(which - 1)
        user = lab.user().open(which - 1)
        offered.wait_opened()
        offered.write(b"%d" % which)
        assert user.read(10) == b"%d" % which


def test_loaded_and_switched_off(lab: Lab) -> None:
    """The parameter enabled=0: nothing is said until somebody switches on."""
    lab.guest.rmmod()
    lab.host.forget_requests()
    try:
        lab.guest.insmod("enabled=0")
        lab.wait_state("disabled")
        lab.host.no_request_for(0.5)
        lab.switch(True)
        lab.wait_state("ready")
    finally:
        lab.guest.rmmod()
        lab.guest.insmod()


def test_loaded_and_unloaded_many_times(lab: Lab) -> None:
    """With the control channel in any state, and a session on offer."""
    lab.session()
    for _ in range(8):
        lab.guest.rmmod()
        lab.guest.insmod()
    lab.wait_state("ready")


def test_five_sessions_at_once(lab: Lab) -> None:
    """Each with its own stream, both ways, ended in another order than begun."""
    pairs = [lab.opened(which) for which in (1, 2, 3, 4, 5)]
    total = 1 << 19
    calls = [(user.begin("read_pattern", n, 0, total, 10_000),
              user.begin("write_pattern", 10 + n, 0, total, 20_000))
             for n, (_, user) in enumerate(pairs)]
    readers = [HostReader(session, 10 + n) for n, (session, _) in enumerate(pairs)]
    writers = [HostWriter(session, n, total) for n, (session, _) in enumerate(pairs)]
    for reading, writing in calls:
        assert (reading.result(120), writing.result(120)) == (total, total)
    for n in (2, 0, 4, 1, 3):
        session, user = pairs[n]
        if n % 2:
            user.close()
            assert readers[n].end() == total
        else:
            readers[n].wait_for(total)
            session.end()
            user.close()
        writers[n].end()

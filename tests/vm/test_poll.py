# SPDX-License-Identifier: GPL-2.0-only
"""poll(2) and epoll(7): never busy, never lost."""

from __future__ import annotations

import select
from errno import EINTR, EPROTO

import pytest

from hvhost import pipe
from hvhost.synthrdp import Raw
from lab import MAX_DATA, Lab
from test_write import fill
from user import ERR, HUP, IN, LONG, OUT, raises_errno


def test_in_and_out_say_what_would_not_block(lab: Lab) -> None:
    """IN with something to read, OUT with room to write, level by level."""
    session, user = lab.opened(auto_grant=False)
    assert user.poll() == OUT
    assert user.poll(IN) == 0
    session.write(b"ab")
    assert user.wait_for(IN) == IN | OUT
    user.read(1)
    assert user.poll() == IN | OUT
    user.read(1)
    assert user.poll() == OUT
    fill(user, 1)
    assert user.poll() == 0
    session.write(b"c")
    assert user.wait_for(IN | OUT) == IN


def test_out_means_that_a_write_accepts_something(lab: Lab) -> None:
    """Not before there is room for a byte, and a nonblocking write agrees."""
    session, user = lab.opened(auto_grant=False)
    fill(user, 2)
    call = user.begin("poll", OUT, LONG)
    call.wait_blocked()
    session.channel.grant(1)
    assert call.result() == OUT
    user.nonblocking()
    assert user.write(bytes(100)) > 0


def test_a_sleeping_poll_is_woken(lab: Lab) -> None:
    """By data, and by the end."""
    session, user = lab.opened()
    call = user.begin("poll", IN, LONG)
    call.wait_blocked()
    session.write(b"x")
    assert call.result() == IN
    user.read(1)
    call = user.begin("poll", IN, LONG)
    call.wait_blocked()
    session.end()
    assert call.result() == IN | HUP


def test_pollers_reader_and_writer_are_all_woken(lab: Lab) -> None:
    """One wakes up for itself, not instead of another."""
    session, user = lab.opened(auto_grant=False)
    fill(user, 3)
    writer = user.begin("write", b"w" * MAX_DATA)
    pollers = [user.begin("poll", IN | OUT, LONG) for _ in range(4)]
    reader = user.begin("read", 1)
    for call in (writer, *pollers, reader):
        call.wait_blocked()
    session.channel.auto_grant(True)
    session.write(b"r")
    assert writer.result() == MAX_DATA
    assert reader.result() == b"r"
    for poller in pollers:
        assert poller.result() & (IN | OUT)


def test_idle_poll_sleeps(lab: Lab) -> None:
    """Nothing happens, so nothing is woken: the time-out is all there is."""
    session, user = lab.opened(auto_grant=False)
    fill(user, 4)
    before = session.channel.stats()
    assert user.poll(IN | OUT, 500) == 0
    after = session.channel.stats()
    assert before == after


def test_each_packet_is_an_edge(lab: Lab) -> None:
    """Edge-triggered users hear of each arrival, though they have not read all before."""
    session, user = lab.opened()
    user.do("edge_begin", user.fd, IN)
    assert user.do("edge", user.fd, 0) == 0
    session.write(b"one")
    assert user.do("edge", user.fd, 10) & IN
    assert user.do("edge", user.fd, 0.05) == 0
    assert user.read(10) == b"one"
    session.write(b"two")
    assert user.do("edge", user.fd, 10) & IN
    assert user.read(10) == b"two"
    session.end()
    assert user.do("edge", user.fd, 10) & (IN | HUP) == IN | HUP


def test_room_is_an_edge(lab: Lab) -> None:
    """After EAGAIN, an edge-triggered writer is told when to go on."""
    session, user = lab.opened(auto_grant=False)
    user.do("edge_begin", user.fd, OUT)
    assert user.do("edge", user.fd, 1) & OUT
    for seed in range(3):
        fill(user, seed)
        assert user.do("edge", user.fd, 0.05) == 0
        session.channel.grant(2)
        assert user.do("edge", user.fd, 10) & OUT


@pytest.mark.parametrize("asked", [select.POLLOUT, select.POLLWRNORM])
def test_room_is_told_by_any_name(lab: Lab, asked: int) -> None:
    """POLLWRNORM is as good a wish as POLLOUT."""
    other = lab.opened(2, auto_grant=False)[1]
    other.nonblocking()
    room = other.write(bytes(1 << 17))
    session, user = lab.opened(auto_grant=False)
    user.nonblocking()
    assert user.write(bytes(room)) == room      # and not a byte more: that would be a wish itself
    call = user.begin("poll", asked, LONG)
    call.wait_blocked()
    session.channel.auto_grant(True)
    assert call.result() == asked


def test_nonsense_is_an_error_and_a_hang_up(lab: Lab) -> None:
    """ERR with IN and HUP once what was good has been read; a reader wakes up to see it."""
    lab.guest.expect_message("malformed packet from the host")
    session, user = lab.opened()
    call = user.begin("poll", IN, LONG)
    call.wait_blocked()
    session.send(Raw(pipe.pack(b"bad", kind=0)))
    assert call.result() == IN | HUP | ERR
    assert user.poll() == IN | HUP | ERR
    with raises_errno(EPROTO):
        user.read(1)
    with raises_errno(EPROTO):
        user.write(b"x")


def test_a_signal_interrupts_poll(lab: Lab) -> None:
    """EINTR, as always with poll(2)."""
    _, user = lab.opened()
    call = user.begin("poll", IN, LONG)
    call.wait_blocked()
    call.signal()
    with raises_errno(EINTR):
        call.result()

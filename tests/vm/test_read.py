# SPDX-License-Identifier: GPL-2.0-only
"""read(2): a byte stream, whatever packets the host cuts it into."""

from __future__ import annotations

import os
from errno import EAGAIN, EBADF, EFAULT, EINTR, EPROTO, ESPIPE
from signal import SIGUSR2

import pytest

from guestside import Pattern
from hvhost import pipe
from hvhost.synthrdp import Raw
from lab import MAX_DATA, Lab
from user import HUP, IN, OUT, raises_errno

SIZES = (1, 7, 8, 9, 15, 16, 17, 4071, 4072, 4096, MAX_DATA - 8, MAX_DATA - 1, MAX_DATA)


def test_a_packet_of_each_size_arrives_whole(lab: Lab) -> None:
    """One packet, one read with more than enough room."""
    session, user = lab.opened()
    pattern, at = Pattern(1), 0
    for size in SIZES:
        session.write(pattern.piece(at, size))
        assert user.read(2 * MAX_DATA) == pattern.piece(at, size), f"packet of {size}"
        at += size


def test_a_large_packet_continues_in_the_next_read(lab: Lab) -> None:
    """Reads of any size, ending before, at and behind the borders of packets."""
    session, user = lab.opened()
    session.write(b"abcdefghij" * 10, sizes=10)
    stream = b"abcdefghij" * 10
    at = 0
    for size in (1, 9, 10, 3, 7, 5, 10, 8, 1, 1, 25, 20):
        assert user.read_all(size) == stream[at:at + size], f"{size} bytes at {at}"
        at += size
    assert at == len(stream)


def test_one_read_takes_what_is_there_across_packets(lab: Lab) -> None:
    """Small packets do not mean small reads."""
    session, user = lab.opened()
    session.write(b"x" * 1000, sizes=[1, 2, 3, 94])
    session.channel.wait_placed()
    assert user.read(4096) == b"x" * 1000


def test_reads_of_one_byte_lose_nothing(lab: Lab) -> None:
    """The slowest of all readers."""
    session, user = lab.opened()
    pattern = Pattern(2)
    session.write(pattern.piece(0, 600), sizes=[1, 8, 9, 41])
    assert user.do("read_pattern", user.fd, 2, 0, 600, 1) == 600


@pytest.mark.parametrize("sizes", [[1, 7, 8, 9], [MAX_DATA], [MAX_DATA, 1, 4096, 33]])
def test_a_long_stream_round_the_ring(lab: Lab, sizes: list[int]) -> None:
    """Several times through the ring, every byte at its place."""
    session, user = lab.opened()
    total = 200 * sum(sizes) if max(sizes) < MAX_DATA else 1 << 20
    call = user.begin("read_pattern", 3, 0, total, 10_007)
    session.write(Pattern(3).piece(0, total), sizes=sizes)
    assert call.result() == total


def test_an_empty_packet_is_not_the_end(lab: Lab) -> None:
    """A packet of 0 bytes wakes nobody with nothing."""
    session, user = lab.opened()
    call = user.begin("read", 10)
    call.wait_blocked()
    for _ in range(3):
        session.channel.send(pipe.pack(b""))
    call.must_not_return_for(0.2)
    assert user.poll() == OUT
    session.write(b"data")
    assert call.result() == b"data"


def test_surplus_bytes_are_padding(lab: Lab) -> None:
    """Only data_size bytes of a packet are data."""
    session, user = lab.opened()
    session.channel.send(pipe.pack(b"data and more", size=4))
    session.channel.send(pipe.pack(b"nothing at all", size=0))
    session.write(b"!")
    assert user.read_all(5) == b"data!"


def test_an_empty_node_blocks_or_says_eagain(lab: Lab) -> None:
    """O_NONBLOCK and RWF_NOWAIT are two things, and both are heeded."""
    session, user = lab.opened()
    with raises_errno(EAGAIN):
        user.do("read_nowait", user.fd, 10)
    call = user.begin("read", 10)
    call.wait_blocked()
    session.write(b"one")
    assert call.result() == b"one"

    user.nonblocking()
    with raises_errno(EAGAIN):
        user.read(10)
    session.write(b"two")
    assert user.wait_for(IN) & IN
    assert user.read(10) == b"two"
    session.write(b"three")
    user.wait_for(IN)
    assert user.do("read_nowait", user.fd, 10) == b"three"


def test_a_read_of_nothing_returns_nothing(lab: Lab) -> None:
    """Whether or not there is something."""
    session, user = lab.opened()
    assert user.read(0) == b""
    session.write(b"x")
    user.wait_for(IN)
    assert user.read(0) == b""
    assert user.read(1) == b"x"


def test_a_bad_address_loses_no_byte(lab: Lab) -> None:
    """EFAULT, and the data is still there."""
    session, user = lab.opened()
    session.write(b"precious")
    user.wait_for(IN)
    with raises_errno(EFAULT):
        user.do("read_at", user.fd, 8, 8)
    assert user.read(100) == b"precious"


def test_memory_without_pages_is_paged_in(lab: Lab) -> None:
    """A read may be cut short by that; no byte is lost to it, and none comes twice."""
    session, user = lab.opened()
    data = Pattern(1).piece(0, 40_000)
    session.write(data)
    session.channel.wait_placed()
    first = user.do("read_untouched", user.fd, 40_000)
    assert first
    assert first + user.read_all(40_000 - len(first)) == data


def test_a_stream_has_no_position(lab: Lab) -> None:
    """lseek(2) makes no sense."""
    _, user = lab.opened()
    with raises_errno(ESPIPE):
        user.do("seek", user.fd)


def test_a_signal_interrupts_a_sleeping_read(lab: Lab) -> None:
    """EINTR, unless the handler restarts system calls; nothing is lost either way."""
    session, user = lab.opened()
    call = user.begin("read", 10)
    call.wait_blocked()
    call.signal()
    with raises_errno(EINTR):
        call.result()

    call = user.begin("read", 10)
    call.wait_blocked()
    call.signal(SIGUSR2)
    call.must_not_return_for(0.1)
    session.write(b"after")
    assert call.result() == b"after"


def test_two_readers_share_the_stream(lab: Lab) -> None:
    """Each byte goes to one of them, and neither is forgotten."""
    session, user = lab.opened()
    calls = [user.begin("read", 1) for _ in range(2)]
    for call in calls:
        call.wait_blocked()
    session.write(b"ab")
    assert sorted(call.result() for call in calls) == [b"a", b"b"]


def test_what_had_arrived_is_read_before_the_end(lab: Lab) -> None:
    """The host sends and hangs up at once: data, then 0, and 0 again."""
    session, user = lab.opened()
    pattern = Pattern(4)
    session.write(pattern.piece(0, 30_000), sizes=[MAX_DATA, 1, 99])
    session.channel.wait_placed()
    session.end()
    assert user.poll() == IN | HUP
    assert user.read(7) == pattern.piece(0, 7)
    assert user.do("read_pattern", user.fd, 4, 7, 1 << 20, 4096) == 30_000
    assert user.read(10) == b""
    assert user.poll() == IN | HUP
    user.nonblocking()
    assert user.read(10) == b""


def test_a_packet_half_read_at_the_hang_up_is_read_on(lab: Lab) -> None:
    """The hang-up must not start the packet anew, nor lose its rest."""
    session, user = lab.opened()
    session.write(b"0123456789")
    assert user.read(4) == b"0123"
    session.end()
    assert user.read(3) == b"456"
    assert user.read(100) == b"789"
    assert user.read(100) == b""


def test_a_full_ring_outlives_the_hang_up(lab: Lab) -> None:
    """As much as the ring holds, nobody read it before the end."""
    session, user = lab.opened()
    pattern = Pattern(5)
    session.write(pattern.piece(0, 3 * MAX_DATA))
    session.channel.wait_placed()
    session.end()
    assert user.do("read_pattern", user.fd, 5, 0, 1 << 20, 5000) == 3 * MAX_DATA


def test_a_sleeping_reader_gets_the_end(lab: Lab) -> None:
    """Not an error, and not for ever."""
    session, user = lab.opened()
    call = user.begin("read", 10)
    call.wait_blocked()
    session.end()
    assert call.result() == b""


def test_good_data_before_nonsense_is_read_first(lab: Lab) -> None:
    """A packet that makes no sense is an end of its own kind."""
    lab.guest.expect_message("malformed packet from the host")
    session, user = lab.opened()
    session.write(b"good")
    session.send(Raw(pipe.pack(b"bad", kind=7)))
    session.write(b"never")
    session.channel.wait_placed()
    assert user.read_all(4) == b"good"
    with raises_errno(EPROTO):
        user.read(10)


def test_flags_of_open(lab: Lab) -> None:
    """A node opened for reading only cannot be written, and the other way round."""
    session = lab.session()
    user = lab.user()
    user.fd = user.do("open", "/dev/synthrdp0", os.O_RDONLY | os.O_NONBLOCK)
    session.wait_opened()
    with raises_errno(EAGAIN):
        user.read(1)
    with raises_errno(EBADF):
        user.write(b"x")
    user.close()
    user.fd = user.do("open", "/dev/synthrdp0", os.O_WRONLY)
    session.wait_opened()
    assert user.write(b"x") == 1
    with raises_errno(EBADF):
        user.read(1)

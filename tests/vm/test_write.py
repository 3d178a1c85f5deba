# SPDX-License-Identifier: GPL-2.0-only
"""write(2): a byte stream, cut into packets that the protocol allows."""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINTR, ENODEV
from signal import SIGUSR2

import pytest

from guestside import Pattern
from hvhost.channel import Timeout
from hvhost.synthrdp import Session
from lab import MAX_DATA, Lab, ring_bytes
from user import OUT, User, raises_errno

SIZES = (1, 7, 8, 9, 15, 16, 17, 4071, 4072, 4096, MAX_DATA - 8, MAX_DATA - 1, MAX_DATA)


def fill(user: User, seed: int, size: int = MAX_DATA) -> int:
    """Write a pattern until the ring is full, return how much that was."""
    pattern, at = Pattern(seed), 0
    user.nonblocking()
    try:
        while True:
            at += user.write(pattern.piece(at, size))
    except OSError as error:
        assert error.errno == EAGAIN
    user.nonblocking(False)
    return at


def read_pattern(session: Session, seed: int, at: int, until: int) -> None:
    """The host reads what the guest must have written."""
    Pattern(seed).check(at, session.read_exact(until - at))


def test_a_write_of_each_size_arrives_whole(lab: Lab) -> None:
    """Up to the largest packet, one write is one packet."""
    session, user = lab.opened()
    pattern, at = Pattern(1), 0
    for size in SIZES:
        assert user.write(pattern.piece(at, size)) == size
        assert session.read_packet() == pattern.piece(at, size), f"write of {size}"
        at += size


@pytest.mark.parametrize("size", [MAX_DATA + 1, 100_000, 300_001])
def test_a_large_write_is_cut(lab: Lab, size: int) -> None:
    """No packet above 16384 bytes; a blocking write returns only when all is sent."""
    session, user = lab.opened()
    call = user.begin("write", Pattern(2).piece(0, size))
    read_pattern(session, 2, 0, size)
    assert call.result() == size


def test_a_write_of_nothing_sends_nothing(lab: Lab) -> None:
    """No empty packet reaches the host."""
    session, user = lab.opened()
    assert user.write(b"") == 0
    user.write(b"x")
    assert session.read_packet() == b"x"


def test_a_long_stream_round_the_ring(lab: Lab) -> None:
    """Several times through the ring, every byte at its place."""
    session, user = lab.opened()
    call = user.begin("write_pattern", 3, 0, 1 << 20, 50_001)
    read_pattern(session, 3, 0, 1 << 20)
    assert call.result() == 1 << 20


def test_a_nonblocking_write_takes_what_fits(lab: Lab) -> None:
    """A short count, then EAGAIN, for O_NONBLOCK and RWF_NOWAIT; not one byte too many."""
    session, user = lab.opened(auto_grant=False)
    user.nonblocking()
    written = user.write(Pattern(4).piece(0, 200_000))
    assert 3 * MAX_DATA <= written < 65536
    with raises_errno(EAGAIN):
        user.write(b"more")
    user.nonblocking(False)
    with raises_errno(EAGAIN):
        user.do("write_nowait", user.fd, b"more")
    session.channel.auto_grant(True)
    read_pattern(session, 4, 0, written)
    with pytest.raises(Timeout):
        session.read_packet(0.1)


def test_a_full_ring_holds_a_writer_until_its_packet_fits(lab: Lab) -> None:
    """Woken when the host has made just enough room: not before, not later."""
    session = lab.session(auto_grant=False)
    user = lab.user().open()
    ring = session.wait_opened().guest_to_host
    filled = fill(user, 5, 1000)
    full, rest = divmod(filled, 1000)
    free = ring - full * ring_bytes(1000) - (ring_bytes(rest) if rest else 0)
    waits = lab.counters()["tx_waits"]

    call = user.begin("write", Pattern(5).piece(filled, MAX_DATA))
    call.wait_blocked()
    enough = next(n for n in range(1, full) if
                  free + n * ring_bytes(1000) > ring_bytes(MAX_DATA))
    session.channel.grant(enough - 1)
    read_pattern(session, 5, 0, (enough - 1) * 1000)
    call.must_not_return_for(0.3)
    session.channel.grant(1)
    assert call.result(5) == MAX_DATA
    assert lab.counters()["tx_waits"] > waits
    session.channel.auto_grant(True)
    read_pattern(session, 5, (enough - 1) * 1000, filled + MAX_DATA)


def test_writers_of_all_sizes_wait_together(lab: Lab) -> None:
    """A small one may go first; the large one is not forgotten."""
    session, user = lab.opened(auto_grant=False)
    filled = fill(user, 6)
    large = user.begin("write", b"L" * MAX_DATA)
    large.wait_blocked()
    small = user.begin("write", b"s")
    small.wait_blocked()
    session.channel.auto_grant(True)
    read_pattern(session, 6, 0, filled)
    assert small.result(5) == 1
    assert large.result(5) == MAX_DATA
    rest = session.read_exact(MAX_DATA + 1)
    assert rest.replace(b"s", b"", 1) == b"L" * MAX_DATA


def test_a_full_ring_by_small_steps(lab: Lab) -> None:
    """One packet of room at a time, a blocked writer takes each of them."""
    session, user = lab.opened(auto_grant=False)
    total = 40 * MAX_DATA
    call = user.begin("write_pattern", 7, 0, total, total)
    call.wait_blocked()
    for at in range(0, total, MAX_DATA):
        session.channel.grant(1)
        read_pattern(session, 7, at, at + MAX_DATA)
    assert call.result() == total


def test_a_signal_interrupts_a_sleeping_write(lab: Lab) -> None:
    """EINTR when nothing was sent, the count when something was: never a lost byte."""
    session, user = lab.opened(auto_grant=False)
    filled = fill(user, 8)
    call = user.begin("write", b"not sent")
    call.wait_blocked()
    call.signal()
    with raises_errno(EINTR):
        call.result()

    session.channel.grant(2)
    read_pattern(session, 8, 0, 2 * MAX_DATA)
    pattern = Pattern(8)
    call = user.begin("write", pattern.piece(filled, 100_000))
    call.wait_blocked()
    call.signal()
    sent = call.result()
    assert sent and sent % MAX_DATA == 0

    session.channel.auto_grant(True)
    read_pattern(session, 8, 2 * MAX_DATA, filled + sent)
    with pytest.raises(Timeout):
        session.read_packet(0.1)


def test_a_restarted_write_sends_once(lab: Lab) -> None:
    """A handler with SA_RESTART: the write goes on as if nothing had been."""
    session, user = lab.opened(auto_grant=False)
    filled = fill(user, 9)
    call = user.begin("write", Pattern(9).piece(filled, 1000))
    call.wait_blocked()
    call.signal(SIGUSR2)
    call.must_not_return_for(0.1)
    session.channel.auto_grant(True)
    assert call.result() == 1000
    read_pattern(session, 9, 0, filled + 1000)


def test_a_bad_address_sends_nothing(lab: Lab) -> None:
    """EFAULT, and the stream goes on."""
    session, user = lab.opened()
    with raises_errno(EFAULT):
        user.do("write_at", user.fd, 8, 100)
    user.write(b"x")
    assert session.read_packet() == b"x"


def test_memory_without_pages_is_paged_in(lab: Lab) -> None:
    """And sent once."""
    session, user = lab.opened()
    assert user.do("write_untouched", user.fd, 40_000) == 40_000
    assert session.read_exact(40_000) == bytes(40_000)
    user.close()
    assert lab.counters()["tx_bytes"] == 40_000


def test_a_write_after_the_hang_up(lab: Lab) -> None:
    """ENODEV, whether it began before or after."""
    session, user = lab.opened(auto_grant=False)
    fill(user, 10)
    call = user.begin("write", b"late")
    call.wait_blocked()
    session.end()
    with raises_errno(ENODEV):
        call.result()
    with raises_errno(ENODEV):
        user.write(b"later")


def test_a_large_write_cut_off_by_the_hang_up_tells_what_went(lab: Lab) -> None:
    """A short count first, the error after it."""
    session, user = lab.opened(auto_grant=False)
    call = user.begin("write", bytes(200_000))
    call.wait_blocked()
    session.end()
    assert call.result() == 3 * MAX_DATA
    with raises_errno(ENODEV):
        user.write(b"later")


def test_the_host_is_signalled_once_per_need(lab: Lab) -> None:
    """A ring that is not empty needs no second signal: the host is still at it."""
    session, user = lab.opened(auto_grant=False)
    before = session.channel.stats()
    for _ in range(20):
        user.write(b"x")
    signals = session.channel.stats().signals_from_guest - before.signals_from_guest
    assert signals <= 2
    session.channel.auto_grant(True)
    assert session.read_exact(20) == b"x" * 20
    assert user.poll(OUT) == OUT

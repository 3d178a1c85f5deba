# SPDX-License-Identifier: GPL-2.0-only
"""The emulated host itself: that VMBus and vmbus-user do what their document says.

The driver is only a means here: it makes the guest open, read and write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
from collections.abc import Iterator

import pytest

from bench import KERNELS
from hvhost import kernels
from hvhost.channel import (GRANT, PACKET, QUERY, SEND, TIMEOUT, Channel, ChannelError, connect,
                            frame)
from hvhost.guest import Guest
from hvhost.log import Log
from hvhost.synthrdp import DATA_CLASS, data_instance
from hvhost.vm import ChannelSpec
from lab import ring_bytes, wait_until
from user import raises_errno

SPEC = ChannelSpec(str(DATA_CLASS), str(data_instance(1)), offered=False)
OTHER = ChannelSpec(str(DATA_CLASS), str(data_instance(3)))
NODE, OTHER_NODE = "/dev/synthrdp0", "/dev/synthrdp2"
LARGE = bytes(range(256)) * 64          # the largest packet that the driver makes
SETTLE = 0.3                            # longer than what should not happen would take


@pytest.fixture(scope="module", params=KERNELS)
def booted(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest of two processors, the driver loaded."""
    made = Guest(kernels.kernel(request.param), [SPEC], module=kernels.module(request.param),
                 smp=2)
    made.insmod("enabled=0")
    yield made
    made.kill()


@pytest.fixture
def guest(booted: Guest) -> Iterator[Guest]:
    """The same, for one test: the kernel has nothing to complain of."""
    booted.begin_test()
    booted.allow_message("^hrtimer: interrupt took")
    yield booted
    assert not booted.end_test()


@pytest.fixture
def channel(guest: Guest) -> Iterator[Channel]:
    """The offered channel, of whose packets none is taken unasked."""
    made = program(guest)
    made.offer()
    wait_node(guest)
    yield made
    made.close()
    last = program(guest)
    last.rescind()
    last.wait_released()
    last.close()


def program(guest: Guest, spec: ChannelSpec = SPEC) -> Channel:
    """A program at the other end of the socket."""
    return Channel(connect(guest.vm.channel_socket(spec)), "data", Log("the emulated host"),
                   auto_grant=False)


def wait_node(guest: Guest, node: str = NODE, there: bool = True) -> None:
    """Wait until a node is there, or gone."""
    wait_until(f"{node} {'there' if there else 'gone'}", lambda: guest.exists(node) == there)


def pipe(data: bytes) -> bytes:
    """A packet that the driver takes."""
    return struct.pack("<II", 1, len(data)) + data


def _echo(count: int) -> None:
    node = os.open("/dev/synthrdp0", os.O_RDWR)
    for _ in range(count):
        os.write(node, os.read(node, 1 << 17))
    os.close(node)


def _write(data: bytes, count: int) -> None:
    node = os.open("/dev/synthrdp0", os.O_RDWR)
    for _ in range(count):
        os.write(node, data)
    os.read(node, 1)
    os.close(node)


def _read_late(total: int) -> None:
    node = os.open("/dev/synthrdp0", os.O_RDWR)
    while not os.path.exists("/read-now"):
        time.sleep(0.01)
    os.unlink("/read-now")
    while total:
        total -= len(os.read(node, 1 << 17))
    os.close(node)


def _read_now() -> None:
    with open("/read-now", "wb"):
        pass


def _move(instance: str, processor: int) -> str:
    channels = f"/sys/bus/vmbus/devices/{instance}/channels"
    path = f"{channels}/{os.listdir(channels)[0]}/cpu"
    with open(path, "w", encoding="ascii") as file:
        file.write(str(processor))
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def test_the_guest_need_not_signal_while_there_is_something_to_read(
        guest: Guest, channel: Channel) -> None:
    """Ten packets, taken one by one: a signal for the first."""
    before = channel.stats()
    job = guest.start(_write, b"x", 10)
    channel.wait_opened()
    job.wait_blocked("synthrdp_read")
    for _ in range(10):
        channel.grant(1)
        channel.recv()
    now = channel.stats()
    assert now.packets_from_guest - before.packets_from_guest == 10
    assert now.signals_from_guest - before.signals_from_guest <= 1
    channel.send(pipe(b"x"))
    job.result()
    channel.wait_closed()


def test_the_host_signals_when_the_ring_was_empty(guest: Guest, channel: Channel) -> None:
    """Ten packets to a guest that does not read: a signal for the first."""
    before = channel.stats()
    job = guest.start(_read_late, 10)
    channel.wait_opened()
    for _ in range(10):
        channel.send(pipe(b"x"))
    channel.wait_placed()
    now = channel.stats()
    assert now.packets_to_guest - before.packets_to_guest == 10
    assert now.signals_to_guest - before.signals_to_guest == 1
    guest.run(_read_now)
    job.result()
    channel.wait_closed()


def test_packets_wait_for_room_and_commands_do_not(guest: Guest, channel: Channel) -> None:
    """More than the ring holds, to a guest that does not read yet."""
    before = channel.stats()
    job = guest.start(_read_late, 10 * len(LARGE))
    ring = channel.wait_opened().host_to_guest
    for _ in range(10):
        channel.send(pipe(LARGE))
    time.sleep(SETTLE)
    placed = channel.stats().packets_to_guest - before.packets_to_guest
    assert placed == (ring - 1) // ring_bytes(len(LARGE))
    guest.run(_read_now)
    job.result()
    channel.wait_placed()
    assert channel.stats().packets_to_guest - before.packets_to_guest == 10
    channel.wait_closed()


def test_another_program_goes_on(guest: Guest, channel: Channel) -> None:
    """The channel stays open, and its full ring full, when the program goes."""
    job = guest.start(_write, LARGE, 10)
    opening = channel.wait_opened().opening
    job.wait_blocked("synthrdp_write")
    channel.close()
    second = program(guest)
    assert second.wait_opened().opening == opening
    second.auto_grant(True)
    for _ in range(10):
        assert second.recv().payload == pipe(LARGE)
    second.send(pipe(b"x"))
    job.result()
    second.wait_closed()
    second.close()


def test_what_is_meant_for_an_earlier_opening_is_discarded(
        guest: Guest, channel: Channel) -> None:
    """The number of the opening tells."""
    job = guest.start(_read_late, 1)
    first = channel.wait_opened().opening
    guest.run(_read_now)
    channel.send(pipe(b"x"))
    job.result()
    channel.wait_closed()
    before = channel.stats()
    job = guest.start(_read_late, 1)
    assert channel.wait_opened().opening == first + 1
    channel.send(pipe(b"old"), opening=first)
    channel.wait_placed()
    assert channel.stats().packets_to_guest == before.packets_to_guest
    guest.run(_read_now)
    channel.send(pipe(b"x"))
    job.result()
    channel.wait_closed()


NONSENSE = (
    frame(99),                                      # no such kind
    frame(GRANT),                                   # of wrong size
    frame(QUERY, b"surplus"),
    frame(QUERY, opening=1),                        # not about an opening
    frame(SEND, bytes(15), opening=1),              # no packet
    frame(SEND, PACKET.pack(6, 0, 4, 0) + bytes(8), opening=1),     # descriptor not a multiple of 8
    frame(SEND, PACKET.pack(6, 0, 16, 0) + bytes(8), opening=1),    # descriptor beyond the packet
    frame(SEND, PACKET.pack(6, 0, 0, 0) + bytes(65537), opening=1),     # too long
    struct.pack("<IHH", 3, QUERY, 0),               # not even a header
    frame(SEND, PACKET.pack(6, 0, 0, 0)) * 65,      # more than the window
)


def test_nonsense_ends_the_connection_only(guest: Guest, channel: Channel) -> None:
    """The next program finds the channel as it was."""
    job = guest.start(_echo, 1)
    opening = channel.wait_opened().opening
    channel.close()
    for nonsense in NONSENSE:
        with contextlib.suppress(ConnectionError), \
                connect(guest.vm.channel_socket(SPEC)) as bad:
            bad.settimeout(TIMEOUT)
            bad.sendall(nonsense)                   # of which it need not read all
            while bad.recv(1 << 16):
                pass
    second = program(guest)
    assert second.wait_opened().opening == opening
    second.grant(1)
    second.send(pipe(b"x"))
    assert second.recv().payload[:9] == pipe(b"x")
    job.result()
    second.wait_closed()
    second.close()


def test_commands_that_make_no_sense_are_refused(channel: Channel) -> None:
    """Offered twice, withdrawn twice."""
    with raises_errno(errno.EALREADY):
        channel.offer()
    channel.rescind()
    with raises_errno(errno.ENOENT):
        channel.rescind()
    channel.wait_released()
    channel.offer()


def test_plugged_and_unplugged(guest: Guest) -> None:
    """A device that comes is offered, one that goes is rescinded first."""
    for _ in range(3):
        guest.vm.add_channel(OTHER)
        wait_node(guest, OTHER_NODE)
        other = program(guest, OTHER)
        guest.vm.remove_channel(OTHER)
        wait_node(guest, OTHER_NODE, False)
        with pytest.raises(ChannelError):
            other.stats()
        other.close()


def test_the_channel_moves_between_processors(guest: Guest, channel: Channel) -> None:
    """No packet is lost on the way, and nobody misses a signal."""
    count = 40
    job = guest.start(_echo, count)
    channel.wait_opened()
    for n in range(count):
        if n % 4 == 0:
            assert guest.run(_move, SPEC.instance_id, n // 4 % 2) == str(n // 4 % 2)
        channel.grant(1)
        channel.send(pipe(b"%2d" % n))
        assert channel.recv().payload[8:10] == b"%2d" % n
    job.result()
    channel.wait_closed()


def test_the_guest_lets_go_of_the_bus_and_comes_back(guest: Guest, channel: Channel) -> None:
    """The bus driver is loaded anew, or the guest, where it is built in."""
    bus = guest.kernel.module("hv_vmbus")
    for _ in range(5 if bus else 1):
        if bus:
            guest.rmmod()
            guest.rmmod("hv_vmbus")
            channel.rescind()
            channel.wait_released()
            channel.offer()
            guest.insmod(module=bus)
        else:
            guest.reset()
        guest.insmod("enabled=0")
        wait_node(guest)
        job = guest.start(_echo, 1)
        channel.wait_opened()
        channel.grant(1)
        channel.send(pipe(b"x"))
        channel.recv()
        job.result()
        channel.wait_closed()

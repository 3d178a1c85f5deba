# SPDX-License-Identifier: GPL-2.0-only
"""The client of vmbus-user against a device that the test plays."""

from __future__ import annotations

import errno
import pathlib
import socket
import threading

import pytest

from fake_vmbus_user import FakeDevice, short_path
from hvhost import channel
from hvhost.channel import GRANTS, ChannelError, Closed, Timeout
from hvhost.log import Log

__all__ = ["short_path"]        # a fixture


def test_hello_tells_state() -> None:
    device = FakeDevice(state=channel.STATE_OFFERED | channel.STATE_OPEN)
    device.opened()
    client = device.client()
    assert client.offered
    assert client.wait_opened().opening == 1


def test_no_hello_is_a_timeout() -> None:
    ours, theirs = socket.socketpair()
    with pytest.raises(Timeout, match="HELLO"):
        channel.Channel(theirs, "test", Log("unit"), timeout=0.05)
    assert ours.recv(1) == b""


def test_connect_waits_for_the_socket(short_path: pathlib.Path) -> None:
    path = short_path / "late.sock"
    listener = socket.socket(socket.AF_UNIX)

    def appear() -> None:
        listener.bind(str(path))
        listener.listen()

    timer = threading.Timer(0.1, appear)
    timer.start()
    channel.connect(path, timeout=5).close()
    timer.join()
    listener.close()
    with pytest.raises(Timeout, match="nobody listens"):
        channel.connect(short_path / "never.sock", timeout=0.05)


def test_a_command_waits_for_its_result() -> None:
    device = FakeDevice()
    client = device.client()
    device.result(channel.OFFER)
    client.offer()
    assert device.hear() == (channel.OFFER, b"")
    assert client.offered
    device.result(channel.RESCIND, errno.EBUSY)
    with pytest.raises(OSError, match="rescind"):
        client.rescind()
    assert client.offered


def test_a_command_without_result_is_a_timeout() -> None:
    device = FakeDevice()
    with pytest.raises(Timeout, match="result of offer"):
        device.client().offer(timeout=0.05)


def test_opened_and_closed_are_handed_out_one_by_one() -> None:
    device = FakeDevice()
    client = device.client()
    for _ in range(2):
        device.opened()
        device.closed()
    for number in (1, 2):
        opened = client.wait_opened()
        assert opened.opening == number
        assert (opened.guest_to_host, opened.host_to_guest) == (0x10000, 0x20000)
        client.wait_closed()
    with pytest.raises(Timeout, match="open the channel"):
        client.wait_opened(0.01)


def test_rescind_ends_the_offer_and_release_is_waited_for() -> None:
    device = FakeDevice(state=channel.STATE_OFFERED)
    client = device.client()
    device.result(channel.RESCIND)
    client.rescind()
    assert client.held and not client.offered
    with pytest.raises(Timeout, match="release"):
        client.wait_released(0.01)
    device.say(channel.RELEASED)
    client.wait_released()
    assert not client.held


def test_nothing_is_granted_unasked() -> None:
    device = FakeDevice()
    client = device.client(auto_grant=False)
    client.grant(3)
    assert device.hear() == (channel.GRANT, b"\3\0\0\0")


def test_automatic_grants_follow_what_is_received() -> None:
    device = FakeDevice()
    client = device.client(auto_grant=True)
    assert device.hear() == (channel.GRANT, GRANTS.to_bytes(4, "little"))
    for number in range(GRANTS):
        device.packet(bytes([number]))
    granted = 0
    for number in range(GRANTS):
        assert client.recv().payload[0] == number
    while granted < GRANTS:
        kind, body = device.hear()
        assert kind == channel.GRANT
        granted += int.from_bytes(body, "little")
    assert granted == GRANTS


def test_send_stops_at_the_window() -> None:
    device = FakeDevice(window=2)
    client = device.client()
    device.opened()
    client.wait_opened()
    client.send(b"one")
    client.send(b"two", type=11, flags=1)
    with pytest.raises(Timeout, match="send window"):
        client.send(b"three", timeout=0.05)
    with pytest.raises(Timeout, match="placed"):
        client.wait_placed(timeout=0.05)
    assert device.hear_sent() == (channel.INBAND, 0, b"one")
    assert device.hear_sent() == (11, 1, b"two")
    device.placed(2)
    client.wait_placed()
    client.send(b"three")
    assert device.hear_sent() == (channel.INBAND, 0, b"three")


def test_send_is_meant_for_one_opening() -> None:
    device = FakeDevice()
    client = device.client()
    with pytest.raises(Closed):
        client.send(b"to nobody")
    device.opened()
    client.wait_opened()
    client.send(b"first")
    device.hear_sent(1)
    device.closed()
    device.opened()
    client.wait_opened()
    client.send(b"late", opening=1)
    client.send(b"new")
    assert device.hear_sent(1)[2] == b"late"
    assert device.hear_sent(2)[2] == b"new"
    with pytest.raises(ValueError):
        client.send(bytes(65537))


def test_recv_of_an_opening_that_is_over() -> None:
    """Its packets are there, behind those that an earlier one has left."""
    device = FakeDevice()
    client = device.client()
    for _ in range(2):
        device.opened()
        device.packet(b"left")
        device.closed()
    for _ in range(2):
        client.wait_closed()
    assert client.recv(opening=2).opening == 2
    with pytest.raises(Closed):
        client.recv(opening=2)


def test_recv_of_one_opening_ends_with_it() -> None:
    device = FakeDevice()
    client = device.client()
    for _ in range(3):
        device.opened()
        device.packet(b"packet  ")
        device.closed()
    device.opened()
    device.say(channel.RELEASED)
    client.wait_released()
    assert client.recv(opening=1).opening == 1
    with pytest.raises(Closed):
        client.recv(opening=1)
    assert client.recv().opening == 2
    with pytest.raises(Timeout):
        client.recv(0.01, opening=4)
    assert not client.pending


def test_a_broken_ring_is_an_error() -> None:
    device = FakeDevice()
    client = device.client()
    device.opened()
    device.packet(b"good")
    device.say(channel.BROKEN, b"", 1)
    assert client.recv().payload[:4] == b"good"
    with pytest.raises(ChannelError, match="broke its ring"):
        client.recv()


def test_stats() -> None:
    device = FakeDevice()
    device.say(channel.STATS, channel.STATS_BODY.pack(1, 2, 3, 4))
    assert device.client().stats() == channel.Stats(1, 2, 3, 4)


def test_a_lost_device_ends_every_wait_after_what_had_come() -> None:
    device = FakeDevice()
    client = device.client()
    device.packet(b"last")
    device.hang_up()
    assert client.recv().payload[:4] == b"last"
    with pytest.raises(ChannelError, match="hung up"):
        client.recv()
    with pytest.raises(ChannelError, match="hung up"):
        client.wait_opened()


@pytest.mark.parametrize("kind, body", [(99, b""), (channel.OPENED, b"short"),
                                        (channel.HELLO, bytes(12))])
def test_a_bad_frame_loses_the_device(kind: int, body: bytes) -> None:
    device = FakeDevice()
    client = device.client()
    device.say(kind, body)
    with pytest.raises(ChannelError, match="lost the device"):
        client.recv()


def test_the_log_shows_what_crossed() -> None:
    device = FakeDevice()
    client = device.client("fa1")
    device.opened()
    client.wait_opened()
    client.send(b"\x01\x02\x03\x04" * 20)
    lines = client.log.text().splitlines()
    assert "fa1      < opened (1), rings 0x10000 0x20000" in lines[0]
    assert "fa1      > packet [80] 01020304" in lines[1] and lines[1].endswith("...")
    assert client.log.text(last=1).startswith("(1 earlier entries left out)")


def test_the_rings_are_read_and_written_as_they_are() -> None:
    device = FakeDevice()
    client = device.client()
    client.poke((4096, b"ab"), (0, b"\2\0\0\0"), opening=3, notify=True)
    client.poke((8, b"x"), opening=3)
    assert [device.hear() for _ in range(4)] == [
        (channel.POKE, bytes.fromhex("00100000") + b"ab"),
        (channel.POKE, bytes.fromhex("0000000002000000")), (channel.NOTIFY, b""),
        (channel.POKE, bytes.fromhex("08000000") + b"x")]
    device.say(channel.PEEKED, b"abc", opening=3)
    assert client.peek(64, 3, opening=3) == b"abc"
    assert device.hear() == (channel.PEEK, bytes.fromhex("4000000003000000"))

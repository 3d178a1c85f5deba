# SPDX-License-Identifier: GPL-2.0-only
"""The host's side of SynthRdp against a guest that the test plays."""

from __future__ import annotations

import pathlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from fake_vmbus_user import FakeDevice, short_path
from hvhost import channel, pipe, synthrdp
from hvhost.channel import Timeout
from hvhost.log import Log
from hvhost.synthrdp import ACCEPT, REJECT, SILENCE, SynthRdpHost, late

__all__ = ["short_path"]        # a fixture
REQUEST = pipe.pack(struct.pack("<IIHHI", 1, 16, 1, 0, 0))


class FakeQemu:
    """Sockets of fake devices, by instance; a device is made on connection."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.devices: dict[str, FakeDevice] = {}

    def socket_of(self, instance: str) -> pathlib.Path:
        """Listen there, and copy between the connection and a fake device."""
        path = self._folder / instance[:8]
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        device = self.devices[instance] = FakeDevice()

        def accept() -> None:
            theirs, _ = listener.accept()
            listener.close()
            path.unlink()
            for source, sink in ((theirs, device.theirs), (device.theirs, theirs)):
                threading.Thread(target=copy, args=(source, sink), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return path


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Move bytes until either end is gone."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def qemu(short_path: pathlib.Path) -> FakeQemu:
    """Fake devices."""
    return FakeQemu(short_path)


@pytest.fixture
def host(qemu: FakeQemu) -> Iterator[SynthRdpHost]:
    """A host whose control channel the guest has opened."""
    made = SynthRdpHost(qemu.socket_of, Log("unit"))
    control = qemu.devices[str(synthrdp.CONTROL)]
    assert control.hear()[0] == channel.GRANT
    control.opened()
    made.control.wait_opened()
    yield made
    made.close()


@pytest.fixture
def control(qemu: FakeQemu,
            host: SynthRdpHost) -> FakeDevice:  # pylint: disable=unused-argument
    """The guest's end of the control channel."""
    return qemu.devices[str(synthrdp.CONTROL)]


def test_accepts_by_default(host: SynthRdpHost, control: FakeDevice) -> None:
    control.packet(REQUEST)
    assert control.hear_sent() == (6, 0, bytes.fromhex(
        "01000000 11000000 02000000 11000000 0100 0000 00000000 02"))
    assert (host.wait_request().major, host.complaints) == (1, [])


def test_answers_follow_the_script(host: SynthRdpHost, control: FakeDevice) -> None:
    host.answer_with(REJECT, SILENCE, ACCEPT + ACCEPT, ACCEPT)
    for _ in range(5):
        control.packet(REQUEST)
    answers = [control.hear_sent()[2][-1] for _ in range(5)]
    assert answers == [0, 2, 2, 2, 2]


def test_a_late_answer_is_late(host: SynthRdpHost, control: FakeDevice) -> None:
    host.answer_with(late(0.1))
    begin = time.monotonic()
    control.packet(REQUEST)
    control.hear_sent()
    assert time.monotonic() - begin > 0.09


def test_a_late_answer_is_meant_for_the_opening_that_asked(host: SynthRdpHost,
                                                           control: FakeDevice) -> None:
    host.answer_with(late(0.1, REJECT), ACCEPT)
    control.packet(REQUEST)
    host.wait_request()
    control.closed()
    control.opened()
    control.packet(REQUEST)
    assert control.hear_sent(1)[2][24] == 0
    assert control.hear_sent(2)[2][24] == 2


def test_requests_are_waited_for_one_by_one(host: SynthRdpHost, control: FakeDevice) -> None:
    host.no_request_for(0.01)
    control.packet(REQUEST)
    with pytest.raises(AssertionError, match="unexpected"):
        host.no_request_for(5)
    with pytest.raises(Timeout, match="no version request"):
        host.wait_request(0.01)


@pytest.mark.parametrize("payload, words", [
    (REQUEST[:-1] + b"\1", "odd"),
    (pipe.pack(REQUEST[8:-4]), "12 bytes"),
    (bytes(8), "type 0"),
])
def test_complains_of_a_guest_that_talks_nonsense(host: SynthRdpHost, control: FakeDevice,
                                                  payload: bytes, words: str) -> None:
    control.packet(payload)
    control.packet(REQUEST)
    host.wait_request()
    if not host.complaints:
        host.wait_request()
    assert len(host.complaints) == 1 and words in host.complaints[0]


def test_a_session_is_announced_and_offered(qemu: FakeQemu, host: SynthRdpHost,
                                            control: FakeDevice) -> None:
    def grant_offer() -> None:
        while "99221fa2-24ad-11e2-be98-001aa01bbf6e" not in qemu.devices:
            time.sleep(0.01)
        device = qemu.devices["99221fa2-24ad-11e2-be98-001aa01bbf6e"]
        assert device.hear() == (channel.OFFER, b"")
        device.result(channel.OFFER)
        device.opened()
        device.packet(pipe.pack(b"from"))
        device.packet(pipe.pack(b"the guest"))

    guest = threading.Thread(target=grant_offer)
    guest.start()
    session = host.open_session(2, auto_grant=False)
    guest.join()
    assert control.hear_sent()[2] == pipe.pack(struct.pack("<II", 3, 24) + bytes.fromhex(
        "a21f2299 ad24 e211 be98 001aa01bbf6e"))
    session.wait_opened()
    assert session.read_exact(6) == b"fromth"
    assert session.read_exact(7) == b"e guest"
    with pytest.raises(Timeout, match="0 of 1 bytes"):
        session.read_exact(1, timeout=0.01)
    session.write(b"abcde", sizes=[1, 3])
    device = qemu.devices["99221fa2-24ad-11e2-be98-001aa01bbf6e"]
    assert [device.hear_sent()[2][8:] for _ in range(3)] == [b"a", b"bcd", b"e"]
    session.channel.close()


def test_malformed_messages_differ() -> None:
    """No named malformation is, by accident, the right answer."""
    assert ACCEPT not in synthrdp.MALFORMED_MESSAGES.values()
    assert len(set(synthrdp.MALFORMED_MESSAGES.values())) == len(synthrdp.MALFORMED_MESSAGES)

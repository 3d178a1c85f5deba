# SPDX-License-Identifier: GPL-2.0-only
"""The device's end of the vmbus-user protocol, played by a test over a socketpair."""

from __future__ import annotations

import pathlib
import socket
import struct
import tempfile
from collections.abc import Iterator

import pytest

from hvhost import channel
from hvhost.channel import Channel, frame
from hvhost.log import Log

# About an opening, as SEND is
RAW = (channel.PEEK, channel.POKE, channel.NOTIFY)


@pytest.fixture
def short_path() -> Iterator[pathlib.Path]:
    """A directory whose name leaves room in sun_path, which pytest's own may not."""
    with tempfile.TemporaryDirectory() as path:
        yield pathlib.Path(path)


class FakeDevice:
    """Says what it is told to, and hands out frames as they come."""

    def __init__(self, window: int = 32, state: int = 0) -> None:
        self._sock, self.theirs = socket.socketpair()
        self._sock.settimeout(5)
        self._stream = self._sock.makefile("rb")
        self._opening = 0
        self.say(channel.HELLO, channel.HELLO_BODY.pack(channel.VERSION, window, state, 65536))

    def client(self, name: str = "test", *, auto_grant: bool = False,
               timeout: float = 5) -> Channel:
        """The client under test, connected to this device."""
        return Channel(self.theirs, name, Log("unit"), auto_grant=auto_grant, timeout=timeout)

    def say(self, kind: int, body: bytes = b"", opening: int = 0) -> None:
        """Send one frame."""
        self._sock.sendall(frame(kind, body, opening))

    def opened(self) -> None:
        """The guest opened the channel."""
        self._opening += 1
        self.say(channel.OPENED,
                 channel.OPENED_BODY.pack(0x10000, 0x20000, 3, 0x50002, b""), self._opening)

    def closed(self) -> None:
        """The guest closed the channel."""
        self.say(channel.CLOSED, b"", self._opening)

    def packet(self, payload: bytes, type: int = channel.INBAND, flags: int = 0) -> None:
        """The guest sent a packet."""
        self.say(channel.PACKET_IN, channel.PACKET.pack(type, flags, 0, 7)
                 + payload + bytes(-len(payload) % 8), self._opening)

    def result(self, command: int, status: int = 0) -> None:
        """A command's result."""
        self.say(channel.RESULT, channel.RESULT_BODY.pack(command, status))

    def placed(self, packets: int) -> None:
        """So many packets went into the ring."""
        self.say(channel.PLACED, struct.pack("<I", packets))

    def hear(self) -> tuple[int, bytes]:
        """The next frame of the client but SEND: its kind and body."""
        kind, opening, body = self._frame()
        assert (kind in (channel.SEND, *RAW)) == bool(opening)
        return kind, body

    def hear_sent(self, opening: int | None = None) -> tuple[int, int, bytes]:
        """The next frame, a packet meant for this or the present opening: type, flags, payload."""
        kind, meant_for, body = self._frame()
        assert (kind, meant_for) == (channel.SEND, opening or self._opening)
        type_, flags, extra, _ = channel.PACKET.unpack_from(body)
        return type_, flags, body[channel.PACKET.size + extra:]

    def _frame(self) -> tuple[int, int, bytes]:
        length, kind, opening = channel.FRAME.unpack(self._stream.read(channel.FRAME.size))
        return kind, opening, self._stream.read(length + 4 - channel.FRAME.size)

    def hang_up(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._sock.close()

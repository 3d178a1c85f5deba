# SPDX-License-Identifier: GPL-2.0-only
"""What a guest must make of a ring that its host writes: the documented rules, a second time. Pure.

The data of sound packets is the reader's, up to the first packet that is not sound, and not a
byte more. What the kernel's own ring code does to a packet before the driver sees it belongs to
the rules: an offset8 that makes no sense is taken for 2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from hvhost import pipe, synthrdp
from hvhost.channel import INBAND

DESCRIPTOR: Final = struct.Struct("<HHHHQ")         # type, offset8, len8, flags, transaction id
TRAILER: Final = 8
LONGEST: Final = DESCRIPTOR.size + pipe.HEADER.size + pipe.MAX_PAYLOAD

# Where the fields of a packet begin, and how long they are
FIELDS: Final = {"type": (0, 2), "offset8": (2, 2), "len8": (4, 2), "flags": (6, 2), "tid": (8, 8),
                 "kind": (16, 4), "size": (20, 4), "data": (24, 1)}


def packet(data: bytes, /, **wrong: int) -> bytes:
    """A packet as it is in a ring, trailer included; any field may be said to be another."""
    payload = pipe.pack(data)
    payload += bytes(pipe.padded(len(payload)) - len(payload))
    made = bytearray(DESCRIPTOR.pack(INBAND, 2, (DESCRIPTOR.size + len(payload)) // 8, 0, 0)
                     + payload + bytes(TRAILER))
    for name, value in wrong.items():
        at, size = FIELDS[name]
        made[at:at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(made)


@dataclass
class Reference:
    """A guest's view of the ring from the host: its memory, and what was read."""

    size: int
    read: int = 0
    broken: bool = False
    packets: list[bytes] = field(default_factory=list)      # the data of each
    memory: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.memory = bytearray(self.size)

    @property
    def stream(self) -> bytes:
        """All data."""
        return b"".join(self.packets)

    def store(self, at: int, data: bytes) -> list[tuple[int, bytes]]:
        """The host writes, round the end; returns the pieces that lie in one."""
        at %= self.size
        first = data[:self.size - at]
        pieces = [(at, first)] + ([(0, data[len(first):])] if len(first) < len(data) else [])
        for place, piece in pieces:
            self.memory[place:place + len(piece)] = piece
        return pieces

    def load(self, at: int, size: int) -> bytes:
        """What is there, round the end."""
        return bytes((self.memory[at:] + self.memory)[:size])

    def publish(self, index: int) -> None:
        """The host sets the write index, and the guest looks."""
        while not self.broken and self._look(index):
            pass

    def _look(self, index: int) -> bool:
        """One packet: whether the guest goes on."""
        if index >= self.size:
            # Nonsense; the ring code overlooks it when next to nothing seems to be there.
            self.broken = index - self.read >= DESCRIPTOR.size
            return False
        there = (index - self.read) % self.size
        if not there:
            return False
        self.broken = True
        if there < DESCRIPTOR.size:
            return False
        kind, offset8, len8, _, _ = DESCRIPTOR.unpack(self.load(self.read, DESCRIPTOR.size))
        whole, offset = len8 * 8, offset8 * 8
        if kind != INBAND or not DESCRIPTOR.size <= whole <= LONGEST or whole + TRAILER > there:
            return False
        if not DESCRIPTOR.size <= offset <= whole:
            offset = DESCRIPTOR.size
        payload = self.load(self.read, whole)[offset:]
        if len(payload) < pipe.HEADER.size:
            return False
        kind, size = pipe.HEADER.unpack_from(payload)
        if kind != pipe.DATA or size > len(payload) - pipe.HEADER.size:
            return False
        self.broken = False
        self.packets.append(payload[pipe.HEADER.size:pipe.HEADER.size + size])
        self.read = (self.read + whole + TRAILER) % self.size
        return True


@dataclass
class Conversation:
    """What the control channel must have come to after these messages."""

    state: str = "negotiating"
    sessions: int = 0
    unknown: int = 0

    @classmethod
    def after(cls, messages: Iterable[bytes], broken: bool) -> Conversation:
        """Hear messages until one is wrong; at their end, maybe, a packet that is malformed."""
        made = cls()
        for message in messages:
            if made.state in ("failed", "rejected"):
                break
            made.hear(message)
        if broken and made.state != "rejected":
            made.state = "failed"
        return made

    def hear(self, message: bytes) -> None:
        """One message."""
        kind = int.from_bytes(message[:4], "little")
        if len(message) < synthrdp.MESSAGE.size:
            self.state = "failed"
        elif kind == synthrdp.RESPONSE and len(message) == synthrdp.VERSION_REQUEST.size + 1:
            yes = message[-1] == synthrdp.ACCEPTED
            ours = message[8:12] == struct.pack("<HH", 1, 0)
            if self.state != "negotiating" or (yes and not ours):
                self.state = "failed"
            else:
                self.state = "ready" if yes else "rejected"
        elif kind == synthrdp.CREATE_SESSION and len(message) == synthrdp.MESSAGE.size + 16:
            self.sessions += self.state == "ready"
            self.state = "failed" if self.state != "ready" else "ready"
        elif kind > synthrdp.CREATE_SESSION:
            self.unknown += 1
        else:
            self.state = "failed"

# SPDX-License-Identifier: GPL-2.0-only
"""A session as Wireshark reads it: its two streams as a made-up TCP connection to port 3389.

The file format is pcapng, as its draft at the IETF has it. Sequence numbers follow the streams,
so what is missing shows as a gap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PORT = 3389
CLIENT_PORTS = 49152            # of the first session; then one up for each
CLIENT, SERVER = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))   # addresses for documents
SEGMENT = 32 * 1024             # bytes of a made-up packet
FIN, SYN, PSH, ACK = 1, 2, 8, 16
SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
ETHERNET = 1
COMMENT, NAME, APPLICATION = 1, 2, 4
NANOSECONDS = b"\x09"
RESOLUTION = 9


def block(kind: int, body: bytes) -> bytes:
    """A block, with its length at both ends."""
    size = 12 + len(body) + -len(body) % 4
    return struct.pack("<II", kind, size) + body.ljust(size - 12, b"\0") + struct.pack("<I", size)


def options(*given: tuple[int, bytes]) -> bytes:
    """Options of a block, and their end."""
    return b"".join(struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
                    for code, value in given) + bytes(4)


def beginning(program: str, comment: str) -> bytes:
    """What a file begins with: a section, and the one interface of it."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options(
        (COMMENT, comment.encode()), (APPLICATION, program.encode()))
    interface = struct.pack("<HHI", ETHERNET, 0, 0) + options(
        (NAME, b"synthrdp"), (RESOLUTION, NANOSECONDS))
    return block(SECTION, section) + block(INTERFACE, interface)


def packet(frame: bytes, at: int, comment: str = "") -> bytes:
    """A packet, at a time in nanoseconds since 1970."""
    body = struct.pack("<IIIII", 0, at >> 32, at & 0xFFFFFFFF, len(frame), len(frame))
    body += frame + bytes(-len(frame) % 4)
    return block(PACKET, body + (options((COMMENT, comment.encode())) if comment else b""))


def checksum(data: bytes) -> int:
    """Of the internet protocols."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Connection:
    """A session's frames."""

    def __init__(self, number: int) -> None:
        self._port = CLIENT_PORTS + number % (65536 - CLIENT_PORTS)
        self._next = [1, 1]             # sequence numbers: of the client, of the server

    def open(self) -> Iterator[bytes]:
        """The handshake."""
        yield self._frame(0, 0, SYN, acknowledged=0)
        yield self._frame(1, 0, SYN | ACK)
        yield self._frame(0, 1, ACK)

    def data(self, down: bool, offset: int, data: bytes) -> Iterator[bytes]:
        """A piece of a stream, which begins there."""
        for at in range(0, len(data), SEGMENT):
            piece = data[at:at + SEGMENT]
            sequence = 1 + offset + at
            yield self._frame(down, sequence, PSH | ACK, piece)
            self._next[down] = sequence + len(piece)

    def close(self) -> Iterator[bytes]:
        """Both ends say good-bye."""
        for side in (0, 1):
            yield self._frame(side, self._next[side], FIN | ACK)
            self._next[side] += 1
        yield self._frame(0, self._next[0], ACK)

    def _frame(self, side: int, sequence: int, flags: int, data: bytes = b"",
               acknowledged: int | None = None) -> bytes:
        addresses = (CLIENT, SERVER) if side == 0 else (SERVER, CLIENT)
        ports = (self._port, PORT) if side == 0 else (PORT, self._port)
        if acknowledged is None:
            acknowledged = self._next[1 - side]
        tcp = struct.pack(">HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF,
                          5 << 4, flags, 0xFFFF, 0, 0)
        pseudo = b"".join(addresses) + struct.pack(">BBH", 0, 6, len(tcp) + len(data))
        tcp = tcp[:16] + struct.pack(">H", checksum(pseudo + tcp + data)) + tcp[18:] + data
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, *addresses)
        ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        macs = (bytes((2, 0, 0, 0, 0, 1)), bytes((2, 0, 0, 0, 0, 2)))
        return macs[1 - side] + macs[side] + b"\x08\x00" + ip + tcp

# SPDX-License-Identifier: GPL-2.0-only
"""Pipe framing: what a VMBus pipe puts into each in-band packet. Pure."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator

HEADER = struct.Struct("<II")   # packet_type, data_size
DATA = 1
PARTIAL = 2
MAX_PAYLOAD = 16384

Sizes = int | Iterable[int]


class PipeError(Exception):
    """A packet that breaks the framing."""


def padded(size: int) -> int:
    """The length that VMBus makes of a packet's payload."""
    return -(-size // 8) * 8


def pack(data: bytes, kind: int = DATA, size: int | None = None) -> bytes:
    """One packet's payload; `kind` and `size` can be made to lie."""
    return HEADER.pack(kind, len(data) if size is None else size) + data


def unpack(payload: bytes) -> bytes:
    """The data of one packet from the guest, which has no room for oddities."""
    if len(payload) < HEADER.size:
        raise PipeError(f"{len(payload)} bytes are too few for a pipe header")
    kind, size = HEADER.unpack_from(payload)
    if kind != DATA:
        raise PipeError(f"pipe packet type {kind} instead of {DATA}")
    if size > MAX_PAYLOAD:
        raise PipeError(f"{size} bytes of data, more than {MAX_PAYLOAD}")
    if len(payload) != padded(HEADER.size + size):
        raise PipeError(f"{size} bytes of data in a packet of {len(payload)}")
    return payload[HEADER.size:HEADER.size + size]


def cut(data: bytes, sizes: Sizes = MAX_PAYLOAD) -> Iterator[bytes]:
    """Cut a stream into pieces of the given sizes; several sizes are used in turn."""
    turn = itertools.cycle([sizes] if isinstance(sizes, int) else sizes)
    at = 0
    while at < len(data):
        size = next(turn)
        yield data[at:at + size]
        at += size

# SPDX-License-Identifier: GPL-2.0-only
"""Pipe framing."""

from __future__ import annotations

import pytest

from hvhost import pipe


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, pipe.MAX_PAYLOAD])
def test_what_is_packed_and_padded_is_unpacked(size: int) -> None:
    data = bytes(range(256)) * 64
    packet = pipe.pack(data[:size])
    assert pipe.unpack(packet.ljust(pipe.padded(len(packet)), b"\xff")) == data[:size]


@pytest.mark.parametrize("payload, words", [
    (b"", "too few"),
    (bytes(7), "too few"),
    (pipe.pack(b"", kind=2), "type 2"),
    (pipe.pack(bytes(8), size=9), "9 bytes of data"),
    (pipe.pack(bytes(8), size=0), "0 bytes of data"),
    (pipe.pack(bytes(16392)), "more than"),
])
def test_a_flaw_is_named(payload: bytes, words: str) -> None:
    with pytest.raises(pipe.PipeError, match=words):
        pipe.unpack(payload)


def test_cut_uses_sizes_in_turn_and_loses_nothing() -> None:
    assert list(pipe.cut(b"abcdefgh", [1, 2])) == [b"a", b"bc", b"d", b"ef", b"g", b"h"]
    assert list(pipe.cut(b"abcdefgh", 5)) == [b"abcde", b"fgh"]
    assert not list(pipe.cut(b"", 5))

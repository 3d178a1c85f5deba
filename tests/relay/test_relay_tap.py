# SPDX-License-Identifier: GPL-2.0-only
"""The relay's copy of a session: for root alone, and never in the session's way."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relaykit import (ACCEPT, OK, REQUEST, REWRITTEN, TIMEOUT, Bench, Nodes, Programs, accept,
                      build, recv_exact, send_until_stuck)

HEADER = struct.Struct("=IIQ")
HELLO, UP, DOWN = range(3)
BIG = bytes(range(256)) * 8192       # 2 MiB: more than any socket holds


@pytest.fixture(scope="module", name="place")
def _place() -> Iterator[Path]:
    """A directory for the socket, which is built into the relay."""
    with tempfile.TemporaryDirectory(prefix="tap-") as top:
        yield Path(top)


@pytest.fixture(scope="module", name="built")
def _built(place: Path, programs: Programs) -> Programs:
    """A relay that looks for its listener there."""
    relay = build(place / "build", "SANITIZE=1", "CFLAGS=-O1 -g",
                  f"CPPFLAGS=-DTAP_SOCKET='\"{place}/capture\"'")
    return replace(programs, relay=relay)


@pytest.fixture(name="tapped")
def _tapped(place: Path, built: Programs) -> Iterator[Bench]:
    """A bench with that relay."""
    with tempfile.TemporaryDirectory(prefix="relay-") as top:
        (Path(top) / "dev").mkdir()
        bench = Bench(built, Path(top), Nodes(Path(top) / "dev"))
        yield bench
        bench.close()
        (place / "capture").unlink(missing_ok=True)


def listen(place: Path, user: int = 0) -> socket.socket:
    """A listener; whose it is, the moment of listen(2) decides."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(place / "capture"))
    os.seteuid(user)
    listener.listen()
    os.seteuid(0)
    listener.settimeout(TIMEOUT)
    return listener


def messages(peer: socket.socket) -> list[tuple[int, int, bytes]]:
    """All that comes: (kind, offset, data)."""
    peer.settimeout(TIMEOUT)
    found = []
    while message := peer.recv(1 << 18):
        kind, reserved, offset = HEADER.unpack_from(message)
        assert reserved == 0
        found.append((kind, offset, message[HEADER.size:]))
    return found


def test_copy(tapped: Bench, place: Path) -> None:
    """Names first, then both streams as they arrived: the request as the client wrote it."""
    with listen(place) as listener:
        relay, host, server = tapped.session(REQUEST, ACCEPT)
        host.sendall(b"more")
        recv_exact(server, 4)
        server.sendall(b"pixels")
        recv_exact(host, 6)
        host.close()
        log = relay.wait(OK, "the client left")
        peer = accept(listener)
        found = messages(peer)
        peer.close()
    assert "/dev/synthrdp0: root captures this session" in log
    assert found[0] == (HELLO, 0, f"/dev/synthrdp0\0{tapped.unix}\0".encode())
    for kind, wanted in ((UP, REQUEST + b"more"), (DOWN, ACCEPT + b"pixels")):
        at = 0
        for _, offset, data in (one for one in found if one[0] == kind):
            assert offset == at and data == wanted[at:at + len(data)]
            at += len(data)
        assert at == len(wanted)


def test_nobody_listens(tapped: Bench) -> None:
    """As ever, and without a word."""
    relay, host, _ = tapped.session(REQUEST, ACCEPT)
    host.close()
    assert "captures" not in relay.wait(OK, "the client left")


def test_not_roots(tapped: Bench, place: Path) -> None:
    """A listener that is not root's gets nothing, however it came there."""
    with listen(place, 65534) as listener:
        relay, host, _ = tapped.session(REQUEST, ACCEPT)
        host.close()
        assert "captures" not in relay.wait(OK, "the client left")
        peer = accept(listener)
        assert messages(peer) == []
        peer.close()


def test_listener_does_not_read(tapped: Bench, place: Path) -> None:
    """The session goes on at its pace, and what was lost shows by the offsets."""
    with listen(place) as listener:
        relay, host, server = tapped.session(REQUEST, ACCEPT)
        peer = accept(listener)
        host.setblocking(False)
        got = bytearray()
        while len(got) < len(BIG):
            send_until_stuck(server, BIG[len(got):len(got) + 65536], quiet=0.05)
            host.settimeout(TIMEOUT)
            got += recv_exact(host, min(65536, len(BIG) - len(got)))
        assert bytes(got) == BIG
        host.close()
        relay.wait(OK, "the client left")
        found = messages(peer)
        peer.close()
    stream = ACCEPT + BIG
    taken = 0
    for kind, offset, data in found:
        if kind == DOWN:
            assert stream[offset:offset + len(data)] == data
            taken += len(data)
    assert 0 < taken < len(stream)


def test_listener_goes(tapped: Bench, place: Path) -> None:
    """That is all; the session goes on."""
    with listen(place) as listener:
        relay, host, server = tapped.session(REQUEST, ACCEPT)
        accept(listener).close()
    for _ in range(3):
        server.sendall(b"pixels")
        assert recv_exact(host, 6) == b"pixels"
    host.close()
    relay.wait(OK, "the client left")


def test_rewritten_all_the_same(tapped: Bench, place: Path) -> None:
    """What the server gets is what it would have got."""
    with listen(place):
        listener = tapped.listen()
        _, host = tapped.serve()
        host.sendall(REQUEST)
        assert recv_exact(accept(listener), len(REQUEST)) == REWRITTEN

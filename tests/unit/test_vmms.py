# SPDX-License-Identifier: GPL-2.0-only
"""The emulated VMMS against a client that is played here, and a guest's end of a socket pair."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvhost import vmms
from hvhost.credssp import Acceptor
from hvhost.vmms import VMCONNECT_REQUEST, Vmms, VmmsError

VM = uuid.UUID("7e5b6cf3-8b5c-4d5e-9a2b-0c1d2e3f4a5b")
MCS = bytes.fromhex("0300000c02f0807f65820001")
CONFIRM = bytes.fromhex("030000130ed000001234000200080000000000")
TIMEOUT = 10.0


class Guest:
    """A session whose other end the test holds."""

    def __init__(self) -> None:
        self._host, self.end_of_guest = socket.socketpair()
        self.end_of_guest.settimeout(TIMEOUT)

    def read(self, limit: int, timeout: float | None = None) -> bytes:
        """Some bytes, none at the end."""
        self._host.settimeout(timeout)
        return self._host.recv(limit)

    def write(self, data: bytes) -> None:
        """All of it."""
        self._host.sendall(data)

    def end(self) -> None:
        """The host ends the session."""
        with contextlib.suppress(OSError):
            self._host.shutdown(socket.SHUT_RDWR)

    def take(self, count: int) -> bytes:
        """What the guest has got."""
        data = b""
        while len(data) < count and (more := self.end_of_guest.recv(count - len(data))):
            data += more
        return data


class World:
    """A VMMS, its guests, and clients at will."""

    def __init__(self, directory: Path, let_in: Acceptor | None = None) -> None:
        self.guests = [Guest(), Guest()]
        waiting = iter(self.guests)
        self.vmms = Vmms(VM, lambda: next(waiting), directory, let_in)
        self._clients: list[socket.socket] = []

    def connect(self, blob: str = f"{VM};EnhancedMode=1", nuls: int = 1) -> ssl.SSLSocket:
        """A client that has got as far as TLS."""
        return self.tls(self.knock(pre_connection(blob, nuls)))

    def knock(self, data: bytes) -> socket.socket:
        """A TCP connection that starts with this."""
        sock = socket.create_connection(("127.0.0.1", self.vmms.port), TIMEOUT)
        self._clients.append(sock)
        sock.sendall(data)
        return sock

    def tls(self, sock: socket.socket) -> ssl.SSLSocket:
        """TLS on it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        wrapped = context.wrap_socket(sock)
        self._clients.append(wrapped)
        return wrapped

    def ended(self, number: int = 1) -> str:
        """Why a connection ended, once it has."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            seen = self.vmms.connections
            if len(seen) >= number and seen[number - 1].ended:
                return seen[number - 1].ended
            time.sleep(0.01)
        raise AssertionError("the connection did not end")

    def close(self) -> None:
        """End it all."""
        for sock in self._clients:
            sock.close()
        self.vmms.close()


def pre_connection(blob: str, nuls: int = 1, version: int = 2) -> bytes:
    """A pre-connection PDU."""
    text = (blob + "\0" * nuls).encode("utf-16-le")
    return struct.pack("<IIIIH", 18 + len(text), 0, version, 0, len(text) // 2) + text


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A VMMS with two sessions to give away."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("nuls", [1, 2])
def test_mcs_first_gets_the_request_of_vmconnect(world: World, nuls: int) -> None:
    """The answer stays here, what follows goes through both ways, and is counted."""
    client = world.connect(nuls=nuls)
    client.sendall(MCS)
    guest = world.guests[0]
    assert guest.take(19) == VMCONNECT_REQUEST
    guest.end_of_guest.sendall(CONFIRM + b"mcs answer")
    assert guest.take(len(MCS)) == MCS
    assert client.recv(100) == b"mcs answer"
    seen = world.vmms.connections[0]
    client.close()
    assert "the client left" in world.ended()
    assert (seen.to_guest, seen.from_guest) == (19 + len(MCS), 19 + 10)
    assert seen.answer == "selects protocol 0: standard RDP"
    assert guest.take(1) == b""


@pytest.mark.parametrize("cookie", [b"", b"Cookie: mstshash=user\r\n"])
def test_a_client_that_asks_is_asked_for_as_vmconnect_does(world: World, cookie: bytes) -> None:
    """0x0b takes the place of the client's protocols, and it gets the guest's answer."""
    def request(protocols: int) -> bytes:
        return (struct.pack(">BBHB", 3, 0, 19 + len(cookie), 14 + len(cookie))
                + bytes.fromhex("e000000000 00") + cookie
                + struct.pack("<BBHI", 1, 0, 8, protocols))

    client = world.connect()
    client.sendall(request(3))
    assert world.guests[0].take(19 + len(cookie)) == request(0x0b)
    world.guests[0].end_of_guest.sendall(CONFIRM)
    assert client.recv(100) == CONFIRM


def test_pieces(world: World) -> None:
    """Everything may come byte by byte."""
    sock = socket.create_connection(("127.0.0.1", world.vmms.port), TIMEOUT)
    for byte in pre_connection(str(VM).upper()):
        sock.sendall(bytes([byte]))
    client = world.tls(sock)
    for byte in MCS:
        client.sendall(bytes([byte]))
    assert world.guests[0].take(19) == VMCONNECT_REQUEST
    for byte in CONFIRM:
        world.guests[0].end_of_guest.sendall(bytes([byte]))
    assert world.guests[0].take(len(MCS)) == MCS


@pytest.mark.parametrize("data, why", [
    (pre_connection("ee8ea154-9d30-4d5e-8b1c-2f7f5b0c9a11"), "another virtual machine"),
    (pre_connection(str(VM), version=1), "version 1"),
    (bytes.fromhex("1603010200"), "no pre-connection PDU"),
    (struct.pack("<IIIIH", 20, 0, 2, 0, 9) + b"\0\0", "longer than its PDU"),
])
def test_who_is_sent_away_at_the_door(world: World, data: bytes, why: str) -> None:
    """Before TLS."""
    sock = world.knock(data)
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""
    assert why in world.ended()


def test_credssp_without_users(world: World) -> None:
    """A host that does not speak it says so."""
    world.connect().sendall(b"\x30\x37")
    assert "/sec:tls" in world.ended()


@pytest.mark.parametrize("answer, why", [
    (CONFIRM[:15] + struct.pack("<I", 1), "selects protocol 1"),
    (CONFIRM[:11] + struct.pack("<BBHI", 3, 0, 8, 5), "insists on CredSSP"),
    (b"SSH-2.0-", "no TPKT"),
    (b"", "the stream ended"),
])
def test_answers_that_vmconnect_could_not_go_on_with(world: World, answer: bytes,
                                                     why: str) -> None:
    """The guest's own answer is judged, and the client is sent away."""
    client = world.connect()
    client.sendall(MCS)
    guest = world.guests[0]
    guest.take(19)
    guest.end_of_guest.sendall(answer)
    guest.end_of_guest.shutdown(socket.SHUT_WR)
    assert why in world.ended()
    assert client.recv(1) == b""


def test_no_negotiation_is_an_answer() -> None:
    """A server that knows no RDP_NEG_RSP speaks standard RDP."""
    assert "standard RDP" in vmms.judge_answer(bytes.fromhex("0300000b06d00000123400"))
    with pytest.raises(VmmsError, match="cut short"):
        vmms.judge_answer(CONFIRM[:16])


@pytest.mark.parametrize("asks", [True, False])
def test_the_guest_hears_its_own_choice(world: World, asks: bool) -> None:
    """Not the one that the host has told the client; and nothing else is changed."""
    core = vmms.CORE_DATA + struct.pack("<H", 216) + bytes(range(208))
    mcs = b"\x03\0\1\0\2\xf0\x80Duca\x81\x58" + core + struct.pack("<I", 2) + b"more"
    mcs = mcs[:2] + struct.pack(">H", len(mcs)) + mcs[4:]
    client, guest = world.connect(), world.guests[0]
    if asks:
        client.sendall(VMCONNECT_REQUEST)
        guest.take(19)
        guest.end_of_guest.sendall(CONFIRM)
        assert client.recv(100) == CONFIRM
        client.sendall(mcs)
    else:
        client.sendall(mcs)
        guest.take(19)
        guest.end_of_guest.sendall(CONFIRM)
    assert guest.take(len(mcs)) == mcs.replace(struct.pack("<I", 2) + b"more", bytes(4) + b"more")


def test_bulk_both_ways_at_once(world: World) -> None:
    """Ten megabytes each way arrive whole, while nobody reads for a time."""
    client = world.connect()
    client.settimeout(60)
    client.sendall(MCS)
    guest = world.guests[0]
    guest.take(19)
    guest.end_of_guest.sendall(CONFIRM)
    guest.take(len(MCS))
    guest.end_of_guest.settimeout(60)
    data = bytes(range(256)) * 40_000
    got = bytearray()
    up = threading.Thread(target=client.sendall, args=(data,), daemon=True)
    down = threading.Thread(target=guest.end_of_guest.sendall, args=(data,), daemon=True)
    up.start()
    time.sleep(0.3)             # all buffers are full by now
    assert guest.take(len(data)) == data
    up.join(TIMEOUT)
    down.start()
    time.sleep(0.3)
    while len(got) < len(data):
        got += client.recv(1 << 16)
    assert got == data


def test_clients_do_not_wait_for_each_other(world: World) -> None:
    """One that says nothing is not in the way of the next."""
    world.knock(b"")
    world.connect()
    client = world.connect()
    client.sendall(MCS)
    assert world.guests[0].take(19) == VMCONNECT_REQUEST


def test_the_guest_ends(world: World) -> None:
    """What it sent last arrives, then the client sees the end."""
    client = world.connect()
    client.sendall(MCS)
    guest = world.guests[0]
    guest.take(19)
    guest.end_of_guest.sendall(CONFIRM)
    guest.take(len(MCS))
    guest.end_of_guest.sendall(b"goodbye")
    guest.end_of_guest.close()
    got = b""
    while data := client.recv(100):
        got += data
    assert got == b"goodbye"
    assert world.ended()


def test_close_sends_everybody_away(world: World) -> None:
    """Clients in every state are gone at once."""
    early, late = world.knock(b""), world.connect()
    late.sendall(MCS)
    world.guests[0].take(19)
    before = time.monotonic()
    world.vmms.close()
    assert time.monotonic() - before < 5
    assert early.recv(1) == b""
    with contextlib.suppress(OSError):
        assert late.recv(1) == b""

# SPDX-License-Identifier: GPL-2.0-only
"""CredSSP at the emulated VMMS's door: its messages, and a client that is played here."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import gssapi
import pytest

from hvhost import credssp, vmms
from hvhost.credssp import Acceptor, Account, TSRequest
from hvhost.vmms import VmmsError
from test_vmms import CONFIRM, TIMEOUT, World

ACCOUNT = Account("user", "pass word")
ASK = bytes.fromhex("030000130ee00000000000 0100080003000000")


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> Iterator[World]:
    """A VMMS that knows a user."""
    made = World(tmp_path, Acceptor(ACCOUNT, tmp_path))
    yield made
    made.close()


class Client:
    """A client's side of CredSSP."""

    def __init__(self, world: World, account: Account, certificate: Path) -> None:
        self.tls = world.connect()
        self._key = credssp.public_key(certificate)
        name = gssapi.Name(account.user, gssapi.NameType.user)
        acquired = gssapi.raw.acquire_cred_with_password(
            name, account.password.encode(), mechs=[credssp.NTLM], usage="initiate")
        flags = gssapi.RequirementFlag
        self._context = gssapi.SecurityContext(
            name=gssapi.Name("TERMSRV@host", gssapi.NameType.hostbased_service),
            creds=gssapi.Credentials(acquired.creds), mech=credssp.NTLM,
            flags=flags.integrity | flags.confidentiality)

    def read(self, limit: int, timeout: float | None = None) -> bytes:
        """Some bytes, none at the end."""
        self.tls.settimeout(timeout)
        return self.tls.recv(limit)

    def ask(self, request: TSRequest) -> TSRequest:
        """Send one, and what comes back."""
        self.tls.sendall(request.pack())
        return credssp.read_request(self)

    def write(self, data: bytes) -> None:
        """All of it."""
        self.tls.sendall(data)

    def prove(self, nonce: bytes = bytes(range(32)), key: bytes = b"") -> TSRequest:
        """Up to the server's proof that it sees the same TLS, or its refusal."""
        challenge = self.ask(TSRequest(token=self._context.step()))
        token = self._context.step(challenge.token)
        proof = credssp.bound(False, nonce, key or self._key)
        return self.ask(TSRequest(token=token, nonce=nonce,
                                  key=self._context.wrap(proof, True).message))

    def open(self, sealed: bytes) -> bytes:
        """What the server has sealed."""
        opened: bytes = self._context.unwrap(sealed).message
        return opened

    def hand_over(self, credentials: bytes) -> None:
        """The last message."""
        self.write(TSRequest(credentials=self._context.wrap(credentials, True).message).pack())


def test_a_user_comes_in(world: World, tmp_path: Path) -> None:
    """Then the guest is asked as ever, and the client told that CredSSP it was."""
    client, nonce = Client(world, ACCOUNT, tmp_path / "vmms.pem"), bytes(range(32))
    answer = client.prove(nonce)
    assert client.open(answer.key) == credssp.bound(True, nonce,
                                                    credssp.public_key(tmp_path / "vmms.pem"))
    client.hand_over(b"credentials")
    client.write(ASK)
    assert world.guests[0].take(19) == ASK[:15] + struct.pack("<I", vmms.VMCONNECT_PROTOCOLS)
    world.guests[0].end_of_guest.sendall(CONFIRM)
    assert client.read(100, TIMEOUT) == CONFIRM[:15] + struct.pack("<I", vmms.CREDSSP)
    seen, = world.vmms.connections
    assert (seen.user, seen.answer) == (ACCOUNT.user, "selects protocol 0: standard RDP")


@pytest.mark.parametrize("account", [Account("user", "password"), Account("other", "pass word")])
def test_nobody_else_comes_in(world: World, tmp_path: Path, account: Account) -> None:
    """And is told so."""
    answer = Client(world, account, tmp_path / "vmms.pem").prove()
    assert (answer.error, answer.key) == (credssp.LOGON_FAILURE, b"")
    assert "name or password" in world.ended()


def test_somebody_in_between(world: World, tmp_path: Path) -> None:
    """Who sees another certificate than ours is not talking to us."""
    client = Client(world, ACCOUNT, tmp_path / "vmms.pem")
    with pytest.raises(VmmsError, match="ended"):
        client.prove(key=b"another")
    assert "in between" in world.ended()


@pytest.mark.parametrize("data, why", [
    (TSRequest(version=4, token=b"NTLMSSP\0").pack(), "version 4"),
    (TSRequest(token=b"nonsense").pack(), "name or password"),
    (b"\x30\x85\x00\x00\x00\x00\x00", "unexpected form"),
    (b"\x30\x83\x01\x00\x00", "too long"),
    (b"\x30\x05\xa0\x03\x04\x01\x06", "tag 0x2 was expected"),
    (b"\x30\x04\xa0\x05\x02\x01", "cut short"),
    (b"\x30\x20\xa0", "stream ended"),
])
def test_nonsense(world: World, data: bytes, why: str) -> None:
    """Ends that connection."""
    client = world.connect()
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    assert why in world.ended()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65536])
def test_der_comes_back(size: int) -> None:
    """Lengths in each form."""
    data = credssp.der(credssp.OCTETS, bytes(size))
    assert credssp.element(data, credssp.OCTETS) == bytes(size)
    assert list(credssp.elements(2 * data)) == 2 * [(credssp.OCTETS, bytes(size))]


def test_der_by_the_book() -> None:
    """As [MS-CSSP] and X.690 have it."""
    assert credssp.der(0x30, bytes(200))[:3] == b"\x30\x81\xc8"
    assert TSRequest(token=b"x").pack().hex() == "3010a003020106a10930073005a003040178"
    assert TSRequest(error=credssp.LOGON_FAILURE).pack().hex().endswith("a4060204c000006d")
    whole = TSRequest(6, b"token", b"credentials", b"key", 5, bytes(32))
    assert TSRequest.unpack(whole.pack()) == whole


def test_vmms_key_is_in_its_certificate(tmp_path: Path) -> None:
    """2048 bits of RSA: its modulus begins where all do."""
    pem = vmms.certificate(tmp_path)
    key = credssp.public_key(pem)
    assert key.startswith(bytes.fromhex("3082010a0282010100")) and len(key) == 270
    assert key in ssl.PEM_cert_to_DER_cert(pem.read_text().partition("-----BEGIN PRIVATE")[0])

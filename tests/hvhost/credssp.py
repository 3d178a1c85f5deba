# SPDX-License-Identifier: GPL-2.0-only
"""The server's side of CredSSP ([MS-CSSP]), as VMMS has it: NTLM inside TLS, one user.

A client that means it sends a TSRequest first inside TLS.  NTLM itself is gss-ntlmssp's
work; here are the messages around it, and the proof of both sides that they see the
same TLS: a hash over the server's public key, sealed with NTLM's session key.
"""
from __future__ import annotations

import base64
import hashlib
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gssapi
from gssapi.raw.misc import GSSError         # pylint: disable=no-name-in-module  # compiled

from hvhost.vmms import HANDSHAKE_SECONDS, ByteStream, TlsStream, VmmsError, read_exact

NTLM = gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")
DOMAIN = "HOST"
VERSION = 6
OLDEST = 5                      # before it, the key itself was sealed, and not its hash
LOGON_FAILURE = 0xC000006D
LONGEST = 16384

INTEGER, BITS, OCTETS, SEQUENCE = 0x02, 0x03, 0x04, 0x30
CONTEXT = 0xA0

_NTLM_LOCK = threading.Lock()   # its users' file is named in the environment


@dataclass(frozen=True)
class Account:
    """The one who may come in."""

    user: str
    password: str


def der(tag: int, content: bytes) -> bytes:
    """One DER element."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The DER elements in `data`, each with its tag."""
    at = 0
    while at < len(data):
        head, size = _head(data[at:at + 6])
        content = data[at + head:at + head + size]
        if len(content) != size:
            raise VmmsError("a DER element is cut short")
        yield data[at], content
        at += head + size


def _head(data: bytes) -> tuple[int, int]:
    """How long an element's tag and length are, and its content."""
    if len(data) < 2:
        raise VmmsError("a DER element is cut short")
    if data[1] < 0x80:
        return 2, data[1]
    count = data[1] & 0x7F
    if not 1 <= count <= 4 or len(data) < 2 + count:
        raise VmmsError(f"a DER length of an unexpected form: {data.hex(' ')}")
    return 2 + count, int.from_bytes(data[2:2 + count], "big")


def element(data: bytes, tag: int) -> bytes:
    """The content of `data`, which is one element of this tag."""
    (found, content), *rest = list(elements(data)) or [(-1, b"")]
    if found != tag or rest:
        raise VmmsError(f"DER tag {tag:#x} was expected: {data[:16].hex(' ')}")
    return content


@dataclass
class TSRequest:
    """[MS-CSSP] 2.2.1."""

    version: int = VERSION
    token: bytes = b""
    credentials: bytes = b""
    key: bytes = b""
    error: int = 0
    nonce: bytes = b""

    def pack(self) -> bytes:
        """As it goes over the wire."""
        def octets(number: int, data: bytes) -> bytes:
            return der(CONTEXT + number, der(OCTETS, data)) if data else b""

        def integer(number: int, value: bytes) -> bytes:
            return der(CONTEXT + number, der(INTEGER, value))

        tokens = der(SEQUENCE, der(SEQUENCE, octets(0, self.token)))
        # An error is negative, and so has four bytes: clients understand no fifth.
        error = integer(4, struct.pack(">I", self.error)) if self.error else b""
        return der(SEQUENCE, integer(0, bytes([self.version]))
                   + (der(CONTEXT + 1, tokens) if self.token else b"")
                   + octets(2, self.credentials) + octets(3, self.key) + error
                   + octets(5, self.nonce))

    @classmethod
    def unpack(cls, data: bytes) -> TSRequest:
        """From the wire."""
        found = cls(0)
        for tag, content in elements(element(data, SEQUENCE)):
            number = tag - CONTEXT
            if number == 0:
                found.version = int.from_bytes(element(content, INTEGER), "big")
            elif number == 1:
                for of_one, token in elements(element(content, SEQUENCE)):
                    if of_one == SEQUENCE:
                        found.token = element(element(token, CONTEXT), OCTETS)
            elif number == 2:
                found.credentials = element(content, OCTETS)
            elif number == 3:
                found.key = element(content, OCTETS)
            elif number == 4:
                found.error = int.from_bytes(element(content, INTEGER), "big")
            elif number == 5:
                found.nonce = element(content, OCTETS)
        return found


def read_request(stream: ByteStream, begun: bytes = b"") -> TSRequest:
    """One TSRequest, of which the first bytes may have been read already."""
    def have(count: int) -> bytes:
        return data + read_exact(stream, max(count - len(data), 0), HANDSHAKE_SECONDS,
                                 "the client's TSRequest")

    data = begun
    data = have(2)
    if data[0] != SEQUENCE:
        raise VmmsError(f"no TSRequest: it begins with {data.hex(' ')}")
    if data[1] >= 0x80:
        data = have(2 + (data[1] & 0x7F))
    head, size = _head(data)
    if size > LONGEST:
        raise VmmsError(f"a TSRequest of {size} bytes is too long")
    return TSRequest.unpack(have(head + size))


def public_key(certificate: Path) -> bytes:
    """A certificate's SubjectPublicKey."""
    pem = subprocess.run(["openssl", "x509", "-in", certificate, "-noout", "-pubkey"],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
                         timeout=60).stdout
    info = base64.b64decode("".join(line for line in pem.splitlines() if "-" not in line))
    fields = dict(elements(element(info, SEQUENCE)))
    return fields[BITS][1:]         # its first byte says how many bits are none


def bound(server: bool, nonce: bytes, key: bytes) -> bytes:
    """What a side seals to show which TLS it sees."""
    way = b"Server-To-Client" if server else b"Client-To-Server"
    return hashlib.sha256(b"CredSSP " + way + b" Binding Hash\0" + nonce + key).digest()


class Acceptor:
    """Lets one user in: `let_in` for the VMMS."""

    def __init__(self, account: Account, directory: Path) -> None:
        self._users = directory / "users"
        self._users.touch(mode=0o600)
        self._users.write_text(f"{DOMAIN}:{account.user}:{account.password}\n", encoding="utf-8")

    def __call__(self, client: TlsStream, begun: bytes, certificate: Path) -> str:
        """The whole exchange; returns the client's name for itself, or tells it why not and
        raises an error.
        """
        try:
            return self._exchange(client, begun, public_key(certificate))
        except GSSError as error:
            client.write(TSRequest(error=LOGON_FAILURE).pack())
            raise VmmsError("the user's name or password is wrong") from error

    def _exchange(self, client: TlsStream, begun: bytes, key: bytes) -> str:
        context = gssapi.SecurityContext(usage="accept")
        request = read_request(client, begun)
        if request.version < OLDEST:
            raise VmmsError(f"the client speaks version {request.version} of CredSSP, {OLDEST} is"
                            " the oldest here")
        client.write(TSRequest(token=self._step(context, request.token)).pack())
        request = read_request(client)
        self._step(context, request.token)
        if context.unwrap(request.key).message != bound(False, request.nonce, key):
            raise VmmsError("the client sees another TLS than we: somebody is in between")
        proof = context.wrap(bound(True, request.nonce, key), True).message
        client.write(TSRequest(key=proof).pack())
        # What Windows would log in with on our side: there is nothing to log in to.
        context.unwrap(read_request(client).credentials)
        return str(context.initiator_name).rstrip("\0")

    def _step(self, context: gssapi.SecurityContext, token: bytes) -> bytes:
        with _NTLM_LOCK:
            os.environ["NTLM_USER_FILE"] = str(self._users)
            return context.step(token) or b""

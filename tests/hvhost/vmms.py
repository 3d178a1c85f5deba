# SPDX-License-Identifier: GPL-2.0-only
"""The client's side of an emulated VMMS: the door that VMConnect knocks on.

A client connects by TCP, names the virtual machine in a pre-connection blob
([MS-RDPEPS] 2.2.1.2), and starts TLS.  Behind that it speaks RDP, which goes to
the guest in the clear.  As VMConnect would have it, the guest is asked for
0x0b (TLS, CredSSP, early user authorization), whatever this client asked for.
Before that a client may show by CredSSP who it is, if the caller judges that
(hvhost/credssp.py does).

Nothing here knows VMBus: a session with the guest is any object that reads and
writes bytes.
"""
from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

CHUNK = 16384
MAX_BLOB = 1024                     # of the whole pre-connection PDU
HANDSHAKE_SECONDS = 30.0
ANSWER_SECONDS = 30.0               # the guest starts its relay and its server in this time

X224_REQUEST = 0xE0
X224_CONFIRM = 0xD0
NEG_REQUEST = 1
NEG_RESPONSE = 2
NEG_FAILURE = 3
VMCONNECT_PROTOCOLS = 0x0B
CREDSSP = 2
CORE_DATA = b"\x01\xc0"             # of the client, in MCS Connect Initial
SELECTED = 212                      # offset of serverSelectedProtocol in it

# What VMConnect sends: nothing but a request for 0x0b.
VMCONNECT_REQUEST = (bytes.fromhex("03 00 00 13 0e e0 00 00 00 00 00 01 00 08 00")
                     + struct.pack("<I", VMCONNECT_PROTOCOLS))

FAILURES = {
    1: "it insists on TLS",
    2: "it does not allow TLS",
    3: "it has no certificate",
    4: "it finds the flags inconsistent",
    5: "it insists on CredSSP",
    6: "it insists on TLS with user authentication",
}


class VmmsError(Exception):
    """Why a client was sent away."""


class GuestSession(Protocol):
    """A session's byte stream to and from the guest."""

    def read(self, limit: int, timeout: float | None = None) -> bytes:
        """Some bytes, none at the end."""

    def write(self, data: bytes) -> None:
        """All of it; blocks while the guest does not read."""

    def end(self) -> None:
        """The host ends the session.  A read() under way returns."""


class ByteStream(Protocol):
    """What a TPKT is read from."""

    def read(self, limit: int, timeout: float | None = None) -> bytes:
        """Some bytes, none at the end."""


@dataclass
class Connection:
    """What was seen of one client's connection."""

    number: int
    blob: str = ""
    tls: str = ""
    user: str = ""                  # by CredSSP
    request: str = ""               # what the client asked for, and what the guest was asked
    answer: str = ""                # the guest's own
    to_guest: int = 0
    from_guest: int = 0
    ended: str = ""
    events: list[tuple[float, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a line for the log."""
        self.events.append((time.time(), text))


def certificate(directory: Path) -> Path:
    """A fresh self-signed certificate with its key, in one file."""
    pem, key = directory / "vmms.pem", directory / "vmms.key"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=emulated VMMS",
         "-days", "2", "-keyout", str(key), "-out", str(pem)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    if made.returncode:
        raise VmmsError(f"openssl made no certificate: {made.stderr.strip()}")
    with pem.open("a", encoding="ascii") as whole:
        whole.write(key.read_text(encoding="ascii"))
    key.unlink()
    return pem


class TlsStream:
    """TLS over a socket, of which one thread may read while another writes.

    ssl.SSLSocket does not promise that before Python 3.13, hence the records
    pass through memory here and only the cipher state is locked.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._state = threading.Lock()
        self._sending = threading.Lock()    # taken before _state: keeps records in order
        self._shake_hands()

    def _shake_hands(self) -> None:
        while True:
            with self._state:
                try:
                    self._tls.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    done = False
            self._flush()
            if done:
                return
            if not self._fill():
                raise VmmsError("the client left during the TLS handshake")

    def _fill(self) -> bool:
        data = self._sock.recv(CHUNK)
        with self._state:
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()
        return bool(data)

    def _flush(self) -> None:
        with self._sending:
            with self._state:
                data = self._out.read()
            if data:
                self._sock.sendall(data)

    def describe(self) -> str:
        """Version and cipher."""
        cipher = self._tls.cipher()
        return f"{self._tls.version()}, {cipher[0] if cipher else 'no cipher'}"

    def read(self, limit: int, timeout: float | None = None) -> bytes:
        """Some bytes, none at the end."""
        self._sock.settimeout(timeout)
        while True:
            with self._state:
                try:
                    return self._tls.read(limit)
                except ssl.SSLWantReadError:
                    pending = self._out.pending
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            if pending:         # pylint: disable=using-constant-test  # it is no method
                self._flush()
            self._fill()

    def write(self, data: bytes) -> None:
        """All of it; blocks while the client does not read."""
        with self._sending:
            with self._state:
                self._tls.write(data)
                records = self._out.read()
            self._sock.sendall(records)

    def close(self) -> None:
        """Say goodbye, then hang up.  A read() under way returns."""
        with contextlib.suppress(OSError, ssl.SSLError):
            with self._state, contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            self._sock.settimeout(1)
            self._flush()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


def read_exact(stream: ByteStream, count: int, timeout: float, what: str) -> bytes:
    """Exactly so many bytes, or an error that says what did not come."""
    data = b""
    end = time.monotonic() + timeout
    while len(data) < count:
        left = end - time.monotonic()
        try:
            more = stream.read(count - len(data), max(left, 0.001))
        except TimeoutError:
            more = None
        if more is None or left <= 0:
            raise VmmsError(f"{what} did not come within {timeout:.0f} s")
        if not more:
            raise VmmsError(f"the stream ended where {what} should have come")
        data += more
    return data


def read_tpkt(stream: ByteStream, timeout: float, what: str, begun: bytes = b"") -> bytes:
    """One whole TPKT, of which the first bytes may have been read already."""
    head = begun + read_exact(stream, 4 - len(begun), timeout, what)
    size: int = struct.unpack(">H", head[2:4])[0]
    if head[0] != 3 or size < 7:
        raise VmmsError(f"{what} is no TPKT: {head.hex(' ')}")
    return head + read_exact(stream, size - 4, timeout, what)


def pre_connection_blob(read: Callable[[int], bytes]) -> str:
    """The text of a version 2 pre-connection PDU.  Reads not a byte more: TLS follows."""
    size, = struct.unpack("<I", read(4))
    if not 18 <= size <= MAX_BLOB:
        raise VmmsError(f"no pre-connection PDU: it would have {size} bytes")
    _flags, version, _id, length = struct.unpack_from("<IIIH", body := read(size - 4))
    if version != 2:
        raise VmmsError(f"pre-connection PDU of version {version}, 2 was expected")
    if 14 + 2 * length > len(body):
        raise VmmsError("the pre-connection blob is longer than its PDU")
    return body[14:14 + 2 * length].decode("utf-16-le", "replace").rstrip("\0")


def ask_as_vmconnect(request: bytes) -> tuple[bytes, str]:
    """The X.224 request with 0x0b in place of the client's protocols, and what those were."""
    if len(request) < 11 or request[5] != X224_REQUEST:
        raise VmmsError(f"no X.224 connection request: {request[:16].hex(' ')}")
    at = 11
    if request[at:at + 7].lower() == b"cookie:":
        at = request.find(b"\r\n", at) + 2
    if len(request) < at + 8 or request[at] != NEG_REQUEST:
        raise VmmsError("the client's X.224 request does not negotiate")
    asked, = struct.unpack_from("<I", request, at + 4)
    return request[:at + 4] + struct.pack("<I", VMCONNECT_PROTOCOLS) + request[at + 8:], hex(asked)


def judge_answer(answer: bytes) -> str:
    """What the guest's X.224 answer says; an error unless VMConnect could go on with it."""
    if len(answer) < 11 or answer[5] != X224_CONFIRM:
        raise VmmsError(f"the guest's answer is no X.224 connection confirm: {answer.hex(' ')}")
    if len(answer) == 11:
        return "no negotiation: standard RDP"
    if len(answer) < 19:
        raise VmmsError(f"the guest's X.224 answer is cut short: {answer.hex(' ')}")
    kind, _flags, _size, value = struct.unpack_from("<BBHI", answer, 11)
    if kind == NEG_FAILURE:
        raise VmmsError("the guest's RDP server refuses: " + FAILURES.get(value, f"code {value}"))
    if kind != NEG_RESPONSE:
        raise VmmsError(f"the guest's X.224 answer is of unknown kind {kind}")
    if value != 0:
        raise VmmsError(f"the guest's RDP server selects protocol {value}, a handshake that the"
                        " host has already done: it must be 0")
    return "selects protocol 0: standard RDP"


def answer_as_host(answer: bytes) -> bytes:
    """The guest's X.224 answer for a client that came by CredSSP: that is what was selected."""
    return (bytes.fromhex("03 00 00 13 0e d0") + answer[6:11]
            + struct.pack("<BBHI", NEG_RESPONSE, 0, 8, CREDSSP))


def choose_as_guest(packet: bytes) -> bytes:
    """The client's MCS Connect Initial with protocol 0 for what it believes to be selected.

    VMConnect sees the guest's answer, FreeRDP the host's; some servers compare
    ([MS-RDPBCGR] 2.2.1.3.2).
    """
    at = packet.find(b"Duca") + 6           # the key of T.124, and a length
    if at < 6 or packet[at:at + 2] != CORE_DATA or len(packet) < at + SELECTED + 4:
        return packet
    return packet[:at + SELECTED] + bytes(4) + packet[at + SELECTED + 4:]


class Vmms:
    """Listens for VMConnect on the loopback and joins it to sessions with the guest.

    `let_in` does CredSSP with a client: with TLS to it, of which the first byte has been
    read, and our certificate. It returns the user's name, or raises an error.
    """

    def __init__(self, vm_id: uuid.UUID, open_session: Callable[[], GuestSession], directory: Path,
                 let_in: Callable[[TlsStream, bytes, Path], str] | None = None) -> None:
        self.vm_id = vm_id
        self.connections: list[Connection] = []
        self._open_session = open_session
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._certificate = certificate(directory)
        self._context.load_cert_chain(self._certificate)
        self._let_in = let_in
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._live: dict[int, socket.socket] = {}
        self._sessions: dict[int, GuestSession] = {}
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> Vmms:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send everybody away and wait until they have gone."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            live, sessions = list(self._live.values()), list(self._sessions.values())
        for sock in live:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for session in sessions:
            with contextlib.suppress(OSError):
                session.end()
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        return thread

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            seen = Connection(next(self._numbers))
            with self._lock:
                self._live[seen.number] = sock
                self.connections.append(seen)
            self._start(self._serve, sock, seen)

    def _serve(self, sock: socket.socket, seen: Connection) -> None:
        try:
            self._join(self._welcome(sock, seen), seen)
        except (VmmsError, OSError) as error:           # ssl.SSLError is an OSError
            seen.ended = seen.ended or str(error) or type(error).__name__
        finally:
            with self._lock:
                del self._live[seen.number]
            sock.close()
            seen.note(f"ended: {seen.ended}")

    def _welcome(self, sock: socket.socket, seen: Connection) -> TlsStream:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(HANDSHAKE_SECONDS)

        def read(count: int) -> bytes:
            data = b""
            while len(data) < count:
                if not (more := sock.recv(count - len(data))):
                    raise VmmsError("the client left during the pre-connection PDU")
                data += more
            return data

        seen.blob = pre_connection_blob(read)
        seen.note(f"pre-connection blob {seen.blob!r}")
        if seen.blob.partition(";")[0].strip("{}").lower() != str(self.vm_id):
            raise VmmsError(f"the client asks for another virtual machine: {seen.blob!r}")
        stream = TlsStream(sock, self._context)
        seen.tls = stream.describe()
        seen.note(seen.tls)
        return stream

    def _join(self, client: TlsStream, seen: Connection) -> None:
        first = read_exact(client, 1, HANDSHAKE_SECONDS, "the client's first byte in TLS")
        if first == b"\x30":
            if self._let_in is None:
                raise VmmsError("the client starts CredSSP, but nobody here does: use /sec:tls")
            seen.user = self._let_in(client, first, self._certificate)
            seen.note(f"user {seen.user} by CredSSP")
            first = b""
        packet = read_tpkt(client, HANDSHAKE_SECONDS, "the client's first packet", first)
        request, following = VMCONNECT_REQUEST, packet
        seen.request = "starts with MCS; the guest is asked for 0x0b"
        if packet[5] == X224_REQUEST:
            request, asked = ask_as_vmconnect(packet)
            following = b""
            seen.request = f"asks for {asked}; the guest is asked for 0x0b"
        seen.note(f"client {seen.request}")

        session = self._open_session()
        with self._lock:
            self._sessions[seen.number] = session
        try:
            session.write(request)
            answer = read_tpkt(session, ANSWER_SECONDS, "the guest's X.224 answer")
            seen.answer = judge_answer(answer)
            seen.note(f"guest {seen.answer}")
            if not following:
                client.write(answer_as_host(answer) if seen.user else answer)
                following = read_tpkt(client, HANDSHAKE_SECONDS, "MCS Connect Initial")
            session.write(choose_as_guest(following))
            seen.to_guest = len(request) + len(following)
            seen.from_guest = len(answer)
            self._pump(client, session, seen)
        finally:
            with self._lock:
                del self._sessions[seen.number]
            with contextlib.suppress(OSError):
                session.end()
            client.close()

    def _pump(self, client: TlsStream, session: GuestSession, seen: Connection) -> None:
        ends: list[str] = []

        def upstream() -> None:
            try:
                while data := client.read(CHUNK):
                    session.write(data)
                    seen.to_guest += len(data)
                ends.append("the client left")
            except OSError as error:
                ends.append(f"client: {error}")
            with contextlib.suppress(OSError):
                session.end()

        thread = self._start(upstream)
        try:
            while data := session.read(CHUNK):
                client.write(data)
                seen.from_guest += len(data)
            ends.append("the guest ended the session")
        finally:
            client.close()
            thread.join(10)
            # Only now: who sees that it ended may take the counts for final.
            seen.ended = next(iter(ends), "")

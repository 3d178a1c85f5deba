# SPDX-License-Identifier: GPL-2.0-only
"""Client of the QEMU device vmbus-user: the host's end of one VMBus channel.

Documentation/vmbus-user.rst describes the socket protocol. A thread reads the
socket and notes what comes; every method that waits has a timeout and raises
`Timeout`, saying what it waited for.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from hvhost.log import Log

VERSION: Final = 1
GRANTS: Final = 64              # packets that automatic granting keeps in flight
TIMEOUT: Final = 30.0

FRAME: Final = struct.Struct("<IHH")            # length of the rest, kind, opening
PACKET: Final = struct.Struct("<HHIQ")          # type, flags, descriptor bytes, transaction id
HELLO_BODY: Final = struct.Struct("<IIII")      # version, send window, state bits, max send
OPENED_BODY: Final = struct.Struct("<IIII120s")     # rings, vp, VMBus version, user data
RESULT_BODY: Final = struct.Struct("<II")       # command, status
STATS_BODY: Final = struct.Struct("<QQQQ")
WORD: Final = struct.Struct("<I")

HELLO, OPENED, CLOSED, RELEASED, PACKET_IN, PLACED, RESULT, STATS, BROKEN, PEEKED = range(1, 11)
OFFER, RESCIND, SEND, GRANT, OPEN_STATUS, QUERY, PEEK, POKE, NOTIFY = range(16, 25)

T = TypeVar("T")

INBAND: Final = 6               # VM_PKT_DATA_INBAND
STATE_OFFERED: Final = 1
STATE_OPEN: Final = 2


class ChannelError(Exception):
    """The device did what it must not do, or is gone."""


class Timeout(ChannelError):
    """Something did not happen in time."""


class Closed(ChannelError):
    """The guest does not have the channel open."""


@dataclass(frozen=True)
class Packet:
    """One VMBus packet from the guest; `payload` includes padding."""

    opening: int
    type: int
    flags: int
    tid: int
    descriptor: bytes
    payload: bytes
    at: float


@dataclass(frozen=True)
class Opened:
    """The guest opened the channel: the sizes of its rings' data areas."""

    opening: int
    guest_to_host: int
    host_to_guest: int
    target_vp: int
    version: int
    user_data: bytes
    at: float


@dataclass(frozen=True)
class Stats:
    """The device's counters."""

    signals_from_guest: int
    signals_to_guest: int
    packets_from_guest: int
    packets_to_guest: int


def frame(kind: int, body: bytes = b"", opening: int = 0) -> bytes:
    """One frame of the socket protocol."""
    return FRAME.pack(FRAME.size - WORD.size + len(body), kind, opening) + body


def connect(path: str | os.PathLike[str], timeout: float = TIMEOUT) -> socket.socket:
    """Connect to the device's socket, which QEMU may only be about to make."""
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(os.fspath(path))
            return sock
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            if time.monotonic() > deadline:
                raise Timeout(f"nobody listens at {path} after {timeout} s") from error
            time.sleep(0.02)


class Channel:
    """One connection to one vmbus-user device.

    What the guest does is queued: `wait_opened()`, `wait_closed()`,
    `wait_released()` and `recv()` each hand out the oldest one not yet handed
    out, so that nothing is missed however late one looks. `auto_grant` lets the
    guest send as long as somebody calls `recv()`; without it, not one packet is
    taken from the guest's ring but by `grant()`.
    """

    def __init__(self, sock: socket.socket, name: str, log: Log, *,
                 auto_grant: bool = True, timeout: float = TIMEOUT) -> None:
        self.name = name
        self.log = log
        self.offered = False
        self.held = False               # the guest has not let go of what was withdrawn
        self.opening = 0                # number of the present opening, 0: not open
        self._sock = sock
        self._send_lock = threading.Lock()
        self._command_lock = threading.Lock()
        self._changed = threading.Condition()
        # All below: under _changed.
        self._window: int | None = None
        self._in_flight = 0
        self._granted = 0
        self._auto = False
        self._consumed = 0
        self._opened: deque[Opened] = deque()
        self._closed: deque[float] = deque()
        self._released: deque[float] = deque()
        self._packets: deque[Packet] = deque()
        self._results: deque[tuple[int, int]] = deque()
        self._stats: deque[Stats] = deque()
        self._peeked: deque[bytes] = deque()
        self._max_send = 0
        self._broken = False
        self._gone: str | None = None
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"channel {name}")
        self._reader.start()
        try:
            with self._changed:
                self._wait(lambda: self._window is not None, "HELLO", timeout)
        except ChannelError:
            self.close()
            raise
        if auto_grant:
            self.auto_grant(True)

    # -- commands

    def offer(self, timeout: float = TIMEOUT) -> None:
        """Offer the channel to the guest."""
        self._command(OFFER, "offer", timeout=timeout)

    def rescind(self, timeout: float = TIMEOUT) -> None:
        """Take the offer back, whatever the guest is doing with the channel."""
        self._command(RESCIND, "rescind", timeout=timeout)

    def set_open_status(self, status: int, timeout: float = TIMEOUT) -> None:
        """Answer OPENCHANNEL with this status from now on; 0 accepts."""
        self._command(OPEN_STATUS, f"open status {status}", WORD.pack(status), timeout)

    def stats(self, timeout: float = TIMEOUT) -> Stats:
        """Ask the device for its counters."""
        with self._command_lock:
            self._write(frame(QUERY))
            return self._next(self._stats, "STATS", timeout)

    def grant(self, packets: int) -> None:
        """Let the device take so many more packets from the guest's ring."""
        self.log.add(self.name, "-", f"grant {packets}")
        self._grant(packets)

    def auto_grant(self, on: bool) -> None:
        """Grant as packets are received. Off does not take back what was granted."""
        with self._changed:
            begin = on and not self._auto
            self._auto = on
            self._consumed = 0
            room = GRANTS - len(self._packets)
        if begin and room > 0:
            self.grant(room)

    # -- packets

    def send(self, payload: bytes, type: int = INBAND, flags: int = 0, tid: int = 0, *,
             descriptor: bytes = b"", opening: int = 0, timeout: float = TIMEOUT) -> None:
        """Send one packet; waits while the send window is used up.

        It is meant for the present opening, or for the given one: the device
        discards it if that is over.
        """
        if len(descriptor) + len(payload) > self._max_send:
            raise ValueError(f"{len(payload)} bytes are too many for one packet")
        if not (opening := opening or self.opening):
            raise Closed(f"{self.name}: cannot send, the guest has not opened the channel")
        self._take_slot(timeout)
        self.log.add(self.name, ">", _packet_name(type), payload)
        self._write(frame(SEND, PACKET.pack(type, flags, len(descriptor), tid)
                          + descriptor + payload, opening))

    def wait_placed(self, timeout: float = TIMEOUT) -> None:
        """Wait until everything sent is in the guest's ring (or was dropped)."""
        with self._changed:
            self._wait(lambda: not self._in_flight, "all packets placed", timeout)

    def recv(self, timeout: float = TIMEOUT, opening: int = 0) -> Packet:
        """The next packet from the guest; of this opening only, and `Closed` at its end."""
        with self._changed:
            while True:
                self._wait(lambda: bool(self._packets) or self._broken
                           or bool(opening and opening != self.opening),
                           "a packet from the guest", timeout)
                first = self._packets[0].opening if self._packets else 0
                if opening and (first > opening or not first and opening != self.opening):
                    raise Closed(f"{self.name}: the guest has closed the channel")
                if not self._packets:
                    raise ChannelError(f"{self.name}: the guest broke its ring")
                packet = self._packets.popleft()
                self._consumed += self._auto
                if first >= opening:        # or it was left behind by an earlier opening
                    break
            give = self._consumed if self._consumed >= GRANTS // 2 else 0
            self._consumed -= give
        if give:
            self._grant(give)
        return packet

    @property
    def in_flight(self) -> int:
        """Packets that were sent and are not in the guest's ring yet."""
        with self._changed:
            return self._in_flight

    @property
    def granted(self) -> int:
        """Packets that the device may still take from the guest's ring."""
        with self._changed:
            return self._granted

    @property
    def pending(self) -> int:
        """Packets from the guest that wait for recv()."""
        with self._changed:
            return len(self._packets)

    # -- the memory of the rings, for hosts without rules

    def poke(self, *writes: tuple[int, bytes], opening: int, notify: bool = False) -> None:
        """Write to offsets in the rings, one after the other; signal the guest then, or not."""
        self._write(b"".join(
            [frame(POKE, WORD.pack(at) + data, opening) for at, data in writes]
            + [frame(NOTIFY, opening=opening)] * notify))

    def peek(self, at: int, size: int, opening: int, timeout: float = TIMEOUT) -> bytes:
        """Read from an offset in the rings; nothing when that opening is over."""
        with self._command_lock:
            self._write(frame(PEEK, WORD.pack(at) + WORD.pack(size), opening))
            return self._next(self._peeked, "PEEKED", timeout)

    # -- the guest's doings

    def wait_opened(self, timeout: float = TIMEOUT) -> Opened:
        """Wait until the guest has opened the channel."""
        return self._next(self._opened, "the guest to open the channel", timeout)

    def wait_closed(self, timeout: float = TIMEOUT) -> float:
        """Wait until the guest has closed the channel; returns when it did."""
        return self._next(self._closed, "the guest to close the channel", timeout)

    def wait_released(self, timeout: float = TIMEOUT) -> float:
        """Wait until the guest has given the channel back after a rescind."""
        return self._next(self._released, "the guest to release the channel", timeout)

    def close(self) -> None:
        """Hang up on the device; the channel itself stays as it is."""
        with self._changed:
            self._gone = self._gone or "closed by the test"
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join(TIMEOUT)
        self._sock.close()

    # -- inside

    def _wait(self, ready: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait under _changed, which the caller holds."""
        self._changed.wait_for(lambda: ready() or self._gone is not None, timeout)
        if ready():
            return
        if self._gone is not None:
            raise ChannelError(f"{self.name}: waited for {what}: {self._gone}")
        raise Timeout(f"{self.name}: {what}: did not happen in {timeout:g} s")

    def _next(self, queue: deque[T], what: str, timeout: float) -> T:
        with self._changed:
            self._wait(lambda: bool(queue), what, timeout)
            return queue.popleft()

    def _take_slot(self, timeout: float) -> None:
        with self._changed:
            self._wait(lambda: bool(self._window), "room in the send window", timeout)
            assert self._window
            self._window -= 1
            self._in_flight += 1

    def _command(self, kind: int, what: str, body: bytes = b"", timeout: float = TIMEOUT) -> None:
        with self._command_lock:
            self.log.add(self.name, "-", what)
            self._write(frame(kind, body))
            answered, status = self._next(self._results, f"the result of {what}", timeout)
        if answered != kind:
            raise ChannelError(f"{self.name}: result of command {answered}, not of {what}")
        if status:
            raise OSError(status, f"{self.name}: {what}: {os.strerror(status)}")

    def _grant(self, packets: int) -> None:
        with self._changed:
            self._granted += packets
        self._write(frame(GRANT, WORD.pack(packets)))

    def _write(self, data: bytes) -> None:
        try:
            with self._send_lock:
                self._sock.sendall(data)
        except OSError as error:
            raise ChannelError(f"{self.name}: {self._gone or error}") from error

    def _read(self) -> None:
        with self._sock.makefile("rb") as stream:
            try:
                while head := stream.read(FRAME.size):
                    length, kind, opening = FRAME.unpack(head)
                    self._take(kind, opening, stream.read(length + WORD.size - FRAME.size))
                why = "the device hung up (QEMU's output says why)"
            except (OSError, ValueError, struct.error, ChannelError) as error:
                why = f"lost the device: {error}"
        with self._changed:
            self.offered = False        # who wants to know asks anew
            if self._gone is None:
                self._gone = why
                self.log.add(self.name, "-", why)
            self._changed.notify_all()

    def _take(self, kind: int, opening: int, body: bytes) -> None:
        with self._changed:
            if kind == PACKET_IN:
                type_, flags, extra, tid = PACKET.unpack_from(body)
                descriptor = body[PACKET.size:PACKET.size + extra]
                payload = body[PACKET.size + extra:]
                at = self.log.add(self.name, "<", _packet_name(type_), payload)
                self._granted -= 1
                self._packets.append(Packet(opening, type_, flags, tid, descriptor, payload, at))
            elif kind == PLACED:
                placed, = WORD.unpack(body)
                assert self._window is not None
                self._window += placed
                self._in_flight -= placed
            elif kind == OPENED:
                outward, inward, vp, version, user = OPENED_BODY.unpack(body)
                at = self.log.add(self.name, "<",
                                  f"opened ({opening}), rings {outward:#x} {inward:#x}")
                self.opening = opening
                self._broken = False
                self._opened.append(Opened(opening, outward, inward, vp, version, user, at))
            elif kind == CLOSED:
                self.opening = 0
                self._closed.append(self.log.add(self.name, "<", f"closed ({opening})"))
            elif kind == RELEASED:
                self.held = False
                self._released.append(self.log.add(self.name, "<", "released"))
            elif kind == BROKEN:
                self._broken = True
                self.log.add(self.name, "<", "nonsense in the ring")
            elif kind == RESULT:
                command, status = RESULT_BODY.unpack(body)
                if not status and command in (OFFER, RESCIND):
                    self.offered = command == OFFER
                    self.held = command == RESCIND
                self._results.append((command, status))
            elif kind == STATS:
                self._stats.append(Stats(*STATS_BODY.unpack(body)))
            elif kind == PEEKED:
                self._peeked.append(body)
            elif kind == HELLO:
                version, self._window, state, self._max_send = HELLO_BODY.unpack(body)
                if version != VERSION:
                    raise ChannelError(f"vmbus-user version {version} instead of {VERSION}")
                self.offered = bool(state & STATE_OFFERED)
            else:
                raise ChannelError(f"frame of unknown kind {kind}")
            self._changed.notify_all()


def _packet_name(type_: int) -> str:
    return "packet" if type_ == INBAND else f"packet type {type_}"

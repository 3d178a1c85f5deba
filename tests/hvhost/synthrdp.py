# SPDX-License-Identifier: GPL-2.0-only
"""VMMS's side of SynthRdp: what a Hyper-V host says to a guest, well or badly.

    host = SynthRdpHost(vm.channel_socket, log)
    host.answer_with(SILENCE, ACCEPT)       # the first request gets no answer
    with host.open_session(1) as session:   # CreateSession and the offer of fa1
        session.write(b"hello", sizes=2)    # three pipe packets
        assert session.read_exact(5) == b"olleh"

A thread answers the guest's version requests by the script. Everything the
guest says that no guest may say is kept in `complaints`.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from hvhost import channel, pipe
from hvhost.channel import INBAND, TIMEOUT, Channel, ChannelError, Closed, Opened, Packet, Timeout
from hvhost.log import Log

CONTROL_CLASS: Final = uuid.UUID("f8e65716-3cb3-4a06-9a60-1889c5cccab5")
DATA_CLASS: Final = uuid.UUID("f9e9c0d3-b511-4a48-8046-d38079a8830c")
CONTROL: Final = uuid.UUID("99221fa0-24ad-11e2-be98-001aa01bbf6e")

MESSAGE: Final = struct.Struct("<II")               # type, size
VERSION_REQUEST: Final = struct.Struct("<IIHHI")    # ..., major, minor, reserved
ERROR, REQUEST, RESPONSE, CREATE_SESSION = range(4)
REFUSED, ACCEPTED_UNASKED, ACCEPTED = range(3)      # only the last one means yes

Instance = int | str | uuid.UUID


def data_instance(which: Instance) -> uuid.UUID:
    """The instance GUID of fa1 ... fa5 by number; any other GUID as it is."""
    if isinstance(which, int):
        return uuid.UUID(f"99221fa{which:x}-24ad-11e2-be98-001aa01bbf6e")
    return which if isinstance(which, uuid.UUID) else uuid.UUID(which)


# -- answers to a version request: what the host does, one step after the other

@dataclass(frozen=True)
class Raw:
    """Send one VMBus packet with this payload."""

    payload: bytes
    type: int = INBAND
    flags: int = 0


@dataclass(frozen=True)
class Pause:
    """Wait a little before the next step."""

    seconds: float


Answer = tuple[Raw | Pause, ...]


def say(data: bytes) -> Answer:
    """One message in one pipe packet."""
    return (Raw(pipe.pack(data)),)


def version_response(accepted: int = ACCEPTED, *, major: int = 1, minor: int = 0,
                     size: int = 17, kind: int = RESPONSE) -> bytes:
    """A version response; every field can be made wrong."""
    return VERSION_REQUEST.pack(kind, size, major, minor, 0) + bytes([accepted])


def create_session(which: Instance, *, size: int = 24) -> bytes:
    """The message that names the data channel of a new session."""
    return MESSAGE.pack(CREATE_SESSION, size) + data_instance(which).bytes_le


YES: Final = version_response()
ACCEPT: Final = say(YES)
REJECT: Final = say(version_response(REFUSED))
SILENCE: Final[Answer] = ()
UNKNOWN_MESSAGE: Final = MESSAGE.pack(77, 12) + b"what"


def late(seconds: float, answer: Answer = ACCEPT) -> Answer:
    """The same answer, later."""
    return (Pause(seconds), *answer)


# What breaks a channel's framing, by name: no guest may take any byte of it for data.
MALFORMED_PACKETS: Final[dict[str, Raw]] = {
    "vmbus completion": Raw(pipe.pack(YES), type=11),
    "vmbus data by GPA": Raw(pipe.pack(YES), type=9),
    "vmbus transfer pages": Raw(pipe.pack(YES), type=7),
    "empty": Raw(b""),
    "pipe type 0": Raw(pipe.pack(YES, kind=0)),
    "pipe partial": Raw(pipe.pack(YES, kind=pipe.PARTIAL)),
    "pipe type 5": Raw(pipe.pack(YES, kind=5)),
    "pipe type huge": Raw(pipe.pack(YES, kind=0xffffffff)),
    "more than the packet holds": Raw(pipe.pack(YES, size=pipe.padded(len(YES)) + 1)),
    "size huge": Raw(pipe.pack(YES, size=0xffffffff)),
    "size near overflow": Raw(pipe.pack(YES, size=0xfffffff8)),
    "one byte above the limit": Raw(pipe.pack(bytes(pipe.MAX_PAYLOAD + 1))),
}

# What is no sound message of a host at any time, by name.
MALFORMED_MESSAGES: Final[dict[str, Answer]] = {
    **{name: (raw,) for name, raw in MALFORMED_PACKETS.items()},
    "no message": say(b""),
    "short header": say(YES[:7]),
    "header only": say(YES[:8]),
    "one byte short": say(YES[:16]),
    "one byte long": say(YES + b"\0"),
    "another version": say(version_response(major=2)),
    "another minor version": say(version_response(minor=1)),
    "split": say(YES[:9]) + say(YES[9:]),
    "error message": say(MESSAGE.pack(ERROR, 8)),
    "long error message": say(MESSAGE.pack(ERROR, 16) + b"\x05\x40\x00\x80\0\0\0\0"),
    "a request": say(VERSION_REQUEST.pack(REQUEST, 16, 1, 0, 0)),
    "short create session": say(create_session(1)[:23]),
    "long create session": say(create_session(1) + b"\0"),
}


@dataclass(frozen=True)
class Request:
    """A version request of the guest."""

    at: float
    major: int
    minor: int


class Session:
    """One data channel, as long as the host offers it."""

    def __init__(self, chan: Channel) -> None:
        self.channel = chan
        self._opening = 0       # the one that wait_opened() returned last
        self._rest = b""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if isinstance(error, ChannelError):
                pass
            elif self.channel.offered:
                self.end()
            elif self.channel.held:
                self.channel.wait_released()
        finally:
            self.channel.close()

    def wait_opened(self, timeout: float = TIMEOUT) -> Opened:
        """Wait until the guest has opened the channel; read from this opening only."""
        opened = self.channel.wait_opened(timeout)
        self._opening = opened.opening
        self._rest = b""
        return opened

    def wait_closed(self, timeout: float = TIMEOUT) -> float:
        """Wait until the guest has closed the channel."""
        return self.channel.wait_closed(timeout)

    def write(self, data: bytes, sizes: pipe.Sizes = pipe.MAX_PAYLOAD,
              timeout: float = TIMEOUT) -> None:
        """Send a stream, cut into packets of these sizes, used in turn."""
        for piece in pipe.cut(data, sizes):
            self.send(Raw(pipe.pack(piece)), timeout)

    def send(self, raw: Raw, timeout: float = TIMEOUT) -> None:
        """Send one packet of any kind; `Closed` when the guest has closed the channel."""
        if self.channel.opening != self._opening:
            raise Closed(f"{self.channel.name}: the guest has closed the channel")
        self.channel.send(raw.payload, raw.type, raw.flags, opening=self._opening,
                          timeout=timeout)

    def read_packet(self, timeout: float = TIMEOUT) -> bytes:
        """The data of the guest's next packet, which must be flawless; `Closed` at the end."""
        return _data(self.channel.recv(timeout, self._opening))

    def read_exact(self, count: int, timeout: float = TIMEOUT) -> bytes:
        """So many bytes of the guest's stream."""
        deadline = time.monotonic() + timeout
        got = [self._rest]
        have = len(self._rest)
        while have < count:
            try:
                got.append(self.read_packet(max(deadline - time.monotonic(), 0)))
            except Timeout as error:
                raise Timeout(f"{self.channel.name}: {have} of {count} bytes"
                              f" came in {timeout:g} s") from error
            have += len(got[-1])
        stream = b"".join(got)
        self._rest = stream[count:]
        return stream[:count]

    def read_to_end(self, timeout: float = TIMEOUT) -> bytes:
        """What is left of the guest's stream when it has closed the channel."""
        deadline = time.monotonic() + timeout
        got, self._rest = [self._rest], b""
        try:
            while True:
                got.append(self.read_packet(max(deadline - time.monotonic(), 0)))
        except Closed:
            return b"".join(got)

    def rescind(self) -> None:
        """Take the channel from the guest; does not wait for it."""
        self.channel.rescind()

    def end(self, timeout: float = TIMEOUT) -> None:
        """Take the channel from the guest and wait until it has let go."""
        self.channel.rescind(timeout)
        self.channel.wait_released(timeout)

    def offer(self, timeout: float = TIMEOUT) -> None:
        """Offer the channel again after end()."""
        self.channel.offer(timeout)


def _data(packet: Packet) -> bytes:
    if packet.type != INBAND or packet.flags:
        raise pipe.PipeError(f"VMBus packet type {packet.type}, flags {packet.flags:#x}")
    return pipe.unpack(packet.payload)


class SynthRdpHost:
    """The host: a control channel that is answered by a script, and sessions at will."""

    def __init__(self, socket_of: Callable[[str], str | os.PathLike[str]], log: Log,
                 *answers: Answer) -> None:
        self.log = log
        self.complaints: list[str] = []
        self._socket_of = socket_of
        self._changed = threading.Condition()
        self._script: list[Answer] = list(answers) or [ACCEPT]
        self._requests: list[Request] = []
        self._sessions: dict[uuid.UUID, Session] = {}
        self._seen = 0
        self._stop = threading.Event()
        self.control = self._connect(CONTROL, auto_grant=True)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="control")
        self._thread.start()

    def close(self) -> None:
        """Stop answering; what the guest has stays as it is."""
        self._stop.set()
        self.control.close()
        self._thread.join(TIMEOUT)

    # -- control

    def answer_with(self, *answers: Answer) -> None:
        """Answer the coming requests with these, the last one for ever."""
        with self._changed:
            self._script = list(answers)

    def wait_request(self, timeout: float = TIMEOUT) -> Request:
        """The oldest version request that was not yet waited for."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) > self._seen, timeout):
                raise Timeout(f"control: no version request came in {timeout:g} s")
            self._seen += 1
            return self._requests[self._seen - 1]

    def no_request_for(self, seconds: float) -> None:
        """Demand that the guest asks nothing for so long."""
        try:
            request = self.wait_request(seconds)
        except Timeout:
            return
        raise AssertionError(f"control: unexpected version request at {request.at:.4f}")

    def forget_requests(self) -> None:
        """What was asked until now is of no interest."""
        with self._changed:
            self._seen = len(self._requests)

    def say(self, *answers: Answer) -> None:
        """Say this on the control channel now, asked or not."""
        for answer in answers:
            self._perform(answer, self.control.opening)

    # -- sessions

    def open_session(self, which: Instance = 1, *, announce: str = "before",
                     auto_grant: bool = True, offer: bool = True) -> Session:
        """Offer a data channel; CreateSession comes "before" the offer, "after" it or "never"."""
        if announce not in ("before", "after", "never"):
            raise ValueError(announce)
        instance = data_instance(which)
        if former := self._sessions.pop(instance, None):
            former.channel.close()      # the device has one connection
        session = Session(self._connect(instance, auto_grant=auto_grant))
        self._sessions[instance] = session
        if announce == "before":
            self.say(say(create_session(which)))
        if offer:
            session.offer()
        if announce == "after":
            self.say(say(create_session(which)))
        return session

    # -- inside

    def _connect(self, instance: uuid.UUID, *, auto_grant: bool) -> Channel:
        text = str(instance)
        short = text[5:8] if text.startswith("99221fa") else text[:8]
        return Channel(channel.connect(self._socket_of(text)), short, self.log,
                       auto_grant=auto_grant)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                self._hear(self.control.recv(timeout=3600))
            except Timeout:
                continue
            except pipe.PipeError as error:
                self._complain(str(error))
            except ChannelError as error:
                if not self._stop.is_set():
                    self._complain(f"stopped serving: {error}")
                return

    def _hear(self, packet: Packet) -> None:
        data = _data(packet)
        if len(data) != VERSION_REQUEST.size:
            self._complain(f"a message of {len(data)} bytes: {data[:32].hex(' ', 4)}")
            return
        kind, size, major, minor, reserved = VERSION_REQUEST.unpack(data)
        if (kind, size, major, minor, reserved) != (REQUEST, VERSION_REQUEST.size, 1, 0, 0):
            self._complain(f"an odd version request: {data.hex(' ', 4)}")
        with self._changed:
            answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
            self._requests.append(Request(packet.at, major, minor))
            self._changed.notify_all()
        self._perform(answer, packet.opening)

    def _perform(self, answer: Answer, opening: int) -> None:
        for step in answer:
            if isinstance(step, Pause):
                self._stop.wait(step.seconds)
            else:
                self.control.send(step.payload, step.type, step.flags, opening=opening)

    def _complain(self, text: str) -> None:
        self.log.add("control", "-", f"COMPLAINT: {text}")
        self.complaints.append(text)

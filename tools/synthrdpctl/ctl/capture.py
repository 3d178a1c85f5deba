# SPDX-License-Identifier: GPL-2.0-only
"""Writing what passes into a file for Wireshark, while it runs.

Relays look for the socket when their sessions begin, and send a copy of what passes (see the
relay's tap.h). So a session is captured from its beginning, and not at all if it began before.

With a limit there are two files, each of up to half of it: the current one, and the one before.
Each begins with the beginnings of the sessions that are open, without which nothing that
follows could be understood.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import stat
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from . import VERSION, pcapng
from .switch import NotPermitted, Refused
from .system import System, printable

PLACE = "/run/synthrdpctl/capture"
USER = "synthrdp"
HEADER = struct.Struct("=IIQ")
HELLO, UP, DOWN = range(3)
LARGEST = 1 << 17               # of a message
HEAD = 64 * 1024                # bytes of each session's packets that each file begins with
WARNING = "Contains what users typed, passwords too, and what they saw, in the clear."


class Files:
    """The file, and the one before."""

    def __init__(self, path: Path, limit: int | None) -> None:
        self._path, self._limit = path, limit
        self._file: BinaryIO | None = None
        self._size = 0

    def open(self, head: Iterable[bytes] = ()) -> None:
        """A new file, which only its owner may read."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Refused(f"cannot create {self._path}: {error.strerror}") from error
        self._file = open(fd, "wb", buffering=0)
        for block in (pcapng.beginning(f"synthrdpctl {VERSION}", WARNING), *head):
            self._write(block)
        self._size = 0

    def write(self, blocks: list[bytes], head: Iterable[bytes]) -> None:
        """More of it, in a new file if this one is full; its head does not count."""
        size = sum(map(len, blocks))
        if self._limit is not None and self._size + size > self._limit // 2:
            self.close()
            self._path.replace(self._path.with_name(self._path.name + ".old"))
            self.open(head)
        for block in blocks:
            self._write(block)

    def close(self) -> None:
        """No more."""
        if self._file:
            self._file.close()

    def _write(self, block: bytes) -> None:
        assert self._file
        try:
            self._file.write(block)
        except OSError as error:
            raise Refused(f"cannot write to {self._path}: {error.strerror}") from error
        self._size += len(block)


@dataclass
class Session:
    """One that is being captured."""

    connection: pcapng.Connection
    device: str = "?"
    head: list[bytes] = field(default_factory=list)
    head_size: int = 0

    def blocks(self, frames: Iterable[bytes], comment: str = "") -> list[bytes]:
        """Frames as they go into the file, with the time and, maybe, a comment."""
        made = [pcapng.packet(frame, time.time_ns(), comment) for frame in frames]
        for block in made:
            if self.head_size < HEAD:
                self.head.append(block)
                self.head_size += len(block)
        return made


class Capture:
    """The socket, the sessions, the files."""

    def __init__(self, place: Path, group: int, files: Files) -> None:
        self._files = files
        self._sessions: dict[socket.socket, Session] = {}
        self._count = 0
        self._selector = selectors.DefaultSelector()
        self._listener = _listen(place, group)
        self._place = place
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._end, self._wake = socket.socketpair()
        self._selector.register(self._end, selectors.EVENT_READ)

    def stop(self, *_: object) -> None:
        """Have run() return; a signal may say so at any time."""
        self._wake.send(b"\0")

    def run(self) -> None:
        """Until stopped."""
        while True:
            for key, _ in self._selector.select():
                peer = key.fileobj
                assert isinstance(peer, socket.socket)
                if peer is self._end:
                    return
                if peer is self._listener:
                    self._accept()
                else:
                    self._receive(peer)

    def close(self) -> None:
        """Tidy up."""
        self._place.unlink(missing_ok=True)
        for peer in (*self._sessions, self._listener, self._end, self._wake):
            peer.close()
        self._files.close()

    def _accept(self) -> None:
        peer, _ = self._listener.accept()
        session = Session(pcapng.Connection(self._count))
        self._count += 1
        self._sessions[peer] = session
        self._selector.register(peer, selectors.EVENT_READ)

    def _receive(self, peer: socket.socket) -> None:
        session = self._sessions[peer]
        try:
            message = peer.recv(LARGEST)
        except ConnectionError:
            message = b""
        if len(message) < HEADER.size:
            self._forget(peer, session)
            return
        kind, _, offset = HEADER.unpack_from(message)
        data = message[HEADER.size:]
        if kind == HELLO:
            names = [printable(name) for name in data.decode(errors="replace").split("\0")]
            session.device = names[0]
            self._save(session.blocks(session.connection.open(),
                                      f"{names[0]} to {', '.join(names[1:2])}"))
            print(f"{session.device}: begins", flush=True)
        elif kind in (UP, DOWN):
            self._save(session.blocks(session.connection.data(kind == DOWN, offset, data)))

    def _forget(self, peer: socket.socket, session: Session) -> None:
        self._save(session.blocks(session.connection.close()))
        self._selector.unregister(peer)
        del self._sessions[peer]
        peer.close()
        print(f"{session.device}: ended", flush=True)

    def _save(self, blocks: list[bytes]) -> None:
        # The newest blocks may be of a head already: they are written once.
        new = set(map(id, blocks))
        self._files.write(blocks, (block for session in self._sessions.values()
                                   for block in session.head if id(block) not in new))


def _listen(place: Path, group: int) -> socket.socket:
    """The socket, for relays alone, in a directory that only root can write to."""
    directory = place.parent
    directory.mkdir(mode=0o755, exist_ok=True)
    seen = directory.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid or seen.st_mode & 0o022:
        raise Refused(f"{directory} is not root's alone")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _remove_if_dead(place)
        listener.bind(str(place))
        os.chown(place, 0, group)
        place.chmod(0o660)
        listener.listen()
    except OSError as error:
        raise Refused(f"cannot listen at {place}: {error.strerror}") from error
    return listener


def _remove_if_dead(place: Path) -> None:
    """What a capture that was killed has left."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(place))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            place.unlink()
            return
    raise Refused("somebody captures already")


def capture(system: System, path: str, limit: int | None) -> str:
    """Capture the sessions to come, until a signal comes."""
    if os.geteuid():
        raise NotPermitted("only root may do this: it shows what users type")
    group = system.group(USER)
    files = Files(Path(path), limit)
    files.open()
    capturing = Capture(system.path(PLACE), group.gid if group else 0, files)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, capturing.stop)
        print(f"Warning: {path} will contain what users type, passwords too, and what they see, in"
              " the clear.\nSessions that begin from now on are captured, until ^C.", flush=True)
        capturing.run()
    finally:
        capturing.close()
    return f"{path}: done"

# SPDX-License-Identifier: GPL-2.0-only
"""A whole system as it runs: its virtual machine, a shell in it, the host's sessions with it."""
from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hvhost import disks
from hvhost.channel import ChannelError, Closed, Opened, Timeout
from hvhost.log import Log
from hvhost.synthrdp import (CONTROL, CONTROL_CLASS, DATA_CLASS, Session, SynthRdpHost,
                             data_instance)
from hvhost.system import Image
from hvhost.vm import VM, ChannelSpec

SESSIONS = range(1, 6)
CONTROL_FOLDER = f"/sys/bus/vmbus/devices/{CONTROL}/synthrdp"
# As a user's guest boots, but for the disk without an initrd, and what follows an update of all.
COMMAND_LINE = ("console=ttyS0 loglevel=5 panic=-1 oops=panic tsc=reliable random.trust_cpu=on"
                " root=/dev/nvme0n1 rootwait systemd.condition_needs_update=no")
ANSWER_SECONDS = PATIENCE = 300.0   # systemctl has taken 50 where several guests share a core
OPEN_SECONDS = 120.0            # for udev, systemd and the relay to open the device
FOREVER = 7 * 24 * 3600.0
STALLED = 60.0                  # a guest that reads nothing for so long is given up


class GuestError(Exception):
    """The guest did not do what it should."""


class GuestStream:
    """A data channel as a stream of bytes."""

    def __init__(self, session: Session, opened: Opened, number: int,
                 released: Callable[[int], None]) -> None:
        self.opened, self.number = opened, number
        self._session, self._released = session, released
        self._rest = b""
        self._lock = threading.Lock()
        self._ended = False

    def read(self, limit: int, timeout: float | None = None) -> bytes:
        """Some bytes, none at the end."""
        try:
            while not self._rest:
                self._rest = self._session.read_packet(FOREVER if timeout is None else timeout)
        except Timeout as error:
            raise TimeoutError(str(error)) from error
        except ChannelError as error:
            if isinstance(error, Closed) or self._ended:
                return b""
            raise ConnectionError(str(error)) from error
        data, self._rest = self._rest[:limit], self._rest[limit:]
        return data

    def write(self, data: bytes) -> None:
        """All of it; blocks while the guest does not read."""
        try:
            self._session.write(data, timeout=STALLED)
        except ChannelError as error:
            raise ConnectionError(str(error)) from error

    def end(self) -> None:
        """Take the channel from the guest."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            try:
                self._session.end()
                self._released(self.number)
            except ChannelError as error:
                raise ConnectionError(str(error)) from error
            finally:
                self._session.channel.close()


class Shell:
    """A shell in the guest, on a serial port: commands go in, what they print comes out."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._numbers = itertools.count(1)
        self._text = bytearray()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __call__(self, command: str, timeout: float = ANSWER_SECONDS) -> str:
        """What the command prints; an error unless it succeeds."""
        status, text = self.run(command, timeout)
        if status:
            raise GuestError(f"in the guest: {command}: status {status}: {text.strip()}")
        return text.strip()

    def run(self, command: str, timeout: float = ANSWER_SECONDS) -> tuple[int, str]:
        """Exit status of a one-line command, and what it prints."""
        number = next(self._numbers)
        self._socket.sendall(f"( {command} ); echo \"@@{number} $?@@\"\n".encode())
        return self._answer(number, timeout, f"the guest's answer to: {command}")

    def wait(self, timeout: float) -> None:
        """Wait until there is a shell: what is said before that is lost."""
        self._answer(0, timeout, "the guest's first sign of life")

    def _answer(self, number: int, timeout: float, what: str) -> tuple[int, str]:
        end = time.monotonic() + timeout
        mark = re.compile(rb"@@%d (\d+)@@\n\Z" % number)
        while not (found := mark.search(self._text)):
            self._socket.settimeout(max(end - time.monotonic(), 0.01))
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise GuestError(f"{what}: not within {timeout:.0f} s") from error
            if not data:
                raise GuestError(f"{what}: QEMU has ended")
            self._text += data
        text = self._text[:found.start()].decode(errors="replace")
        status = int(found[1])
        self._text.clear()
        return status, text


class Machine:
    """The guest, with a host that offers it Enhanced Sessions.

    Sockets of the guest's serial ports are in `directory`: "shell", and "root" for people.
    What is written to its disk is forgotten in the end; `further` ones are to be read.
    """

    def __init__(self, image: Image, directory: Path, further: Sequence[Path] = (), *,
                 append: str = "rw", memory: int = 1024) -> None:
        self.log = Log(f"the guest ({image.suite})")
        self.streams: list[GuestStream] = []
        self._free = set(SESSIONS)
        self._lock = threading.Lock()
        control = ChannelSpec(str(CONTROL_CLASS), str(CONTROL))
        data = [ChannelSpec(str(DATA_CLASS), str(data_instance(number)), offered=False)
                for number in SESSIONS]
        arguments = disks.attached((image.disk, "cache=unsafe,snapshot=on"),
                                   *((disk, "readonly=on") for disk in further))
        for name in ("shell", "root"):
            arguments += ["-chardev",
                          f"socket,id={name},path={directory / name},server=on,wait=off",
                          "-serial", f"chardev:{name}"]
        self.vm = VM(image.vmlinuz, None, [control, *data], smp=2, memory=memory,
                     command_line=COMMAND_LINE, append=append, arguments=arguments)
        try:
            self.host = SynthRdpHost(self.vm.channel_socket, self.log)
            self.shell = Shell(directory / "shell")
            self.shell.wait(PATIENCE)
        except GuestError as error:
            words = self.vm.last_words()
            self.vm.kill()
            raise GuestError(f"{error}{words}") from error
        except BaseException:
            self.vm.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.shell.close()
        self.host.close()
        self.vm.kill()

    def wait_for(self, what: str, condition: Callable[[], bool],
                 seconds: float = PATIENCE) -> None:
        """Wait until a condition is true."""
        end = time.monotonic() + seconds
        while not condition():
            if not self.vm.alive:
                raise GuestError(f"{what}: QEMU has ended")
            if time.monotonic() > end:
                raise GuestError(f"{what}: not within {seconds:.0f} s")
            time.sleep(0.3)

    def wait_ready(self) -> None:
        """Until the guest has told the host that it takes Enhanced Sessions, and both agree."""
        self.wait_for("the guest agrees with the host on Enhanced Sessions",
                      lambda: self.host.control.opening != 0 and
                      self.shell.run(f"cat {CONTROL_FOLDER}/state")[1] == "ready\n")

    def open_session(self) -> GuestStream:
        """A new session with the guest, once the guest has opened it."""
        with self._lock:
            if not self._free:
                raise ConnectionError("the host has no channel left for another session")
            number = min(self._free)
            self._free.remove(number)
        session = self.host.open_session(number)
        try:
            stream = GuestStream(session, session.wait_opened(OPEN_SECONDS), number,
                                 self._free.add)
        except ChannelError as error:
            with contextlib.suppress(ChannelError):
                session.end()
                self._free.add(number)
            session.channel.close()
            raise ConnectionError(f"the guest did not open the session: {error}") from error
        self.streams.append(stream)
        return stream

# SPDX-License-Identifier: GPL-2.0-only
"""A user of the device nodes, as a test sees it.

    user.open(0)                        # /dev/synthrdp0
    call = user.begin("read", 100)      # goes to sleep in the driver
    call.wait_blocked()
    call.signal(SIGUSR1)
    with raises_errno(EINTR):
        call.result()

A call that fails in the guest raises the same OSError here. guestside.py is
the other end.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import inspect
import itertools
import marshal
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pytest

import guestside
from hvhost import channel
from hvhost.guest import Guest

TIMEOUT: Final = 60.0
LONG: Final = 60_000            # ms for poll(2), which looks again when its time is up: too late
PORTS: Final = 8                # users at a time
FIRST_PORT: Final = 2           # the one before is the agent's
IN, OUT, ERR, HUP = select.POLLIN, select.POLLOUT, select.POLLERR, select.POLLHUP


def _serve(texts: dict[str, str], port: str, user: int) -> None:
    """Runs in the guest: guestside.py, and more modules whose functions are called by name."""
    for name, text in texts.items():
        sys.modules[name] = module = types.ModuleType(name)
        exec(text, vars(module))        # pylint: disable=exec-used
    sys.modules["guestside"].serve(port, user)


@contextlib.contextmanager
def raises_errno(number: int) -> Iterator[None]:
    """The block must fail with this errno."""
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == number, f"{caught.value}, expected {os.strerror(number)}"


class Ports:
    """The serial ports between users and tests; made before the machine."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="users-"))
        self._free = list(range(PORTS))
        self._sockets: dict[int, socket.socket] = {}

    def arguments(self) -> list[str]:
        """What QEMU must be told."""
        found = []
        for port in range(PORTS):
            found += ["-chardev", f"socket,id=user{port},path={self._folder}/{port},"
                      "server=on,wait=off", "-device",
                      f"virtserialport,chardev=user{port},nr={FIRST_PORT + port}"]
        return found

    def take(self) -> tuple[int, socket.socket]:
        """A port that is free."""
        if not self._free:
            raise RuntimeError(f"a test has no more than {PORTS - 1} users at a time")
        port = self._free.pop(0)
        if port not in self._sockets:
            self._sockets[port] = channel.connect(self._folder / str(port))
        return port, self._sockets[port]

    def reconnect(self, port: int) -> socket.socket:
        """The port of another machine."""
        self._sockets.pop(port).close()
        self._sockets[port] = channel.connect(self._folder / str(port))
        return self._sockets[port]

    def give_back(self, port: int) -> None:
        """It is free again."""
        self._sockets.pop(port).close()
        self._free.append(port)

    def close(self) -> None:
        """All of them go."""
        for sock in self._sockets.values():
            sock.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Call:
    """A system call that may still be under way."""

    def __init__(self, user: User, number: int, name: str) -> None:
        self._user = user
        self.number = number
        self.name = name

    def result(self, timeout: float = TIMEOUT) -> Any:
        """What it returned."""
        return self._user.result(self, timeout)

    def wait_blocked(self, timeout: float = TIMEOUT) -> None:
        """Wait until it sleeps in the kernel."""
        self._user.do("wait_blocked", self.number, timeout, timeout=timeout + TIMEOUT)

    def must_not_return_for(self, seconds: float) -> None:
        """Demand that it goes on sleeping so long."""
        if self._user.wait(self, seconds):
            raise AssertionError(f"{self.name}() returned {self.result()!r:.60}")

    def signal(self, number: int = signal.SIGUSR1) -> None:
        """Interrupt it: SIGUSR1 does, SIGUSR2 restarts the call if the kernel can."""
        self._user.do("signal", self.number, int(number))


class User:
    """A process in the guest with one node open; several calls may run beside each other."""

    _users = itertools.count(1)

    def __init__(self, guest: Guest, ports: Ports, *modules: types.ModuleType) -> None:
        self.fd = -1
        self._ports = ports
        self._number = next(self._users)
        self._changed = threading.Condition()
        self._answers: dict[int, tuple[Any, ...]] = {}
        self._calls: list[Call] = []
        self._port, self._socket = ports.take()
        self._listen()
        texts = {module.__name__: inspect.getsource(module) for module in (guestside, *modules)}
        self._job = guest.start(_serve, texts, f"/dev/vport0p{FIRST_PORT + self._port}",
                                self._number)

    def __enter__(self) -> User:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            for call in list(self._calls):
                if not self.wait(call, 0) and not self._job.done():
                    print(f"{call.name}() has not returned:", self.do("where", call.number))
            self.kill()
        finally:
            self.leave()

    def leave(self) -> None:
        """Let go of a process that is gone with its machine."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(TIMEOUT)
        self._ports.give_back(self._port)

    def reconnect(self) -> None:
        """Go on with the same process in another machine, that one gone."""
        self._reader.join(TIMEOUT)
        self._socket = self._ports.reconnect(self._port)
        self._listen()

    def kill(self) -> None:
        """End the process, which closes what it has open, and wait for that."""
        if not self._job.done():
            self._job.kill(signal.SIGKILL)
            self._job.wait()

    def _listen(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 16):
                *lines, held = (held + data).split(b"\n")
                for line in filter(None, lines):
                    self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            user, number, *answer = marshal.loads(base64.b64decode(line, validate=True))
        except (ValueError, EOFError, TypeError, binascii.Error):
            return                      # an earlier user's last words
        if user == self._number:
            with self._changed:
                self._answers[number] = tuple(answer)
                self._changed.notify_all()

    # -- calls of any kind

    def call(self, name: str, *args: Any) -> Call:
        """Begin any `do_` function of guestside.py; MODULE.NAME for one of another module."""
        with self._changed:
            call = Call(self, len(self._calls), name)
            self._calls.append(call)
        self._socket.sendall(guestside.encode((self._number, call.number, name, *args)))
        return call

    def wait(self, call: Call, timeout: float) -> bool:
        """Wait for a call's end: whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: call.number in self._answers, timeout)

    def result(self, call: Call, timeout: float) -> Any:
        """Wait for a call's result."""
        if not self.wait(call, timeout):
            where = self.call("where", call.number)
            doing = self.result(where, TIMEOUT) if call.name != "where" else "silent"
            raise AssertionError(f"{call.name}() in the guest has not returned after {timeout:g} s:"
                                 f" {doing} {self._job.output.decode(errors='replace')}")
        kind, *answer = self._answers[call.number]
        if kind == "errno":
            raise OSError(answer[0], f"{call.name}() in the guest: {answer[1]}")
        if kind == "error":
            raise AssertionError(f"{call.name}() in the guest: {answer[0]}")
        return answer[0]

    def do(self, name: str, *args: Any, timeout: float = TIMEOUT) -> Any:
        """Make a call and wait for it."""
        return self.call(name, *args).result(timeout)

    def begin(self, name: str, *args: Any) -> Call:
        """Begin a call on the open node."""
        return self.call(name, self.fd, *args)

    # -- the usual ones

    def open(self, node: int = 0, flags: int = 0) -> User:
        """Open a node for reading and writing."""
        self.fd = self.do("open", f"/dev/synthrdp{node}", os.O_RDWR | flags)
        return self

    def close(self, timeout: float = TIMEOUT) -> None:
        """Close the node."""
        self.do("close", self.fd, timeout=timeout)

    def read(self, count: int) -> bytes:
        """One read(2)."""
        data: bytes = self.do("read", self.fd, count)
        return data

    def read_all(self, count: int) -> bytes:
        """So many bytes, however many reads that takes; fewer only at the end."""
        data: bytes = self.do("read_all", self.fd, count)
        return data

    def write(self, data: bytes) -> int:
        """One write(2)."""
        written: int = self.do("write", self.fd, data)
        return written

    def poll(self, events: int = IN | OUT, timeout_ms: int = 0) -> int:
        """One poll(2)."""
        got: int = self.do("poll", self.fd, events, timeout_ms)
        return got

    def wait_for(self, events: int) -> int:
        """poll(2) until one of these events is there: what poll says then of IN and OUT."""
        self.do("poll", self.fd, events, LONG)
        return self.poll()

    def nonblocking(self, on: bool = True) -> None:
        """Switch O_NONBLOCK."""
        self.do("nonblocking", self.fd, on)

# SPDX-License-Identifier: GPL-2.0-only
"""A user of the device nodes, inside the guest.

The text of this module is sent to the guest and served there by `serve()`: a
process that does one system call per request, each in a thread of its own, so
that a test can look at a sleeping call, signal it, or make another one beside
it. The calls go straight to libc: Python's own would hide EINTR.

Requests come over a virtio serial port, one per line: base64 of a marshalled
tuple. Each tells the number of the user that it is meant for, so that what is
left of an earlier one does no harm.
Standard library only, nothing of this project's.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import functools
import hashlib
import marshal
import mmap
import os
import random
import select
import signal
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PERIOD = 999_983            # of the test pattern; prime, so that no packet size divides it
NOT_ASLEEP = ("202", "running", "-1")     # system call numbers: futex is Python's own
VERSION = 2                 # of marshal: the same in all Pythons
UEVENTS = 15                # NETLINK_KOBJECT_UEVENT


@functools.lru_cache(maxsize=4)
def _random_bytes(seed: int) -> bytes:
    return random.Random(seed).randbytes(PERIOD)


class Pattern:
    """An endless stream whose every byte is known by its position."""

    def __init__(self, seed: int) -> None:
        self._bytes = _random_bytes(seed)

    def piece(self, at: int, count: int) -> bytes:
        """`count` bytes of the stream from position `at` on."""
        at %= PERIOD
        piece = self._bytes[at:at + count]
        while len(piece) < count:
            piece += self._bytes[:count - len(piece)]
        return piece

    def check(self, at: int, data: bytes) -> None:
        """Demand that `data` is what the stream has at `at`."""
        if data != (wanted := self.piece(at, len(data))):
            wrong = next(i for i, (a, b) in enumerate(zip(data, wanted)) if a != b)
            raise ValueError(f"wrong byte at position {at + wrong}: {data[wrong:wrong + 16].hex()}"
                             f" instead of {wanted[wrong:wrong + 16].hex()}")


def checked(result: int) -> int:
    """What a libc function returned, as Python would have it."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# -- requests: each runs in a thread of its own

def do_open(path: str, flags: int) -> int:
    """open(2)"""
    return checked(LIBC.open(path.encode(), flags | os.O_CLOEXEC))


def do_close(fd: int) -> int:
    """close(2)"""
    return checked(LIBC.close(fd))


def do_read(fd: int, count: int) -> bytes:
    """read(2)"""
    buffer = ctypes.create_string_buffer(count)
    got = checked(LIBC.read(fd, buffer, ctypes.c_size_t(count)))
    return buffer.raw[:got]


def do_write(fd: int, data: bytes) -> int:
    """write(2)"""
    return checked(LIBC.write(fd, data, ctypes.c_size_t(len(data))))


def do_poll(fd: int, events: int, timeout_ms: int) -> int:
    """poll(2) of one file; 0 after a timeout"""
    buffer = ctypes.create_string_buffer(struct.pack("ihh", fd, events, 0))
    checked(LIBC.poll(buffer, ctypes.c_ulong(1), timeout_ms))
    return int(struct.unpack("ihh", buffer.raw[:8])[2])


def do_read_nowait(fd: int, count: int) -> bytes:
    """preadv2(2) with RWF_NOWAIT"""
    buffer = bytearray(count)
    got = os.preadv(fd, [buffer], -1, os.RWF_NOWAIT)
    return bytes(buffer[:got])


def do_write_nowait(fd: int, data: bytes) -> int:
    """pwritev2(2) with RWF_NOWAIT"""
    return os.pwritev(fd, [data], -1, os.RWF_NOWAIT)


def do_read_at(fd: int, address: int, count: int) -> int:
    """read(2) to any address"""
    return checked(LIBC.read(fd, ctypes.c_void_p(address), ctypes.c_size_t(count)))


def do_write_at(fd: int, address: int, count: int) -> int:
    """write(2) from any address"""
    return checked(LIBC.write(fd, ctypes.c_void_p(address), ctypes.c_size_t(count)))


def do_read_untouched(fd: int, count: int) -> bytes:
    """readv(2) to memory that has no pages yet"""
    with mmap.mmap(-1, count) as memory:
        return memory[:os.readv(fd, [memory])]


def do_write_untouched(fd: int, count: int) -> int:
    """write(2) of zeros from memory that has no pages yet"""
    with mmap.mmap(-1, count) as memory:
        return os.write(fd, memory)


def do_seek(fd: int) -> int:
    """lseek(2)"""
    return os.lseek(fd, 0, os.SEEK_CUR)


def do_nonblocking(fd: int, on: bool) -> None:
    """fcntl(2), O_NONBLOCK"""
    os.set_blocking(fd, not on)


def do_read_all(fd: int, count: int) -> bytes:
    """read(2) until so many bytes are there, or the end"""
    got = b""
    while len(got) < count and (data := do_read(fd, count - len(got))):
        got += data
    return got


def do_read_pattern(fd: int, seed: int, at: int, until: int, size: int) -> int:
    """read(2) a pattern from one position to another, or the end: returns where that is"""
    pattern = Pattern(seed)
    while at < until and (data := do_read(fd, min(size, until - at))):
        pattern.check(at, data)
        at += len(data)
    return at


def do_write_pattern(fd: int, seed: int, at: int, until: int, size: int) -> int:
    """write(2) a pattern from one position to another, or the hang-up: returns where that is"""
    pattern = Pattern(seed)
    while at < until:
        try:
            at += do_write(fd, pattern.piece(at, min(size, until - at)))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            break
    return at


def do_digest(fd: int, size: int) -> tuple[int, str]:
    """read(2) to the end: how much it was, and its hash"""
    digest, count = hashlib.sha256(), 0
    while data := do_read(fd, size):
        digest.update(data)
        count += len(data)
    return count, digest.hexdigest()


def do_open_close(path: str, times: int) -> int:
    """open(2) and close(2), over and over"""
    for _ in range(times):
        do_close(do_open(path, os.O_RDWR))
    return times


STOPPED = threading.Event()


def do_stop() -> None:
    """End what goes on until stopped."""
    STOPPED.set()


def do_open_close_until_stopped(path: str) -> dict[str, int]:
    """open(2), a byte, close(2), though the node may go at any moment: how often what came of it"""
    outcomes: dict[str, int] = {}
    while not STOPPED.is_set():
        try:
            fd = do_open(path, os.O_RDWR)
            try:
                do_write(fd, b"x")
                outcome = "done"
            finally:
                do_close(fd)
        except OSError as error:
            outcome = errno.errorcode[error.errno or 0]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def do_mode(path: str) -> int:
    """The permissions of a file"""
    return stat.S_IMODE(os.stat(path).st_mode)


class Epoll:
    """Edge-triggered epoll on one file, which outlives a request by its number."""

    def __init__(self, fd: int, events: int) -> None:
        self._poller = select.epoll()
        self._poller.register(fd, events | select.EPOLLET)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Events since the last poll."""
        return self._poller.poll(timeout)


POLLERS: dict[int, Epoll] = {}


def do_edge_begin(fd: int, events: int) -> None:
    """Watch a file for edges from now on."""
    POLLERS[fd] = Epoll(fd, events)


def do_edge(fd: int, timeout: float) -> int:
    """The events of the next edge; 0 after a timeout"""
    return sum(events for _, events in POLLERS[fd].poll(timeout))


# -- uevents

class Uevents:
    """Everything the kernel announces, from now on."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, UEVENTS)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, 1))

    def take(self, until: dict[str, str], timeout: float) -> list[dict[str, str]]:
        """The events up to and with one that has the given fields."""
        taken: list[dict[str, str]] = []
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                fields = self._socket.recv(65536).decode().split("\0")[1:]
            except TimeoutError:
                break
            taken.append(dict(field.split("=", 1) for field in fields if "=" in field))
            if until.items() <= taken[-1].items():
                return taken
        raise TimeoutError(f"no uevent {until}, only {taken}")


LISTENERS: list[Uevents] = []


def do_uevents_begin() -> None:
    """Listen to uevents from now on."""
    LISTENERS[:] = [Uevents()]


def do_uevents(until: dict[str, str], timeout: float) -> list[dict[str, str]]:
    """Uevents up to the one that is wanted."""
    return LISTENERS[0].take(until, timeout)


def do_serve_sessions(path: str, times: int) -> int:
    """What a relay does for each session, over and over; here it echoes lines backwards."""
    served = 0
    while served < times:
        try:
            fd = os.open(path, os.O_RDWR)
        except OSError:                 # the next session is not there yet
            time.sleep(0.001)
            continue
        line = b""
        while data := os.read(fd, 4096):
            line += data
            if line.endswith(b"\n"):
                served += 1
                try:
                    os.write(fd, line[::-1])
                except OSError as error:        # sent, but the host is gone already
                    if error.errno != errno.ENODEV:
                        raise
                line = b""
        os.close(fd)
    return served


# -- looking round

def do_free_memory(looks: int) -> int:
    """The most memory that was free of several looks, in KiB."""
    found = []
    for _ in range(looks):
        do_write_text("/proc/sys/vm/drop_caches", "3")
        time.sleep(0.02)
        with open("/proc/meminfo", encoding="ascii") as file:
            found.append(next(int(line.split()[1]) for line in file if line.startswith("MemFree")))
    return max(found)


def do_wait_text(path: str, wanted: str | None, timeout: float) -> str | None:
    """Wait until a file has this text, or cannot be read (None): what it has at last."""
    end = time.monotonic() + timeout
    while True:
        try:
            with open(path, encoding="ascii") as file:
                text: str | None = file.read().strip()
        except OSError:
            text = None
        if text == wanted or time.monotonic() > end:
            return text
        time.sleep(0.005)


def do_wait_exists(path: str, wanted: bool, timeout: float) -> bool:
    """Wait until a path exists, or does not: whether it does at last."""
    end = time.monotonic() + timeout
    while os.path.lexists(path) != wanted and time.monotonic() < end:
        time.sleep(0.005)
    return os.path.lexists(path)


def do_texts(folder: str) -> dict[str, str]:
    """The readable files of a directory."""
    texts = {}
    for name in os.listdir(folder):
        try:
            with open(os.path.join(folder, name), encoding="ascii") as file:
                texts[name] = file.read().strip()
        except OSError:
            pass
    return texts


def do_names(folder: str, prefix: str) -> list[str]:
    """Names in a directory that begin so."""
    return sorted(name for name in os.listdir(folder) if name.startswith(prefix))


def do_delete_module(name: str) -> None:
    """delete_module(2)"""
    checked(LIBC.syscall(176, name.encode(), os.O_NONBLOCK))


def do_write_text(path: str, text: str) -> None:
    """Write to a file in one write(2)."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


# -- the server

class Call:
    """One request, in its own thread."""

    def __init__(self, server: Server, number: int, function: Callable[..., Any],
                 args: tuple[Any, ...]) -> None:
        self._server, self._number = server, number
        self._function, self._args = function, args
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            answer: tuple[Any, ...] = ("value", self._function(*self._args))
        except OSError as error:
            answer = ("errno", error.errno or errno.EIO, str(error))
        except Exception as error:      # pylint: disable=broad-except  # tells the test
            answer = ("error", f"{type(error).__name__}: {error}")
        self._server.answer(self._number, *answer)

    def wait_blocked(self, timeout: float) -> str:
        """Wait until the thread sleeps in its system call, and is seen there thrice."""
        end = time.monotonic() + timeout
        looks = 0
        while time.monotonic() < end and self.thread.is_alive():
            state, number, _ = self.where().split()
            looks = looks + 1 if state in "SD" and number not in NOT_ASLEEP else 0
            if looks == 3:
                return self.where()
            time.sleep(0.005)
        raise ValueError(f"the call does not sleep, it is {self.where()}")

    def where(self) -> str:
        """What the thread does: its state, system call, and function in the kernel."""
        texts = []
        for name in ("stat", "syscall", "wchan"):
            try:
                path = f"/proc/self/task/{self.thread.native_id}/{name}"
                with open(path, encoding="ascii") as file:
                    texts.append(file.read().strip())
            except (FileNotFoundError, ProcessLookupError):
                return "gone - -"
        return f"{texts[0].rsplit(') ', 1)[1][0]} {texts[1].split()[0]} {texts[2] or '-'}"


class Server:
    """Serves the requests to one user; others are not for us."""

    def __init__(self, port: int, user: int) -> None:
        self._port, self._user = port, user
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}

    def answer(self, number: int, *answer: Any) -> None:
        """Tell the result of a request."""
        line = encode((self._user, number, *answer))
        with self._lock:
            while line:
                line = line[os.write(self._port, line):]

    def serve(self) -> None:
        """Take requests for ever."""
        held = b""
        while True:
            if not (data := os.read(self._port, 1 << 16)):
                time.sleep(0.05)        # woken from hibernation: the host is on its way
            *lines, held = (held + data).split(b"\n")
            for line in filter(None, lines):
                user, number, name, *args = marshal.loads(base64.b64decode(line))
                if user == self._user:
                    self._take(number, name, tuple(args))

    def _take(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        if name == "signal":
            thread = self._calls[args[0]].thread
            assert thread.ident is not None
            signal.pthread_kill(thread.ident, args[1])
            self.answer(number, "value", None)
        elif name in ("wait_blocked", "where"):
            Call(self, number, getattr(self._calls[args[0]], name), args[1:])
        else:
            module, _, function = name.rpartition(".")
            self._calls[number] = Call(self, number, getattr(
                sys.modules[module or "guestside"], f"do_{function}"), args)


def encode(message: tuple[Any, ...]) -> bytes:
    """A message as a line. The newline in front ends what a former user left behind."""
    return b"\n" + base64.b64encode(marshal.dumps(message, VERSION)) + b"\n"


def serve(port: str, user: int) -> None:
    """Serve requests at a port until the process is killed."""
    signal.signal(signal.SIGUSR1, lambda *_: None)      # interrupts system calls
    signal.signal(signal.SIGUSR2, lambda *_: None)
    signal.siginterrupt(signal.SIGUSR2, False)          # restarts them
    Server(os.open(port, os.O_RDWR | os.O_CLOEXEC), user).serve()

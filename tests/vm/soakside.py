# SPDX-License-Identifier: GPL-2.0-only
"""A user without manners, inside the guest: one session by a plan, the rest by its dice.

Goes to the guest together with guestside.py. Both streams are patterns; any byte that is not
what its position says, and any answer that the driver's document does not know, is an error.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import TypedDict

from guestside import (LIBC, Pattern, checked, do_close, do_nonblocking, do_open, do_poll, do_read,
                       do_read_nowait, do_texts, do_wait_exists, do_write, do_write_nowait)

DOWN, UP = 1, 2                 # seeds of the patterns to the guest and to the host
LARGEST = 70_000                # of a read or write: more than a ring
SLEEP = 60_000                  # ms; a poll that sleeps so long was not woken
IN, OUT, ERR, HUP = select.POLLIN, select.POLLOUT, select.POLLERR, select.POLLHUP
GONE = (errno.ENODEV, errno.ENOENT, errno.ENXIO)    # what open(2) may say of a node that goes
ERROR_AT = 64                   # of the shared page: where a child leaves its last words

LINGERING: list[int] = []       # files of sessions that are over


class Plan(TypedDict):
    """What the host has thought out for a session."""

    node: str
    seed: int
    start_down: int             # positions in the patterns
    start_up: int
    down: int                   # bytes to read, or -1: to the end
    up: int                     # bytes to write, or -1: until the hang-up
    style: str                  # threads, poll or edge
    killed: bool                # in a process that is killed
    lingers: bool               # the file is closed some time later
    timeout: float              # for the node to appear


class Outcome(TypedDict):
    """What became of it."""

    opened: int                 # 0, or an errno; -1: killed before it was known
    received: int
    sent: int
    end: int                    # -1: not seen; 0, or the errno that was
    closing: float              # seconds that close(2) took


def some_size(dice: random.Random) -> int:
    """A size, more often small or at an edge than not."""
    kind = dice.randrange(4)
    if kind == 0:
        return dice.randint(1, 16)
    if kind == 1:
        return max(1, dice.choice((4096, 16384, 32768, 65536)) + dice.randint(-9, 9))
    return dice.randint(1, 4096 if kind == 2 else LARGEST)


class Talk:
    """An open session. Its counts are in memory that is shared with a parent."""

    def __init__(self, plan: Plan, shared: mmap.mmap) -> None:
        self.plan = plan
        self.dice = random.Random(plan["seed"])
        self.counts = memoryview(shared).cast("q")
        self.counts[2] = self.counts[3] = -1
        self.down, self.up = Pattern(DOWN), Pattern(UP)
        self.fd = -1
        self.writing = plan["up"] != 0

    @property
    def received(self) -> int:
        """Bytes read."""
        return self.counts[0]

    @property
    def sent(self) -> int:
        """Bytes written."""
        return self.counts[1]

    @property
    def reading(self) -> bool:
        """Whether there is more to read."""
        return self.counts[2] < 0 and self.received != self.plan["down"]

    def receive(self, call: Callable[[int, int], bytes], size: int) -> None:
        """One call that reads; raises EAGAIN and EINTR."""
        if self.plan["down"] >= 0:
            size = min(size, self.plan["down"] - self.received)
        try:
            data = call(self.fd, size)
        except OSError as error:
            if error.errno != errno.EPROTO:
                raise
            self.counts[2] = errno.EPROTO
            return
        self.down.check(self.plan["start_down"] + self.received, data)
        self.counts[0] += len(data)
        if not data:
            self.counts[2] = 0

    def transmit(self, call: Callable[[int, bytes], int], size: int) -> None:
        """One call that writes; raises EAGAIN and EINTR."""
        if self.plan["up"] >= 0:
            size = min(size, self.plan["up"] - self.sent)
        try:
            count = call(self.fd, self.up.piece(self.plan["start_up"] + self.sent, size))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EPROTO):
                raise
            self.writing = False
            return
        if not 0 < count <= size:
            raise ValueError(f"write() of {size} bytes returned {count}")
        self.counts[1] += count
        self.writing = self.sent != self.plan["up"]

    # -- styles

    def threads(self) -> None:
        """A reader and a writer that sleep in their calls, and are disturbed."""
        ends = [Blocking(self, lambda: self.reading, self.receive, do_read),
                Blocking(self, lambda: self.writing, self.transmit, do_write)]
        while busy := [end for end in ends if end.is_alive()]:
            noise = self.dice.randrange(8)
            if noise < 3:
                self.dice.choice(busy).disturb(
                    self.dice.choice((signal.SIGUSR1, signal.SIGUSR2)))
            elif noise == 3:
                self.look_round()
            busy[0].join(self.dice.random() * 0.02)
        for end in ends:
            if end.error:
                raise end.error

    def look_round(self) -> None:
        """What anybody may do beside a session."""
        if do_poll(self.fd, IN | OUT, 0) & ~(IN | OUT | ERR | HUP):
            raise ValueError("poll() returned what it was not asked for")
        try:
            do_texts(f"/sys/class/synthrdp/{os.path.basename(self.plan['node'])}")
            do_close(do_open(self.plan["node"], os.O_RDWR))
        except OSError as error:
            if error.errno not in (errno.EBUSY, *GONE):
                raise
            return
        raise ValueError("the node was opened twice")

    def poll(self) -> None:
        """poll(2), and after it no call may find nothing to do."""
        do_nonblocking(self.fd, True)
        while self.reading or self.writing:
            asked = (IN if self.reading else 0) | (OUT if self.writing else 0)
            found = do_poll(self.fd, asked, SLEEP)
            if not found:
                raise TimeoutError(f"poll() slept for {SLEEP} ms, asked for {asked}")
            if self.reading and found & (IN | ERR | HUP):
                self.receive(self.dice.choice((do_read, do_read_nowait, read_into_pieces)),
                             some_size(self.dice))
            if self.writing and found & (OUT | ERR | HUP):
                self.transmit(self.dice.choice((do_write, do_write_nowait, write_in_pieces)),
                              some_size(self.dice))

    def edge(self) -> None:
        """Edge-triggered epoll: after each edge, calls until they find nothing."""
        do_nonblocking(self.fd, True)
        with select.epoll() as poller:
            poller.register(self.fd, IN | OUT | select.EPOLLET)
            while self.reading or self.writing:
                if not poller.poll(SLEEP / 1000):
                    raise TimeoutError(f"epoll_wait() slept for {SLEEP} ms")
                try:
                    while self.reading:
                        self.receive(do_read, some_size(self.dice))
                except BlockingIOError:
                    pass
                try:
                    while self.writing:
                        self.transmit(do_write, some_size(self.dice))
                except BlockingIOError:
                    pass


class Blocking(threading.Thread):
    """Makes calls that sleep; signals interrupt them."""

    def __init__(self, talk: Talk, more: Callable[[], bool], step: Callable[..., None],
                 call: Callable[..., object]) -> None:
        super().__init__(daemon=True)
        self._more, self._step, self._call = more, step, call
        self._dice = random.Random(talk.dice.random())
        self._lock = threading.Lock()
        self._over = False
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Until there is no more to do."""
        try:
            while self._more():
                try:
                    self._step(self._call, some_size(self._dice))
                except InterruptedError:
                    pass
        except Exception as error:      # pylint: disable=broad-except  # the session raises it
            self.error = error
        with self._lock:
            self._over = True

    def disturb(self, number: signal.Signals) -> None:
        """Send the thread a signal, if it is there."""
        with self._lock:
            if not self._over and self.ident:
                signal.pthread_kill(self.ident, number)


def pieces(size: int) -> list[int]:
    """A size, as three."""
    return [size // 3, size // 3, size - 2 * (size // 3)]


def read_into_pieces(fd: int, count: int) -> bytes:
    """readv(2)"""
    buffers = [bytearray(piece) for piece in pieces(count)]
    got = os.readv(fd, buffers)
    return b"".join(buffers)[:got]


def write_in_pieces(fd: int, data: bytes) -> int:
    """writev(2)"""
    first, second, _ = pieces(len(data))
    return os.writev(fd, [data[:first], data[first:first + second], data[first + second:]])


def hold(talk: Talk) -> float:
    """Open, converse and close: the time that close(2) took."""
    try:
        talk.fd = do_open(talk.plan["node"], os.O_RDWR)
    except OSError as error:
        if error.errno not in GONE:
            raise
        talk.counts[3] = error.errno or 0
        return 0.0
    talk.counts[3] = 0
    getattr(talk, talk.plan["style"])()
    if talk.plan["lingers"]:
        LINGERING.append(talk.fd)
        return 0.0
    begin = time.monotonic()
    do_close(talk.fd)
    return time.monotonic() - begin


def hold_until_killed(talk: Talk, shared: mmap.mmap) -> float:
    """The same in another process, which soon dies: the time that its end took."""
    child = os.fork()
    if child == 0:
        try:
            hold(talk)
        except BaseException as error:  # pylint: disable=broad-except  # the parent raises it
            text = f"{type(error).__name__}: {error}".encode()[:1000]
            shared[ERROR_AT:ERROR_AT + len(text)] = text
        os._exit(0)
    time.sleep(0.5 * talk.dice.random() ** 2)
    os.kill(child, signal.SIGKILL)
    begin = time.monotonic()
    os.waitpid(child, 0)
    if text := shared[ERROR_AT:].rstrip(b"\0"):
        raise ValueError(text.decode(errors="replace"))
    return time.monotonic() - begin


def do_session(plan: Plan) -> Outcome:
    """One session."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    talk = Talk(plan, shared)
    if LINGERING and talk.dice.random() < 0.5:
        do_close(LINGERING.pop())
    do_wait_exists(plan["node"], True, plan["timeout"])
    closing = hold_until_killed(talk, shared) if plan["killed"] else hold(talk)
    received, sent, end, opened = talk.counts[:4]
    return {"opened": opened, "received": received, "sent": sent, "end": end, "closing": closing}


def do_let_go() -> None:
    """Close what lingers."""
    while LINGERING:
        do_close(LINGERING.pop())


def do_try_unload(name: str) -> bool:
    """delete_module(2): whether nobody held it."""
    try:
        checked(LIBC.syscall(176, name.encode(), os.O_NONBLOCK))
    except BlockingIOError:
        return False
    return True


def do_load(image: bytes) -> None:
    """init_module(2)"""
    checked(LIBC.syscall(175, image, ctypes.c_ulong(len(image)), b""))

# SPDX-License-Identifier: GPL-2.0-only
"""The guest's end of a hostile session: a user who reads on, whatever comes.

Goes to the guest together with guestside.py.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import select
import threading
import time

from guestside import (LIBC, checked, do_close, do_nonblocking, do_open, do_poll, do_read,
                       do_read_all, do_texts, do_wait_text, do_write, do_write_nowait,
                       do_write_text)

LONG = 600_000          # ms
HEAD = 512              # bytes told of what was read
FILLER = b"D"


def open_soon(path: str) -> int:
    """open(2) as soon as the node is there."""
    end = time.monotonic() + LONG / 1000
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.002)
    return do_open(path, os.O_RDWR)


def read_somehow(fd: int, size: int, way: int) -> bytes:
    """Some bytes."""
    if way == 1:
        if not do_poll(fd, select.POLLIN, LONG):
            raise OSError(errno.ETIMEDOUT, "poll() slept too long")
        try:
            return do_read(fd, size)
        except BlockingIOError:
            return read_somehow(fd, size, way)
    if way == 2:
        buffers = [bytearray(size // 2 + 1), bytearray(size)]
        vector = (ctypes.c_void_p * 4)()
        for place, buffer in enumerate(buffers):
            view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
            vector[2 * place], vector[2 * place + 1] = ctypes.addressof(view), len(buffer)
        got = checked(LIBC.readv(fd, vector, 2))
        return b"".join(map(bytes, buffers))[:got]
    return do_read(fd, size)


class Writer:
    """Writes so much beside; one that is patient sleeps until that is done or the session over."""

    def __init__(self, fd: int, count: int, patient: bool) -> None:
        self.said = ""
        self._fd, self._left, self._patient = fd, count, patient
        self._stop = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """No more is to be written."""
        self._stop = True
        self._thread.join()

    def _run(self) -> None:
        write = do_write if self._patient else do_write_nowait
        try:
            while self._left:
                last = self._stop
                try:
                    self._left -= write(self._fd, b"w" * min(self._left, 5000))
                except BlockingIOError:
                    if last:
                        break
                    do_poll(self._fd, select.POLLOUT, 20)
            self.said = "some" if self._left else "all"
        except OSError as error:
            self.said = errno.errorcode[error.errno or 0]


def do_suffer(path: str, size: int, way: int, writes: int, patient: bool) -> tuple[
        str, int, str, bytes, bytes, str, float]:
    """Open, read to any end (a signal is one), write so much beside, close: how reading ended, how
    much came, its hash, its head, what of it is not filler, how writing ended, and how many seconds
    close(2) took."""
    try:
        fd = open_soon(path)
    except OSError as error:
        return f"open {errno.errorcode[error.errno or 0]}", 0, "", b"", b"", "", 0.0
    do_nonblocking(fd, way == 1)
    writer = Writer(fd, writes, patient)
    end, pieces = "end", []
    try:
        while piece := read_somehow(fd, size, way):
            pieces.append(piece)
    except OSError as error:
        end = errno.errorcode[error.errno or 0]
    writer.end()
    began = time.monotonic()
    do_close(fd)
    closing = time.monotonic() - began
    data = b"".join(pieces)
    return (end, len(data), hashlib.sha256(data).hexdigest(), data[:HEAD],
            data.translate(None, FILLER)[:HEAD], writer.said, closing)


def do_echo(path: str, count: int) -> int:
    """A sane session: open, send back so many bytes, close."""
    fd = open_soon(path)
    try:
        data = do_read_all(fd, count)
        do_write(fd, data)
    finally:
        do_close(fd)
    return len(data)


def do_renew(folder: str, state: str, timeout: float) -> dict[str, int]:
    """Have the control channel closed and opened anew, until it is in this state: what had been
    counted when it was closed."""
    do_write_text(f"{folder}/enabled", "0")
    texts = do_texts(folder)
    do_write_text(f"{folder}/enabled", "1")
    if (came_to := do_wait_text(f"{folder}/state", state, timeout)) != state:
        raise ValueError(f"state is {came_to}, not {state}, after {timeout:g} s")
    return {name: int(texts[name]) for name in ("sessions", "rx_unknown")}


def do_coverage(folder: str) -> dict[str, bytes]:
    """gcov's counters of the driver, as the kernel has them now."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".gcda"):
                with open(os.path.join(where, name), "rb") as file:
                    found[name] = file.read()
    return found

# SPDX-License-Identifier: GPL-2.0-only
"""The host's ends of a session's two streams, each in a thread: patterns, checked by the byte."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from guestside import Pattern
from hvhost import pipe
from hvhost.channel import Closed
from hvhost.synthrdp import Session
from lab import wait_until

TIMEOUT = 60.0


class Stream(threading.Thread):
    """One of them. What goes wrong in its thread is raised by who waits for its end."""

    def __init__(self, session: Session, seed: int, start: int, patience: float) -> None:
        super().__init__(daemon=True)
        self._session, self._pattern = session, Pattern(seed)
        self._first, self._patience = start, patience
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Until all is done or the guest has closed the channel."""
        try:
            self._move()
        except Closed:
            pass
        except Exception as error:      # pylint: disable=broad-except  # the test raises it
            self._error = error

    def _move(self) -> None:
        raise NotImplementedError

    def _wait(self) -> None:
        self.join(self._patience)
        if self._error:
            raise self._error
        assert not self.is_alive()


class HostWriter(Stream):
    """The host writes a pattern until all of it is sent or the session has ended."""

    def __init__(self, session: Session, seed: int, until: int, sizes: pipe.Sizes = 9000, *,
                 start: int = 0, patience: float = TIMEOUT) -> None:
        self._until = until
        self._sizes = itertools.cycle([sizes] if isinstance(sizes, int) else sizes)
        self._ends = [0]        # positions after each packet
        self.sent = 0           # or on its way
        super().__init__(session, seed, start, patience)

    def _move(self) -> None:
        while self.sent < self._until:
            size = min(next(self._sizes), self._until - self.sent)
            piece = self._pattern.piece(self._first + self.sent, size)
            self.sent += size
            for packet in pipe.cut(piece):
                self._session.write(packet, timeout=self._patience)
                self._ends.append(self._ends[-1] + len(packet))

    @property
    def placed(self) -> int:
        """How much is in the guest's ring, or was, as long as the guest has it open."""
        ends = len(self._ends)          # first: what is sent meanwhile does not count
        return self._ends[max(ends - 1 - self._session.channel.in_flight, 0)]

    def end(self) -> int:
        """Wait for the end, return how much was sent at most."""
        self._wait()
        return self.sent


class HostReader(Stream):
    """The host reads and checks a pattern until the guest has closed the channel.

    `turn` is called before each packet.
    """

    def __init__(self, session: Session, seed: int, *, start: int = 0, patience: float = TIMEOUT,
                 turn: Callable[[], None] = lambda: None) -> None:
        self._turn = turn
        self.got = 0
        super().__init__(session, seed, start, patience)

    def _move(self) -> None:
        while True:
            self._turn()
            data = self._session.read_packet(self._patience)
            self._pattern.check(self._first + self.got, data)
            self.got += len(data)

    def wait_for(self, count: int) -> None:
        """Wait until so much has come."""
        wait_until(f"{count} bytes from the guest", lambda: self.got >= count, self._patience)

    def end(self) -> int:
        """Wait for the end, return how much came."""
        self._wait()
        return self.got

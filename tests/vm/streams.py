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


class HostWriter(threading.Thread):
    """The host writes a pattern until all of it is sent or the session has ended."""

    def __init__(self, session: Session, seed: int, until: int, sizes: pipe.Sizes = 9000, *,
                 start: int = 0, patience: float = TIMEOUT) -> None:
        super().__init__(daemon=True)
        self._session, self._pattern, self._until = session, Pattern(seed), until
        self._sizes = itertools.cycle([sizes] if isinstance(sizes, int) else sizes)
        self._first, self._patience = start, patience
        self._ends = [0]        # positions after each packet
        self.sent = 0           # or on its way
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Write."""
        try:
            while self.sent < self._until:
                size = min(next(self._sizes), self._until - self.sent)
                piece = self._pattern.piece(self._first + self.sent, size)
                self.sent += size
                for packet in pipe.cut(piece):
                    self._session.write(packet, timeout=self._patience)
                    self._ends.append(self._ends[-1] + len(packet))
        except Closed:
            pass
        except Exception as error:      # pylint: disable=broad-except  # the test raises it
            self.error = error

    @property
    def placed(self) -> int:
        """How much is in the guest's ring, or was, as long as the guest has it open."""
        ends = len(self._ends)          # first: what is sent meanwhile does not count
        return self._ends[max(ends - 1 - self._session.channel.in_flight, 0)]

    def end(self) -> int:
        """Wait for the end, return how much was sent at most."""
        self.join(self._patience)
        if self.error:
            raise self.error
        assert not self.is_alive()
        return self.sent


class HostReader(threading.Thread):
    """The host reads and checks a pattern until the guest has closed the channel."""

    def __init__(self, session: Session, seed: int, *, start: int = 0, patience: float = TIMEOUT,
                 turn: Callable[[], None] = lambda: None) -> None:
        super().__init__(daemon=True)
        self._session, self._pattern, self._first = session, Pattern(seed), start
        self._patience, self._turn = patience, turn
        self.error: Exception | None = None
        self.got = 0
        self.start()

    def run(self) -> None:
        """Read and check; `turn` is called before each packet."""
        try:
            while True:
                self._turn()
                data = self._session.read_packet(self._patience)
                self._pattern.check(self._first + self.got, data)
                self.got += len(data)
        except Closed:
            pass
        except Exception as error:      # pylint: disable=broad-except  # the test raises it
            self.error = error

    def wait_for(self, count: int) -> None:
        """Wait until so much has come."""
        wait_until(f"{count} bytes from the guest", lambda: self.got >= count, self._patience)

    def end(self) -> int:
        """Wait for the end, return how much came."""
        self.join(self._patience)
        if self.error:
            raise self.error
        assert not self.is_alive()
        return self.got

# SPDX-License-Identifier: GPL-2.0-only
"""Hostile sessions by the thousand, in guests whose kernel watches over itself.

First one at a time: what makes the driver run code that it has not run so often, by gcov's
counters, or end in a way not seen yet, is kept, and changed again. Then all five data channels and
the control channel at once. Inputs are played in batches; a batch after which anything is amiss is
reported, and the guest replaced.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import fuzzside
from bench import Bench
from hvhost import kernels
from hvhost.cache import say
from hvhost.channel import ChannelError
from hvhost.guest import GuestError
from inputs import Input, Inventor, shorter
from lab import Lab
from play import Control, Finding, Seat, Tally, leave
from user import User

GCOV: Final = "/sys/kernel/debug/gcov"
SEATS: Final = 5
BATCH: Final = 1000
ENOUGH: Final = 5               # findings: whoever goes on has one of them again
SLOW: Final = 2.0               # seconds; more such are not worth their time
SLACK: Final = 12 << 10         # KiB that a kernel with KASAN keeps for itself, now and then
KMEMLEAK: Final = "/sys/kernel/debug/kmemleak"
TROUBLE: Final = (Finding, AssertionError, ChannelError, GuestError, OSError)


class Coverage:
    """Which counters of the driver have gone how far in one session."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()
        self._last: dict[str, tuple[int, ...]] = {}

    def look(self, user: User, came_to: str) -> set[Any]:
        """Features since the last look: of the counters, and the way it ended."""
        found: set[Any] = {came_to}
        for name, data in user.do("fuzzside.coverage", GCOV).items():
            words = struct.unpack(f"<{len(data) // 4}I", data)
            last = self._last.get(name, (0,) * len(words))
            found |= {(name, at, (new - old).bit_length())
                      for at, (new, old) in enumerate(zip(words, last)) if new > old}
            self._last[name] = words
        return found


class Campaign:
    """One kernel's share."""

    def __init__(self, kernel: str, seed: int, known: Sequence[Input]) -> None:
        self.corpus = [*known]
        self.findings: list[tuple[str, list[Input]]] = []
        self.tally = Tally()
        self.ends: Counter[str] = Counter()
        self.coverage = Coverage()
        self._known = [*known]
        self._seed = seed
        counting = ("GCOV_PROFILE=y",) if kernel in kernels.DEBUG else ()
        self._bench = Bench(kernel, module=kernels.modules(kernel, *counting) / "hv_synthrdp.ko",
                            smp=2, memory=1024)

    def close(self) -> None:
        """The guest goes."""
        self._bench.drop()

    # -- one at a time

    def guided(self, sessions: int) -> None:
        """Replay what is known, then look for more, and make that as short as it can be."""
        inventor = Inventor(self._seed)
        queue = [*self._known]
        end = self.tally.sessions + sessions
        while self.tally.sessions < end and len(self.findings) < ENOUGH:
            batch: list[Input] = []
            with self._watch(batch) as lab:
                stop = min(self.tally.sessions + BATCH, end)
                look = self._looker(lab, batch)
                while self.tally.sessions < stop:
                    known = bool(queue)
                    given = queue.pop(0) if known else inventor.next(self.corpus)
                    began = time.monotonic()
                    new = look(given) - self.coverage.seen
                    slow = time.monotonic() - began > SLOW
                    self.coverage.seen |= new
                    if new and not known and not slow and (again := look(given) & new):
                        self.corpus.append(shorter(given, lambda less: again <= look(less)))

    def _looker(self, lab: Lab, batch: list[Input]) -> Callable[[Input], set[Any]]:
        user = lab.user(fuzzside)
        seat, control = Seat(lab, 1, self.tally), Control(lab, self.tally)

        def look(given: Input) -> set[Any]:
            batch.append(given)
            came_to = control.play(given) if given.control else seat.play(given)
            self.ends[came_to] += 1
            return self.coverage.look(user, came_to)

        self.coverage.look(user, "")        # what came before
        return look

    # -- all at once

    def crowd(self, first: int, sessions: int) -> None:
        """Numbered sessions: each is made of the seed, its number and the corpus in the tree."""
        for start in range(first, first + sessions, BATCH):
            if len(self.findings) >= ENOUGH:
                return
            batch: list[Input] = []
            with self._watch(batch) as lab:
                numbers = iter(range(start, min(start + BATCH, first + sessions)))
                self._run_crowd(lab, numbers, batch)
            say(f"{self._bench.kernel}: {self.tally.sessions:,} sessions, "
                f"{self.tally.packets:,} packets")

    def _run_crowd(self, lab: Lab, numbers: Any, batch: list[Input]) -> None:
        lock = threading.Lock()
        troubles: list[BaseException] = []

        def work(play: Callable[[Input], str], control: bool) -> None:
            try:
                while not troubles:
                    with lock:
                        number = next(numbers, None)
                        if number is None:
                            return
                        made = Inventor(self._seed << 32 | number).like(self._known, control)
                        batch.append(made)
                    came_to = play(made)
                    with lock:
                        self.ends[came_to] += 1
            except BaseException as error:  # pylint: disable=broad-except  # told below
                troubles.append(error)

        seats = [Seat(lab, number, self.tally) for number in range(1, SEATS + 1)]
        workers = [threading.Thread(target=work, args=(seat.play, False)) for seat in seats]
        workers.append(threading.Thread(target=work, args=(Control(lab, self.tally).play, True)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if troubles:
            raise troubles[0]
        leave(seats)

    def flood(self, messages: int) -> None:
        """CreateSession without end."""
        with self._watch([]) as lab:
            Control(lab, self.tally).flood(messages)

    def memory(self) -> int:
        """KiB that are free."""
        free = 0
        with self._watch([]) as lab:
            free = lab.user().do("free_memory", 10, timeout=60)
        return free

    def leaks(self) -> str:
        """What kmemleak says, in words."""
        with self._watch([]) as lab:
            if not lab.guest.exists(KMEMLEAK):
                return "is not there"
            if found := lab.guest.leaks():
                raise Finding(f"kmemleak: {found}")
            return "finds nothing"
        return "has found something"

    def _watch(self, batch: list[Input]) -> Watch:
        return Watch(self, self._bench, batch)


class Watch:
    """A batch: the driver is ready before it and well after it, or that is a finding."""

    def __init__(self, campaign: Campaign, bench: Bench, batch: list[Input]) -> None:
        self._campaign, self._bench, self._batch = campaign, bench, batch
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        lab = self._bench.lab()
        self._stack.enter_context(lab.test())
        lab.allow_complaints()
        return lab

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        try:
            self._stack.__exit__(kind, error, trace)
        except TROUBLE as found:
            error = error or found
        if error is None:
            return False
        if not isinstance(error, TROUBLE):
            return False
        say(f"found: {type(error).__name__}: {error}")
        self._campaign.findings.append((f"{type(error).__name__}: {error}", [*self._batch]))
        self._bench.drop()
        return True


def report(campaign: Campaign, kernel: str, seconds: float, memory: tuple[int, int],
           kmemleak: str) -> str:
    """What a kernel's share came to, in a line."""
    return (f"{kernel}: {campaign.tally.sessions:,} hostile sessions, "
            f"{campaign.tally.packets:,} packets, {campaign.tally.creates:,} of them CreateSession"
            f" in floods, {len(campaign.coverage.seen):,} features, "
            f"{len(campaign.corpus)} inputs kept, {len(campaign.findings)} findings; "
            f"{campaign.tally.longest:.1f} s at most for a channel to be open, "
            f"{campaign.tally.closing:.1f} s for close(2); "
            f"{memory[0]:,} KiB free before, {memory[1]:,} after; kmemleak {kmemleak}; "
            f"{seconds:.0f} s")


def keep(findings: Sequence[tuple[str, list[Input]]], folder: Path) -> list[Path]:
    """Write findings to files that --replay takes."""
    files: list[Path] = []
    for text, batch in findings:
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"finding-{len(files)}.txt")
        lines = [f"# {line}" for line in text.splitlines()]
        files[-1].write_text("\n".join((*lines, *(given.line() for given in batch), "")))
    return files

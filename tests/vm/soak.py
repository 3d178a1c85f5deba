# SPDX-License-Identifier: GPL-2.0-only
"""Random sessions, several at once, while everything around them comes and goes.

Each session is planned by dice that know the seed and its number; soakside.py does the user's
part. What must hold for each: every byte is at its place in either direction, nothing that had
arrived is lost, each call ends, and only in the ways that the driver's document knows.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import EPROTO
from pathlib import Path

import soakside
from hvhost.channel import Closed, Timeout
from hvhost.synthrdp import (ACCEPT, MALFORMED_MESSAGES, MALFORMED_PACKETS, REJECT, SILENCE,
                             UNKNOWN_MESSAGE, Instance, create_session, data_instance, say)
from lab import CONTROL_FOLDER, DRIVER, MAX_DATA, STRANGERS, Lab, wait_until
from soakside import DOWN, LARGEST, UP, Outcome, Plan, some_size
from streams import HostReader, HostWriter
from user import Call, User

TIMEOUT = 60.0          # of anything that a guest that is slow and busy does
LONG = 300.0            # of unloading, which may wait for releases that are late on purpose
SOON = 20.0             # seconds; what takes longer will not happen by itself
FLUSH = 2.5             # seconds; a close(2) that takes longer may have given up
BULK = 1 << 30          # more than any session lets through
PLACES: tuple[tuple[Instance, int], ...] = ((1, 0), (2, 1), (3, 2), (4, 3), (STRANGERS[0], 5))
RUDE = (REJECT, SILENCE, say(UNKNOWN_MESSAGE) + ACCEPT, ACCEPT + ACCEPT,
        *MALFORMED_MESSAGES.values())


@dataclass
class Script:
    """What happens to a session from outside, beside the user's plan."""

    ending: str                 # none, rescind, unbind or malformed
    early: bool                 # the ending does not wait for open(2)
    moment: float               # seconds until the ending
    total: int                  # bytes that the host writes
    announced: bool             # by CreateSession
    pause: float                # between looks of a host that reads slowly


def invent(dice: random.Random, node: int) -> tuple[Plan, Script]:
    """A session."""
    ending, = dice.choices(("none", "rescind", "unbind", "malformed"), (12, 3, 3, 2))
    killed = dice.random() < 0.1
    early = ending in ("rescind", "unbind") and dice.random() < 0.15
    endless = killed or ending != "none" and dice.random() < 0.8
    down, up = (dice.choice((0, 1, some_size(dice), 3 * some_size(dice))) for _ in range(2))
    extra = dice.choice((0, some_size(dice)))
    to_end = endless or ending == "malformed"
    plan: Plan = {
        "node": f"/dev/synthrdp{node}", "seed": dice.getrandbits(32),
        "start_down": dice.getrandbits(32), "start_up": dice.getrandbits(32),
        "down": -1 if to_end else down, "up": -1 if endless else up,
        "style": dice.choice(("threads", "poll", "edge")), "killed": killed,
        "lingers": ending in ("rescind", "unbind") and not killed and dice.random() < 0.3,
        "timeout": 0.3 if early else TIMEOUT / 2}
    return plan, Script(
        ending, early, 0.5 * dice.random() ** 3, announced=dice.random() < 0.7,
        total=BULK if endless and ending != "malformed" else down + extra,
        pause=dice.choice((0.0, 0.0, 0.01)))


@dataclass
class Gate:
    """Lets sessions begin, unless somebody has a reason that there be none."""

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _inside: int = 0
    _shut: bool = False

    @contextmanager
    def session(self) -> Iterator[None]:
        """During a session."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._shut, LONG):
                raise TimeoutError("the gate stays shut")
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """While there are no sessions."""
        with self._changed:
            self._shut = True
            if not self._changed.wait_for(lambda: not self._inside, LONG):
                raise TimeoutError("sessions do not end")
        try:
            yield
        finally:
            with self._changed:
                self._shut = False
                self._changed.notify_all()


class Soak:
    """So many sessions with one seed."""

    def __init__(self, lab: Lab, seed: int, sessions: int) -> None:
        self.lab, self.seed, self._left = lab, seed, sessions
        self._taken = 0
        self.gate = Gate()
        self.loads = 0                  # odd: the module is not there, or not yet
        self.counts: Counter[str] = Counter()
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []

    def take(self) -> int:
        """The number of a session to do; 0 when there is none left, or no point."""
        with self._lock:
            if self.over.is_set() or not self._left:
                return 0
            self._left -= 1
            self._taken += 1
            return self._taken

    def put_back(self) -> None:
        """A session did not come to pass: another one takes its place, not the same again."""
        with self._lock:
            self._left += 1

    def count(self, *what: str, by: int = 1) -> None:
        """Note what happened."""
        with self._lock:
            self.counts.update(dict.fromkeys(what, by))

    def guard(self, work: Callable[[], None]) -> threading.Thread:
        """Do it in a thread; an error ends everything."""
        def run() -> None:
            try:
                work()
            except BaseException as error:      # pylint: disable=broad-except  # raised by run()
                self._errors.append(error)
                self.over.set()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def run(self) -> None:
        """All of it."""
        self.lab.allow_complaints()
        nodes = [Node(self, which, node) for which, node in PLACES]
        trouble = Trouble(self, [node.user for node in nodes])
        beside = self.guard(trouble.run)
        for thread in [self.guard(node.run) for node in nodes]:
            thread.join()
        self.over.set()
        beside.join()
        if self._errors:
            raise self._errors[0]
        trouble.settle()


class Node:
    """A data channel, its host and its user, one session after the other."""

    def __init__(self, soak: Soak, which: Instance, node: int) -> None:
        self.soak, self.which, self.node = soak, which, node
        self.session = soak.lab.session(which, offer=False, announce="never", auto_grant=False)
        self.user = soak.lab.user(soakside)
        self.unbound = False            # the last time that it was tried

    def run(self) -> None:
        """Sessions, as long as there are any."""
        while number := self.soak.take():
            dice = random.Random(f"{self.soak.seed}/{number}")
            plan, script = invent(dice, self.node)
            if dice.random() < 0.1:
                time.sleep(dice.random())
            try:
                with self.soak.gate.session():
                    self.one(dice, plan, script)
            except Exception as error:
                error.add_note(f"in session {number} of seed {self.soak.seed}: {plan}, {script}")
                raise
        self.user.do("soakside.let_go", timeout=TIMEOUT)
        if self.session.channel.offered:
            self.session.end(TIMEOUT)

    def one(self, dice: random.Random, plan: Plan, script: Script) -> None:
        """One session."""
        loads = self.soak.loads
        channel = self.session.channel
        for queue in (channel.wait_opened, channel.wait_closed):
            with suppress(Timeout):
                while queue(0):
                    pass
        if script.announced:
            with suppress(Closed):
                self.soak.lab.host.say(say(create_session(self.which)))
        if not channel.offered:
            channel.offer(TIMEOUT)
        call = self.user.call("soakside.session", plan)
        ends = self.begin(dice, call, plan, script)
        placed = self.end(ends, script) if ends or script.early else 0
        if script.early and not self.user.wait(call, SOON):
            # Not bound yet when it was to be unbound, or taken by a module that came anew.
            assert script.ending == "unbind", "opened what was rescinded"
            assert not self.unbound or self.soak.loads != loads, "open though it was unbound"
            channel.rescind(TIMEOUT)
        outcome: Outcome = call.result(TIMEOUT)
        wait_until("the channel is closed", lambda: not channel.opening, TIMEOUT)
        if script.ending == "unbind":
            with suppress(OSError):     # the module may have come anew, and taken it
                self.user.do("write_text", f"{DRIVER}/bind", str(data_instance(self.which)))
        if ends:
            reader, writer = ends
            check(plan, script, outcome, placed, writer.end(), reader.end())
            self.soak.count("sessions", plan["style"], script.ending,
                            *["killed"] * plan["killed"])
            self.soak.count("bytes", by=outcome["received"] + outcome["sent"])
        else:
            assert outcome["opened"] or script.early, "opened, and the host does not know"
            assert (plan["killed"] or script.early or self.soak.loads != loads or loads % 2
                    ), f"open() failed: {outcome}"
            self.soak.put_back()
        if not channel.offered:
            channel.wait_released(TIMEOUT)

    def begin(self, dice: random.Random, call: Call, plan: Plan,
              script: Script) -> tuple[HostReader, HostWriter] | None:
        """Wait for the opening, if it is worth waiting; the host's ends of the session."""
        if script.early or not self.opened(call):
            return None

        def turn() -> None:
            if not channel.granted:
                time.sleep(script.pause)
                channel.grant(ours.randint(1, 8) if script.pause else 32)

        def sizes() -> Iterator[int]:
            while True:
                yield some_size(ours)

        ours, channel = random.Random(dice.random()), self.session.channel
        reader = HostReader(self.session, UP, start=plan["start_up"], patience=TIMEOUT, turn=turn)
        return reader, HostWriter(self.session, DOWN, script.total, sizes(),
                                  start=plan["start_down"], patience=TIMEOUT)

    def opened(self, call: Call) -> bool:
        """Wait until the user has opened the node, or failed to."""
        end = time.monotonic() + TIMEOUT
        while not self.user.wait(call, 0) and time.monotonic() < end:
            with suppress(Timeout):
                self.session.wait_opened(0.2)
                return True
        call.result(0)                  # says where it is, if it is not over
        with suppress(Timeout):
            self.session.wait_opened(5)
            return True
        return False

    def end(self, ends: tuple[HostReader, HostWriter] | None, script: Script) -> int:
        """The session's end from outside; how much had arrived by then at least."""
        if script.ending == "none":
            return 0
        if script.ending == "malformed":
            assert ends
            ends[1].join(TIMEOUT)
            with suppress(Closed):
                self.session.send(MALFORMED_PACKETS["pipe type 5"], TIMEOUT)
            return 0
        time.sleep(script.moment)
        placed = ends[1].placed if ends and self.session.channel.opening else 0
        if script.ending == "rescind":
            self.session.channel.rescind(TIMEOUT)
        else:
            try:
                self.user.do("write_text", f"{DRIVER}/unbind", str(data_instance(self.which)))
                self.unbound = True
            except OSError:     # the module may be away, unless a session holds it
                assert script.early or not self.session.channel.opening
                self.unbound = False
        return placed


def check(plan: Plan, script: Script, outcome: Outcome, placed: int, sent: int, got: int) -> None:
    """What must hold of what was read and written on both sides; `sent` is the most."""
    facts = f"{outcome}, the host got {got}, sent {sent}, placed {placed}"
    assert outcome["received"] <= sent, facts
    # Who is killed in a call, or right after it, has not counted what that sent.
    uncounted = LARGEST if plan["killed"] else MAX_DATA if script.ending != "none" else 0
    assert got <= outcome["sent"] + uncounted, facts
    if outcome["end"] == 0:
        assert script.ending in ("rescind", "unbind"), facts
        assert outcome["received"] >= placed, facts
    if script.ending == "malformed" and not plan["killed"]:
        assert outcome["end"] == EPROTO and outcome["received"] == sent, facts
    if script.ending == "none":
        assert got >= outcome["sent"] or outcome["closing"] > FLUSH, facts
        if not plan["killed"]:
            assert outcome["received"] == plan["down"] and outcome["sent"] == plan["up"], facts


class Trouble:
    """What an administrator and a host do to the driver as a whole, meanwhile."""

    def __init__(self, soak: Soak, users: list[User]) -> None:
        self.soak, self.lab, self._users = soak, soak.lab, users
        self.user: User = soak.lab.user(soakside)
        self._dice = random.Random(f"{soak.seed}/trouble")
        module = soak.lab.guest.module
        assert module
        self._module = Path(module).read_bytes()

    def run(self) -> None:
        """Until the sessions are over."""
        deeds = (self.switch, self.answer_rudely, self.say_something, self.look,
                 self.unload_perhaps, self.withdraw_control, self.unload)
        weights = (100, 40, 50, 40, 20, 8, 2)   # the last ones take long
        while not self.soak.over.wait(self._dice.random() * 0.6):
            deed, = self._dice.choices(deeds, weights)
            deed()
            self.soak.count(deed.__name__)

    def settle(self) -> None:
        """Back to peace."""
        self.lab.host.answer_with(ACCEPT)
        self.write_switch(False)
        self.write_switch(True)
        self.lab.wait_state("ready", TIMEOUT)

    def wait_control(self) -> None:
        """A device that was just offered is probed soon."""
        path = f"{CONTROL_FOLDER}/enabled"
        assert self.user.do("wait_exists", path, True, TIMEOUT, timeout=2 * TIMEOUT)

    def write_switch(self, on: bool) -> None:
        """The attribute `enabled`."""
        self.user.do("write_text", f"{CONTROL_FOLDER}/enabled", "1" if on else "0",
                     timeout=TIMEOUT)

    def switch(self) -> None:
        """Off and on."""
        self.write_switch(False)
        time.sleep(self._dice.random() * 0.1)
        self.write_switch(True)

    def answer_rudely(self) -> None:
        """The next request gets an answer that it should not."""
        self.lab.host.answer_with(self._dice.choice(RUDE), ACCEPT)
        self.write_switch(True)

    def say_something(self) -> None:
        """Out of turn, maybe."""
        with suppress(Closed):
            self.lab.host.say(self._dice.choice((say(UNKNOWN_MESSAGE), say(create_session(5)),
                                                 ACCEPT)))

    def look(self) -> None:
        """Read all attributes."""
        self.user.do("texts", CONTROL_FOLDER, timeout=TIMEOUT)

    def withdraw_control(self) -> None:
        """The host takes the control channel, and offers it again."""
        self.lab.host.control.rescind(TIMEOUT)
        self.lab.host.control.wait_released(TIMEOUT)
        self.lab.host.control.offer(TIMEOUT)
        self.wait_control()

    def unload_perhaps(self) -> bool:
        """rmmod, which only works when no node is open, and modprobe: whether it did."""
        self.soak.loads += 1
        try:
            if not self.user.do("soakside.try_unload", "hv_synthrdp", timeout=LONG):
                return False
            time.sleep(self._dice.random() * 0.1)
            self.user.do("soakside.load", self._module, timeout=TIMEOUT)
            self.wait_control()
        finally:
            self.soak.loads += 1
        self.soak.count("unloaded")
        return True

    def unload(self) -> None:
        """The same once all sessions have ended, and nobody holds on to one."""
        with self.soak.gate.shut():
            for user in self._users:
                user.do("soakside.let_go", timeout=TIMEOUT)
            wait_until("the module is unloaded", self.unload_perhaps, TIMEOUT)

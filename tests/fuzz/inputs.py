# SPDX-License-Identifier: GPL-2.0-only
"""What a hostile host does during one opening of a channel: invented, changed, kept as JSON. Pure.

An input is a list of steps, each a name with arguments (play.py does them):

    ["data", n]                 put a packet with n bytes of data
    ["many", n, size]           put n packets of this size
    ["say", hex]                put one with these bytes
    ["packet", {field: value}, n]   put one that lies
    ["publish", notify]         let the write index come up to what was put; signal, or not
    ["index", way, value]       set it "to" any number, or "by" so much from where it should be
    ["bytes", at, hex]          write behind what was put
    ["field", ring, name, value]    write to the header of the ring "in" or "out"
    ["flicker", ring, name, value, n]   and back to 0, so often
    ["spoil", name, value]      write to that of "out" once the guest waits for room, and signal
    ["notify", n]               signal so often
    ["wait"]                    until the guest has read it all
    ["race", field, value, n]   put a packet and change a field so often while the guest reads
    ["overrun", n]              put n packets, whether there is room or not
    ["rescind"]                 withdraw the channel; the rest is lost
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from hvhost import pipe, synthrdp
from hvhost.channel import INBAND
from reference import FIELDS

Step = list[Any]
T = TypeVar("T")

CORPUS: Final = Path(__file__).with_name("corpus.txt")
HEADER: Final = {"write": 0, "read": 4, "mask": 8, "pending": 12, "features": 64}
NUMBERS: Final = (0, 1, 2, 3, 7, 8, 15, 16, 17, 24, 255, 256, 2047, 2052, 2053, 4095, 8192, 16376,
                  16383, 16384, 16385, 32768, 61440, 65535, 65536, 0x7fffffff, 0x80000000,
                  0xfffffff8, 0xffffffff)
COUNTS: Final = {"data": pipe.MAX_PAYLOAD, "packet": pipe.MAX_PAYLOAD, "many": 400,
                 "overrun": 100, "bytes": 2000, "notify": 99}
TIMES: Final = (("race", 3), ("flicker", 4))       # how often: as it is
FILLS: Final = 500_000      # bytes; the host takes 64 packets of 5,000
RACY: Final = ("race", "overrun")
MESSAGES: Final = (
    synthrdp.YES, synthrdp.version_response(synthrdp.REFUSED), synthrdp.version_response(major=2),
    synthrdp.create_session(1), synthrdp.create_session(5), synthrdp.UNKNOWN_MESSAGE,
    *(step.payload[pipe.HEADER.size:] for answer in synthrdp.MALFORMED_MESSAGES.values()
      for step in answer if isinstance(step, synthrdp.Raw) and len(step.payload) < 100))


@dataclass
class Input:
    """One opening: the host's steps, and what the user in the guest does meanwhile."""

    control: bool = False       # on the control channel, which has no user
    way: int = 0                # of reading: 0 read(2), 1 poll(2) before, 2 into two buffers
    size: int = 4096            # of a read
    writes: int = 0             # bytes
    steps: list[Step] = field(default_factory=list)

    @property
    def racy(self) -> bool:
        """What the guest reads depends on when it looks."""
        return any(step[0] in RACY for step in self.steps)

    @property
    def fills(self) -> bool:
        """The user writes more than the host takes and the ring holds."""
        return self.writes >= FILLS and not self.control

    @property
    def withdrawn(self) -> bool:
        """The host withdraws the channel; else the user closes it."""
        return ["rescind"] in self.steps

    def line(self) -> str:
        """The input in a line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of(cls, line: str) -> Input:
        """An input from its line."""
        return cls(**json.loads(line))


def load(file: Path) -> list[Input]:
    """The inputs of a corpus: one on each line."""
    return [Input.of(line) for line in file.read_text().splitlines() if line.startswith("{")]


def save(file: Path, kept: Iterable[Input]) -> None:
    """Write a corpus, the shortest first."""
    lines = sorted({given.line() for given in kept}, key=lambda line: (len(line), line))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(("# SPDX-License-Identifier: GPL-2.0-only", *lines, "")))


def fewest(whole: Sequence[T], enough: Callable[[list[T]], bool]) -> list[T]:
    """What is left when halves, quarters ... and single ones that are not needed are left out."""
    here, size = [*whole], max(len(whole) // 2, 1)
    while size:
        for at in range(len(here) - size, -1, -size):
            less = here[:at] + here[at + size:]
            if len(less) < len(here) and enough(less):
                here = less
        size //= 2
    return here


def shorter(given: Input, enough: Callable[[Input], bool]) -> Input:
    """An input with no step but those that are needed."""
    return replace(given, steps=fewest(given.steps, lambda less: bool(less) and enough(
        replace(given, steps=less))))


class Inventor:
    """Invents and changes inputs; the same seed, the same inputs."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def invent(self, control: bool) -> Input:
        """A new one."""
        dice = self._dice
        racy = dice.random() < 0.2
        made = Input(control, way=dice.randrange(3), size=dice.choice((1, 100, 4096, 70000)),
                     writes=dice.choice((0, 0, 100, 20000)))
        if control and dice.random() < 0.8:
            made.steps += [["say", synthrdp.YES.hex()], ["publish", True]]
        for _ in range(dice.randrange(1, 12)):
            made.steps.append(self._step(control, racy))
        if dice.random() < 0.1:
            made.steps.insert(dice.randrange(len(made.steps) + 1), ["rescind"])
        return self._tidy(made)

    def like(self, known: Sequence[Input], control: bool) -> Input:
        """One for this kind of channel: new, or like those that are known."""
        some = [given for given in known if given.control == control]
        if not some or self._dice.random() < 0.4:
            return self.invent(control)
        return self.change(self._dice.choice(some), self._dice.choice(some))

    def next(self, known: Sequence[Input]) -> Input:
        """One for any channel."""
        return self.like(known, self._dice.random() < 0.25)

    def change(self, given: Input, other: Input) -> Input:
        """One like it: steps left out, doubled, moved, changed, or taken from the other."""
        dice = self._dice
        made = Input.of(given.line())
        for _ in range(dice.choice((1, 1, 2, 4))):
            steps, at = made.steps, dice.randrange(len(made.steps) + 1)
            way = dice.randrange(6)
            if way == 0:
                del steps[at:at + dice.randrange(1, 3)]
            elif way == 1:
                steps[at:at] = steps[at:at + dice.randrange(1, 4)] * dice.choice((1, 1, 5))
            elif way == 2 and other.control == made.control:
                steps[at:at] = other.steps[dice.randrange(len(other.steps) + 1):]
            elif way == 3 and at < len(steps):
                steps[at] = self._bend(steps[at])
            elif way == 4:
                made.way, made.size = dice.randrange(3), dice.choice((1, 7, 100, 4096, 70000))
                made.writes = dice.choice((0, 5000, 60000))
            else:
                steps.insert(at, self._step(made.control, made.racy))
        return self._tidy(Input.of(made.line()))

    def _tidy(self, made: Input) -> Input:
        """No input takes for ever."""
        del made.steps[60:]
        spoils = [step for step in made.steps if step[0] == "spoil"]
        if spoils:              # once, and in a ring that is the guest's until then
            made.writes = max(made.writes, FILLS)
            made.steps = [step for step in made.steps if step is spoils[0] or (
                step[0] != "spoil" and not (step[0] in ("field", "flicker") and step[1] == "out"))]
        if made.size < 100:     # a system call for each byte
            made.steps = [["data", step[1] % 200] if step[0] == "data" else step
                          for step in made.steps if step[0] not in ("many", "overrun")][:15]
        return made

    def _number(self) -> int:
        dice = self._dice
        return dice.choice((dice.choice(NUMBERS), dice.choice(NUMBERS) + dice.randrange(-8, 9),
                            dice.randrange(64), dice.getrandbits(32))) % (1 << 32)

    def _length(self) -> int:
        return self._dice.choice((0, 1, 4, 5, 8, self._dice.randrange(200), self._dice.randrange(
            3000), self._dice.randrange(pipe.MAX_PAYLOAD + 1), pipe.MAX_PAYLOAD))

    def _fields(self) -> dict[str, int]:
        dice = self._dice
        wrong = {}
        for name in dice.sample(sorted(FIELDS), dice.choice((1, 1, 1, 2, 3))):
            wrong[name] = self._number() if dice.random() < 0.6 else dice.choice((
                INBAND, 7, 9, 11, 2, 3, 4, dice.randrange(2060)))
        return wrong

    def _step(self, control: bool, racy: bool) -> Step:
        dice = self._dice
        kind = dice.choice(("data", "data", "many", "many", "say", "say", "packet", "publish",
                            "publish", "publish", "index", "bytes", "field", "notify", "wait",
                            *(RACY * 4 if racy else ())))
        if kind in ("data", "overrun"):
            return [kind, self._length() if kind == "data" else dice.randrange(1, 40)]
        if kind == "many":
            return [kind, dice.choice((2, 30, 300)), dice.choice((0, 1, 9, dice.randrange(300)))]
        if kind == "say":
            text = dice.choice(MESSAGES) if control else synthrdp.YES[:dice.randrange(17)]
            return [kind, text.hex()]
        if kind == "packet":
            return [kind, self._fields(), self._length()]
        if kind == "publish":
            return [kind, dice.random() < 0.7]
        if kind == "index":
            return [kind, "to", self._number()] if dice.random() < 0.4 else [
                kind, "by", dice.choice((-16, -8, -1, 1, 4, 8, 16, 24, dice.randrange(70000)))]
        if kind == "bytes":
            return [kind, dice.randrange(2000), dice.randbytes(dice.randrange(1, 40)).hex()]
        if kind == "field" and not control and dice.random() < 0.15:
            return ["spoil", dice.choice(("read", "write")), max(self._number(), 61440)]
        if kind == "field":
            ring, name = dice.choice(("in", "out")), dice.choice(("mask", "pending", "features"))
            if dice.random() < 0.05:    # which makes things slow: close(2) waits for the host
                ring, name = dice.choice((("in", "read"), ("out", "read")))
            return [kind, ring, name, self._number()] if dice.random() < 0.7 else [
                "flicker", ring, name, self._number(), dice.choice((3, 100))]
        if kind == "notify":
            return [kind, dice.choice((1, 2, 50))]
        if kind == "race":
            return [kind, dice.choice((*(name for name in FIELDS if name != "data"), "write")),
                    self._number(), dice.choice((2, 3, 100, 401))]
        return [kind]

    def _bend(self, step: Step) -> Step:
        """The same step with something else in it."""
        dice = self._dice
        bent = [*step]
        for place, value in enumerate(step[1:], 1):
            if isinstance(value, bool):
                bent[place] = dice.random() < 0.5
            elif isinstance(value, int) and step[0] in COUNTS:
                bent[place] = min(self._length(), COUNTS[step[0]])
            elif isinstance(value, int) and (step[0], place) not in TIMES:
                bent[place] = dice.choice((self._number(), value + dice.choice((-8, -1, 1, 8))))
            elif isinstance(value, dict):
                bent[place] = {**value, **self._fields()}
        return bent

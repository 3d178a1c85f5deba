# SPDX-License-Identifier: GPL-2.0-only
"""A hostile host at work: does the steps of an input, and knows what must come of them.

Where nothing depends on when the guest looks, what the reader gets is compared byte by byte with
the reference. Where it does (a race), all data is made of one letter that is nowhere else, and the
reader must have got no other. Every wait has an end: who sleeps longer than TIMEOUT hangs.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from signal import SIGUSR1
from typing import Final

import fuzzside
from hvhost.channel import Channel, ChannelError, Opened, Timeout
from hvhost.synthrdp import ACCEPT, SILENCE, YES, Session, create_session
from inputs import HEADER, Input
from lab import CONTROL_FOLDER, Lab
from reference import FIELDS, Conversation, Reference, packet
from user import Call

# More than anything takes on a machine with much else to do; what takes how long there is in the
# report. (A seat once waited 31 s for its node on debug-6.1: in truth for its user's Python, of
# which seven start at once for a crowd. That takes 14 to 18 s at a load of 14 on two cores, and
# has a limit of its own. The nodes were there within 5 s.)
TIMEOUT: Final = 120.0
START: Final = 600.0
CLOSING: Final = 3.0            # what the document says of close(2)
SLACK: Final = 30.0             # more, in a guest that does not get to run
PAGE: Final = 4096
SANE: Final = b"sane?\n"
FIELD_FORM: Final = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}
# What open files may say of a host that is not to be trusted, or has gone
ENDS: Final = ("end", "EPROTO")
NOT_OPENED: Final = ("open ENODEV", "open ENXIO", "open ENOENT")
WRITE_ENDS: Final = ("", "all", "some", "EPROTO", "ENODEV")


class Finding(Exception):
    """The guest did what it must not do."""


def demand(what: str, holds: bool) -> None:
    """One more thing that must hold."""
    if not holds:
        raise Finding(what)


class Player:
    """Writes the rings of one opening by hand."""

    def __init__(self, channel: Channel, opened: Opened, given: Input) -> None:
        self.channel = channel
        self.reference = Reference(opened.host_to_guest)
        self.packets = 0
        self.rescinded = False
        self.blind = False          # what the guest has said to have read is not to be relied on
        self.spoilt = False         # the guest's own ring cannot be written to, and it has to see
        self.doubtful = False       # as far as it looks: it may see that and end the session
        self._given = given
        self.racy = given.racy
        self._opening = opened.opening
        self._outward = opened.guest_to_host
        self._in = PAGE + self._outward
        self._filled = random.Random(1).randbytes(1 << 16)
        self._put = 0               # bytes, from the beginning
        self._read = 0              # of them by the guest, as far as it has said

    # -- the rings

    def _poke(self, *writes: tuple[int, bytes], notify: bool = False) -> None:
        self.channel.poke(*writes, opening=self._opening, notify=notify)

    def _index(self, value: int) -> tuple[int, bytes]:
        return (self._in + HEADER["write"], struct.pack("<I", value % (1 << 32)))

    def _stored(self, at: int, data: bytes) -> list[tuple[int, bytes]]:
        return [(self._in + PAGE + place, piece) for place, piece in
                self.reference.store(at, data)]

    def _look(self) -> bool:
        """See how far the guest has read; False when it has closed the channel."""
        word = self.channel.peek(self._in + HEADER["read"], 4, self._opening, TIMEOUT)
        if not word:
            return False
        self._read += (int.from_bytes(word, "little") - self._read) % self.reference.size
        return True

    def _publish(self, notify: bool) -> None:
        index = self._put % self.reference.size
        self._poke(self._index(index), notify=notify)
        if not self.racy:
            self.reference.publish(index)

    def settle(self) -> None:
        """Wait until the guest has read everything, or will not."""
        end = time.monotonic() + TIMEOUT
        self.nudge()
        while not (self.blind or self.racy or self.reference.broken) and self._look():
            if self._read % self.reference.size == self.reference.read:
                return
            demand(f"the guest reads all: it stopped at {self._read % self.reference.size}",
                   time.monotonic() < end)
            time.sleep(0.001)

    def _room(self, need: int) -> bool:
        """Wait until there is room; there may never be."""
        end = time.monotonic() + (0.2 if self.racy else TIMEOUT)
        while self._put + need - self._read >= self.reference.size:
            if self.blind or need >= self.reference.size:
                return False
            self._publish(notify=True)
            if self.reference.broken or not self._look():
                return False
            if time.monotonic() > end:
                demand("the guest makes room", self.racy)
                return False
            time.sleep(0.001)
        return True

    def _add(self, made: bytes, packets: int = 1) -> int | None:
        """Put packets behind the last one: where they are."""
        if not self._room(len(made)):
            return None
        at = self._put
        self._poke(*self._stored(at, made))
        self._put += len(made)
        self.packets += packets
        return at

    def nudge(self) -> None:
        """Have the guest look."""
        self._poke(notify=True)

    def play_flood(self, packets: list[bytes]) -> None:
        """Put as many as there is room for at a time, and wait until all are read."""
        while packets:
            room = (self.reference.size - 1 - (self._put - self._read)) // len(packets[-1])
            pieces = b"".join(packets[:room])
            self._poke(*self._stored(self._put, pieces))
            self._put += len(pieces)
            del packets[:room]
            self.reference.read = self._put % self.reference.size
            self._poke(self._index(self.reference.read))
            self.settle()

    # -- steps

    def play(self) -> None:
        """All steps, as far as they still mean anything."""
        for step in self._given.steps:
            if self.reference.broken or self.rescinded:
                return
            getattr(self, "_do_" + step[0])(*step[1:])

    def _data(self, size: int) -> bytes:
        if self.racy:
            return fuzzside.FILLER * size
        at = self.packets * 7 % 1000
        return self._filled[at:at + size]

    def _do_data(self, size: int) -> None:
        self._add(packet(self._data(size)))

    def _do_many(self, packets: int, size: int) -> None:
        made = packet(self._data(size))
        packets = min(packets, (self.reference.size - 1) // len(made))
        self._add(made * packets, packets)

    def _do_say(self, text: str) -> None:
        data = bytes.fromhex(text)
        self._add(packet(data if not self.racy or self._given.control else self._data(len(data))))

    def _do_packet(self, wrong: dict[str, int], size: int) -> None:
        if self.racy and "size" in wrong:      # padding would be data, by the host's own word
            wrong = {**wrong, "size": min(wrong["size"], size) if size else 1 << 31}
        if self.racy:
            wrong = {name: value for name, value in wrong.items() if name != "data"}
        self._add(packet(self._data(size), **wrong))

    def _do_publish(self, notify: bool) -> None:
        self._publish(notify)

    def _do_index(self, way: str, value: int) -> None:
        size = self.reference.size
        value = value % (1 << 32) if way == "to" else (self._put + value) % size
        if self.blind or self.racy:
            return
        self.settle()
        self._poke(self._index(value), notify=True)
        self.reference.publish(value)
        if not self.reference.broken:
            self.settle()

    def _do_bytes(self, at: int, text: str) -> None:
        data = bytes.fromhex(text)
        if self._put + at + len(data) - self._read < self.reference.size and not self.racy:
            self._poke(*self._stored(self._put + at, data))

    def _do_field(self, ring: str, name: str, *values: int) -> None:
        self.doubtful |= (ring, name) == ("out", "read")
        self.blind |= name == "read"
        at = (self._in if ring == "in" else 0) + HEADER[name]
        self._poke(*((at, struct.pack("<I", value % (1 << 32))) for value in values))

    def _do_flicker(self, ring: str, name: str, value: int, times: int) -> None:
        self._do_field(ring, name, *(value, 0) * times)

    def _do_spoil(self, name: str, value: int) -> None:
        """Not while the guest writes: that no driver can defend itself against."""
        end = time.monotonic() + TIMEOUT
        while self._given.fills and not self._waits():
            demand("the guest fills its ring, and waits for room", time.monotonic() < end)
            time.sleep(0.001)
        if self._given.fills and self._look():
            self._poke((HEADER[name], struct.pack("<I", value % (1 << 32))), notify=True)
            if value % (1 << 32) >= self._outward:      # the next write ends the session
                self.spoilt = self.reference.broken = True

    def _waits(self) -> bool:
        """Whether the guest waits for more room than there will be, or has closed the channel."""
        granted = self.channel.granted      # the device reads so many packets more
        head = self.channel.peek(0, HEADER["pending"] + 4, self._opening, TIMEOUT)
        if not head:
            return True
        write, read, _, wish = struct.unpack("<4I", head)
        return not granted and bool((read - write - 1) % self._outward < wish)

    def _do_notify(self, times: int) -> None:
        for _ in range(times):
            self._poke(notify=True)

    def _do_wait(self) -> None:
        if not self.racy:
            self._publish(notify=True)
            if not self.reference.broken:
                self.settle()

    def _do_race(self, name: str, value: int, times: int) -> None:
        made = packet(self._data(400))
        at = self._add(made)
        if at is None:
            return
        if name == "write":
            rights, wrong = self._index(self._put % self.reference.size), self._index(value)
        else:
            begin, length = FIELDS[name]
            if name == "size":                  # see _do_packet
                value = value if value > 1 << 20 else value % 401
            place, = self._stored(at + begin, made[begin:begin + length])[:1]
            rights = (place[0], made[begin:begin + length])
            wrong = (place[0], struct.pack(FIELD_FORM[length], value % (1 << 8 * length)))
        self._publish(notify=True)
        self._poke(*([wrong, rights] * (times // 2) + [wrong] * (times % 2)))

    def _do_overrun(self, packets: int) -> None:
        for _ in range(packets):
            made = packet(self._data(3000))
            self._poke(*self._stored(self._put, made))
            self._put += len(made)
            self.packets += 1
            self._publish(notify=False)
        self._publish(notify=True)
        self._look()

    def _do_rescind(self) -> None:
        self.rescinded = True
        with contextlib.suppress(OSError):
            self.channel.rescind()


@dataclass
class Tally:
    """What was done."""

    sessions: int = 0
    packets: int = 0
    creates: int = 0            # of them CreateSession, in floods
    longest: float = 0.0        # seconds that a channel took to be open, its node made and all
    closing: float = 0.0        # seconds that close(2) took at most


class Seat:
    """A data channel: the host's end and the user in the guest."""

    def __init__(self, lab: Lab, number: int, tally: Tally) -> None:
        self._tally = tally
        self._node = f"/dev/synthrdp{number - 1}"
        self._session: Session = lab.session(number, announce="never", offer=False)
        self.channel = self._session.channel
        self._user = lab.user(fuzzside)
        self._awake = self._user.call("names", "/dev", "synthrdp")

    def play(self, given: Input) -> str:
        """One hostile session, and a sane one behind it; says what the former came to."""
        self._awake.result(START)
        channel = self.channel
        if not channel.offered:
            self._session.offer(TIMEOUT)
        call = self._user.call("fuzzside.suffer", self._node, given.size, given.way, given.writes,
                               given.withdrawn)
        opened = self._opened(call)
        player = Player(channel, opened, given)
        player.play()
        self._end(player, call)
        end, count, digest, head, odd, wrote, closing = call.result(TIMEOUT)
        self._tally.sessions += 1
        self._tally.packets += player.packets
        self._tally.closing = max(self._tally.closing, closing)
        demand(f"close(2) is over after some {CLOSING:g} s: it took {closing:.1f}",
               closing < CLOSING + SLACK)
        said = f"reading ended {end} after {count} bytes ({head[:40].hex()}...), writing {wrote}"
        demand(f"writing ends in a way that is documented: {said}", wrote in WRITE_ENDS)
        if player.spoilt:
            demand(f"a spoilt ring is not written to: {said}", wrote == "EPROTO")
        if end in NOT_OPENED:           # withdrawn before it could be opened
            demand("the host has withdrawn the channel", not channel.offered)
        elif given.racy:
            demand(f"reading ends in a way that is documented: {said}", end in (*ENDS, "EINTR"))
            demand(f"nothing but data is read: {said}, {odd.hex()}", not odd)
        else:
            self._compare(player, (end, count, digest), said)
        self._calm()
        return f"{end} {wrote}"

    def _opened(self, call: Call) -> Opened:
        began = time.monotonic()
        try:
            return self._session.wait_opened(TIMEOUT)
        except Timeout as error:
            nodes = self._user.do("names", "/dev", "synthrdp")
            came_to = call.result(0) if self._user.wait(call, 0) else "nothing"
            raise Finding(f"{error}; {call.name}() came to {came_to}, of {nodes}") from error
        finally:
            self._tally.longest = max(self._tally.longest, time.monotonic() - began)

    def _end(self, player: Player, call: Call) -> None:
        """Have the user close, unless the session is over or will be when the guest has read on; or
        the host, if it cannot be seen when everything is read."""
        if player.rescinded:
            self.channel.wait_released(TIMEOUT)
        elif player.blind and not player.racy and not player.reference.broken:
            self._session.end(TIMEOUT)
        else:
            player.settle()
            end = time.monotonic() + TIMEOUT
            while not self._user.wait(call, 0.02) and time.monotonic() < end:
                if not player.reference.broken:
                    call.signal(SIGUSR1)

    def _compare(self, player: Player, got: tuple[str, int, str], said: str) -> None:
        stream = player.reference.stream
        if player.doubtful and got[0] == "EPROTO":
            demand(f"what is read before the end is what was sent: {said}", got[1:] == (
                got[1], hashlib.sha256(stream[:got[1]]).hexdigest()) and got[1] <= len(stream))
            return
        end = "EPROTO" if player.reference.broken else (
            "EINTR" if self.channel.offered else "end")
        demand(f"reading ends {end} after {len(stream)} bytes ({stream[:40].hex()}...): {said}",
               got == (end, len(stream), hashlib.sha256(stream).hexdigest()))

    def _calm(self) -> None:
        """Drop what the user wrote, and see that a session is a session again."""
        channel = self.channel
        channel.wait_closed(TIMEOUT)
        with contextlib.suppress(ChannelError):
            while channel.pending:
                channel.recv(0)
        if not channel.offered:
            self._session.offer(TIMEOUT)
        call = self._user.call("fuzzside.echo", self._node, len(SANE))
        self._opened(call)
        self._session.write(SANE)
        demand("a sane session after this", self._session.read_exact(len(SANE), TIMEOUT) == SANE)
        demand("its end", call.result(TIMEOUT) == len(SANE))
        channel.wait_closed(TIMEOUT)


def leave(seats: Sequence[Seat]) -> None:
    """End all sessions at once: a kernel that delays the release of objects takes seconds."""
    there = [seat.channel for seat in seats if seat.channel.offered]
    for channel in there:
        channel.rescind()
    for channel in there:
        channel.wait_released(TIMEOUT)


class Control:
    """The control channel."""

    def __init__(self, lab: Lab, tally: Tally) -> None:
        self._lab = lab
        self._tally = tally
        self._user = lab.user(fuzzside)

    def play(self, given: Input) -> str:
        """One hostile conversation, and a sane one behind it; says what the former came to."""
        lab = self._lab
        before, opened = self._begin()
        player = Player(lab.host.control, opened, given)
        player.play()
        expected = Conversation.after(player.reference.packets, player.reference.broken)
        if player.rescinded:
            self._offer_again()
            self._count(player)
            return "withdrawn"
        try:
            if given.racy:
                player.nudge()
            elif expected.state in ("failed", "rejected"):
                player.nudge()
                lab.wait_state(expected.state, TIMEOUT)
            else:
                player.settle()
                lab.wait_state(expected.state, TIMEOUT)
        except AssertionError as error:
            raise Finding(str(error)) from error
        after = self._end()
        self._count(player)
        if not given.racy:
            counted = {name: after[name] - before[name] for name in after}
            demand(f"sessions and unknown messages are as in {expected}: {counted}",
                   counted == {"sessions": expected.sessions, "rx_unknown": expected.unknown})
        return expected.state

    def flood(self, messages: int) -> None:
        """A host that cannot stop creating sessions: each is counted, and that is all."""
        before, opened = self._begin()
        player = Player(self._lab.host.control, opened, Input(control=True))
        player.play_flood([packet(YES)] + [packet(create_session(1))] * messages)
        self._lab.wait_state("ready", TIMEOUT)
        came = self._end()["sessions"] - before["sessions"]
        demand(f"{messages} sessions are counted: {came}", came == messages)
        self._tally.packets += messages
        self._tally.creates += messages

    def _begin(self) -> tuple[dict[str, int], Opened]:
        """A channel that was just opened, and what was counted before."""
        host = self._lab.host
        host.answer_with(SILENCE)
        before = self._renew("negotiating")
        host.wait_request(TIMEOUT)
        while (opened := host.control.wait_opened()).opening != host.control.opening:
            pass                            # earlier ones, that nobody asked for
        return before, opened

    def _count(self, player: Player) -> None:
        self._tally.sessions += 1
        self._tally.packets += player.packets

    def _offer_again(self) -> None:
        """What was withdrawn is gone, and what is offered then works from its beginning."""
        control = self._lab.host.control
        control.wait_released(TIMEOUT)
        control.offer(TIMEOUT)
        demand("a device for the channel that is offered again", self._user.do(
            "wait_exists", f"{CONTROL_FOLDER}/enabled", True, TIMEOUT, timeout=2 * TIMEOUT))
        self._end()

    def _end(self) -> dict[str, int]:
        """See that a host that keeps the rules comes to terms: what was counted before."""
        self._lab.host.answer_with(ACCEPT)
        return self._renew("ready")

    def _renew(self, state: str) -> dict[str, int]:
        self._lab.host.forget_requests()
        counted: dict[str, int] = self._user.do("fuzzside.renew", CONTROL_FOLDER, state, TIMEOUT,
                                                timeout=START)
        return counted

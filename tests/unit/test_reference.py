# SPDX-License-Identifier: GPL-2.0-only
"""The fuzzer's idea of what is right, and its inputs."""

from __future__ import annotations

import pytest

from hvhost import pipe, synthrdp
from inputs import CORPUS, FILLS, Input, Inventor, load, shorter
from reference import LONGEST, Conversation, Reference, packet

SIZE = 61440
YES = synthrdp.YES


def read(*packets: bytes, cut: int = 0, start: int = 0) -> Reference:
    """What is read of these, put behind each other; less the last so many bytes."""
    ring = Reference(SIZE, read=start)
    whole = b"".join(packets)
    ring.store(start, whole)
    ring.publish((start + len(whole) - cut) % SIZE)
    return ring


@pytest.mark.parametrize("start", (0, SIZE - 8, SIZE - 40))
def test_sound_packets(start: int) -> None:
    ring = read(packet(b"one"), packet(b""), packet(bytes(pipe.MAX_PAYLOAD)), start=start)
    assert ring.packets == [b"one", b"", bytes(pipe.MAX_PAYLOAD)] and not ring.broken
    assert packet(b"one")[24:27] == b"one" and len(packet(b"one")) == 40


@pytest.mark.parametrize("wrong", ({"type": 7}, {"len8": 1}, {"len8": 3}, {"len8": 2060},
                                   {"kind": 2}, {"size": 9}, {"size": 0xffffffff}))
def test_a_lie_ends_it(wrong: dict[str, int]) -> None:
    ring = read(packet(b"one"), packet(b"two", **wrong), packet(b"three"))
    assert ring.packets == [b"one"] and ring.broken


@pytest.mark.parametrize("wrong", ({"offset8": 0}, {"offset8": 9}, {"flags": 1}, {"tid": 5}))
def test_what_does_not_matter(wrong: dict[str, int]) -> None:
    assert read(packet(b"two", **wrong)).packets == [b"two"]


@pytest.mark.parametrize("cut", (1, 8, 15, 39))
def test_half_a_packet(cut: int) -> None:
    ring = read(packet(b"one"), packet(b"two"), cut=cut)
    assert ring.packets == [b"one"] and ring.broken


def test_too_long() -> None:
    assert LONGEST == len(packet(bytes(pipe.MAX_PAYLOAD))) - 8
    assert read(packet(bytes(pipe.MAX_PAYLOAD + 8))).broken


def test_an_index_out_of_bounds() -> None:
    for index, broken in ((SIZE, True), (0xffffffff, True)):
        ring = Reference(SIZE)
        ring.publish(index)
        assert ring.broken == broken
    ring = Reference(SIZE, read=SIZE - 8)
    ring.publish(SIZE)
    assert not ring.broken


@pytest.mark.parametrize("messages, state, sessions, unknown", (
    ([], "negotiating", 0, 0), ([YES], "ready", 0, 0), ([YES, YES], "failed", 0, 0),
    ([synthrdp.version_response(synthrdp.REFUSED)], "rejected", 0, 0),
    ([synthrdp.version_response(major=2)], "failed", 0, 0),
    ([synthrdp.create_session(1)], "failed", 0, 0),
    ([YES, synthrdp.create_session(1), synthrdp.UNKNOWN_MESSAGE], "ready", 1, 1),
    ([YES, synthrdp.create_session(1), b"", synthrdp.create_session(1)], "failed", 1, 0),
    ([YES, synthrdp.create_session(1)[:-1]], "failed", 0, 0)))
def test_a_conversation(messages: list[bytes], state: str, sessions: int, unknown: int) -> None:
    assert Conversation.after(messages, False) == Conversation(state, sessions, unknown)
    assert Conversation.after(messages, True).state == (
        "rejected" if state == "rejected" else "failed")


def test_the_same_seed_invents_the_same() -> None:
    def some(seed: int) -> list[str]:
        inventor = Inventor(seed)
        known: list[Input] = []
        for _ in range(50):
            known.append(inventor.next(known))
        return [given.line() for given in known]
    assert some(1) == some(1) != some(2)
    assert [Input.of(line).line() for line in some(3)] == some(3)


def test_what_is_not_needed_goes() -> None:
    given = Input(size=7, steps=[["data", n] for n in range(9)])
    assert shorter(given, lambda less: {2, 7} <= {step[1] for step in less.steps}) == Input(
        size=7, steps=[["data", 2], ["data", 7]])
    assert shorter(given, lambda less: True).steps == [["data", 0]]
    assert shorter(given, lambda less: False) == given


def test_a_spoilt_ring_was_the_guests_until_then() -> None:
    inventor, known = Inventor(1), load(CORPUS)
    made = [inventor.next(known) for _ in range(2000)]
    spoilers = [given for given in made if any(step[0] == "spoil" for step in given.steps)]
    assert spoilers
    for given in spoilers:
        assert given.control or given.writes >= FILLS
        assert len([step for step in given.steps if step[0] == "spoil"]) == 1
        assert not [step for step in given.steps if step[0] in ("field", "flicker")
                    and step[1] == "out"]

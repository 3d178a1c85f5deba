# SPDX-License-Identifier: GPL-2.0-only
"""Kernel messages: read, judged."""

from __future__ import annotations

import pytest

from hvhost import kmsg
from hvhost.kmsg import Message


def test_record() -> None:
    """Level, sequence, time and text; continuation lines are not the text."""
    assert kmsg.parse("4,339,5140900,-;synthrdp: odd\\x20thing\n SUBSYSTEM=vmbus\n") == \
        Message(4, 339, 5.1409, "synthrdp: odd thing")


def test_a_users_words_are_not_the_kernels() -> None:
    """Facility 1, written to /dev/kmsg."""
    assert kmsg.parse("12,1,1,-;anything") is None


def test_nonsense_is_a_warning() -> None:
    """Never silently dropped."""
    message = kmsg.parse("nonsense")
    assert message and kmsg.complaints([message], [], [])


def said(*texts: str, level: int = 4) -> list[Message]:
    """Messages."""
    return [Message(level, number, 0.0, text) for number, text in enumerate(texts)]


def test_a_warning_fails_unless_it_was_declared() -> None:
    """May come, must come, came uncalled."""
    assert kmsg.complaints(said("a: one"), [], []) == [
        "unexpected kernel message: <4>[    0.000000] a: one"]
    assert kmsg.complaints(said("a: one"), [], ["^a: "]) == []
    assert kmsg.complaints(said("a: one"), ["one$"], []) == []
    assert kmsg.complaints([], ["one$"], ["two"]) == ["the kernel never said: one$"]


def test_information_is_fine() -> None:
    """And may be expected."""
    assert kmsg.complaints(said("hello", level=6), [], []) == []
    assert kmsg.complaints(said("hello", level=6), ["hello"], []) == []


@pytest.mark.parametrize("text", [
    "BUG: KASAN: slab-use-after-free in x+0x1/0x2",
    "WARNING: possible circular locking dependency detected",
    "INFO: task modprobe:77 blocked for more than 120 seconds.",
])
def test_the_worst_is_seen_at_any_level(text: str) -> None:
    """Not only in warnings."""
    assert kmsg.complaints(said(text, level=6), [], [])


@pytest.mark.parametrize(("frame", "complained"), [
    ("vfs_read+0x12/0x34", False), ("synthrdp_poll+0x12/0x34 [hv_synthrdp]", True)])
def test_races_of_the_kernel_itself(frame: str, complained: bool) -> None:
    """KCSAN finds many; those count in which a module has a part."""
    report = said("=" * 66, "BUG: KCSAN: data-race in a / b", "read to 0x1 of 4 bytes:",
                  f" {frame}", "=" * 66, level=3)
    assert bool(kmsg.complaints(report, [], [])) == complained
    assert len(kmsg.complaints(report + said("a: one"), [], [])) == 1 + 4 * complained


def test_taints() -> None:
    """An out-of-tree, unsigned module is none; an oops and a warning are."""
    assert kmsg.taints(1 << 12 | 1 << 13) == []
    assert kmsg.taints(1 << 7 | 1 << 9) == ["oops", "warning"]

# SPDX-License-Identifier: GPL-2.0-only
"""Device nodes: which there are, who may open them, what is told of them."""

from __future__ import annotations

from errno import EBUSY, ENODEV, ENOENT, ENXIO

import pytest

from lab import STRANGERS, Lab, wait_until
from user import HUP, IN, raises_errno


def test_a_node_is_there_while_its_channel_is_offered(lab: Lab) -> None:
    """fa1 ... fa5 are 0 ... 4, and all are gone with the sessions."""
    assert lab.nodes() == []
    sessions = [lab.session(which) for which in (1, 2, 3, 4, 5)]
    assert lab.nodes() == [f"synthrdp{n}" for n in range(5)]
    for session in sessions:
        session.end()
    assert lab.nodes() == []


def test_a_node_is_nobody_elses(lab: Lab) -> None:
    """Whoever reads a node reads keystrokes: root only, unless udev says otherwise."""
    lab.session()
    assert lab.user().do("mode", "/dev/synthrdp0") & 0o077 == 0


def test_a_channel_that_is_not_known_gets_a_number_from_five_up(lab: Lab) -> None:
    """The lowest one that is free."""
    first = lab.session(STRANGERS[0], 5)
    second = lab.session(STRANGERS[1], 6)
    first.end()
    lab.wait_node(5, False)
    third = lab.session(STRANGERS[2], 5)
    assert lab.nodes() == ["synthrdp5", "synthrdp6"]
    for session, node in ((third, 5), (second, 6)):
        user = lab.user().open(node)
        session.wait_opened()
        session.write(b"%d" % node)
        assert user.read(10) == b"%d" % node


def test_channels_that_are_offered_at_the_same_time(lab: Lab) -> None:
    """Each has its node, without waiting for another to be opened or withdrawn."""
    sessions = [lab.session(which, offer=False) for which in range(1, 6)]
    for session in sessions:
        session.offer()
    for node in range(5):
        lab.wait_node(node)


def test_create_session_and_the_offer_need_no_order(lab: Lab) -> None:
    """Before, after, or not at all: the node comes with the offer."""
    sessions = int(lab.control["sessions"])
    for which, announce in ((1, "before"), (2, "after"), (3, "never")):
        session, user = lab.opened(which, announce=announce)
        session.write(b"x")
        assert user.read(1) == b"x"
    wait_until("CreateSession is counted",
               lambda: int(lab.control["sessions"]) == sessions + 2)


def test_a_node_has_one_user(lab: Lab) -> None:
    """The second gets EBUSY until the first has closed."""
    session, user = lab.opened()
    other = lab.user()
    with raises_errno(EBUSY):
        other.open()
    user.close()
    session.wait_closed()
    other.open()
    session.wait_opened()
    session.write(b"for the other")
    assert other.read(20) == b"for the other"


def test_bytes_of_one_opening_never_reach_the_next(lab: Lab) -> None:
    """What the first user left unread is not for the second."""
    session, user = lab.opened()
    session.write(b"for the first only")
    session.channel.wait_placed()
    user.close()
    session.wait_closed()
    user.open()
    session.wait_opened()
    session.write(b"for the second")
    assert user.read(100) == b"for the second"


def test_a_killed_user_frees_the_node(lab: Lab) -> None:
    """The channel closes and the next may open."""
    session, user = lab.opened()
    user.kill()
    session.wait_closed()
    lab.user().open()
    session.wait_opened()


def test_a_host_that_refuses(lab: Lab) -> None:
    """ENODEV from open(2), and another try may succeed."""
    session = lab.session()
    user = lab.user()
    session.channel.set_open_status(1)
    try:
        for _ in range(3):
            with raises_errno(ENODEV):
                user.open()
    finally:
        session.channel.set_open_status(0)
    user.open()
    session.wait_opened()


def test_a_number_is_free_while_an_old_file_is_held(lab: Lab) -> None:
    """The next session gets node 0 though the last one's reader has not noticed its end."""
    old, held = lab.opened()
    old.write(b"old")
    old.channel.wait_placed()
    old.end()
    lab.wait_node(0, False)
    old.offer()
    lab.wait_node(0)
    user = lab.user().open()
    old.wait_opened()
    old.write(b"new")
    assert user.read(10) == b"new"
    assert held.read(10) == b"old"
    assert held.read(10) == b""
    assert held.poll() == IN | HUP
    held.close()
    old.write(b"still")
    assert user.read(10) == b"still"


def test_a_node_that_is_gone_cannot_be_opened(lab: Lab) -> None:
    """No path, no node."""
    session = lab.session()
    session.end()
    with pytest.raises(OSError) as caught:
        lab.user().open()
    assert caught.value.errno in (ENOENT, ENODEV, ENXIO)


def test_opened_and_closed_over_and_over(lab: Lab) -> None:
    """Hundreds of times in a row, and the last one works like the first."""
    session = lab.session()
    user = lab.user()
    times = 1000
    assert user.do("open_close", "/dev/synthrdp0", times, timeout=60) == times
    for _ in range(times):
        session.wait_opened()
        session.wait_closed()
    user.open()
    session.wait_opened()
    session.write(b"x")
    assert user.read(1) == b"x"
    assert lab.counters()["sessions"] == times + 1


def test_counters(lab: Lab) -> None:
    """What has passed, packets and bytes, either way."""
    session, user = lab.opened()
    session.write(b"12345678", sizes=[1, 2])
    user.read_all(8)
    user.write(b"123")
    user.write(bytes(20_000))
    session.read_exact(20_003)
    counters = lab.counters()
    assert counters == {**counters, "rx_packets": 6, "rx_bytes": 8, "tx_packets": 3,
                        "tx_bytes": 20_003, "rx_malformed": 0, "tx_waits": 0, "sessions": 1}


def test_uevents(lab: Lab) -> None:
    """Coming and going are announced, with the name that udev makes a node of."""
    user = lab.user()
    user.do("uevents_begin")
    session = lab.session(3)
    event = user.do("uevents", {"ACTION": "add", "SUBSYSTEM": "synthrdp"}, 10)[-1]
    assert event["DEVNAME"] == "synthrdp2"
    assert "99221fa3-24ad-11e2-be98-001aa01bbf6e" in event["DEVPATH"]
    session.end()
    event = user.do("uevents", {"ACTION": "remove", "SUBSYSTEM": "synthrdp"}, 10)[-1]
    assert event["DEVNAME"] == "synthrdp2"

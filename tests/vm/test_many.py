# SPDX-License-Identifier: GPL-2.0-only
"""Many sessions in a row: each works, and nothing is left behind."""

from __future__ import annotations

from hvhost.synthrdp import Session
from lab import Lab

FIRST = 100             # until the guest has allocated what it keeps
SESSIONS = 5000


def one_session(session: Session, number: int) -> None:
    """Offer it, exchange a line, take it back."""
    session.offer()
    session.wait_opened()
    line = b"session %d\n" % number
    session.write(line, sizes=5)
    assert session.read_exact(len(line)) == line[::-1]
    session.end()
    session.wait_closed()


def test_thousands_of_sessions(lab: Lab) -> None:
    """Each is offered, opened, spoken over and withdrawn; memory stays where it was."""
    session = lab.session(offer=False)
    user = lab.user()
    serving = user.call("serve_sessions", "/dev/synthrdp0", FIRST + SESSIONS)
    for number in range(FIRST):
        one_session(session, number)
    before = user.do("free_memory", 20)
    for number in range(SESSIONS):
        one_session(session, number)
    assert serving.result() == FIRST + SESSIONS
    after = user.do("free_memory", 20)
    # A session has two rings of 64 KiB and more: a leak of any part of it would show.
    assert before - after < 4 * SESSIONS, f"{before - after} KiB less are free"

# SPDX-License-Identifier: GPL-2.0-only
"""Another kernel takes over, by kexec or after a panic: it finds channels that were shut down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import ENDS, Bench
from hvhost import kmsg
from hvhost.synthrdp import ACCEPT, Session
from lab import MAX_DATA, Lab
from test_write import fill


@pytest.fixture(scope="module", params=ENDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The place of one kernel's guest with memory for a second kernel."""
    made = Bench(request.param, memory=768, append="crashkernel=192M")
    yield made
    made.drop()


def open_and_full(lab: Lab) -> Session:
    """A session in full flow, both rings full; the host holds more than the guest's ring takes."""
    session, user = lab.opened(auto_grant=False)
    fill(user, 1)
    session.write(bytes(6 * MAX_DATA))
    user.begin("write", b"x").wait_blocked()
    return session


def check_anew(lab: Lab, session: Session) -> None:
    """The former kernel's session was closed; the driver of this one negotiates and works."""
    said = lab.guest.vm.console
    amiss = kmsg.FATAL.search(said, said.rfind("Kernel panic") + 1)
    assert not amiss, said[amiss.start():]
    session.wait_closed()
    lab.host.answer_with(ACCEPT)
    lab.host.wait_request()
    lab.wait_state("ready")
    lab.wait_node()
    user = lab.user().open()
    session.wait_opened()
    session.channel.auto_grant(True)
    session.write(b"to the guest")
    assert user.read(100) == b"to the guest"
    user.write(b"to the host")
    assert session.read_exact(11) == b"to the host"


def test_kexec(lab: Lab) -> None:
    """With a session open, and a control channel that is ready."""
    session = open_and_full(lab)
    lab.restart(lab.guest.kexec)
    check_anew(lab, session)


def test_panic(bench: Bench) -> None:
    """The kernel that looks into the crash of the first can use the driver, too."""
    lab = bench.lab()
    try:
        with lab.test():
            session = open_and_full(lab)
            lab.restart(lambda: lab.guest.kexec(panic=True))
            assert lab.guest.exists("/proc/vmcore")
            check_anew(lab, session)
    finally:
        bench.drop()

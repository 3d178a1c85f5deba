# SPDX-License-Identifier: GPL-2.0-only
"""Other machines than the usual one: more processors, older VMBus, a reset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench import KERNELS, Bench
from hvhost.synthrdp import ACCEPT
from lab import Lab
from streams import HostReader, HostWriter
from test_life import end_after

MACHINES: dict[str, dict[str, Any]] = {
    "two processors": {"smp": 2},
    "interrupts that end themselves": {"cpu_options": "hv-avic=off"},
    "VMBus 4.0": {"vmbus_version": "4.0"},
    "VMBus 3.0": {"vmbus_version": "3.0"},
}


@pytest.fixture(scope="module", params=MACHINES)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The place of one guest, of the first kernel, on that machine."""
    made = Bench(KERNELS[0], **MACHINES[request.param])
    yield made
    made.drop()


def test_sessions(lab: Lab) -> None:
    """Bulk both ways, to the end and cut off."""
    session, user = lab.opened()
    total = 2 << 20
    reading = user.begin("read_pattern", 1, 0, total, 33_333)
    writing = user.begin("write_pattern", 2, 0, total, 44_444)
    reader = HostReader(session, 2)
    writer = HostWriter(session, 1, total)
    assert (reading.result(120), writing.result(120), writer.end()) == (total, total, total)
    user.close()
    assert reader.end() == total
    session.end()
    for moment in range(4):
        end_after(lab, user, moment * 0.01)


def test_five_at_once(lab: Lab) -> None:
    """On one processor or several."""
    pairs = [lab.opened(which) for which in (1, 2, 3, 4, 5)]
    calls = [user.begin("read_pattern", n, 0, 1 << 19, 10_000) for n, (_, user) in enumerate(pairs)]
    writers = [HostWriter(session, n, 1 << 19) for n, (session, _) in enumerate(pairs)]
    for call, writer in zip(calls, writers):
        assert call.result(120) == writer.end() == 1 << 19


@pytest.mark.parametrize("bench", ["two processors"], indirect=True)
def test_reset(bench: Bench) -> None:
    """The guest is reset in the middle of a session and finds all as on the first day."""
    lab = bench.lab()
    with lab.test():
        lab.session()
        lab.restart()
        lab.host.answer_with(ACCEPT)
        lab.wait_state("ready")
        lab.wait_node()
        user = lab.user().open()
        session = lab.sessions[-1]
        while session.wait_opened().opening != session.channel.opening:
            pass
        session.write(b"x")
        assert user.read(1) == b"x"

# SPDX-License-Identifier: GPL-2.0-only
"""A session in full flow, while its channel moves between processors, and these come and go."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from bench import KERNELS, Bench
from hvhost.synthrdp import data_instance
from lab import Lab, wait_until
from streams import HostReader, HostWriter
from test_life import BULK

ONLINE = "/sys/devices/system/cpu/cpu1/online"


@pytest.fixture(scope="module", params=KERNELS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The place of one kernel's guest with two processors."""
    made = Bench(request.param, smp=2)
    yield made
    made.drop()


def channel_cpu(instance: str, processor: int | None) -> int:
    """Runs in the guest: move a device's channel; on which processor it is then."""
    folder = f"/sys/bus/vmbus/devices/{instance}/channels"
    path = f"{folder}/{os.listdir(folder)[0]}/cpu"
    if processor is not None:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(processor))
    with open(path, encoding="ascii") as file:
        return int(file.read())


def test_the_channels_processor_goes(lab: Lab) -> None:
    """Kernels either refuse that, or move the channel; the session takes no notice."""
    session, user = lab.opened()
    user.begin("read_pattern", 1, 0, BULK, 33_333)
    user.begin("write_pattern", 2, 0, BULK, 44_444)
    reader = HostReader(session, 2)
    HostWriter(session, 1, BULK)

    def on(processor: int | None = None) -> int:
        return lab.guest.run(channel_cpu, str(data_instance(1)), processor)

    def flows() -> None:
        sent, got = lab.counters()["rx_bytes"], reader.got
        wait_until("data flows on", lambda: reader.got > got + (1 << 18)
                   and lab.counters()["rx_bytes"] > sent + (1 << 18))

    flows()
    assert on(1) == 1
    flows()
    try:
        lab.guest.write(ONLINE, "0")
        moved = True
    except OSError as error:
        assert error.errno == errno.EBUSY
        moved = False
    print(f"{lab.guest.kernel.name} {'moves' if moved else 'keeps'} the channel")
    flows()
    assert on() == 0 if moved else on() == 1
    if not moved:
        assert on(0) == 0
        lab.guest.write(ONLINE, "0")
        flows()
    lab.guest.write(ONLINE, "1")
    flows()
    assert on(1) == 1
    flows()
    user.kill()
    reader.end()

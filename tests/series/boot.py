# SPDX-License-Identifier: GPL-2.0-only
"""A kernel with the whole series in it, the driver built in: it starts and does its work."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from hvhost import cache, linux
from hvhost.cache import PrepareError
from hvhost.guest import Guest
from hvhost.kernels import Kernel
from hvhost.log import Log
from hvhost.synthrdp import CONTROL, CONTROL_CLASS, DATA_CLASS, SynthRdpHost, data_instance
from hvhost.vm import ChannelSpec

CHANNELS = (ChannelSpec(str(CONTROL_CLASS), str(CONTROL)),
            ChannelSpec(str(DATA_CLASS), str(data_instance(1)), offered=False))
BYTES = bytes(range(256)) * 256
STATE = f"/sys/bus/vmbus/devices/{CONTROL}/synthrdp/state"
SECONDS = 120.0         # for a driver that has failed to try again


def _echo(path: str, total: int, seconds: float) -> int:
    """Runs in the guest: send back what comes."""
    node = os.open(path, os.O_RDWR)
    done = 0
    while done < total and select.select([node], [], [], seconds)[0]:
        data = os.read(node, 1 << 16)
        done += len(data)
        while data:
            data = data[os.write(node, data):]
    os.close(node)
    return done


def _wait_ready(path: str, seconds: float) -> str:
    """Runs in the guest: the state, once it is ready or has not become so for too long."""
    end = time.monotonic() + seconds
    while True:
        with open(path, encoding="ascii") as file:
            state = file.read().strip()
        if state == "ready" or time.monotonic() > end:
            return state
        time.sleep(0.1)


def link(tree: Path) -> Kernel:
    """Build the tree's kernel for a guest."""
    into = cache.directory() / "series" / "boot"
    into.mkdir(parents=True, exist_ok=True)
    (into / "wanted").write_text("".join(
        (linux.CONFIGS / f"{fragment}.config").read_text() for fragment in ("guest", "sid"))
        + "CONFIG_HYPERV_SYNTHRDP=y\n")
    command = f"make -s -C {linux.LINUX} O={linux.BUILD} {linux.JOBS}"
    cache.run(linux.root("sid").command(
        ["sh", "-euc", f"{command} KCONFIG_ALLCONFIG={linux.BUILD}/wanted allnoconfig"
         f" && {command} bzImage && cp {linux.BUILD}/arch/x86/boot/bzImage {linux.BUILD}/vmlinuz"],
        binds={tree: linux.LINUX, into: linux.BUILD}),
        "building the kernel with the series in it", timeout=linux.TIMEOUT, env=linux.ENV)
    release = (into / "include/config/kernel.release").read_text().strip()
    return Kernel("series", release, into)


def boot(kernel: Kernel) -> str:
    """Start it on an emulated host; what it did, or an error."""
    guest = Guest(kernel, CHANNELS)
    try:
        host = SynthRdpHost(guest.vm.channel_socket, Log("the guest with the series"))
        # It asked while there was no host, perhaps for too long, and asks again.
        state = guest.run(_wait_ready, STATE, SECONDS, timeout=2 * SECONDS)
        if state != "ready":
            raise PrepareError(f"the driver built in is {state}, not ready")
        with host.open_session() as session:
            echo = guest.start(_echo, "/dev/synthrdp0", len(BYTES), 30.0)
            session.wait_opened()
            session.write(BYTES)
            if session.read_exact(len(BYTES)) != BYTES:
                raise PrepareError("the driver built in gives back other bytes than it was given")
            echo.result()
            session.end()
        host.close()
        return (f"{kernel.release} with the driver built in starts, and {len(BYTES)} bytes go there"
                " and back")
    finally:
        guest.kill()

# SPDX-License-Identifier: GPL-2.0-only
"""The module is loaded and unloaded, over and over, while channels come and go."""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time

from bench import KERNELS
from hvhost.synthrdp import Session
from lab import Lab

FIRST = 50              # until the guest has allocated what it keeps
LOADS = 1000 // len(KERNELS) + 1
INIT_MODULE, DELETE_MODULE = 175, 176


class Coming(threading.Thread):
    """A channel is offered and withdrawn, at any pace."""

    def __init__(self, session: Session, seed: int) -> None:
        super().__init__(daemon=True)
        self._session, self._random = session, random.Random(seed)
        self._over = threading.Event()
        self.error: Exception | None = None
        self.times = 0
        self.start()

    def run(self) -> None:
        """Until it is told to stop."""
        try:
            while not self._over.is_set():
                self._session.offer()
                time.sleep(self._random.random() * 0.05)
                self._session.end()
                self.times += 1
        except Exception as error:      # pylint: disable=broad-except  # the test raises it
            self.error = error

    def stop(self) -> int:
        """How often it came."""
        self._over.set()
        self.join(20)
        if self.error:
            raise self.error
        assert not self.is_alive()
        return self.times


def load_and_unload(image: bytes, times: int) -> None:
    """Runs in the guest."""
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(times):
        if libc.syscall(INIT_MODULE, image, ctypes.c_ulong(len(image)), b""):
            raise OSError(ctypes.get_errno(), "init_module")
        while libc.syscall(DELETE_MODULE, b"hv_synthrdp", os.O_NONBLOCK):
            pass            # while a device of it is on its way out


def test_loads(lab: Lab) -> None:
    """Whatever moment it is, nothing is left behind, and a session works at last."""
    sessions = [lab.session(which, offer=False) for which in (1, 2, 3)]
    lab.unload()
    assert lab.guest.module
    image = lab.guest.module.read_bytes()
    user = lab.user()
    comings = [Coming(session, seed) for seed, session in enumerate(sessions)]
    lab.guest.run(load_and_unload, image, FIRST, timeout=120)
    before = user.do("free_memory", 20)
    lab.guest.run(load_and_unload, image, LOADS, timeout=600)
    after = user.do("free_memory", 20)
    assert min(coming.stop() for coming in comings) > 10
    # The module takes more than that: a leak of it would show. Small ones are for kmemleak.
    assert before - after < 16 * LOADS, f"{before - after} KiB less are free"
    lab.guest.insmod()
    lab.wait_state("ready")
    _, user = lab.opened(4)
    user.write(b"x")

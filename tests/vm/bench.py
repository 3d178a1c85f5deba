# SPDX-License-Identifier: GPL-2.0-only
"""A guest with the driver in it, and its host, kept as long as they are well."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvhost import kernels, linux
from hvhost.guest import Guest
from hvhost.log import Log
from hvhost.synthrdp import CONTROL, CONTROL_CLASS, DATA_CLASS, SynthRdpHost, data_instance
from hvhost.vm import ChannelSpec
from lab import STRANGERS, Lab
from user import Ports

INSTANCES = (*(str(data_instance(which)) for which in range(1, 6)), *STRANGERS)
CHANNELS = (
    ChannelSpec(str(CONTROL_CLASS), str(CONTROL)),
    *(ChannelSpec(str(DATA_CLASS), instance, offered=False) for instance in INSTANCES))

# A module that is given is one for the first kernel, and that is tested.
GIVEN = os.environ.get("SYNTHRDP_MODULE")
KERNELS = kernels.NAMES[:1] if GIVEN else kernels.NAMES
# The oldest and the newest, for what takes long. Those of linux.py have no kexec.
_STOCK = [name for name in KERNELS if name in kernels.SUITES]
ENDS = tuple(dict.fromkeys(_STOCK[:1] + _STOCK[-1:]))
# Not the newest of linux.py: when it falls asleep, its own code for performance counters sends
# interrupts to other processors while it must not, which is a warning.
SLEEPERS = (*ENDS, *(name for name in KERNELS
                     if name in linux.BUILDS and linux.BUILDS[name].suite == "bookworm"))


class Bench:
    """Keeps one guest running; one that a test has spoilt is replaced."""

    def __init__(self, kernel: str, arguments: Sequence[str] = (), module: Path | None = None,
                 **options: Any) -> None:
        self.kernel = kernel
        self._module = module
        self._arguments = arguments
        self._options = options
        self._lab: Lab | None = None
        self._ports: Ports | None = None

    def lab(self) -> Lab:
        """The guest, with the module loaded, and its host."""
        if self._lab is None:
            module = self._module or (Path(GIVEN) if GIVEN else kernels.module(self.kernel))
            self._ports = Ports()
            guest = Guest(kernels.kernel(self.kernel), CHANNELS, module=module,
                          arguments=[*self._ports.arguments(), *self._arguments],
                          **self._options)
            try:
                host = SynthRdpHost(guest.vm.channel_socket, Log(f"the guest ({self.kernel})"))
                self._lab = Lab(guest, host, self._ports)
                guest.insmod()
            except BaseException:
                guest.kill()
                raise
        return self._lab

    def drop(self) -> None:
        """Never use this guest again."""
        if self._ports is not None:
            self._ports.close()
        if self._lab is not None:
            for message in self._lab.last_words():
                print(message)
            self._lab.host.close()
            self._lab.guest.kill()
            self._lab = None

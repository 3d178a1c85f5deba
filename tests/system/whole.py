# SPDX-License-Identifier: GPL-2.0-only
"""A whole system under test: what its host sees of it, and what it says of itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hvhost import vmms
from hvhost.machine import PATIENCE, GuestError, GuestStream, Machine
from hvhost.system import Image

NODE = "/dev/synthrdp0"
RELAY = "synthrdp-relay@synthrdp0.service"
SERVER, READY = "synthrdp-xrdp.service", "synthrdp-ready.service"
OLD = "bookworm"                # its xrdp 0.9 has neither drives for FreeRDP nor sound


class Whole(Machine):
    """A machine, and questions to it."""

    @contextmanager
    def told_otherwise(self) -> Iterator[None]:
        """The guest tells its host that it takes no sessions, because of what is done here."""
        told = self.host.control.opening
        assert told
        yield
        self.wait_for("the guest takes no sessions any more",
                      lambda: self.host.control.opening != told)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.shell(f"systemctl show -P {name} {unit}")

    def failed(self) -> list[str]:
        """Units that have failed."""
        return [line.split()[0] for line in self.shell(
            "systemctl --failed --plain --no-legend --no-pager").splitlines()]

    def doctor(self) -> str:
        """What the doctor finds."""
        return self.shell.run("synthrdpctl doctor 2>&1")[1]

    def wait_true(self, what: str, command: str) -> None:
        """Until a command in the guest succeeds."""
        self.wait_for(what, lambda: self.shell.run(command)[0] == 0)

    def greet(self) -> GuestStream:
        """A new session as far as the server's answer, which must be what VMConnect expects."""
        stream = self.open_session()
        stream.write(vmms.VMCONNECT_REQUEST)
        vmms.judge_answer(vmms.read_tpkt(stream, PATIENCE, "the server's answer"))
        return stream

    def farewell(self, stream: GuestStream) -> None:
        """The host ends a session; its node and its relay go."""
        stream.end()
        self.wait_true("the node and its relay are gone",
                       f"test ! -e {NODE} && ! systemctl -q is-active {RELAY}")

    def journal(self, *match: str) -> list[str]:
        """Messages of the journal that match."""
        return self.shell(f"journalctl --no-pager -q -o cat {' '.join(match)}").splitlines()


@contextmanager
def booted(image: Image, further: Sequence[Path] = (), append: str = "rw",
           memory: int = 1024) -> Iterator[Whole]:
    """A system that has just started, with that many MiB of memory."""
    with tempfile.TemporaryDirectory(prefix="synthrdp-") as directory:
        with Whole(image, Path(directory), further, append=append, memory=memory) as whole:
            yield whole


def last_words(whole: Whole) -> None:
    """Print what there is to be read of a test that failed."""
    with suppress(GuestError, OSError):
        print("\n".join(whole.journal("-b", "-n", "120")))
    print(whole.vm.last_words())

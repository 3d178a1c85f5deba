# SPDX-License-Identifier: GPL-2.0-only
"""A guest with the driver in it, the host that it talks to, and questions to both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import ModuleType
from typing import Any, Final

from hvhost.channel import ChannelError
from hvhost.guest import Guest, GuestError
from hvhost.synthrdp import ACCEPT, CONTROL, Instance, Session, SynthRdpHost, data_instance
from user import Ports, User

CONTROL_FOLDER: Final = f"/sys/bus/vmbus/devices/{CONTROL}/synthrdp"
DRIVER: Final = "/sys/bus/vmbus/drivers/hv_synthrdp"
TIMEOUT: Final = 30.0

# Instances that no driver can know beforehand
STRANGERS: Final = tuple(f"5e55104{n}-0000-4000-8000-000000000000" for n in range(3))

DESCRIPTOR: Final = 16      # of a VMBus packet
TRAILER: Final = 8
MAX_DATA: Final = 16384     # in one pipe packet


def ring_bytes(size: int) -> int:
    """What a packet with so much data takes in a ring."""
    return DESCRIPTOR + -(-(8 + size) // 8) * 8 + TRAILER


def wait_until(what: str, condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Look until the condition holds; returns what it returned."""
    end = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(0.02)


class Lab:
    """What a test works with."""

    def __init__(self, guest: Guest, host: SynthRdpHost, ports: Ports) -> None:
        self.guest = guest
        self.host = host
        self._ports = ports
        self._stack = ExitStack()
        self.sessions: list[Session] = []
        self._users: list[User] = []
        self._observer = User(guest, ports)     # opens no node

    def write(self, path: str, text: str) -> None:
        """Write to a file in the guest."""
        self._observer.do("write_text", path, text)

    # -- the control device

    @property
    def control(self) -> dict[str, str]:
        """Attributes of the control device."""
        values: dict[str, str] = self._observer.do("texts", CONTROL_FOLDER)
        return values

    def switch(self, on: bool) -> None:
        """The attribute `enabled`."""
        self.write(f"{CONTROL_FOLDER}/enabled", "1" if on else "0")

    def wait_state(self, state: str | None, timeout: float = TIMEOUT) -> None:
        """Wait until the control device has this state; None: has gone."""
        found = self._observer.do("wait_text", f"{CONTROL_FOLDER}/state", state, timeout,
                                  timeout=timeout + TIMEOUT)
        assert found == state, f"state is {found}, not {state}, after {timeout:g} s"

    def renegotiate(self) -> None:
        """Off and on again; what was asked or said before is of no interest."""
        self.switch(False)
        self.host.forget_requests()
        self.switch(True)

    # -- nodes

    def counters(self, node: int = 0) -> dict[str, int]:
        """Counters of a data device."""
        values = self._observer.do("texts", f"/sys/class/synthrdp/synthrdp{node}")
        return {name: int(value) for name, value in values.items() if value.isdigit()}

    def wait_node(self, node: int = 0, there: bool = True, timeout: float = TIMEOUT) -> None:
        """Wait until the node is there, or gone."""
        path = f"/dev/synthrdp{node}"
        found = self._observer.do("wait_exists", path, there, timeout, timeout=timeout + TIMEOUT)
        assert found == there, f"{path} {'exists' if found else 'is not there'}"

    def nodes(self) -> list[str]:
        """Names of the nodes that are there."""
        names: list[str] = self._observer.do("names", "/dev", "synthrdp")
        return names

    # -- sessions and users, ended with the test

    def session(self, which: Instance = 1, node: int | None = None, **how: Any) -> Session:
        """A session whose node has appeared."""
        session = self._stack.enter_context(self.host.open_session(which, **how))
        self.sessions.append(session)
        if node is None and isinstance(which, int):
            node = which - 1
        if node is not None and how.get("offer", True):
            self.wait_node(node)
        return session

    def user(self, *modules: ModuleType) -> User:
        """A process in the guest, which knows these modules as well."""
        self._users.append(self._stack.enter_context(User(self.guest, self._ports, *modules)))
        return self._users[-1]

    def opened(self, which: Instance = 1, node: int | None = None,
               **how: Any) -> tuple[Session, User]:
        """A session and its user, who has opened the node."""
        session = self.session(which, node, **how)
        node = which - 1 if isinstance(which, int) and node is None else node
        user = self.user().open(node or 0)
        session.wait_opened()
        return session, user

    def unbind(self, instance: Instance) -> None:
        """Take the device from the driver by sysfs."""
        self.write(f"{DRIVER}/unbind", str(data_instance(instance)))

    def unload(self) -> None:
        """rmmod without patience: a module in use is an error at once."""
        self._observer.do("delete_module", "hv_synthrdp")

    def bind(self, instance: Instance) -> None:
        """Give it back."""
        self.write(f"{DRIVER}/bind", str(data_instance(instance)))

    def allow_complaints(self) -> None:
        """The driver may warn of the host during this test."""
        self.guest.allow_message(r"^hv_synthrdp \S+: |^synthrdp synthrdp\d+: |callbacks suppressed")

    @contextmanager
    def test(self) -> Iterator[Lab]:
        """One test: the driver is ready before it, and nobody has anything to say after it."""
        self.guest.begin_test()
        # The limit on what a host can repeat, telling of the tests before.
        self.guest.allow_message(r"^session_hang_up_locked: \d+ callbacks suppressed")
        self.host.answer_with(ACCEPT)
        self.wait_state("ready", 2 * TIMEOUT)
        self.host.forget_requests()
        self.host.complaints.clear()
        self.sessions.clear()
        self._users.clear()
        with self._stack:
            yield self
            for session in self.sessions:      # no user need wait in close(2)
                with suppress(ChannelError):
                    session.channel.auto_grant(True)
        self.wait_no_nodes()
        amiss = self.host.complaints + self.guest.end_test()
        assert not amiss, "\n".join(amiss)

    def restart(self, how: Callable[[], None] | None = None) -> None:
        """Push the reset button, or do this, and load the driver again."""
        self._observer.leave()
        (how or self.guest.reset)()
        self._observer = User(self.guest, self._ports)
        self.guest.insmod()

    def hibernate(self, *offered: Instance) -> None:
        """Suspend to disk, and resume on another host, which offers these data channels."""
        self.guest.hibernate()
        self.host.close()
        self.guest.boot_to_resume()
        self.host = SynthRdpHost(self.guest.vm.channel_socket, self.host.log)
        for user in (self._observer, *self._users):
            user.reconnect()
        for which in offered:
            self.sessions.append(self._stack.enter_context(
                self.host.open_session(which, announce="never")))
        self.guest.resume()

    def last_words(self) -> list[str]:
        """What the kernel said during this test, for one that failed."""
        try:
            return [str(message) for message in self.guest.kernel_messages()]
        except GuestError as error:
            return [str(error)]

    def wait_no_nodes(self) -> None:
        """Wait until all nodes are gone."""
        wait_until("all nodes are gone", lambda: not self.nodes())

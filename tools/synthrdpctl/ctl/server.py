# SPDX-License-Identifier: GPL-2.0-only
"""The server behind the relay: where it should listen, and whether it does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .system import System

CONFIG = "/etc/synthrdp/relay.conf"
OWN_SOCKET = "/run/synthrdp/xrdp.sock"         # of synthrdp-xrdp.service
ACCEPTS = 0x10000                               # a flag in /proc/net/unix
TCP_LISTEN = "0A"
LOCAL = ("localhost", "127.0.0.1", "::1", "[::1]")


@dataclass(frozen=True)
class Server:
    """An address as the relay takes it, and whether anybody listens there, if we can tell."""

    address: str
    listening: bool | None

    @property
    def path(self) -> str | None:
        """Of a unix socket in the file system."""
        kind, _, rest = self.address.partition(":")
        return rest if kind == "unix" and rest.startswith("/") else None

    @property
    def tcp_port(self) -> int | None:
        """Of TCP on this machine."""
        found = re.fullmatch(r"tcp:(.*):(\d+)", self.address)
        return int(found[2]) if found and found[1] in LOCAL else None

    @property
    def is_own(self) -> bool:
        """Whether it is the xrdp that comes with the relay."""
        return self.path == OWN_SOCKET


def server(system: System) -> Server:
    """The server of sessions to come."""
    address = f"unix:{OWN_SOCKET}"
    for _, line in system.config(CONFIG):
        name, _, value = line.partition("=")
        if name.strip() == "SERVER":
            address = value.strip().strip("\"'")
    found = Server(address, None)
    return Server(address, _listens(system, found))


def _listens(system: System, there: Server) -> bool | None:
    if there.address.startswith("unix:"):
        path = there.address.removeprefix("unix:")
        table = system.read("/proc/net/unix")
        rows = [line.split(None, 7) for line in (table or "").splitlines()[1:]]
        return None if table is None else any(
            len(row) == 8 and row[7] == path and int(row[3], 16) & ACCEPTS for row in rows)
    if there.tcp_port is not None:
        tables = [system.read(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
        rows = [line.split() for table in tables for line in (table or "").splitlines()[1:]]
        return any(row[3] == TCP_LISTEN and int(row[1].rpartition(":")[2], 16) == there.tcp_port
                   for row in rows)
    return None

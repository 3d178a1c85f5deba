# SPDX-License-Identifier: GPL-2.0-only
"""What there is: host, module, devices, sessions. The fields of Status are `status --json`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from .server import Server, server
from .system import OTHERS_FILES, RELAY, Said, System

SCHEMA_VERSION = 1
DEVICES = "/sys/bus/vmbus/devices"
CONTROL = "99221fa0-24ad-11e2-be98-001aa01bbf6e"
CONTROL_CLASS = "f8e65716-3cb3-4a06-9a60-1889c5cccab5"
DATA_CLASS = "f9e9c0d3-b511-4a48-8046-d38079a8830c"
SWITCH = f"{DEVICES}/{CONTROL}/synthrdp/enabled"
NODES = "/sys/class/synthrdp"
DRIVER = "hv_synthrdp"
MODULE = f"/sys/module/{DRIVER}"
DISABLED = "/etc/synthrdp/disabled"             # says by whom, and keeps synthrdp-ready from it
ENDED = 5                                       # sessions of the past that are shown
BUILD = r"Hyper-V: (?:Host|Hypervisor) Build ([\d.]+\d)"
VMBUS = r"Vmbus version:(\d+\.\d+)"
END = re.compile(r"/dev/(synthrdp\d+): ended after ([\d.]+) s, (\d+) bytes to (\S+), (\d+) from it"
                 r"(?:, \d+ bytes not delivered)?: (.*)")


@dataclass
class Host:
    """Where we are."""

    hyperv: bool
    build: str | None = None
    vmbus: str | None = None


@dataclass
class Module:
    """The driver's module."""

    loaded: bool
    version: str | None = None


@dataclass
class Control:
    """The control device."""

    offered: bool = False
    driver: str | None = None
    state: str | None = None
    version: str | None = None
    announced: int | None = None


@dataclass
class Switch:
    """Whether the guest tells the host that it is there."""

    on: bool | None = None
    disabled_by: str | None = None


@dataclass
class Device:
    """An offer of SynthRdp's."""

    instance: str
    kind: str
    driver: str | None


@dataclass
class Session:
    """A data device that has a node. Served: somebody has that open."""

    device: str
    instance: str | None
    served: bool | None
    pid: int | None = None
    program: str | None = None
    server: str | None = None
    age: float | None = None
    bytes_from_host: int | None = None
    bytes_to_host: int | None = None


@dataclass
class Ended:
    """A session that is over, in the words of its relay."""

    at: str | None
    device: str
    seconds: float
    server: str
    bytes_to_server: int
    bytes_from_server: int
    reason: str


@dataclass
class Status:
    """All of it."""

    version: int
    state: str
    host: Host
    module: Module
    control: Control
    switch: Switch
    server: Server
    devices: list[Device] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """For `status --json`."""
        return asdict(self)


def look(system: System) -> Status:
    """Look at everything."""
    devices = list(offers(system))
    host, module = look_at_host(system), look_at_module(system)
    control = look_at_control(system, devices)
    switch = Switch({"1": True, "0": False}.get(system.read(SWITCH) or ""),
                    system.read(DISABLED))
    return Status(SCHEMA_VERSION, overall(host, module, control), host, module, control, switch,
                  server(system), devices, sessions(system), ended(system), list(system.unread))


def look_at_host(system: System) -> Host:
    """Is it Hyper-V, and which?"""
    dmi = [system.read(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    hyperv = (system.exists(DEVICES) or dmi == ["Microsoft Corporation", "Virtual Machine"])
    found = Host(hyperv)
    if hyperv:
        build, vmbus = system.kernel_said(BUILD), system.kernel_said(VMBUS)
        found.build = build[1] if build else None
        found.vmbus = vmbus[1] if vmbus else None
    return found


def look_at_module(system: System) -> Module:
    """Built in, its parameters have a directory, too."""
    return Module(system.exists(MODULE), system.read(f"{MODULE}/version"))


def offers(system: System) -> Iterator[Device]:
    """The host's offers that are SynthRdp's."""
    kinds = {CONTROL_CLASS: "control", DATA_CLASS: "data"}
    for name in system.names(DEVICES):
        class_id = (system.read(f"{DEVICES}/{name}/class_id") or "").strip("{}")
        if class_id in kinds:
            yield Device(name, kinds[class_id], system.link(f"{DEVICES}/{name}/driver"))


def look_at_control(system: System, devices: list[Device]) -> Control:
    """The device, and what the driver says of it."""
    found = next((device for device in devices if device.kind == "control"), None)
    if found is None:
        return Control()
    place = f"{DEVICES}/{found.instance}/synthrdp"
    version = system.read(f"{place}/version")
    return Control(True, found.driver, system.read(f"{place}/state"),
                   None if version == "none" else version, system.number(f"{place}/sessions"))


def overall(host: Host, module: Module, control: Control) -> str:
    """In a word: the driver's, or why there is none."""
    if not host.hyperv:
        return "not-hyperv"
    if not control.offered:
        return "not-offered"
    if control.driver not in (None, DRIVER):
        return "other-driver"
    if not module.loaded:
        return "no-module"
    return control.state or "no-driver"


def sessions(system: System) -> list[Session]:
    """Devices with a node, and who serves them."""
    found = []
    names = [name for name in system.names(NODES) if re.fullmatch(r"synthrdp\d+", name)]
    holders = look_for_holders(system) if names else {}
    for name in sorted(names, key=lambda name: int(name.removeprefix("synthrdp"))):
        place = f"{NODES}/{name}"
        session = holders.get(name) or Session(name, None, None if _blind(system) else False)
        session.instance = system.link(f"{place}/device")
        session.bytes_from_host = system.number(f"{place}/rx_bytes")
        session.bytes_to_host = system.number(f"{place}/tx_bytes")
        found.append(session)
    return found


def _blind(system: System) -> bool:
    """Whether we may not see which files others have open."""
    return OTHERS_FILES in system.unread


def look_for_holders(system: System) -> dict[str, Session]:
    """Who has a node open. Without root's rights, relays say so in their arguments."""
    found: dict[str, Session] = {}
    for pid in filter(str.isdigit, system.names("/proc")):
        try:
            arguments = system.path(f"/proc/{pid}/cmdline").read_bytes().decode(
                errors="replace").split("\0")
        except OSError:                         # it has just gone
            continue
        is_relay = os.path.basename(arguments[0]) == RELAY
        for device in _nodes_of(system, pid) or (_device_of(arguments) if is_relay else ()):
            found[device] = Session(device, None, True, int(pid), os.path.basename(arguments[0]),
                                    _option(arguments, "--server") if is_relay else None,
                                    age_of(system, pid))
    return found


def _nodes_of(system: System, pid: str) -> list[str]:
    try:
        links = [os.readlink(link) for link in system.path(f"/proc/{pid}/fd").iterdir()]
    except PermissionError:
        system.unread[OTHERS_FILES] = None
        return []
    except OSError:
        return []
    return [match[1] for link in links if (match := re.fullmatch(r"/dev/(synthrdp\d+)", link))]


def _device_of(arguments: list[str]) -> list[str]:
    device = _option(arguments, "--device")
    return [os.path.basename(device)] if device else []


def _option(arguments: list[str], name: str) -> str | None:
    """The value of --name=VALUE or --name VALUE."""
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
        if argument == name:
            return following
    return None


def age_of(system: System, pid: str) -> float | None:
    """How long a process has run, in seconds."""
    process, uptime = system.read(f"/proc/{pid}/stat"), system.read("/proc/uptime")
    if not process or not uptime:
        return None
    started = int(process.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return round(max(0.0, float(uptime.split()[0]) - started), 1)


def ended(system: System) -> list[Ended]:
    """The last sessions that are over."""
    return [found for said in system.relay_log if (found := parse_end(said))][-ENDED:]


def parse_end(said: Said) -> Ended | None:
    """A relay's last word on a session."""
    match = END.fullmatch(said.text)
    if not match:
        return None
    return Ended(timestamp(said.at), match[1], float(match[2]), match[4], int(match[3]),
                 int(match[5]), match[6])


def timestamp(at: float | None) -> str | None:
    """As JSON has it."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def local_time(text: str) -> str:
    """Such a time as people have it."""
    at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return time.strftime("%b %d %H:%M", at.astimezone().timetuple())

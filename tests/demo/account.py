# SPDX-License-Identifier: GPL-2.0-only
"""The way the session took: each line from a look at the guest and at the host."""

from __future__ import annotations

import time

from hvhost.machine import GuestError, Machine
from hvhost.vmms import Connection, Vmms

CONTROL = "/sys/bus/vmbus/devices/99221fa0-24ad-11e2-be98-001aa01bbf6e"
NODE = "synthrdp0"
SETTLE_SECONDS = 20.0


def _same_on_both_sides(machine: Machine, seen: Connection) -> tuple[int, int]:
    """Bytes to and from the guest, once the guest has counted what the host has."""
    counters = f"cd /sys/class/synthrdp/{NODE} && cat rx_bytes tx_bytes"
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        before = seen.to_guest, seen.from_guest
        rx, tx = (int(word) for word in machine.shell(counters).split())
        if (rx, tx) == before == (seen.to_guest, seen.from_guest):
            return before
        if time.monotonic() > end:
            raise GuestError(f"bytes were lost or made up: the host counts {before}, to and from"
                             f" the guest, the guest ({rx}, {tx})")


def _said(machine: Machine, process: str) -> str:
    """What a process wrote into the journal."""
    lines = machine.shell(f"journalctl -b --no-pager -o cat _PID={process}").splitlines()
    return "; ".join(line.removeprefix(f"/dev/{NODE}: ") for line in lines)


def account(machine: Machine, vmms: Vmms) -> list[tuple[str, str]]:
    """One line for each part of the way; an error if one has not done its work."""
    shell, seen, stream = machine.shell, vmms.connections[-1], machine.streams[-1]
    request = machine.host.wait_request(0.1)
    if machine.host.complaints:
        raise GuestError("the host complains: " + "; ".join(machine.host.complaints))
    device = shell(f"basename $(readlink -f /sys/class/synthrdp/{NODE}/device)")
    relay = shell(f"systemctl show -P MainPID synthrdp-relay@{NODE}")
    server = shell("systemctl show -P MainPID synthrdp-xrdp")
    holder = shell(f"find /proc/[0-9]*/fd -lname /dev/{NODE} 2>/dev/null | cut -d/ -f3")
    if holder != relay:
        raise GuestError(f"/dev/{NODE} is open in process {holder}, the relay is {relay}")
    to_guest, from_guest = _same_on_both_sides(machine, seen)
    return [
        ("client", f"{seen.blob}; {seen.tls}; {seen.request}"),
        ("offer", f"control {shell(f'cat {CONTROL}/class_id')}, data {device}, which the guest"
                  f" opened with rings of {stream.opened.guest_to_host} and"
                  f" {stream.opened.host_to_guest} bytes"),
        ("version", f"{shell(f'cat {CONTROL}/synthrdp/version')}, asked for at"
                    f" {request.at:.1f} s; state {shell(f'cat {CONTROL}/synthrdp/state')}"),
        ("node", shell(f"stat -c '%n, %A %U:%G' /dev/{NODE}")),
        ("relay", f"{shell(f'ps -ww -o user=,args= -p {relay}')}: {_said(machine, relay)}"),
        ("server", f"{shell(f'ps -ww -o user=,args= -p {server}')}: {seen.answer}"),
        ("session", shell("ps -ww -o user=,args= -C Xorg")),
        ("doctor", shell("synthrdpctl doctor").splitlines()[-1]),
        ("bytes", f"{to_guest} to the guest, {from_guest} from it, the same on both sides"),
    ]


def farewell(machine: Machine, vmms: Vmms) -> list[tuple[str, str]]:
    """That the session is gone when the client is."""
    left = f"test -e /dev/{NODE} || systemctl -q is-active synthrdp-relay@{NODE}"
    end = time.monotonic() + SETTLE_SECONDS
    while machine.shell.run(left)[0] == 0:
        if time.monotonic() > end:
            raise GuestError(f"the client has left, but /dev/{NODE} or its relay has not")
        time.sleep(0.3)
    complaints = machine.shell("dmesg --level=emerg,alert,crit,err,warn |"
                               " grep -E 'synthrdp|BUG:|WARNING:|Oops' |"
                               " grep -v 'taints kernel'; true")
    if complaints:
        raise GuestError(f"the kernel complains: {complaints}")
    last = machine.shell("journalctl -b --no-pager -o cat -t synthrdp-relay -n 1")
    return [("end", f"{vmms.connections[-1].ended}; the node and its relay are gone; the relay's"
                    f" last word: {last}")]

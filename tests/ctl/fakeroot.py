# SPDX-License-Identifier: GPL-2.0-only
"""A made-up guest for synthrdpctl: a directory in the place of "/", and programs that answer.

`Guest` is a guest in which all is well and one session is open; a test breaks one thing.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

TOP: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = TOP / "tools" / "synthrdpctl" / "synthrdpctl"
RELEASE: Final = "6.1.0-99-cloud-amd64"
CONTROL: Final = "99221fa0-24ad-11e2-be98-001aa01bbf6e"
DATA: Final = "99221fa1-24ad-11e2-be98-001aa01bbf6e"
CONTROL_CLASS: Final = "f8e65716-3cb3-4a06-9a60-1889c5cccab5"
DATA_CLASS: Final = "f9e9c0d3-b511-4a48-8046-d38079a8830c"
NETWORK: Final = "000d3a12-3456-000d-3a12-3456000d3a12"
NETWORK_CLASS: Final = "f8615163-df3e-46c5-913f-f2d2f965ed0e"
DEVICES: Final = "sys/bus/vmbus/devices"
DRIVERS: Final = "sys/bus/vmbus/drivers"
SOCKET: Final = "/run/synthrdp/xrdp.sock"
RELAY_PID, USER_ID = 4711, 5000
AT: Final = 1_750_000_000           # 2025-06-15 15:06:40 UTC
UNITS: Final = ("synthrdp-ready.service", "synthrdp-xrdp.service", "xrdp.service",
                "xrdp-sesman.service", "synthrdp-relay@synthrdp0.service",
                "systemd-journald.service")
KERNEL_LOG: Final = ["Hyper-V: Host Build 10.0.20348.859-0-0", "hv_vmbus: Vmbus version:5.3"]
ENDED: Final = ("/dev/synthrdp0: ended after 63.4 s, 1900 bytes to unix:/run/synthrdp/xrdp.sock,"
                " 250000 from it: the client left")
# Each program answers from files; systemctl notes how it was called.
PROGRAMS: Final = {
    "journalctl": 'for word; do case $word in --grep*) what=$word;; esac; done\n'
                  'unit=${word#_SYSTEMD_UNIT=}\n'
                  'case $what in --grep*) cat "$DATA/journal-grep";;'
                  ' *) cat "$DATA/journal-$unit";; esac 2>/dev/null',
    "systemctl": 'echo "$*" >>"$DATA/called"\n'
                 'case "$1 $2" in "show -P") cat "$DATA/load-state";; "show "*) cat "$DATA/units";;'
                 ' "is-active "*) echo active;; esac; . "$DATA/systemctl-does"',
    "dpkg-query": 'case "$*" in *Status*) cat "$DATA/states"; exit 1;;'
                  ' *Package*) cat "$DATA/packages";;'
                  " *) sed -n 's/^xrdp //p' \"$DATA/packages\";; esac",
}


class Guest:
    """The directory, and what to do to it."""

    server = "synthrdp-xrdp.service"    # which unit has the name of the guest's server

    def __init__(self, place: Path) -> None:
        self.root, self.data, self.programs = place / "root", place / "data", place / "bin"
        for directory in (self.root, self.data, self.programs):
            directory.mkdir()
        for name, script in PROGRAMS.items():
            self.program(name, script)
        self._kernel()
        self._devices()
        self._installed()
        self._logs()

    # -- making files

    def path(self, name: str) -> Path:
        """Where a file of the guest is."""
        return self.root / name.lstrip("/")

    def write(self, name: str, text: str | bytes, mode: int = 0o644) -> Path:
        """Make a file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link within the guest."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(self.path(target), path.parent))

    def remove(self, name: str) -> None:
        """Remove a file or a directory."""
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def replace(self, name: str, pattern: str, new: str) -> None:
        """Change what a file says; it must have said it."""
        text = self.path(name).read_text()
        changed = re.sub(pattern, new, text, flags=re.M)
        assert changed != text, f"{pattern} is not in {name}"
        self.path(name).write_text(changed)

    def program(self, name: str, script: str) -> None:
        """Make a program."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\nDATA={self.data}\n{script}\n")
        path.chmod(0o755)

    # -- a guest in which all is well

    def _kernel(self) -> None:
        self.write("proc/sys/kernel/osrelease", f"{RELEASE}\n")
        self.write("proc/cmdline", "root=/dev/sda1 ro quiet\n")
        self.write("proc/uptime", "10000.00 9000.00\n")
        self.write("proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"
                   f"0000000000000000: 00000002 00000000 00010000 0001 01 4242 {SOCKET}\n")
        self.write("proc/net/tcp", "  sl  local_address rem_address   st\n")
        self.write(f"lib/modules/{RELEASE}/updates/dkms/hv_synthrdp.ko.xz", "module")
        self.write(f"lib/modules/{RELEASE}/modules.dep", "updates/dkms/hv_synthrdp.ko.xz:\n")
        self.write("sys/module/hv_synthrdp/parameters/enabled", "N\n")

    def _devices(self) -> None:
        self.device(CONTROL, CONTROL_CLASS, "hv_synthrdp")
        self.device(NETWORK, NETWORK_CLASS, "hv_netvsc")
        for name, value in (("enabled", "1"), ("state", "ready"), ("version", "1.0"),
                            ("sessions", "3")):
            self.write(f"{DEVICES}/{CONTROL}/synthrdp/{name}", f"{value}\n")
        self.session()

    def _installed(self) -> None:
        for name in ("usr/sbin/synthrdp-relay", "usr/sbin/xrdp", "usr/lib/xorg/Xorg.wrap"):
            self.write(name, "program", 0o755)
        for name in ("lib/systemd/system/synthrdp-relay@.service",
                     "lib/udev/rules.d/60-synthrdp.rules", "lib/xorg/modules/libxorgxrdp.so"):
            self.write(f"usr/{name}", "")
        self.path("run/systemd/system").mkdir(parents=True)
        self.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"
                   "synthrdp:x:990:990::/:/usr/sbin/nologin\n"
                   "xrdp:x:980:980::/run/xrdp:/usr/sbin/nologin\n"
                   f"demo:x:{USER_ID}:{USER_ID}::/home/demo:/bin/bash\n")
        self.write("etc/group", "root:x:0:\nsynthrdp:x:990:\n")
        self.write("etc/modprobe.d/synthrdp.conf", "# comment\noptions hv_synthrdp enabled=0\n")
        self.write("etc/synthrdp/relay.conf", "#SERVER=unix:/nowhere\n")
        self.write("etc/xrdp/xrdp.ini", "; xrdp\n[Globals]\nport=3389\nsecurity_layer=negotiate\n"
                   "[Xorg]\nlib=libxup.so\n")
        self.write("etc/xrdp/sesman.ini",
                   "[Globals]\n[Xorg]\nparam=/usr/lib/xorg/Xorg\nparam=-config\n")
        self.write("etc/X11/Xwrapper.config", "allowed_users=console\n")
        os.chown(self.write(SOCKET, "", 0o660), 980, 990)
        self.path("run/synthrdp").chmod(0o750)
        os.chown(self.path("run/synthrdp"), 980, 990)

    def _logs(self) -> None:
        self.write("dev/kmsg", "")
        self.kernel_said(*KERNEL_LOG)
        (self.data / "packages").write_text("xrdp 0.10.1-3.1\nxorgxrdp 1:0.10.2-1\n")
        (self.data / "states").write_text("ii  hv-synthrdp-dkms\nii  synthrdp\nrc  xrdp\n")
        (self.data / "load-state").write_text("loaded\n")
        (self.data / "systemctl-does").write_text("")
        self.units()
        self.relay_said(ENDED)
        self.write("var/log/xrdp-sesman.log", "")
        home = self.path("home/demo")
        home.mkdir(parents=True)
        os.chown(home, USER_ID, USER_ID)

    # -- doing things to it

    def device(self, instance: str, class_id: str, driver: str | None) -> None:
        """Offer a device."""
        place = f"sys/devices/{instance}"
        self.write(f"{place}/class_id", f"{{{class_id}}}\n")
        self.write(f"{place}/driver_override", "(null)\n")
        self.link(f"{DEVICES}/{instance}", place)
        self.bind(instance, driver)

    def bind(self, instance: str, driver: str | None) -> None:
        """Give a device to a driver, or to none."""
        self.path(f"sys/devices/{instance}/driver").unlink(missing_ok=True)
        if driver:
            self.path(f"{DRIVERS}/{driver}").mkdir(parents=True, exist_ok=True)
            self.link(f"sys/devices/{instance}/driver", f"{DRIVERS}/{driver}")

    def session(self, number: int = 0, instance: str = DATA, pid: int = RELAY_PID) -> None:
        """A session, with a relay that has its node open."""
        name = f"synthrdp{number}"
        self.device(instance, DATA_CLASS, "hv_synthrdp")
        node = f"sys/devices/{instance}/synthrdp/{name}"
        for counter, value in (("rx_bytes", 123456), ("tx_bytes", 34567890)):
            self.write(f"{node}/{counter}", f"{value}\n")
        self.link(f"{node}/device", f"sys/devices/{instance}")
        self.link(f"sys/class/synthrdp/{name}", node)
        os.chown(self.write(f"dev/{name}", "", 0o660), 0, 990)
        os.utime(self.path(f"dev/{name}"), (AT + 3600, AT + 3600))
        self.process(pid, ["/usr/sbin/synthrdp-relay", f"--device=/dev/{name}",
                           f"--server=unix:{SOCKET}"], f"/dev/{name}")

    def process(self, pid: int, arguments: Iterable[str], *opened: str) -> None:
        """A process that has been there for 7384 seconds."""
        self.write(f"proc/{pid}/cmdline", "\0".join(arguments) + "\0")
        started = (10000 - 7384) * os.sysconf("SC_CLK_TCK")
        self.write(f"proc/{pid}/stat", f"{pid} (a b) c) S " + "0 " * 18 + f"{started} 0 0\n")
        self.path(f"proc/{pid}/fd").mkdir()
        for number, name in enumerate(opened):
            self.path(f"proc/{pid}/fd/{number}").symlink_to(name)

    def no_session(self) -> None:
        """Nobody is connected."""
        for name in ("sys/class/synthrdp/synthrdp0", f"{DEVICES}/{DATA}", "dev/synthrdp0",
                     f"proc/{RELAY_PID}"):
            self.remove(name)

    def unload(self) -> None:
        """The module is not loaded."""
        self.no_session()
        self.remove("sys/module/hv_synthrdp")
        self.remove(f"{DEVICES}/{CONTROL}/synthrdp")
        self.bind(CONTROL, None)

    def withdraw(self) -> None:
        """The host offers no Enhanced Session."""
        self.no_session()
        self.remove(f"{DEVICES}/{CONTROL}")

    def state(self, state: str, enabled: str = "1") -> None:
        """What the driver says."""
        self.write(f"{DEVICES}/{CONTROL}/synthrdp/state", f"{state}\n")
        self.write(f"{DEVICES}/{CONTROL}/synthrdp/enabled", f"{enabled}\n")
        self.write(f"{DEVICES}/{CONTROL}/synthrdp/version",
                   "1.0\n" if state == "ready" else "none\n")

    def kernel_said(self, *lines: str) -> None:
        """More of the kernel's log."""
        with self.path("dev/kmsg").open("a") as file:
            file.writelines(f"6,1,0,-;{line}\n SUBSYSTEM=x\n" for line in lines)

    def relay_said(self, *lines: str) -> None:
        """All that relays have said."""
        self.journal("synthrdp-relay", *lines)

    def journal(self, name: str, *lines: str) -> None:
        """All that is in the journal of a unit, a program, or for `grep`."""
        entries = [{"MESSAGE": line, "__REALTIME_TIMESTAMP": str((AT + 60 * at) * 1_000_000)}
                   for at, line in enumerate(lines)]
        (self.data / f"journal-{name}").write_text(
            "".join(json.dumps(entry) + "\n" for entry in entries))

    def units(self, **changes: str) -> None:
        """systemd's units, all well but for `xrdp_ready="failed"` and the like.

        A unit is named by the last word of its name; `LOAD/ACTIVE/RESULT` or a part of it.
        """
        blocks = []
        for name in dict.fromkeys((*UNITS, self.server)):
            load, active, result = "loaded", "active", "success"
            change = changes.get(name.partition(".")[0].rpartition("-")[2].partition("@")[0])
            if change and name != "xrdp.service":
                load, active, result = (change.split("/") + [active, result])[:3]
            names = f"{name} synthrdp-server.service" if name == self.server else name
            blocks.append(f"Id={name}\nLoadState={load}\nActiveState={active}\nResult={result}\n"
                          f"UnitFileState=static\nNames={names}\n")
        (self.data / "units").write_text("\n".join(blocks))

    def server_down(self) -> None:
        """Nobody listens at the socket."""
        self.write("proc/net/unix", "Num RefCount Protocol Flags Type St Inode Path\n")

    # -- asking

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run synthrdpctl in it."""
        path = f"{self.programs}:/usr/bin:/bin"
        return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False,
                              timeout=60, env={"PATH": path, "SYNTHRDP_ROOT": str(self.root),
                                               "TZ": "UTC", "LC_ALL": "C.UTF-8", **environment})

    def on_terminal(self, *arguments: str, **environment: str) -> str:
        """What it shows on a terminal."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(PATH=f"{self.programs}:/usr/bin:/bin", SYNTHRDP_ROOT=str(self.root),
                              TERM="xterm", TZ="UTC")
            os.environ.pop("NO_COLOR", None)
            os.environ.update(environment)
            os.execv(PROGRAM, [str(PROGRAM), *arguments])
        shown = b""
        try:
            while data := os.read(terminal, 4096):
                shown += data
                if shown.count(b"Enhanced Session") == 2:       # of --watch
                    os.kill(pid, signal.SIGINT)
        except OSError:                                         # its end
            pass
        os.waitpid(pid, 0)
        os.close(terminal)
        return shown.decode().replace("\r\n", "\n")

    def json(self, *arguments: str) -> Any:
        """What it answers in JSON."""
        done = self.run(*arguments, "--json")
        assert done.returncode in (0, 3) and done.stderr == "", done
        return json.loads(done.stdout)

# SPDX-License-Identifier: GPL-2.0-only
"""One virtual machine: QEMU with VMBus, its console, its QMP, a port for the agent.

Console, QMP and port are socket pairs made before QEMU starts, so there is nothing to wait
for and nothing to race with. QEMU dies with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvhost.cache import PrepareError

BUILD = Path(__file__).resolve().parents[1] / "qemu" / "build"
# Without la57: identify_cpu() forgets all features for a moment, and KASAN then takes what lies
# beyond four levels of page tables for wild. A timer interrupt at that moment is the end of a boot.
CPU = "max,la57=off,hv-vpindex=on,hv-synic=on,hv-time=on"
NAMED_PIPE = 0x10
# What a kernel does for itself at boot, slowly when emulated, and no test is about.
SKIPPED = ("jent_mod_init", "crypto_kdf108_init", "sed_opal_init", "init_encrypted",
           "bpf_dummy_struct_ops_init", "bpf_tcp_ca_kfunc_init", "cubictcp_register")
# loglevel=5: the console gets warnings and worse, and all of a panic.
COMMAND_LINE = ("console=ttyS0 loglevel=5 panic=-1 oops=panic log_buf_len=4M nokaslr"
                f" mitigations=off initcall_blacklist={','.join(SKIPPED)} rdinit=/init")
QMP_TIMEOUT = 20.0
MAX_SOCKET = 107                # sun_path


class VMError(Exception):
    """QEMU refused a command or is gone."""


@dataclass(frozen=True)
class ChannelSpec:
    """A VMBus channel that the emulated host has for the guest."""

    class_id: str
    instance_id: str
    flags: int = NAMED_PIPE
    user_defined: bytes = b""
    offered: bool = True

    @property
    def name(self) -> str:
        """A name for QEMU's objects."""
        return "ch-" + self.instance_id

    def properties(self) -> dict[str, Any]:
        """What device_add takes."""
        found = {"driver": "vmbus-user", "id": self.name, "chardev": f"{self.name}-c",
                 "classid": self.class_id, "instanceid": self.instance_id,
                 "flags": self.flags, "offered": self.offered}
        return found | ({"user-defined": self.user_defined.hex()} if self.user_defined else {})


@functools.lru_cache(maxsize=None)
def qemu() -> Path:
    """The directory with the patched QEMU and its firmware, built when it must be.

    SYNTHRDP_QEMU may name it, which saves the question whether it is up to date.
    """
    if found := os.environ.get("SYNTHRDP_QEMU"):
        return Path(found)
    done = subprocess.run([BUILD], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        raise PrepareError("there is no QEMU: see above")
    return Path(done.stdout.splitlines()[-1])


class VM:
    """A running QEMU."""

    def __init__(self, kernel: Path, initrd: Path | None,
                 channels: Sequence[ChannelSpec] = (), *, smp: int = 1, memory: int = 512,
                 cpu_options: str = "hv-avic=on", vmbus_version: str = "",
                 command_line: str = COMMAND_LINE, append: str = "",
                 disk: Path | None = None, arguments: Sequence[str] = (),
                 on_port: Callable[[bytes], None] = lambda data: None,
                 on_event: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self._on_event = on_event
        self._console = bytearray()
        self._lock = threading.Lock()
        self._answered = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._requests = 0
        self._gone = threading.Event()
        self.directory = Path(tempfile.mkdtemp(prefix="hvhost-"))
        if len(str(self.directory)) > MAX_SOCKET - 42:
            shutil.rmtree(self.directory)
            raise PrepareError(f"TMPDIR is too long for sockets: {self.directory.parent}")
        self._ends = {name: socket.socketpair() for name in ("console", "qmp", "agent")}
        bridge = "vmbus-bridge" + (f",max-version={vmbus_version}" if vmbus_version else "")
        argv = [str(qemu() / "qemu-system-x86_64"), "-L", str(qemu()),
                "-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35", "-accel",
                "tcg,thread=multi", "-m", str(memory), "-smp", str(smp),
                "-cpu", ",".join(filter(None, (CPU, cpu_options))),
                "-kernel", str(kernel), *(("-initrd", str(initrd)) if initrd else ()),
                "-append", f"{command_line} {append}".strip()]
        for name, (_, theirs) in self._ends.items():
            argv += ["-chardev", f"socket,id={name},fd={theirs.fileno()}"]
        argv += ["-serial", "chardev:console", "-mon", "chardev=qmp,mode=control",
                 "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,nr=1",
                 "-device", bridge]
        if disk:                # NVMe: what all kernels have built in
            argv += ["-drive", f"if=none,id=disk,format=raw,cache=unsafe,file={disk}",
                     "-device", "nvme,drive=disk,serial=disk"]
        for spec in channels:
            argv += ["-chardev", f"socket,id={spec.name}-c,path={self.channel_socket(spec)},"
                     "server=on,wait=off", "-device", json.dumps(spec.properties())]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv, *arguments], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno() for _, theirs in self._ends.values()])
        for _, theirs in self._ends.values():
            theirs.close()
        self._port = self._ends["agent"][0]
        readers = {"console": self._take_console, "agent": on_port, "qmp": self._qmp_reader()}
        self._threads = [threading.Thread(target=self._read, args=(self._ends[name][0], take),
                                          name=f"{name} of QEMU", daemon=True)
                         for name, take in readers.items()]
        self._threads.append(threading.Thread(target=self._read_errors, daemon=True))
        self._errors = ""
        for thread in self._threads:
            thread.start()
        try:
            self.qmp("qmp_capabilities")
        except VMError:
            self.kill()
            raise

    def _read(self, end: socket.socket, take: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while data := end.recv(1 << 16):
                take(data)
        if end is self._ends["qmp"][0]:
            self._gone.set()
            with self._answered:
                self._answered.notify_all()
            self._on_event({"event": "GONE"})

    def _read_errors(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._errors += line.decode(errors="replace")

    def _take_console(self, data: bytes) -> None:
        with self._lock:
            self._console += data

    def _qmp_reader(self) -> Callable[[bytes], None]:
        held = bytearray()

        def take(data: bytes) -> None:
            held.extend(data)
            *lines, rest = held.split(b"\n")
            held[:] = rest
            for line in filter(None, lines):
                message = json.loads(line)
                if "event" in message:
                    self._on_event(message)
                elif "id" in message:
                    with self._answered:
                        self._answers[message["id"]] = message
                        self._answered.notify_all()
        return take

    @property
    def console(self) -> str:
        """All that came over the serial console: warnings, and a panic's last words."""
        with self._lock:
            text = self._console.decode(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|\r", "", text)

    def last_words(self) -> str:
        """The console's end and what QEMU itself said, to be put behind a message."""
        words = self.console.splitlines()[-60:]
        if not self.alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                words.append(f"(QEMU ended with status {self._process.wait(2)})")
        words += self._errors.splitlines()[-5:]
        return "; the console's end:\n" + "\n".join(words) if words else ""

    @property
    def alive(self) -> bool:
        """Whether QEMU is there."""
        return not self._gone.is_set()

    def send_port(self, data: bytes) -> None:
        """Bytes to the agent."""
        try:
            self._port.sendall(data)
        except OSError as error:
            raise VMError(f"QEMU is gone{self.last_words()}") from error

    def type(self, text: bytes) -> None:
        """Type on the serial console."""
        self._ends["console"][0].sendall(text)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """A QMP command's answer."""
        with self._answered:
            self._requests += 1
            number = self._requests
            message = {"execute": command, "arguments": arguments, "id": number}
            with contextlib.suppress(OSError):
                self._ends["qmp"][0].sendall(json.dumps(message).encode() + b"\n")
            if not self._answered.wait_for(
                    lambda: number in self._answers or not self.alive, QMP_TIMEOUT):
                raise VMError(f"QEMU does not answer {command}")
            answer = self._answers.pop(number, None)
        if answer is None:
            raise VMError(f"QEMU is gone{self.last_words()}")
        if "error" in answer:
            raise VMError(f"QEMU refuses {command}: {answer['error']['desc']}")
        return answer["return"]

    def channel_socket(self, channel: ChannelSpec | str) -> Path:
        """The socket of a channel, by its specification or instance."""
        instance = channel if isinstance(channel, str) else channel.instance_id
        return self.directory / f"{instance}.sock"

    def add_channel(self, spec: ChannelSpec) -> Path:
        """Hot-plug a channel, return its socket."""
        path = self.channel_socket(spec)
        self.qmp("chardev-add", id=f"{spec.name}-c", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": str(path)}}, "server": True,
            "wait": False}})
        try:
            self.qmp("device_add", **spec.properties())
        except VMError:
            self.qmp("chardev-remove", id=f"{spec.name}-c")
            raise
        return path

    def remove_channel(self, spec: ChannelSpec, timeout: float = 10.0) -> None:
        """Unplug a channel: the guest sees it rescinded."""
        self.qmp("device_del", id=spec.name)
        deadline = time.monotonic() + timeout
        while True:             # the chardev is busy until the device is gone
            try:
                self.qmp("chardev-remove", id=f"{spec.name}-c")
                return
            except VMError:
                if not self.alive or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def allow_reboot(self, allowed: bool) -> None:
        """Whether a reset restarts the guest, or ends QEMU: what a panic ends in."""
        self.qmp("set-action", reboot="reset" if allowed else "shutdown")

    def reset(self) -> None:
        """Push the reset button. SeaBIOS resets once more: allow reboots until it is up."""
        self.allow_reboot(True)
        self.qmp("system_reset")

    def kill(self) -> None:
        """End QEMU and remove what belongs to it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5)
        for ours, _ in self._ends.values():
            ours.close()
        if self._process.stderr:
            self._process.stderr.close()
        shutil.rmtree(self.directory, ignore_errors=True)

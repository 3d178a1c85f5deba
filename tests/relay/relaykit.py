# SPDX-License-Identifier: GPL-2.0-only
"""The relay under test, with stand-ins for what it stands between.

`Nodes` is a directory of stand-ins for /dev/synthrdp*, see node.c: the test has the host's
end of each. `listen()` makes an RDP server's socket. `Relay` runs the program, and `Bench` has
all of them for a test.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = TOP / "tools" / "synthrdp-relay"
HERE: Final = Path(__file__).resolve().parent
TIMEOUT: Final = 10.0
SANITIZER_EXIT: Final = 99
# The relay leaves alone what it was started to ignore, as under nohup(1). The tests may be, too.
for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
OK, TROUBLE, USAGE, DEVICE, NO_REQUEST, NOT_RDP, NO_SERVER, ANSWER, BROKEN = range(9)


def build(target: Path, *variables: str) -> Path:
    """Build the relay below `target` and return its path."""
    run = subprocess.run(["make", "-s", "-C", SOURCE, f"O={target}", *variables],
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return target / "synthrdp-relay"


def compile_c(output: Path, *arguments: str | Path, compiler: str = "gcc") -> Path:
    """Compile a helper of the tests."""
    command: list[str | Path] = [compiler, "-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror",
                                 f"-I{SOURCE}", "-o", output, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return output


def wait_until(condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Wait for something that nobody announces."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not in {timeout} s: {what}"
        time.sleep(0.01)


# The first exchange of an RDP connection

def x224(code: int, variable: bytes = b"", *, li: int | None = None,
         length: int | None = None) -> bytes:
    """A TPKT packet with an X.224 request (0xe0) or confirm (0xd0)."""
    body = struct.pack(">BHHB", code, 0, 0, 0) + variable
    return struct.pack(">BBHB", 3, 0, 5 + len(body) if length is None else length,
                       (len(body) if li is None else li) & 0xff) + body


def negotiation(protocols: int, flags: int = 0, kind: int = 1, size: int = 8) -> bytes:
    """RDP_NEG_REQ, RDP_NEG_RSP (kind 2) or RDP_NEG_FAILURE (kind 3)."""
    return struct.pack("<BBHI", kind, flags, size, protocols)


def correlation(size: int = 36) -> bytes:
    """RDP_NEG_CORRELATION_INFO."""
    return struct.pack("<BBH16s16x", 6, 0, size, bytes(range(1, 17)))


# As published in the capture of a real VMConnect
REQUEST: Final = bytes.fromhex("030000130ee00000000000010008000b000000")
REWRITTEN: Final = bytes.fromhex("030000130ee000000000000100080000000000")
ACCEPT: Final = x224(0xd0, negotiation(0, kind=2))


# Sockets

def recv_all(peer: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    parts: list[bytes] = []
    while part := peer.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def recv_exact(peer: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < size:
        part = peer.recv(min(size - len(data), 1 << 16))
        assert part, f"the end after {len(data)} of {size} bytes"
        data += part
    return bytes(data)


def send_until_stuck(peer: socket.socket, data: bytes, quiet: float = 0.5) -> int:
    """Send until nobody takes any more; return how many bytes went."""
    sent = 0
    peer.settimeout(quiet)
    while sent < len(data):
        try:
            sent += peer.send(data[sent:sent + (1 << 16)])
        except TimeoutError:
            break
    peer.settimeout(TIMEOUT)
    return sent


def listen(path: Path | str) -> socket.socket:
    """A listening unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(TIMEOUT)
    return listener


def accept(listener: socket.socket, timeout: float = TIMEOUT) -> socket.socket:
    """The next connection."""
    listener.settimeout(timeout)
    peer, _ = listener.accept()
    peer.settimeout(TIMEOUT)
    return peer


class Nodes:
    """A directory that stands for /dev."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.listeners: dict[int, socket.socket] = {}
        self.hosts: list[socket.socket] = []

    def add(self, number: int = 0) -> None:
        """Make /dev/synthrdpN, ready to be opened from its first moment on."""
        self.listeners[number] = listen(self.directory / "new")
        (self.directory / f"synthrdp{number}").hardlink_to(self.directory / "new")
        (self.directory / "new").unlink()

    def remove(self, number: int = 0) -> None:
        """Take /dev/synthrdpN away; whoever has it open keeps it."""
        (self.directory / f"synthrdp{number}").unlink()
        self.listeners.pop(number).close()

    def replace(self, number: int = 0) -> None:
        """A new device with the number of an old one; the nodes' inodes differ for certain."""
        new, node = self.directory / "new", self.directory / f"synthrdp{number}"
        listener = listen(new)
        self.listeners.pop(number).close()
        node.unlink()
        node.hardlink_to(new)
        new.unlink()
        self.listeners[number] = listener

    def host(self, number: int = 0) -> socket.socket:
        """The host's end of /dev/synthrdpN, once that has been opened."""
        self.hosts.append(accept(self.listeners[number]))
        return self.hosts[-1]

    def fail(self, call: str, error: int, number: int = 0) -> None:
        """Make open, or read at the end, fail with an error."""
        (self.directory / f"synthrdp{number}.{call}").write_text(str(error))

    def close(self) -> None:
        """Close what is open."""
        for end in (*self.listeners.values(), *self.hosts):
            end.close()


class Relay:
    """One run of the relay."""

    def __init__(self, program: Sequence[str | Path], arguments: Sequence[str], *, log: Path,
                 preload: Path, nodes: Nodes) -> None:
        self.log_path = log
        environment = dict(
            os.environ, LD_PRELOAD=str(preload), SYNTHRDP_TEST_DEV=str(nodes.directory),
            ASAN_OPTIONS=f"verify_asan_link_order=0:exitcode={SANITIZER_EXIT}",
            UBSAN_OPTIONS=f"print_stacktrace=1:exitcode={SANITIZER_EXIT}")
        with log.open("wb") as stderr:
            self.process = subprocess.Popen([*program, *arguments], stdin=subprocess.DEVNULL,
                                            stderr=stderr, env=environment)

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def log(self) -> str:
        """What it has said so far."""
        return self.log_path.read_text()

    def wait_for(self, pattern: str, timeout: float = TIMEOUT) -> None:
        """Wait until it has said something."""
        wait_until(lambda: re.search(pattern, self.log()) is not None, pattern, timeout)

    def wait(self, code: int, pattern: str = "", timeout: float = TIMEOUT) -> str:
        """Wait for its end, compare the exit status and its last line."""
        status = self.process.wait(timeout)
        log = self.log()
        assert status == code, f"exit status {status}\n{log}"
        if pattern:
            assert re.search(pattern, log.splitlines()[-1]), log
        return log

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wakeups(self) -> int:
        """How often it has gone to sleep: each wake-up adds one."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)
        assert found
        return int(found[1])

    def cpu_time(self) -> float:
        """Seconds of processor time, of it and of the kernel for it."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Kilobytes in use at most so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+)", status, re.M)
        assert found
        return int(found[1])

    def kill(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Programs:
    """What is built for the tests."""

    relay: Path             # with the sanitizers
    plain: Path             # as shipped, but for _FORTIFY_SOURCE: it calls around the stand-ins
    node: Path


@dataclass
class Bench:
    """A place with nodes, a server's socket, and relays between them."""

    programs: Programs
    directory: Path
    nodes: Nodes
    relays: list[Relay] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def server_path(self) -> Path:
        """Where the server listens unless a test wants it elsewhere."""
        return self.directory / "server"

    def listen(self) -> socket.socket:
        """Start the server."""
        self.sockets.append(listen(self.server_path))
        return self.sockets[-1]

    def run(self, *arguments: str, plain: bool = False,
            wrapper: tuple[str | Path, ...] = ()) -> Relay:
        """Run the relay with these arguments."""
        program = self.programs.plain if plain else self.programs.relay
        relay = Relay([*wrapper, program], arguments, nodes=self.nodes, preload=self.programs.node,
                      log=self.directory / f"log{len(self.relays)}")
        self.relays.append(relay)
        return relay

    def serve(self, *arguments: str, server: str = "", plain: bool = False,
              wrapper: tuple[str | Path, ...] = ()) -> tuple[Relay, socket.socket]:
        """Run it on /dev/synthrdp0; return it with the host's end of that."""
        self.nodes.add()
        relay = self.run("--device=/dev/synthrdp0", f"--server={server or self.unix}", *arguments,
                         plain=plain, wrapper=wrapper)
        return relay, self.nodes.host()

    @property
    def unix(self) -> str:
        """The server's address."""
        return f"unix:{self.server_path}"

    def session(self, request: bytes, answer: bytes, *arguments: str,
                plain: bool = False) -> tuple[Relay, socket.socket, socket.socket]:
        """A relay, the host's end and the server's end, after request and answer."""
        listener = self.listen()
        relay, host = self.serve(*arguments, plain=plain)
        host.sendall(request)
        server = accept(listener)
        got = server.recv(1 << 16)
        assert len(got) == len(request)
        server.sendall(answer)
        assert host.recv(1 << 16) == answer
        return relay, host, server

    def close(self) -> None:
        """End everything; a sanitizer's word is a failure of any test."""
        for relay in self.relays:
            relay.kill()
        self.nodes.close()
        for end in self.sockets:
            end.close()
        for relay in self.relays:
            log = relay.log()
            assert "Sanitizer" not in log and "runtime error" not in log, log

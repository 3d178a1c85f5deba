# SPDX-License-Identifier: GPL-2.0-only
"""The sides that are compared: roads from an emulated host to a program in the guest.

A `Road` has a session at the host's end and a peer (guest/peer.c) at the other, which has taken
the connection and waits for commands. Nothing is taken from a ring but when `take` is called.
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from counts import CPU, Counters
from hvhost import channel, kernels
from hvhost.cache import PrepareError
from hvhost.channel import Channel, Opened
from hvhost.guest import Guest, GuestError, Job
from hvhost.log import Log
from hvhost.synthrdp import (CONTROL, CONTROL_CLASS, DATA_CLASS, Session, SynthRdpHost,
                             data_instance)
from hvhost.vm import NAMED_PIPE, ChannelSpec

HERE: Final = Path(__file__).resolve().parent
RELAY: Final = HERE.parents[1] / "tools" / "synthrdp-relay"
PROGRAMS: Final = {"peer": ("peer.c", "stream.c", "bounds.c", "uio.c"),
                   "uio_relay": ("uio_relay.c", "stream.c", "uio.c")}
REQUEST: Final = bytes.fromhex("030000130ee000000000000100080000000000")
ACCEPTED: Final = bytes.fromhex("030000130ed000000000000200080000000000")
SESSIONS: Final = 5
UIO_CLASS: Final = "5e551040-0000-4000-8000-000000000001"   # any that no driver knows
UIO_INSTANCE: Final = "5e551040-0000-4000-8000-000000000002"
PORT: Final = 3389
VSOCK_CLASS: Final = f"{PORT:08x}-facb-11e6-bd58-64006a7986d3"
VSOCK_INSTANCE: Final = "5e551040-0000-4000-8000-000000000003"
TLNPI: Final = 0x2000                                       # the offer is one of a socket
FROM_HOST: Final = struct.pack("<IB", 4, 1)                 # a pipe of messages; host connects
PAGE: Final = 4096
TIMEOUT: Final = 60.0


# -- programs

def build_programs(relay: Path, folder: Path) -> dict[str, bytes]:
    """The programs that run in the guest, each with its libc in it."""
    for name, sources in PROGRAMS.items():
        run("gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-s", "-static", "-Wall", "-Wextra",
            "-Werror", "-o", str(folder / name), *(str(HERE / "guest" / one) for one in sources))
    build_relay(relay, folder, "HARDENING=", "LDFLAGS=-static", "CFLAGS=-O2 -s")
    return {name: (folder / name).read_bytes() for name in (*PROGRAMS, "synthrdp-relay")}


def build_relay(relay: Path, folder: Path, *settings: str) -> None:
    """The relay from the sources in one folder, in another."""
    run("make", "-s", "-C", str(relay), f"O={folder}", *settings)


def run(*argv: str) -> str:
    """What a program prints, which must succeed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise PrepareError(f"{argv[0]} failed: {done.stdout}")
    return done.stdout


# -- in the guest

def install(programs: dict[str, bytes]) -> None:
    """Put the programs where they can be run, and have uio_hv_generic take its channel."""
    for name, image in programs.items():
        with open(f"/run/{name}", "wb") as file:
            file.write(image)
        os.chmod(f"/run/{name}", 0o755)
    with open("/sys/bus/vmbus/drivers/uio_hv_generic/new_id", "w", encoding="ascii") as id_file:
        id_file.write(UIO_CLASS)


def wait_exists(path: str) -> None:
    """Wait until a node is there."""
    deadline = time.monotonic() + TIMEOUT
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)


def serve(commands: list[list[str]]) -> None:
    """Start programs one after the other; those that listen, listen before the next starts."""
    running = []
    for argv in commands:
        running.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
        if argv[1].startswith(("unix", "vsock")):
            assert running[-1].stdout
            running[-1].stdout.readline()
    print("started", *(one.pid for one in running), flush=True)
    for one in running:
        one.wait()


# -- on the host

def instance(number: int) -> uuid.UUID:
    """That of a data channel: one that hosts are known to use, or any."""
    return data_instance(number if number <= SESSIONS else
                         f"5e551041-0000-4000-8000-{number:012x}")


class Road:
    """A session at the host's end and a peer at the other."""

    def __init__(self, session: Session, opened: Opened) -> None:
        self.session = session
        self.pids: list[int] = []               # of the programs in the guest
        self._opening = opened.opening
        self._sizes = opened.guest_to_host, opened.host_to_guest
        self._held = b""

    def _peek(self, ring: int, at: int, size: int) -> bytes:
        return self.session.channel.peek((self._sizes[0] + PAGE) * ring + at, size, self._opening)

    def indices(self, ring: int) -> tuple[int, int]:
        """Where is written and where is read in the ring from the guest (0) or to it (1)."""
        write, read = struct.unpack("<II", self._peek(ring, 0, 8))
        return write, read

    def waiting(self) -> int:
        """Packets from the guest that are in the ring."""
        write, read = self.indices(0)
        count, size = 0, self._sizes[0]
        while read != write:
            length, = struct.unpack("<H", self._peek(0, PAGE + (read + 4) % size, 2))
            read = (read + 8 * length + 8) % size
            count += 1
        return count

    def fits(self, sizes: Iterable[int]) -> int:
        """How many of these packets, from the first on, the empty ring to the guest holds."""
        room, count = self._sizes[1] - 1, 0
        for size in sizes:
            room -= 16 + -(-(8 + size) // 8) * 8 + 8
            if room < 0:
                break
            count += 1
        return count

    def take(self) -> bytes:
        """All that the guest has sent.

        One packet more is always welcome: a host that has found the ring empty wants to be
        signalled again.
        """
        chan = self.session.channel
        while (count := self.waiting()) or not chan.granted:
            if chan.granted <= count:
                chan.grant(count + 1 - chan.granted)
        taken, self._held = self._held, b""
        return taken + b"".join(self.session.read_packet() for _ in range(chan.pending))

    def receive(self, size: int) -> bytes:
        """So many bytes, when they come."""
        deadline = time.monotonic() + TIMEOUT
        data = self.take()
        while len(data) < size:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(data)} of {size} bytes came")
            time.sleep(0.002)
            data += self.take()
        self._held = data[size:]
        return data[:size]


class Machine:
    """A guest with the driver, and its host, which has other roads to it besides."""

    def __init__(self, kernel: str, module: Path, programs: dict[str, bytes],
                 channels: int = SESSIONS) -> None:
        specs = [ChannelSpec(str(CONTROL_CLASS), str(CONTROL)),
                 *(ChannelSpec(str(DATA_CLASS), str(instance(number)), offered=False)
                   for number in range(1, channels + 1)),
                 ChannelSpec(UIO_CLASS, UIO_INSTANCE, offered=False),
                 ChannelSpec(VSOCK_CLASS, VSOCK_INSTANCE, NAMED_PIPE | TLNPI, FROM_HOST,
                             offered=False)]
        self.log = Log(f"the guest ({kernel})")
        self.guest = Guest(kernels.kernel(kernel), specs, module=module, cpu_options=CPU)
        try:
            self.counters = Counters(self.guest.vm)
            self.host = SynthRdpHost(self.guest.vm.channel_socket, self.log)
            for name in ("vsock", "hv_sock", "uio", "uio_hv_generic"):
                if file := self.guest.kernel.module(name):
                    self.guest.insmod(module=file)
            self.guest.run(install, programs)
            self.guest.insmod()
            self.host.wait_request()
        except BaseException:
            self.guest.kill()
            raise

    def close(self) -> None:
        """End it."""
        self.host.close()
        self.guest.kill()

    @contextmanager
    def _programs(self, commands: Sequence[str]) -> Iterator[list[int]]:
        """Programs that run in the guest: their process numbers."""
        job: Job = self.guest.start(serve, [command.split() for command in commands])
        try:
            self.guest.wait_for(lambda: b"\n" in job.output or job.done(), TIMEOUT,
                                f"the start of {commands}")
            if not job.output.startswith(b"started "):
                raise GuestError(f"{commands}: {job.output.decode(errors='replace')}")
            yield [int(word) for word in job.output.partition(b"\n")[0].split()[1:]]
        except Exception as error:
            error.add_note(f"{commands}: {job.output.decode(errors='replace')}")
            raise
        finally:
            if not job.done():
                job.kill()
                job.wait()

    def _meet(self, session: Session) -> Road:
        """The road to a peer that opens it now."""
        road = Road(session, session.wait_opened())
        session.write(REQUEST)
        if (answer := road.receive(len(ACCEPTED))) != ACCEPTED:
            raise GuestError(f"the peer says {answer.hex()}")
        return road

    @contextmanager
    def _served(self, session: Session, commands: Sequence[str]) -> Iterator[Road]:
        with self._programs(commands) as pids:
            road = self._meet(session)
            road.pids = pids
            yield road

    @contextmanager
    def _node(self, number: int, *commands: str) -> Iterator[Road]:
        with self.host.open_session(instance(number), auto_grant=False) as session:
            self.guest.run(wait_exists, f"/dev/synthrdp{number - 1}")
            with self._served(session, commands) as road:
                yield road

    def device(self, number: int = 1) -> AbstractContextManager[Road]:
        """The driver's node, in the hands of the peer itself."""
        return self._node(number, f"/run/peer node:/dev/synthrdp{number - 1}")

    def relay(self, number: int = 1) -> AbstractContextManager[Road]:
        """Our relay between the node and the peer."""
        return self._node(number, f"/run/peer unix:/run/server{number}",
                          f"/run/synthrdp-relay --device=/dev/synthrdp{number - 1}"
                          f" --server=unix:/run/server{number}")

    def copies(self) -> AbstractContextManager[Road]:
        """Commands by the node; the data is only copied."""
        return self._node(1, "/run/peer copies:/dev/synthrdp0")

    def pair(self) -> AbstractContextManager[Road]:
        """Commands by the node; the data comes from another process by a socketpair."""
        return self._node(1, "/run/peer pair:/dev/synthrdp0")

    def _other(self, instance: str) -> Session:
        path = self.guest.vm.channel_socket(instance)
        return Session(Channel(channel.connect(path), instance[:8], self.log, auto_grant=False))

    @contextmanager
    def _rings(self, *commands: str) -> Iterator[Road]:
        with self._other(UIO_INSTANCE) as session:
            session.offer()
            self.guest.run(wait_exists, "/dev/uio0")
            with self._served(session, commands) as road:
                yield road

    def uio(self) -> AbstractContextManager[Road]:
        """The rings in the hands of the peer."""
        return self._rings("/run/peer uio:/dev/uio0")

    def uio_relay(self) -> AbstractContextManager[Road]:
        """The rings in the hands of a relay."""
        return self._rings("/run/peer unix:/run/server0", "/run/uio_relay /dev/uio0 /run/server0")

    @contextmanager
    def hv_sock(self) -> Iterator[Road]:
        """A socket that the host connects to, in the hands of the peer."""
        with self._other(VSOCK_INSTANCE) as session, \
                self._programs([f"/run/peer vsock:{PORT}"]) as pids:
            session.offer()
            road = self._meet(session)
            road.pids = pids
            yield road

    @contextmanager
    def watching(self) -> Iterator[Callable[[int], AbstractContextManager[Session]]]:
        """A relay that waits for sessions, as the first to come, and a server that answers."""
        with self._programs(["/run/peer unix-answer:/run/servers",
                             "/run/synthrdp-relay --watch --server=unix:/run/servers"]):
            yield lambda number: self.host.open_session(instance(number), announce="never")

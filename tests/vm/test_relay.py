# SPDX-License-Identifier: GPL-2.0-only
"""The relay on the driver's own nodes: that its tests' stand-in for them tells the truth."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import time
from typing import Any

import pytest

from hvhost.channel import Timeout
from hvhost.guest import Job
from hvhost.synthrdp import Raw, Session
from lab import MAX_DATA, Lab

GO = "/run/go"
REQUEST = bytes.fromhex("030000130ee00000000000010008000b000000")
REWRITTEN = bytes.fromhex("030000130ee000000000000100080000000000")
ACCEPT = bytes.fromhex("030000130ed000000000000200080000000000")
SIZE = 600_000              # more than ring, relay and socket hold
OK, DEVICE, BROKEN = 0, 3, 8


# In the guest; without assert, which pytest makes something else of

def bytes_of(seed: int) -> bytes:
    """What is sent, known at both ends."""
    return random.Random(seed).randbytes(SIZE)


def set_go(go: bool) -> None:
    """Whether the server may read."""
    if go:
        os.close(os.open(GO, os.O_CREAT))
    elif os.path.exists(GO):
        os.unlink(GO)


def start_relay(program: bytes, *arguments: str) -> tuple[Any, Any]:
    """A server's socket and a relay to it."""
    if not os.path.exists("/run/relay"):
        with open("/run/relay.new", "wb") as file:
            file.write(program)
        os.chmod("/run/relay.new", 0o755)
        os.rename("/run/relay.new", "/run/relay")
    place = f"/run/server{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()
    listener.settimeout(20)
    relay = subprocess.Popen(["/run/relay", f"--server=unix:{place}", *arguments],
                             stderr=subprocess.PIPE)
    return listener, relay


def receive(peer: Any, size: int = -1) -> bytes:
    """So many bytes, or all."""
    peer.settimeout(20)
    data = bytearray()
    while len(data) != size:
        part = peer.recv(65536 if size < 0 else size - len(data))
        if not part:
            break
        data += part
    return bytes(data)


def serve(program: bytes, sends: bool, *arguments: str) -> tuple[int, str, int]:
    """One session. The server sends and ends it; or it reads to the end, once there is GO.

    Returns the relay's status, its log, and how many bytes came that should have.
    """
    listener, relay = start_relay(program, *arguments)
    server, _ = listener.accept()
    request = receive(server, len(REWRITTEN))
    server.sendall(ACCEPT)
    got = b""
    if sends:
        server.sendall(bytes_of(2))
    else:
        while not os.path.exists(GO):
            time.sleep(0.01)
        got = receive(server)
    server.close()
    log = relay.communicate(timeout=20)[1].decode()
    well = request == REWRITTEN and got == bytes_of(1)[:len(got)]
    return relay.returncode, log, len(got) if well else -1


def wakeups(pid: int) -> int:
    """How often a process has gone to sleep."""
    with open(f"/proc/{pid}/status") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))


def idle(program: bytes, *arguments: str) -> tuple[int, list[str]]:
    """Wake-ups of a quiet session in a second, and the arguments of the call it sleeps in."""
    listener, relay = start_relay(program, *arguments)
    server, _ = listener.accept()
    server.sendall(ACCEPT)
    time.sleep(1)

    before = wakeups(relay.pid)
    time.sleep(1)
    with open(f"/proc/{relay.pid}/syscall") as file:
        call = file.read().split()
    woken = wakeups(relay.pid) - before
    relay.send_signal(signal.SIGTERM)
    server.close()
    relay.communicate(timeout=20)
    return woken, call


def watch(program: bytes, sessions: int) -> tuple[int, str, int]:
    """A watching relay and so many sessions, each read to its end."""
    listener, relay = start_relay(program, "--watch")
    servers = []
    for _ in range(sessions):
        servers.append(listener.accept()[0])
        servers[-1].sendall(ACCEPT)
    well = sum(receive(server) in (REWRITTEN + b"1", REWRITTEN + b"2") for server in servers)
    for server in servers:
        server.close()
    time.sleep(0.5)
    relay.send_signal(signal.SIGTERM)
    log = relay.communicate(timeout=20)[1].decode()
    return relay.returncode, log, well


def run(program: bytes, *arguments: str) -> tuple[int, str]:
    """A relay that ends by itself."""
    _, relay = start_relay(program, *arguments)
    log = relay.communicate(timeout=20)[1].decode()
    return relay.returncode, log


# On the host

NODE = "--device=/dev/synthrdp0"


def check(job: Job, status: int, got: int, reason: str) -> None:
    """How the relay ended, what it had delivered, and what it said last."""
    found, log, came = job.result()
    assert (found, came) == (status, got), log
    assert re.search(reason, log.splitlines()[-1]), log


@pytest.fixture(autouse=True)
def stop(lab: Lab) -> None:
    """The server does not read until it may."""
    lab.guest.run(set_go, False)


def fill(session: Session) -> int:
    """Send until nothing takes any more; how many bytes are on their way."""
    data, sent = bytes_of(1), 0
    while True:
        session.write(data[sent:sent + MAX_DATA])
        try:
            session.channel.wait_placed(1)
        except Timeout:
            return sent
        sent += MAX_DATA


def test_client_leaves(lab: Lab, program: bytes) -> None:
    """The host rescinds when the ring, the relay and the socket are full: all that arrives."""
    session = lab.session()
    job = lab.guest.start(serve, program, False, NODE)
    session.wait_opened()
    session.write(REQUEST)
    assert session.read_exact(len(ACCEPT)) == ACCEPT
    sent = fill(session)
    session.rescind()
    lab.guest.run(set_go, True)
    check(job, OK, sent, "the client left$")


def test_server_leaves(lab: Lab, program: bytes) -> None:
    """The host gets all that the server sent before it closed, and then the end."""
    session = lab.session()
    job = lab.guest.start(serve, program, True, NODE)
    session.wait_opened()
    session.write(REQUEST)
    assert session.read_to_end() == ACCEPT + bytes_of(2)
    check(job, OK, 0, "the server closed the connection")


def test_host_reads_late(lab: Lab, program: bytes) -> None:
    """A full ring holds the relay up, and no byte is lost."""
    session = lab.session(auto_grant=False)
    job = lab.guest.start(serve, program, True, NODE)
    session.wait_opened()
    session.write(REQUEST)
    time.sleep(2)
    session.channel.auto_grant(True)
    assert session.read_to_end() == ACCEPT + bytes_of(2)
    check(job, OK, 0, "the server closed the connection")


def test_malformed_packet(lab: Lab, program: bytes) -> None:
    """What came before it is delivered; then the relay says what happened."""
    lab.allow_complaints()
    lab.guest.run(set_go, True)
    session = lab.session()
    job = lab.guest.start(serve, program, False, NODE)
    session.wait_opened()
    session.write(REQUEST + bytes_of(1)[:100_000])
    session.send(Raw(b"\xff" * 16))
    check(job, BROKEN, 100_000, "the host sent malformed packets$")


def test_second_relay(lab: Lab, program: bytes) -> None:
    """A node is for one."""
    lab.guest.run(set_go, True)
    session = lab.session()
    job = lab.guest.start(serve, program, False, NODE)
    session.wait_opened()
    status, log = lab.guest.run(run, program, NODE)
    assert status == DEVICE and "another process serves it already" in log
    session.write(REQUEST)
    assert session.read_exact(len(ACCEPT)) == ACCEPT
    session.rescind()
    check(job, OK, 0, "the client left$")


def test_no_device(lab: Lab, program: bytes) -> None:
    """Before anybody connects there is none."""
    status, log = lab.guest.run(run, program, NODE)
    assert status == DEVICE and "no client is connecting now" in log


def test_idle(lab: Lab, program: bytes) -> None:
    """A quiet session wakes nobody: the relay sleeps in a ppoll(2) without a timeout."""
    session = lab.session()
    job = lab.guest.start(idle, program, NODE)
    session.wait_opened()
    session.write(REQUEST)
    woken, call = job.result()
    assert woken == 0
    assert int(call[0]) == 271 and int(call[3], 16) == 0


def test_watch(lab: Lab, program: bytes) -> None:
    """Sessions that are there and that come, with devtmpfs's own events."""
    sessions = [lab.session(1)]
    job = lab.guest.start(watch, program, 2)
    for which in (1, 2):
        if which == 2:
            sessions.append(lab.session(2))
        sessions[-1].wait_opened()
        sessions[-1].write(REQUEST)
        assert sessions[-1].read_exact(len(ACCEPT)) == ACCEPT
    for which, session in enumerate(sessions, 1):
        session.write(b"%d" % which)
        session.channel.wait_placed()
        session.rescind()
    status, log, well = job.result()
    assert (status, well) == (OK, 2), log
    assert log.count("the client left\n") == 2, log

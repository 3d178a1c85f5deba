# SPDX-License-Identifier: GPL-2.0-only
"""--watch: a process for each device that appears, and none that is left over."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from relaykit import (ACCEPT, OK, REQUEST, REWRITTEN, Bench, Relay, accept, recv_all, recv_exact,
                      wait_until)


def children(relay: Relay) -> list[int]:
    """The processes of its sessions, zombies included."""
    text = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def watch(bench: Bench, *, plain: bool = False) -> Relay:
    """A relay that watches, ready."""
    relay = bench.run("--watch", f"--server={bench.unix}", plain=plain)
    relay.wait_for("waiting for /dev/synthrdp")
    return relay


def talk(bench: Bench, listener: socket.socket,
         number: int = 0) -> tuple[socket.socket, socket.socket]:
    """Start a session on /dev/synthrdpN; return both ends, which the bench keeps open."""
    host = bench.nodes.host(number)
    host.sendall(REQUEST)
    server = accept(listener)
    bench.sockets.append(server)
    assert recv_exact(server, len(REWRITTEN)) == REWRITTEN
    server.sendall(ACCEPT)
    assert recv_exact(host, len(ACCEPT)) == ACCEPT
    return host, server


def test_devices_that_come_and_are_there(bench: Bench) -> None:
    """One from before, two at a time, each with a session of its own."""
    listener = bench.listen()
    bench.nodes.add(0)
    relay = watch(bench)
    ends = [talk(bench, listener, 0)]
    bench.nodes.add(1)
    bench.nodes.add(12)
    ends += [talk(bench, listener, 1), talk(bench, listener, 12)]
    assert len(children(relay)) == 3
    for number, (host, server) in enumerate(ends):
        host.sendall(bytes([number]))
        assert recv_exact(server, 1) == bytes([number])
    for host, server in ends:
        host.close()
        assert recv_all(server) == b""
        server.close()
    wait_until(lambda: not children(relay), "all sessions' ends")
    assert relay.process.poll() is None


def test_other_names_are_left_alone(bench: Bench) -> None:
    """Only /dev/synthrdp with a number is a session."""
    (bench.nodes.directory / "synthrdp").touch()
    relay = watch(bench)
    for name in ("synthrdpx", "synthrdp1x", "synthrdp-1", "synthrdp1234567890", "xsynthrdp0"):
        (bench.nodes.directory / name).touch()
    bench.nodes.add(3)
    bench.nodes.host(3)
    assert len(children(relay)) == 1
    assert "opened" not in relay.log().replace("/dev/synthrdp3: opened", "")


def test_number_is_used_again(bench: Bench) -> None:
    """A new device may have the number of one whose session has not ended yet."""
    listener = bench.listen()
    relay = watch(bench)
    bench.nodes.add()
    old = talk(bench, listener)
    bench.nodes.remove()
    bench.nodes.add()
    new = talk(bench, listener)
    assert len(children(relay)) == 2
    for host, server in (old, new):
        host.sendall(b"x")
        assert recv_exact(server, 1) == b"x"


def test_one_session_for_each_device(bench: Bench) -> None:
    """A session that has ended is not started again while its device is still there."""
    listener = bench.listen()
    relay = watch(bench)
    bench.nodes.add()
    _, server = talk(bench, listener)
    server.close()
    wait_until(lambda: not children(relay), "the session's end")
    node = bench.nodes.directory / "synthrdp0"
    node.chmod(0o600)
    bench.nodes.add(1)
    talk(bench, listener, 1)
    assert relay.log().count("/dev/synthrdp0: opened") == 1
    assert relay.log().count("/dev/synthrdp1: opened") == 1


def test_device_that_udev_has_not_opened_up_yet(bench: Bench) -> None:
    """The node appears first, and gets its group and mode later."""
    listener = bench.listen()
    relay = watch(bench)
    bench.nodes.fail("open", errno.EACCES)
    bench.nodes.add()
    node = bench.nodes.directory / "synthrdp0"
    relay.wait_for("/dev/synthrdp0: Permission denied: waiting for udev's rule")
    node.chmod(0o600)
    time.sleep(0.2)
    assert relay.log().count("Permission denied") == 1
    bench.nodes.fail("open", 0)
    node.chmod(0o660)
    talk(bench, listener)
    assert "Permission denied" not in relay.log().partition("opened")[2]


def test_churn(bench: Bench) -> None:
    """Many devices come and go at once; every session ends and nothing is left over."""
    relay = watch(bench)
    for turn in range(40):
        number = turn % 5
        bench.nodes.add(number)
        if turn % 2:
            bench.nodes.host(number).close()
        bench.nodes.remove(number)
    bench.nodes.add(77)
    bench.nodes.host(77)
    wait_until(lambda: len(children(relay)) == 1, "the ends of all sessions but one")
    assert "died" not in relay.log()


def test_lost_events(bench: Bench) -> None:
    """More happens than the kernel keeps: what is there in the end is found, and once only."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    listener = bench.listen()
    relay = watch(bench)
    bench.nodes.add(1)
    bench.nodes.add(2)
    talk(bench, listener, 1)
    bench.nodes.host(2)
    relay.signal(signal.SIGSTOP)
    names = [str(bench.nodes.directory / name) for name in ("one", "other")]
    Path(names[0]).touch()
    for _ in range(limit // 2 + 1):
        os.rename(*names)
        names.reverse()
    bench.nodes.replace(2)
    bench.nodes.add(3)
    relay.signal(signal.SIGCONT)
    talk(bench, listener, 3)
    talk(bench, listener, 2)
    assert [relay.log().count(f"/dev/synthrdp{n}: opened") for n in (1, 2, 3)] == [1, 2, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_all(bench: Bench, number: signal.Signals) -> None:
    """All sessions are stopped in their own way, and waited for."""
    listener = bench.listen()
    relay = watch(bench)
    ends = []
    for node in range(3):
        bench.nodes.add(node)
        ends.append(talk(bench, listener, node))
    pids = children(relay)
    assert len(pids) == 3
    relay.signal(number)
    for host, server in ends:
        assert recv_all(server) == b""
        server.sendall(b"goodbye")
        server.close()
        assert recv_all(host) == b"goodbye"
    log = relay.wait(OK)
    assert log.count("stopped by signal 15") == 3
    assert not any(is_alive(pid) for pid in pids)


def test_no_session_outlives_its_watcher(bench: Bench) -> None:
    """Not even one that is killed."""
    listener = bench.listen()
    relay = watch(bench)
    bench.nodes.add()
    host, server = talk(bench, listener)
    pids = children(relay)
    relay.process.kill()
    assert recv_all(server) == b""
    server.close()
    assert recv_all(host) == b""
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the session's end")


def test_session_that_dies_is_reported(bench: Bench) -> None:
    """A relay that is killed is not passed over in silence."""
    listener = bench.listen()
    relay = watch(bench)
    bench.nodes.add()
    talk(bench, listener)
    os.kill(children(relay)[0], signal.SIGKILL)
    relay.wait_for("/dev/synthrdp0: its relay died of signal 9")
    wait_until(lambda: not children(relay), "its end")


def test_idle_watch(bench: Bench) -> None:
    """Watching costs nothing."""
    relay = watch(bench, plain=True)
    bench.nodes.add()
    bench.nodes.host()
    time.sleep(0.2)
    wakeups = relay.wakeups()
    time.sleep(1)
    assert relay.wakeups() == wakeups

# SPDX-License-Identifier: GPL-2.0-only
"""synthrdpctl capture: what Wireshark makes of the file, by tshark."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakeroot import PROGRAM, Guest

HEADER = struct.Struct("=IIQ")
HELLO, UP, DOWN = range(3)
REQUEST = bytes.fromhex("030000130ee00000000000010008000b000000")
ANSWER = bytes.fromhex("030000130ed000000000000200080000000000")
# An MCS Erect Domain Request and an Attach User Request: of the client, after the connect.
MORE = bytes.fromhex("0300000c02f0800400010001") + bytes.fromhex("0300000802f08028")
PLACE = "run/synthrdpctl/capture"
SECONDS = 30.0


class Relay:
    """As much of a relay as is needed."""

    def __init__(self, guest: Guest, device: str = "synthrdp0") -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(guest.path(PLACE)))
        self._offset = {UP: 0, DOWN: 0}
        self._socket.send(HEADER.pack(HELLO, 0, 0) + f"/dev/{device}\0unix:/run/x\0".encode())

    def send(self, kind: int, data: bytes) -> None:
        """A piece of a stream."""
        self.lose(kind, data)
        self._socket.send(HEADER.pack(kind, 0, self._offset[kind] - len(data)) + data)

    def lose(self, kind: int, data: bytes) -> None:
        """One that nobody took."""
        self._offset[kind] += len(data)

    def begin(self) -> None:
        """What each session begins with."""
        self.send(UP, REQUEST)
        self.send(DOWN, ANSWER)
        self.send(UP, MORE)

    def close(self) -> None:
        """The session's end."""
        self._socket.close()


class Capture:
    """The program while it runs."""

    def __init__(self, guest: Guest, file: Path, *options: str) -> None:
        self.file = file
        self.program = subprocess.Popen(
            [PROGRAM, "capture", *options, file], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={"PATH": "/usr/bin:/bin", "SYNTHRDP_ROOT": str(guest.root)})
        self.wait_for("until ^C")

    def wait_for(self, words: str) -> str:
        """Wait until it says so; returns what it said until then."""
        assert self.program.stdout
        said = ""
        while words not in said:
            line = self.program.stdout.readline()
            assert line, said
            said += line
        return said

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it as a user would."""
        self.program.send_signal(number)
        out, errors = self.program.communicate(timeout=SECONDS)
        assert (self.program.returncode, errors) == (0, "") and out.endswith(": done\n")

    def kill(self) -> None:
        """Leave nothing behind."""
        if self.program.poll() is None:
            self.program.kill()
            self.program.communicate()


@pytest.fixture(name="capture")
def _capture(guest: Guest, tmp_path: Path) -> Iterator[Capture]:
    """One that writes a file without a limit."""
    made = Capture(guest, tmp_path / "new.pcapng")
    yield made
    made.kill()


def tshark(file: Path, *arguments: str) -> list[list[str]]:
    """What it says of each packet, field by field."""
    done = subprocess.run(
        ["tshark", "-r", file, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
         *arguments], capture_output=True, text=True, check=True, env={
             "PATH": os.environ["PATH"], "HOME": "/nonexistent", "TZ": "UTC"})
    return [line.split("\t") for line in done.stdout.splitlines()]


def fields(file: Path, *names: str) -> list[list[str]]:
    """Fields of each packet."""
    return tshark(file, "-T", "fields", *(word for name in names for word in ("-e", name)))


def complaints(file: Path) -> list[list[str]]:
    """What tshark finds wrong: checksums, sequence numbers, malformed packets."""
    return tshark(file, "-Y", "_ws.malformed or tcp.analysis.flags or tcp.checksum.status == 0"
                  " or ip.checksum.status == 0")


def test_rdp(guest: Guest, capture: Capture) -> None:
    """tshark finds RDP in a sound TCP connection; the times are those of the clock."""
    before = time.time()
    relay = Relay(guest)
    relay.begin()
    relay.close()
    assert "/dev/synthrdp0: begins\n/dev/synthrdp0: ended\n" in capture.wait_for("ended")
    capture.stop()
    assert complaints(capture.file) == []
    rows = fields(capture.file, "tcp.flags.str", "tcp.srcport", "tcp.dstport", "tcp.len",
                  "frame.protocols", "frame.time_epoch", "frame.comment")
    assert [row[0].replace("·", "") for row in rows] == [
        "S", "AS", "A", "AP", "AP", "AP", "AF", "AF", "A"]
    assert [row[3] for row in rows[3:6]] == ["19", "19", "20"]
    assert rows[3][1:3] == ["49152", "3389"] and rows[4][1:3] == ["3389", "49152"]
    assert [row[4].rpartition(":")[2] for row in rows[3:6]] == ["rdp", "rdp", "t125"]
    assert rows[0][6] == "/dev/synthrdp0 to unix:/run/x"
    times = [float(row[5]) for row in rows]
    assert times == sorted(times) and before <= times[0] <= times[-1] <= time.time()
    asked = tshark(capture.file, "-Y", "rdp.negReq.requestedProtocols == 0x0b")
    answered = tshark(capture.file, "-Y", "rdp.negReq.selectedProtocol == 0")
    (attached, *_), = tshark(capture.file, "-Y", "t125")
    assert (len(asked), len(answered)) == (1, 1) and "attachUserRequest" in attached


def test_warning(guest: Guest, tmp_path: Path, capture: Capture) -> None:
    """It is on the terminal and in the file, which is its owner's alone."""
    capture.stop()
    again = Capture(guest, tmp_path / "again.pcapng")
    again.stop(signal.SIGTERM)
    data = again.file.read_bytes()
    assert b"passwords too" in data
    assert again.file.stat().st_mode & 0o777 == 0o600
    assert not guest.path(PLACE).exists()


def test_warning_is_said(guest: Guest, tmp_path: Path) -> None:
    """Before anything is captured."""
    done = subprocess.run(["timeout", "-s", "INT", "3", PROGRAM, "capture", tmp_path / "x"],
                          capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/bin:/bin", "SYNTHRDP_ROOT": str(guest.root)})
    assert done.stdout.startswith(f"Warning: {tmp_path}/x will contain what users type, passwords")


def test_gap(guest: Guest, capture: Capture) -> None:
    """What was lost shows as a gap, and what follows has its place."""
    relay = Relay(guest)
    relay.begin()
    relay.lose(DOWN, bytes(1000))
    relay.send(DOWN, MORE)
    relay.close()
    capture.wait_for("ended")
    capture.stop()
    lost = tshark(capture.file, "-Y", "tcp.analysis.lost_segment", "-T", "fields", "-e", "tcp.seq")
    assert lost == [[str(1 + len(ANSWER) + 1000)]]


def test_large_and_several(guest: Guest, capture: Capture) -> None:
    """Pieces larger than a packet can be; two sessions beside each other."""
    relays = [Relay(guest, f"synthrdp{number}") for number in range(2)]
    for relay in relays:
        relay.begin()
    for relay in relays:
        relay.send(DOWN, b"\x03" * 65536)
        relay.close()
    capture.wait_for("ended")
    capture.wait_for("ended")
    capture.stop()
    assert tshark(capture.file, "-Y", "tcp.analysis.flags or tcp.checksum.status == 0") == []
    rows = fields(capture.file, "tcp.stream", "tcp.srcport", "tcp.len")
    for stream in ("0", "1"):
        sizes = [int(row[2]) for row in rows if row[0] == stream and row[1] == "3389"]
        assert sum(sizes) == len(ANSWER) + 65536


def test_limit(guest: Guest, tmp_path: Path) -> None:
    """Two files of half the limit, each with the session's beginning."""
    capture = Capture(guest, tmp_path / "ring.pcapng", "--limit", "1")
    try:
        relay = Relay(guest)
        relay.begin()
        for _ in range(40):
            relay.send(DOWN, os.urandom(60_000))
        relay.send(UP, b"last")
        relay.close()
        capture.wait_for("ended")
        capture.stop()
    finally:
        capture.kill()
    old = tmp_path / "ring.pcapng.old"
    assert sorted(path.name for path in tmp_path.glob("ring*")) == [capture.file.name, old.name]
    for file in (capture.file, old):
        assert file.stat().st_size < 600_000
        assert file.stat().st_mode & 0o777 == 0o600
        rows = fields(file, "tcp.flags.str", "tcp.len")
        assert [row[0].replace("·", "") for row in rows[:3]] == ["S", "AS", "A"]
        assert [row[1] for row in rows[3:6]] == ["19", "19", "20"]
        assert tshark(file, "-Y", "tcp.checksum.status == 0 or tcp.analysis.retransmission") == []
    assert fields(capture.file, "tcp.len")[-4] == ["4"]


@pytest.mark.usefixtures("capture")
def test_refused(guest: Guest, tmp_path: Path) -> None:
    """No file is overwritten, no link is followed, and there is one capture at a time."""
    there = tmp_path / "there"
    there.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("there", "link"):
        done = guest.run("capture", str(tmp_path / name))
        assert done.returncode == 1 and "File exists" in done.stderr
    assert there.read_text() == "mine" and not (tmp_path / "elsewhere").exists()
    done = guest.run("capture", str(tmp_path / "second"))
    assert (done.returncode, done.stderr) == (1, "synthrdpctl: somebody captures already\n")


def test_place_must_be_roots(guest: Guest, tmp_path: Path) -> None:
    """A directory that others can write to is not used."""
    guest.path("run/synthrdpctl").mkdir()
    guest.path("run/synthrdpctl").chmod(0o777)
    done = guest.run("capture", str(tmp_path / "x"))
    assert done.returncode == 1 and "is not root's alone" in done.stderr


def test_after_a_kill(guest: Guest, tmp_path: Path, capture: Capture) -> None:
    """The socket that was left behind is in nobody's way."""
    capture.kill()
    assert guest.path(PLACE).exists()
    Capture(guest, tmp_path / "next.pcapng").stop()


def test_who_may_connect(guest: Guest, capture: Capture) -> None:
    """Root and the relay's group."""
    seen = guest.path(PLACE).stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (0, 990, 0o660)
    capture.stop()


def test_root_only(tmp_path: Path) -> None:
    """Nobody else."""
    script = ("import os, sys; sys.path.insert(0, sys.argv[1]); import ctl.main; os.setuid(65534);"
              " sys.exit(ctl.main.main(sys.argv[2:]))")
    done = subprocess.run([sys.executable, "-c", script, PROGRAM.parent, "capture",
                           tmp_path / "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "only root" in done.stderr


def test_full_disk(guest: Guest, tmp_path: Path) -> None:
    """It ends with a word; relays go on without it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        capture = Capture(guest, disk / "x.pcapng")
        relay = Relay(guest)
        with pytest.raises(ConnectionError):
            for _ in range(10_000):
                relay.send(DOWN, bytes(50_000))
        _, errors = capture.program.communicate(timeout=SECONDS)
        assert capture.program.returncode == 1 and "No space left on device" in errors
        assert not guest.path(PLACE).exists()
    finally:
        subprocess.run(["umount", disk], check=True)

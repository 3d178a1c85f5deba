# SPDX-License-Identifier: GPL-2.0-only
"""The examples of the document, as an administrator would type them, on what goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

import documents
from bench import KERNELS, Bench
from hvhost import disks
from hvhost.guest import Job
from lab import MAX_DATA, Lab, wait_until

ROOT = "/run/tracers"
EVENTS = "/sys/kernel/tracing/events/synthrdp"
SENT = 4 * MAX_DATA
EXAMPLES = documents.examples("driver.rst", "sh")
PATIENCE = 120.0                # bpftrace compiles: half a minute where processors are emulated


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A guest of the first kernel, with the tracers on a disk."""
    made = Bench(KERNELS[0], disks.attached((disks.tracers(), "readonly=on")), memory=1024)
    yield made
    made.drop()


def type_in(script: str) -> tuple[int, str]:
    """Runs in the guest: what a shell makes of it, with that disk as its root."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if not os.path.exists(ROOT):
        os.mkdir(ROOT)
        for what, kind, place, flags in (
                ("/dev/nvme0n1", "ext4", "", 1), ("/dev", "", "/dev", 4096 | 16384),
                ("/proc", "", "/proc", 4096), ("/sys", "", "/sys", 4096 | 16384),
                ("tmpfs", "tmpfs", "/tmp", 0)):
            if libc.mount(what.encode(), (ROOT + place).encode(), kind.encode(), flags, None):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)

    def enter() -> None:
        os.chroot(ROOT)
        os.chdir("/tmp")

    # The program that looks asks for the signal again; the shell goes on to the next.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    done = subprocess.run(
        ["/bin/sh", "-euc", script], preexec_fn=enter,
        env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", "HOME": "/tmp"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def typed(lab: Lab, name: str) -> Job:
    """An example that has begun to look."""
    job = lab.guest.start(type_in, EXAMPLES[name])
    wanted = EXAMPLES[name].count("tracepoint:")

    def looks() -> bool:
        assert not job.done(), job.result()
        if not wanted:
            return lab.guest.read(f"{EVENTS}/enable") == "1\n"
        # For perf events, of which bpftrace makes use, that says nothing; but they hold the module.
        return int(lab.guest.read("/sys/module/hv_synthrdp/refcnt")) == wanted
    wait_until(f"{name} looks", looks, PATIENCE)
    return job


def seen(job: Job) -> str:
    """What it has to show once it is interrupted."""
    job.kill(signal.SIGINT)
    status, text = job.result(PATIENCE)
    print(text)
    assert status == 0, text
    return str(text)


def go_on(lab: Lab) -> None:
    """A session: 5 bytes one way, and the other way more than the ring takes."""
    session, user = lab.opened(2, auto_grant=False)
    session.write(b"hello")
    assert user.read(100) == b"hello"
    call = user.begin("write", bytes(SENT))
    call.wait_blocked()
    session.channel.auto_grant(True)
    assert call.result() == SENT
    user.close()
    session.end()


def test_trace_cmd(lab: Lab) -> None:
    """Numbers, names and reasons: all that the events tell."""
    job = typed(lab, "trace-cmd")
    lab.renegotiate()
    lab.wait_state("ready")
    go_on(lab)
    text = seen(job)
    lines = [re.sub(r" +", " ", line) for line in
             re.findall(r" synthrdp_(\w+: .*?) *$", text, re.MULTILINE)]
    for line in ("state: ready -> disabled: switched off",
                 "state: negotiating -> ready: the host agrees",
                 "request: type=version-request size=16",
                 "message: type=version-response size=17 verdict=accept",
                 "message: type=create-session size=24 verdict=create-session",
                 "session_open: number=1 error=0", "tx_wake: number=1 error=0",
                 "session_hang_up: number=1 reason=closed unread=0", "session_close: number=1"):
        assert line in lines, text
    packets = [re.sub(r"relid=\d+", "", line).split() for line in lines
               if line.startswith("packet: number=1 ")]
    assert packets[0] == ["packet:", "number=1", "rx", "size=5"]
    assert sum(int(words[3].removeprefix("size=")) for words in packets if words[2] == "tx"
               ) == SENT
    assert any(re.fullmatch(rf"tx_wait: number=1 left={SENT - 3 * MAX_DATA}", line)
               for line in lines), text


def test_bpftrace(lab: Lab) -> None:
    """Bytes by node and direction; a histogram of a writer's waits."""
    job = typed(lab, "bpftrace")
    go_on(lab)
    text = seen(job)
    for line in (r"@from_host\[1\]: 5$", rf"@to_host\[1\]: {SENT}$", r"@waited_us\[1\]: *$",
                 r"^\[.*\) +1 \|@+\|$"):
        assert re.search(line, text, re.MULTILINE), text


def test_dynamic_debug(lab: Lab) -> None:
    """For who has no tracing: states and sessions in the log, once it is asked for."""
    assert lab.guest.run(type_in, EXAMPLES["dynamic-debug"]) == (0, "")
    try:
        lab.renegotiate()
        lab.wait_state("ready")
        session, user = lab.opened()
        session.end()
        assert user.read(1) == b""
    finally:
        lab.guest.run(type_in, EXAMPLES["dynamic-debug"].replace("+p", "-p"))
    said = [line.text for line in lab.guest.kernel_messages()]
    for words in ("ready: the host agrees", "disabled: switched off", "session withdrawn"):
        assert any(line.endswith(words) for line in said), said

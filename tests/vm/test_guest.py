# SPDX-License-Identifier: GPL-2.0-only
"""The test guest itself: functions run in it, its kernel's words are heard, its death is seen."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator

import pytest

from hvhost import kernels, kmsg
from hvhost.guest import Guest, GuestDied, JobDied


@pytest.fixture(scope="module", params=kernels.NAMES)
def booted(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest without channels."""
    made = Guest(kernels.kernel(request.param))
    yield made
    made.kill()


@pytest.fixture
def guest(booted: Guest) -> Guest:
    """The same, at the beginning of a test."""
    booted.begin_test()
    return booted


def _add(a: int, b: int) -> dict[str, object]:
    print("adding")
    return {"sum": _plus(a, b), "bytes": b"\0\xff", "release": os.uname().release}


def _plus(a: int, b: int) -> int:
    return a + b


def _fail() -> None:
    os.close(os.open("/dev/null", os.O_RDONLY) + 100)


def _sleep_in_pipe() -> None:
    os.read(os.pipe()[0], 1)


def _exit() -> None:
    os._exit(3)


def _big(size: int) -> bytes:
    return os.urandom(16) * (size // 16)


def _panic() -> None:
    with open("/proc/sysrq-trigger", "w", encoding="ascii") as file:
        file.write("c")


def test_a_function_runs(guest: Guest) -> None:
    """Arguments go there; results come back, and what is printed."""
    found = guest.run(_add, 40, 2)
    assert found == {"sum": 42, "bytes": b"\0\xff", "release": guest.kernel.release}
    assert guest.end_test() == []


def test_an_exception_comes_back(guest: Guest) -> None:
    """With its errno, and the trace from there."""
    with pytest.raises(OSError) as caught:
        guest.run(_fail)
    assert caught.value.errno == errno.EBADF
    assert "in _fail" in caught.value.__notes__[0]


def test_jobs_run_side_by_side_and_can_be_killed(guest: Guest) -> None:
    """One sleeps in the kernel, another one runs meanwhile; a signal ends the first."""
    job = guest.start(_sleep_in_pipe)
    job.wait_blocked("pipe_read")
    assert guest.run(_plus, 1, 1) == 2
    assert not job.done()
    job.kill(signal.SIGTERM)
    with pytest.raises(JobDied, match="signal 15"):
        job.result()


def test_an_exit_is_no_result(guest: Guest) -> None:
    """A job that leaves without a result says how."""
    with pytest.raises(JobDied, match="status 3"):
        guest.run(_exit)


def test_a_megabyte(guest: Guest) -> None:
    """Results larger than any buffer on the way."""
    found = guest.run(_big, 1 << 20)
    assert found == found[:16] * (1 << 16)


def test_the_kernels_complaints_are_heard(guest: Guest) -> None:
    """It says why it refuses a module of another kernel: at level error, and undeclared."""
    other = "6.12" if guest.kernel.name == "6.1" else "6.1"
    with pytest.raises(OSError):
        guest.insmod(module=kernels.kernel(other).module("uio"))
    complaint, = guest.end_test()
    assert "uio: " in complaint
    guest.expect_message("uio: ")
    assert guest.end_test() == []


@pytest.mark.parametrize("button", [True, False], ids=["button", "reboot"])
def test_reset(guest: Guest, button: bool) -> None:
    """After a reset it is a fresh guest, on the same machine."""
    job = guest.start(_sleep_in_pipe)
    job.wait_blocked("pipe_read")
    guest.reset(button=button)
    assert job.done()
    assert guest.run(_plus, 2, 2) == 4


def test_a_panic_is_told(booted: Guest) -> None:
    """At once, and with the kernel's last words. (The last test of the guest.)"""
    job = booted.start(_panic)
    started = time.monotonic()
    with pytest.raises(GuestDied, match="sysrq triggered crash|Kernel panic"):
        job.result(20)
    assert time.monotonic() - started < 10
    assert not booted.alive
    assert kmsg.FATAL.search(booted.vm.console)

# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's selftest of the driver, built as in a kernel tree and run in a guest."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from hvhost import cache, linux
from hvhost.synthrdp import ACCEPT, REJECT
from lab import Lab

NAME = "tools/testing/selftests/drivers/synthrdp"
SUITE = "sid"
PASS, FAIL, SKIP = 0, 1, 4      # exit status of a selftest


@pytest.fixture(scope="module", name="program")
def _program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The program with its libc in it: the guest has another one."""
    target = tmp_path_factory.mktemp("selftest")
    place = f"{linux.LINUX}/{NAME}"
    said = cache.run(linux.root(SUITE).command(
        ["make", "-s", "-C", place, f"OUTPUT={linux.BUILD}", "LDFLAGS=-static -s"],
        binds={linux.source(SUITE): linux.LINUX, linux.TOP / NAME: place, target: linux.BUILD}),
        "building the selftest", env=linux.ENV)
    assert "warning" not in said, said
    return (target / "synthrdp").read_bytes()


def run(program: bytes) -> tuple[int, str]:
    """In the guest: its exit status, and what it says."""
    place = f"/run/selftest{os.getpid()}"
    with open(place, "wb") as file:
        file.write(program)
    os.chmod(place, 0o755)
    done = subprocess.run([place], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    os.unlink(place)
    return done.returncode, done.stdout


def totals(text: str) -> dict[str, int]:
    """How many tests passed, failed, and were skipped."""
    last = text.strip().splitlines()[-1]
    assert last.startswith("# Totals: "), text
    return {name: int(number) for name, number in re.findall(r"(\w+):(\d+)", last)
            if name in ("pass", "fail", "skip")}


def test_with_a_session(lab: Lab, program: bytes) -> None:
    """Everything is tried and found well; the host gets the bytes, and sees the end."""
    session = lab.session()
    job = lab.guest.start(run, program)
    session.wait_opened()
    assert session.read_to_end(60) == b"kselftest"
    status, text = job.result(60)
    found = totals(text)
    assert (status, found["fail"], found["skip"]) == (PASS, 0, 0), text
    assert found["pass"] == text.count("\nok ") > 10, text


def test_without_a_session(lab: Lab, program: bytes) -> None:
    """The tests of the node are left out, with a reason each."""
    status, text = lab.guest.start(run, program).result(60)
    assert (status, totals(text)["fail"]) == (PASS, 0), text
    assert totals(text)["skip"] == text.count("# SKIP no session") > 5, text


def test_without_the_driver(lab: Lab, program: bytes) -> None:
    """All of it is left out, as the kernel's scripts want to hear it."""
    lab.guest.rmmod()
    try:
        assert lab.guest.run(run, program) == (
            SKIP, "1..0 # SKIP no control device: no Hyper-V, or no driver\n")
    finally:
        lab.guest.insmod()


def test_a_failure_is_one(lab: Lab, program: bytes) -> None:
    """With a host that refuses."""
    lab.allow_complaints()
    lab.host.answer_with(REJECT)
    status, text = lab.guest.start(run, program).result(90)
    assert (status, totals(text)["fail"]) == (FAIL, 2), text
    lab.host.answer_with(ACCEPT)
    lab.renegotiate()
    lab.wait_state("ready")

# SPDX-License-Identifier: GPL-2.0-only
"""What the documents promise to programs: attributes, and examples that do what they say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import documents
from guestside import Pattern
from hvhost.synthrdp import ACCEPT, CONTROL, MALFORMED_PACKETS, SILENCE
from lab import CONTROL_FOLDER, Lab
from streams import HostWriter

CLASS = "/sys/class/synthrdp/synthrdp0"
PARAMETERS = "/sys/module/hv_synthrdp/parameters"
EXAMPLES = documents.examples("userspace-api/synthrdp.rst", "c")
# What every device of every class has.
EVERYBODYS = {"dev", "device", "power", "subsystem", "uevent"}
TOTAL = 1 << 20


def names(folder: str) -> list[str]:
    """Runs in the guest: what is in a directory."""
    return os.listdir(folder)


def run_program(program: bytes, *arguments: str) -> tuple[int, bytes, str]:
    """Runs in the guest: a program's status, output, and complaints."""
    path = f"/run/example{os.getpid()}"
    with open(path, "wb") as file:
        file.write(program)
    os.chmod(path, 0o755)
    done = subprocess.run([path, *arguments], capture_output=True, check=False)
    os.unlink(path)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The examples, compiled; with their libc in them, for the guest has another one."""
    folder: Path = tmp_path_factory.mktemp("examples")
    for name, text in EXAMPLES.items():
        (folder / name).write_text(text)
        subprocess.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s",
                        "-o", folder / Path(name).stem, folder / name], check=True)
    return {name: (folder / Path(name).stem).read_bytes() for name in EXAMPLES}


def test_attributes(lab: Lab) -> None:
    """Those of the document and those that are there are the same."""
    lab.session()
    device = CONTROL_FOLDER.replace(str(CONTROL), "<UUID>")
    assert documents.attributes("sysfs-bus-vmbus-synthrdp") == {
        f"{device}/{name}" for name in lab.guest.run(names, CONTROL_FOLDER)}
    there = set(lab.guest.run(names, CLASS)) - EVERYBODYS
    assert documents.attributes("sysfs-class-synthrdp") == {
        path.replace("synthrdp0", "synthrdpN") for path in
        (CLASS, *(f"{CLASS}/{name}" for name in there))}
    assert documents.attributes("sysfs-module-hv_synthrdp") == {
        f"{PARAMETERS}/{name}" for name in lab.guest.run(names, PARAMETERS)}
    assert [f"{path[:-1]}0" for path in documents.attributes("dev-synthrdp")] == [
        f"/dev/{name}" for name in lab.nodes()]


@pytest.mark.parametrize("ending", ["end", "nonsense"])
def test_print(lab: Lab, programs: dict[str, bytes], ending: str) -> None:
    """All that came, and whether it ended well."""
    lab.allow_complaints()
    session = lab.session(2)
    job = lab.guest.start(run_program, programs["print.c"], "/dev/synthrdp1")
    session.wait_opened()
    session.write(Pattern(1).piece(0, 100_000))
    if ending == "end":
        session.channel.wait_placed()
        session.end()
    else:
        session.send(MALFORMED_PACKETS["pipe type 5"])
    status, output, complaint = job.result()
    assert output == Pattern(1).piece(0, 100_000)
    assert (status, complaint.partition(": ")[2]) == (
        (0, "") if ending == "end" else (1, "/dev/synthrdp1: Protocol error\n"))


def test_print_and_another_user(lab: Lab, programs: dict[str, bytes]) -> None:
    """Somebody has the node open."""
    lab.opened()
    status, _, complaint = lab.guest.run(run_program, programs["print.c"])
    assert status == 1 and complaint.endswith("/dev/synthrdp0: Device or resource busy\n")


def test_echo(lab: Lab, programs: dict[str, bytes]) -> None:
    """All comes back, in order, though both rings fill up; the end is the end."""
    session = lab.session()
    job = lab.guest.start(run_program, programs["echo.c"])
    session.wait_opened()
    writer = HostWriter(session, 3, TOTAL)
    assert session.read_exact(TOTAL) == Pattern(3).piece(0, TOTAL)
    assert writer.end() == TOTAL
    session.end()
    assert job.result()[0] == 0


def test_ready(lab: Lab, programs: dict[str, bytes]) -> None:
    """Returns at once, or when it is time."""
    assert lab.guest.run(run_program, programs["ready.c"])[0] == 0
    lab.host.answer_with(SILENCE)
    lab.renegotiate()
    lab.wait_state("negotiating")
    job = lab.guest.start(run_program, programs["ready.c"])
    job.wait_blocked()
    assert not job.done()
    lab.switch(False)
    lab.host.answer_with(ACCEPT)
    lab.switch(True)
    assert job.result()[0] == 0

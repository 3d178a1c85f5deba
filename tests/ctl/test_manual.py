# SPDX-License-Identifier: GPL-2.0-only
"""synthrdpctl's manual, completion and installation: they know what the program knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fakeroot import PROGRAM, TOP, Guest

SOURCE = PROGRAM.parent
MANUAL = SOURCE / "synthrdpctl.8"
BASH, ZSH = SOURCE / "completion.bash", SOURCE / "completion.zsh"


def section(name: str) -> str:
    """A section of the manual."""
    return MANUAL.read_text().partition(f".Sh {name}\n")[2].partition("\n.Sh ")[0]


def commands(guest: Guest) -> set[str]:
    """All commands, by --help."""
    return set(re.findall(r"^    ([a-z]+)  ", guest.run("--help").stdout, re.M))


def options(guest: Guest, command: str) -> set[str]:
    """Its options, by --help."""
    return set(re.findall(r"--[a-z]+", guest.run(command, "--help").stdout)) - {"--help"}


def test_commands(guest: Guest) -> None:
    """Manual and completion have each of them, and no other."""
    known = commands(guest)
    assert len(known) > 5
    assert known == set(re.findall(r"^\.It Cm (\w+)", section("DESCRIPTION"), re.M))
    assert known == set(re.findall(r"^\.Cm (\w+)", section("SYNOPSIS"), re.M))
    assert known == set(re.findall(r"^\t'(\w+):", ZSH.read_text(), re.M))
    assert known == set(complete()) - {"--help", "--version"}


def test_options(guest: Guest) -> None:
    """The same for the options of each."""
    for command in commands(guest):
        known = options(guest, command)
        entry = re.search(rf"^\.It Cm {command}\b(.*)", section("DESCRIPTION"), re.M)
        assert entry
        assert known == {f"--{name}" for name in re.findall(r"Fl Fl (\w+)", entry[1])}
        assert known == {word for word in complete(command) if word.startswith("--")} - {"--help"}
        line = re.search(rf"^{command}\) (.*)", ZSH.read_text(), re.M)
        assert known == set(re.findall(r"'(--[a-z]+)[=\[]", line[1] if line else ""))


def test_exit_statuses() -> None:
    """The manual explains each."""
    names = re.search(r"^(OK, .*) = range\((\d+)\)", (SOURCE / "ctl/main.py").read_text(), re.M)
    assert names and names[1].count(",") + 1 == int(names[2])
    assert re.findall(r"^\.It (\d)", section("EXIT STATUS"), re.M) == [
        str(number) for number in range(int(names[2]))]


def test_checks(guest: Guest) -> None:
    """The manual lists the doctor's checks, in their order."""
    assert re.findall(r"^\.It Cm (\S+)", section("CHECKS"), re.M) == [
        check["id"] for check in guest.json("doctor")["checks"]]


@pytest.mark.parametrize("command", [
    ["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-mandoc", "-Tutf8", "-ww", "-z"]])
def test_manual_is_tidy(command: list[str]) -> None:
    """mandoc and groff have nothing to say."""
    done = subprocess.run([*command, MANUAL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def complete(*words: str) -> list[str]:
    """What bash offers after these words."""
    script = (f"source {BASH}; COMP_WORDS=(synthrdpctl {' '.join(words)} ''); "
              f"COMP_CWORD={len(words) + 1}; _synthrdpctl; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
    return subprocess.run(["bash", "-uc", script], capture_output=True, text=True,
                          check=True).stdout.split()


def test_bash() -> None:
    """It completes what is begun."""
    script = (f"source {BASH}; COMP_WORDS=(synthrdpctl di); COMP_CWORD=1; _synthrdpctl;"
              " echo ${COMPREPLY[@]}")
    done = subprocess.run(["bash", "-uc", script], capture_output=True, text=True, check=True)
    assert done.stdout == "disable\n"
    subprocess.run(["shellcheck", BASH], check=True)


def test_zsh() -> None:
    """zsh can read it."""
    done = subprocess.run(["zsh", "-n", ZSH], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_version(guest: Guest) -> None:
    """The version is the package's."""
    found = re.search(r'^PACKAGE_VERSION="(.*)"', (TOP / "dkms.conf").read_text(), re.M)
    assert found and guest.run("--version").stdout == f"synthrdpctl {found[1]}\n"


def test_installed(guest: Guest, tmp_path: Path) -> None:
    """`make install` installs what runs there, and leaves nothing else behind by running."""
    subprocess.run(["make", "-s", "-C", SOURCE, "install", f"DESTDIR={tmp_path}/new",
                    "PREFIX=/usr"], check=True)
    installed = tmp_path / "new/usr"
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert {"sbin/synthrdpctl", "lib/synthrdp/ctl/main.py", "share/man/man8/synthrdpctl.8",
            "share/synthrdp/status.schema.json", "share/synthrdp/doctor.schema.json",
            "share/bash-completion/completions/synthrdpctl",
            "share/zsh/vendor-completions/_synthrdpctl"} <= files
    done = subprocess.run([installed / "sbin/synthrdpctl", "status"], capture_output=True,
                          text=True, check=False, cwd="/", env={
                              "PATH": f"{guest.programs}:/usr/bin:/bin",
                              "SYNTHRDP_ROOT": str(guest.root)})
    assert done.returncode == 0 and done.stdout.startswith("Enhanced Session: ready")
    assert files == {str(path.relative_to(installed)) for path in installed.rglob("*")
                     if path.is_file()}
    assert not any("__pycache__" in name for name in files)

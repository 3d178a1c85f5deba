# SPDX-License-Identifier: GPL-2.0-only
"""The program around the sessions: its command line, messages, manual and service files."""

from __future__ import annotations

import os
import pty
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from relaykit import (ACCEPT, DEVICE, HERE, OK, REQUEST, SOURCE, TOP, USAGE, Bench, Programs,
                      accept, compile_c, recv_all, recv_exact)

NODE = "--device=/dev/synthrdp0"
UNIX = "--server=unix:/run/server"
MANUAL = SOURCE / "synthrdp-relay.8"


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it where it ends by itself."""
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False,
                          timeout=10)


@pytest.mark.parametrize("arguments,words", [
    ((), "give either --device or --watch"),
    ((UNIX,), "give either --device or --watch"),
    ((NODE, "--watch", UNIX), "give either --device or --watch"),
    ((NODE,), "--server is missing"),
    (("--watch",), "--server is missing"),
    ((NODE, UNIX, "--foo"), "unknown option: --foo"),
    ((NODE, UNIX, "-x"), "unknown option: -x"),
    ((NODE, UNIX, "--watch=1"), "--watch"),
    ((NODE, "--server"), "missing value: --server"),
    ((NODE, UNIX, "more"), "unexpected argument: more"),
    ((NODE, UNIX, "--security=tls"), "--security must be rdp or pass, not: tls"),
])
def test_wrong_command_line(programs: Programs, arguments: tuple[str, ...], words: str) -> None:
    """One line that says what is wrong, and where to look."""
    result = run(programs.relay, *arguments)
    assert result.returncode == USAGE
    assert words in result.stderr and result.stderr.endswith("see synthrdp-relay --help\n")
    assert result.stderr.count("\n") == 1 and result.stdout == ""


@pytest.mark.parametrize("address,words", [
    ("", "it must be unix:PATH"),
    ("localhost:3389", "it must be unix:PATH"),
    ("UNIX:/run/server", "it must be unix:PATH"),
    ("unix:", "the socket's path must start with /"),
    ("unix:server", "the socket's path must start with /"),
    ("unix:@", "the socket's path must start with /"),
    ("unix:/" + "x" * 107, "the socket's path is too long"),
    ("unix:@" + "x" * 107, "the socket's path is too long"),
    ("tcp:", "it must be tcp:HOST:PORT"),
    ("tcp:3389", "it must be tcp:HOST:PORT"),
    ("tcp::3389", "it must be tcp:HOST:PORT"),
    ("tcp:[]:3389", "it must be tcp:HOST:PORT"),
    ("tcp:::1:3389", "it must be tcp:HOST:PORT"),
    ("tcp:[::1]", "it must be tcp:HOST:PORT"),
    ("tcp:" + "x" * 300 + ":3389", "it must be tcp:HOST:PORT"),
    ("tcp:127.0.0.1:", "the port must be a number"),
    ("tcp:127.0.0.1:0", "the port must be a number"),
    ("tcp:127.0.0.1:65536", "the port must be a number"),
    ("tcp:127.0.0.1:+1", "the port must be a number"),
    ("tcp:127.0.0.1:rdp", "the port must be a number"),
    ("tcp:127.0.0.1:33890000000000000000", "the port must be a number"),
    ("tcp:[::g]:3389", "Name or service not known|not supported"),
    ("tcp:nobody.invalid:3389", "Name or service not known|Temporary failure in name resolution"),
    ("vsock:", "it must be vsock:CID:PORT"),
    ("vsock:2", "it must be vsock:CID:PORT"),
    ("vsock:2:", "both of them numbers"),
    ("vsock::3389", "both of them numbers"),
    ("vsock:host:3389", "both of them numbers"),
    ("vsock:-1:3389", "both of them numbers"),
    ("vsock:4294967295:3389", "both of them numbers"),
    ("vsock:2:4294967295", "both of them numbers"),
    ("vsock:2:3389:1", "both of them numbers"),
    ("vsock:00000000000000000002:3389", "it must be vsock:CID:PORT"),
])
def test_wrong_address(programs: Programs, address: str, words: str) -> None:
    """One line that shows the address and says how it should look."""
    result = run(programs.relay, NODE, f"--server={address}")
    assert result.returncode == USAGE
    assert f"--server={address}: " in result.stderr and re.search(words, result.stderr)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("address", [
    "unix:/" + "x" * 106, "unix:@" + "x" * 106, "tcp:127.0.0.1:1", "tcp:127.0.0.1:65535",
    "tcp:[::1]:3389", "tcp:localhost:3389", "vsock:2:3389", "vsock:0:0",
    "vsock:4294967294:4294967294",
])
def test_right_address(programs: Programs, address: str) -> None:
    """The limits belong to what is right: these get as far as the device, which is not there."""
    result = run(programs.relay, "--device=/nowhere/synthrdp0", f"--server={address}")
    assert result.returncode == DEVICE, result.stderr


def test_help_and_manual_agree(programs: Programs) -> None:
    """--help, the manual and the code know the same options and exit statuses."""
    usage = run(programs.relay, "--help")
    assert usage.returncode == OK and usage.stderr == ""
    manual = MANUAL.read_text()
    code = (SOURCE / "main.c").read_text()
    options = set(re.findall(r'\{ "([a-z]+)", ', code))
    assert options == set(re.findall(r"^  --([a-z]+)", usage.stdout, re.M))
    assert options == set(re.findall(r"^\.It Fl Fl ([a-z]+)", manual, re.M))
    statuses = set(re.findall(r"^\tRELAY_\w+ = (\d)", (SOURCE / "relay.h").read_text(), re.M))
    section = manual.partition(".Sh EXIT STATUS")[2].partition(".Sh ")[0]
    assert statuses == set(re.findall(r"^\.It (\d)", section, re.M))
    relay = (SOURCE / "relay.c").read_text()
    for name, words in (("REQUEST_MS", "within {} seconds"), ("SERVER_MS", "for up to {} seconds"),
                        ("ANSWER_MS", "not answer within {} seconds"),
                        ("DRAIN_MS", "every {} seconds"), ("DRAIN_MS", "gets {} seconds")):
        found = re.search(rf"^#define {name}\s+(\d+)000$", relay, re.M)
        assert found and words.format(found[1]) in " ".join(manual.split())


def test_version(programs: Programs) -> None:
    """--version prints one line."""
    result = run(programs.relay, "--version")
    assert re.fullmatch(r"synthrdp-relay \d+(\.\d+)+\S*\n", result.stdout)
    assert result.returncode == OK


# Messages

def test_terminal(bench: Bench) -> None:
    """On a terminal there are plain lines."""
    master, slave = pty.openpty()
    bench.nodes.add()
    with subprocess.Popen([str(bench.programs.relay), "--device=/nowhere", UNIX],
                          stderr=slave) as process:
        os.close(slave)
        text = os.read(master, 4096).decode()
        assert process.wait() == DEVICE
    os.close(master)
    assert text.startswith("synthrdp-relay: /nowhere: No such file or directory: ")


def test_journal(bench: Bench) -> None:
    """Under systemd each line has its level, and syslog is not bothered."""
    mine, theirs = socket.socketpair()
    status = os.fstat(theirs.fileno())
    environment = dict(os.environ, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
    command = [str(bench.programs.relay), "--device=/nowhere", UNIX]
    with subprocess.Popen(command, stderr=theirs.fileno(), env=environment) as process:
        theirs.close()
        text = recv_all(mine).decode()
        assert process.wait() == DEVICE
    mine.close()
    assert text.startswith("<3>/nowhere: No such file or directory: ")
    # Somebody else's stream is not the journal.
    environment["JOURNAL_STREAM"] = "1:1"
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert other.stderr.startswith("synthrdp-relay[")


def test_syslog(bench: Bench) -> None:
    """Without a terminal and without the journal it is syslog, at the right level."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        path = bench.directory / "log"
        log.bind(str(path))
        log.settimeout(10)
        in_private_dev = f"mount -t tmpfs none /dev && ln -s {path} /dev/log && exec \"$@\""
        result = run(Path(shutil.which("unshare") or "unshare"), "-m", "sh", "-c", in_private_dev,
                     "sh", str(bench.programs.relay), "--device=/nowhere", UNIX)
        assert result.returncode == DEVICE, result.stderr
        message = log.recv(4096).decode()
    assert re.match(r"<27>.* synthrdp-relay\[\d+\]: /nowhere: No such file", message)


# Under valgrind, where it is not the sanitizers' build

def test_valgrind(bench: Bench) -> None:
    """A whole session, a refused one, and a watched one, without a word from memcheck."""
    valgrind = ("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full",
                "--show-leak-kinds=definite,possible", "--track-fds=yes", "--trace-children=no")
    listener = bench.listen()
    relay, host = bench.serve(plain=True, wrapper=valgrind)
    host.sendall(REQUEST + b"behind")
    server = accept(listener)
    recv_exact(server, len(REQUEST) + 6)
    server.sendall(ACCEPT + bytes(300000))
    assert recv_exact(host, len(ACCEPT) + 300000)
    host.close()
    assert recv_all(server) == b""
    server.close()
    logs = [relay.wait(OK, timeout=30)]
    assert "the client left" in logs[0]

    bench.nodes.remove()
    watcher = bench.run("--watch", f"--server={bench.unix}", plain=True, wrapper=valgrind)
    watcher.wait_for("waiting for /dev", timeout=30)
    bench.nodes.add()
    host = bench.nodes.host()
    host.sendall(b"\x16\x03\x01")
    watcher.wait_for("refused: this is not .* TLS handshake", timeout=30)
    bench.nodes.remove()
    watcher.process.terminate()
    logs.append(watcher.wait(OK, timeout=30))
    for log in logs:
        usual = "<inherited from parent>|FILE DESCRIPTORS|Open file"
        assert not re.search(rf"^==\d+== (?! *({usual})|$)", log, re.M), log


# What it gives up

def test_sockets_that_can_be_had(tmp_path: Path) -> None:
    """Unix ones, and no way around."""
    program = compile_c(tmp_path / "cases", HERE / "confine_cases.c", SOURCE / "confine.c")
    done = run(program)
    before, after = done.stdout.split("confined\n")
    refused = "Address family not supported by protocol"
    assert done.returncode == 0 and before.count(" made\n") == 5, done.stdout
    assert after.splitlines() == ["unix made", *(f"{kind} {refused}" for kind in (
        "inet", "inet6", "netlink", "upper half", "io_uring"))]


def seccomp(process: int | str) -> str:
    """How the kernel filters a process' system calls: 0 is not at all, 2 by a program."""
    found = re.search(r"^Seccomp:\t(\d)$", Path(f"/proc/{process}/status").read_text(), re.M)
    assert found
    return found[1]


def test_network_is_given_up(bench: Bench) -> None:
    """By whoever does not need it, before anything comes from the host."""
    relay, _ = bench.serve(plain=True)
    assert seccomp(relay.pid) == "2"
    # In a container there may be a filter already.
    for server, filtered in ((bench.unix, "2"), ("tcp:127.0.0.1:3389", seccomp("self"))):
        watcher = bench.run("--watch", f"--server={server}", plain=True)
        watcher.wait_for("waiting for /dev/synthrdp")
        assert seccomp(watcher.pid) == filtered


# What is installed

@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """make install"""
    target = tmp_path_factory.mktemp("install")
    result = subprocess.run(["make", "-s", "-C", SOURCE, f"O={target / 'build'}",
                             f"DESTDIR={target / 'root'}", "PREFIX=/usr", "install"],
                            capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return target / "root"


def test_install(installed: Path) -> None:
    """Everything has its place, and nothing is left in the source."""
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert files == {
        "etc/synthrdp/relay.conf",
        "usr/lib/systemd/system/synthrdp-relay@.service",
        "usr/lib/sysusers.d/synthrdp.conf",
        "usr/lib/udev/rules.d/60-synthrdp.rules",
        "usr/sbin/synthrdp-relay",
        "usr/share/man/man8/synthrdp-relay.8",
    }


def test_service_files(installed: Path, tmp_path: Path) -> None:
    """systemd finds nothing wrong with them, and the service's exposure is low."""
    unit = installed / "usr/lib/systemd/system/synthrdp-relay@.service"
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/sbin", str(installed / "usr/sbin")))
    for command in (["systemd-analyze", "verify", "--man=no",
                     str(copy).replace("@", "@synthrdp0")],
                    ["systemd-sysusers", "--dry-run", f"--root={tmp_path}",
                     str(installed / "usr/lib/sysusers.d/synthrdp.conf")]):
        if command[0] == "systemd-analyze":
            shutil.copy(copy, command[-1])
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0 and not re.search("(?i)fail|warn|unknown|ignor",
                                                        result.stderr), result.stderr
    result = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=20",
                             str(copy)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-500:]


def test_service_and_rule_agree() -> None:
    """The rule wants the unit that there is, and gives the node to the group that there is."""
    rule = (TOP / "tools/udev/60-synthrdp.rules").read_text()
    wanted = re.search(r'SYSTEMD_WANTS\}\+="([^%]+)%k\.service"', rule)
    assert wanted
    unit = (TOP / f"tools/systemd/{wanted[1]}.service").read_text()
    users = (TOP / "tools/sysusers.d/synthrdp.conf").read_text()
    group = re.search(r'GROUP="(\w+)"', rule)
    assert group and f"\nGroup={group[1]}\n" in unit and f"\nu {group[1]} " in users
    assert "BindsTo=dev-%i.device" in unit

# SPDX-License-Identifier: GPL-2.0-only
"""synthrdpctl doctor: each cause set up in a guest that is well, found by name, and cured."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import jsonschema
import pytest

from fakeroot import (CONTROL, DATA, ENDED, KERNEL_LOG, PROGRAM, RELEASE, SOCKET, USER_ID,
                      Guest)

MODULES = f"lib/modules/{RELEASE}"
TCP = "0100007F"                # 127.0.0.1, as /proc/net/tcp has it


def ended(reason: str) -> str:
    """A relay's last word."""
    return ENDED.replace("the client left", reason)


@dataclass(frozen=True)
class Case:
    """A cause, and what the doctor has to say of it, in the finding, the cure or the quote."""

    id: str
    cause: Callable[[Guest], object]
    says: tuple[str, ...]
    beside: tuple[str, ...] = ()        # what else must be found, as it follows
    name: str = ""


def not_hyperv(guest: Guest) -> None:
    """No trace of Hyper-V."""
    guest.remove("sys")


def no_vmbus(guest: Guest) -> None:
    """Hyper-V by its firmware, and a kernel that knows nothing of it."""
    guest.remove("sys")
    guest.write("sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n")
    guest.write("sys/class/dmi/id/product_name", "Virtual Machine\n")
    guest.write("sys/module/hv_synthrdp/x", "")


def confidential(kind: int, node: str = "") -> Callable[[Guest], None]:
    """By the kernel's log, or by a device."""
    def cause(guest: Guest) -> None:
        guest.withdraw()
        if node:
            guest.write(node, "")
        else:
            guest.kernel_said(f"Hyper-V: Isolation Config: Group A 0x1, Group B 0xba{kind:x}")
    return cause


def old_host(guest: Guest) -> None:
    """Windows Server 2012."""
    guest.withdraw()
    guest.remove("dev/kmsg")
    guest.kernel_said(KERNEL_LOG[0].replace("10.0.20348.859", "6.2.9200.1"))


def hvsocket(guest: Guest) -> None:
    """As the recipe of the time before set it up."""
    guest.withdraw()
    guest.replace("etc/xrdp/xrdp.ini", "^port=.*", "port=vsock://-1:3389")


def not_installed(guest: Guest) -> None:
    """Nowhere."""
    guest.unload()
    guest.remove("lib/modules")


def other_kernel(guest: Guest) -> None:
    """After an upgrade of the kernel."""
    guest.unload()
    guest.path(MODULES).rename(guest.path("lib/modules/6.1.0-98-cloud-amd64"))
    guest.write("var/lib/dkms/hv-synthrdp/0.1.0/build/make.log",
                "CC [M] main.o\nmain.c:3: error: no such thing\n")


def no_headers(guest: Guest) -> None:
    """DKMS has had nothing to build it with."""
    not_installed(guest)
    guest.write("usr/src/hv-synthrdp-0.1.0/dkms.conf", "")


def old_kernel(guest: Guest) -> None:
    """One for which it is not built."""
    no_headers(guest)
    guest.write("proc/sys/kernel/osrelease", "5.10.0-30-amd64\n")


def no_depmod(guest: Guest) -> None:
    """Copied there, and no more."""
    guest.unload()
    guest.write(f"{MODULES}/modules.dep", "kernel/fs/ext4.ko:\n")


def two_modules(guest: Guest) -> None:
    """One by DKMS, one by make install."""
    guest.write(f"{MODULES}/extra/hv_synthrdp.ko", "module")


def blacklisted(line: str) -> Callable[[Guest], None]:
    """In modprobe's configuration."""
    def cause(guest: Guest) -> None:
        guest.unload()
        guest.write("etc/modprobe.d/local.conf", f"# why\n{line}\n")
    return cause


def blacklisted_at_boot(option: str) -> Callable[[Guest], None]:
    """On the kernel's command line."""
    def cause(guest: Guest) -> None:
        guest.unload()
        guest.write("proc/cmdline", f"ro {option}=floppy,hv-synthrdp quiet\n")
    return cause


def rejected_key(guest: Guest) -> None:
    """By a kernel that Secure Boot started."""
    guest.unload()
    guest.write("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
                b"\x06\0\0\0\x01")
    guest.kernel_said("Loading of module with unavailable key is rejected")


def rejected_key_by_journal(guest: Guest) -> None:
    """As modprobe said it to whoever started that."""
    guest.unload()
    guest.journal("grep", "modprobe: ERROR: could not insert 'hv_synthrdp': Key was rejected by"
                  " service")


def held(guest: Guest) -> None:
    """By the user-space tools' driver."""
    guest.bind(CONTROL, "uio_hv_generic")
    guest.remove(f"sys/devices/{CONTROL}/synthrdp")
    guest.write(f"sys/devices/{CONTROL}/driver_override", "uio_hv_generic\n")


def data_held(guest: Guest) -> None:
    """A session's device only."""
    guest.bind(DATA, "uio_hv_generic")


def unbound(guest: Guest) -> None:
    """By nobody."""
    guest.bind(CONTROL, None)
    guest.remove(f"sys/devices/{CONTROL}/synthrdp")


def host_says_no(guest: Guest) -> None:
    """The driver's state, and its word."""
    guest.state("rejected")
    guest.kernel_said(f"hv_synthrdp {CONTROL}: the host rejects protocol version 1.0")


def host_silent(guest: Guest) -> None:
    """The driver's state, and its word."""
    guest.state("failed")
    guest.kernel_said(f"[   12.3] hv_synthrdp {CONTROL}: no answer from the host")


def off(guest: Guest) -> None:
    """Off, and nothing else said."""
    guest.state("disabled", "0")


def off_by_somebody(guest: Guest) -> None:
    """By synthrdpctl disable."""
    off(guest)
    guest.write("etc/synthrdp/disabled", "disabled by alice as root, 2026-11-21\n")


def off_masked(guest: Guest) -> None:
    """By systemctl mask."""
    off(guest)
    guest.units(ready="masked/inactive")


def off_without_server(guest: Guest) -> None:
    """By the unit, whose server has failed."""
    off(guest)
    guest.server_down()
    guest.units(ready="loaded/inactive", xrdp="loaded/failed/exit-code")
    guest.journal("synthrdp-xrdp.service", "xrdp: no room")


def shadow(guest: Guest, state: str) -> None:
    """Another server has our xrdp's place, and the guest's readiness goes with it."""
    off(guest)
    guest.write("etc/synthrdp/relay.conf", "SERVER=unix:/run/shadow.sock\n")
    guest.replace("proc/net/unix", SOCKET, "/run/shadow.sock")
    guest.server = "synthrdp-shadow.service"
    guest.units(ready="loaded/inactive", xrdp="loaded/inactive", shadow=state)


def off_without_other_server(guest: Guest) -> None:
    """By the unit, whose server is another one."""
    shadow(guest, "loaded/failed/signal")
    guest.server_down()


def off_without_any_server(guest: Guest) -> None:
    """By the unit; the name that it goes by is a dangling link."""
    shadow(guest, "not-found/inactive")
    guest.server_down()


def off_at_boot(guest: Guest) -> None:
    """On the kernel's command line, without units."""
    off(guest)
    guest.units(ready="not-found/inactive")
    guest.write("proc/cmdline", "ro hv_synthrdp.enabled=0\n")


def off_by_option(guest: Guest) -> None:
    """By modprobe's option, and without the unit that would switch it on."""
    off(guest)
    guest.units(ready="not-found/inactive")


def relay_masked(guest: Guest) -> None:
    """By systemctl mask, of which systemd says nothing until a session comes."""
    guest.path("etc/systemd/system").mkdir(parents=True)
    guest.path("etc/systemd/system/synthrdp-relay@.service").symlink_to("/dev/null")


def sesman_masked(guest: Guest) -> None:
    """One that ours needs."""
    guest.server_down()
    guest.units(sesman="masked/inactive", xrdp="loaded/inactive")


def no_user(guest: Guest) -> None:
    """systemd-sysusers did not run."""
    guest.replace("etc/passwd", "^synthrdp:.*\n", "")
    guest.replace("etc/group", "^synthrdp:.*\n", "")


def node_of_root(guest: Guest) -> None:
    """As the kernel makes it, without udev's rule."""
    guest.path("dev/synthrdp0").chmod(0o600)
    os.chown(guest.path("dev/synthrdp0"), 0, 0)


def relay_failed(guest: Guest) -> None:
    """Its unit is failed."""
    guest.units(relay="loaded/failed/signal")
    guest.relay_said("/dev/synthrdp0: opened")


def unserved(guest: Guest) -> None:
    """A device without a relay."""
    guest.remove("proc/4711")


def no_xrdp(guest: Guest) -> None:
    """Not installed."""
    guest.remove("usr/sbin/xrdp")
    guest.server_down()


def down(load: str) -> Callable[[Guest], None]:
    """The unit is in some state, and nobody listens."""
    def cause(guest: Guest) -> None:
        guest.server_down()
        guest.units(xrdp=load)
        guest.journal("synthrdp-xrdp.service", *(f"line {number}" for number in range(9)))
    return cause


def other_server(address: str) -> Callable[[Guest], None]:
    """Named by the administrator; nobody is there."""
    def cause(guest: Guest) -> None:
        guest.write("etc/synthrdp/relay.conf", f'SERVER="{address}"\n')
    return cause


def tls_by_config(guest: Guest) -> None:
    """The ordinary xrdp, set for TLS."""
    other_server("tcp:[::1]:3389")(guest)
    guest.replace("etc/xrdp/xrdp.ini", "negotiate", "tls")
    guest.write("proc/net/tcp", "  sl  local_address rem_address   st\n"
                f"   0: {TCP}:0D3D 00000000:0000 0A\n")


def closed_directory(guest: Guest) -> None:
    """The socket's directory lets nobody in."""
    guest.path("run/synthrdp").chmod(0o700)


def closed_socket(guest: Guest) -> None:
    """The socket has another group."""
    os.chown(guest.path(SOCKET), 980, 980)


def mismatch(guest: Guest) -> None:
    """One from backports."""
    (guest.data / "packages").write_text("xrdp 0.10.1-3.1\nxorgxrdp 1:0.9.19-1\n")


def wrapped(guest: Guest) -> None:
    """sesman starts what goes through the wrapper."""
    guest.replace("etc/xrdp/sesman.ini", "/usr/lib/xorg/Xorg", "Xorg")


def login(guest: Guest, *more: str) -> None:
    """What sesman says of a login."""
    guest.write("var/log/xrdp-sesman.log", "\n".join((
        "[20261121-15:00:00] [INFO ] ++ created session (access granted): username other,"
        " ip 10.0.0.1",
        "[20261121-15:06:00] [INFO ] ++ created session (access granted): username demo", *more)))


def home(guest: Guest, name: str, text: str) -> None:
    """A file of the user's."""
    os.chown(guest.write(f"home/demo/{name}", text), USER_ID, USER_ID)


def x_does_not_fit(guest: Guest) -> None:
    """By the X server's own log."""
    login(guest, "[20261121-15:06:09] [ERROR] X server on display 11 startup timed out")
    home(guest, ".xorgxrdp.11.log",
         "(II) Loading xorgxrdp\n(EE) module ABI major version (24) doesn't match the server's"
         " version (25)\n")


def dies(guest: Guest) -> None:
    """As xrdp 0.9 has it."""
    login(guest, "[20261121-15:06:02] [WARN ] Window manager (pid 99, display 10) exited quickly"
          " (1 secs). This could indicate a window manager config problem")
    home(guest, ".xsession-errors", "fine\n\x1b[31mxfce4-session: cannot open display\n")


def dies_in_xrdp_10(guest: Guest) -> None:
    """As xrdp 0.10 has it, and with nothing but the X server's log."""
    guest.write("var/log/xrdp-sesman.log", "\n".join((
        "[20261121-15:06:00] [INFO ] Starting session: session_pid 4, display :12.0, width 1024,"
        " height 768, bpp 24, client ip , user name demo",
        "[20261121-15:06:02] [WARN ] Window manager (pid 99, display 12) exited with non-zero exit"
        " code 127. This could indicate a window manager config problem")))
    home(guest, ".xorgxrdp.12.log", "(II) well\n(EE) no screens\n")


def old_xrdp(guest: Guest) -> None:
    """Debian 12's."""
    (guest.data / "packages").write_text("xrdp 0.9.21.1-1+deb12u3\nxorgxrdp 1:0.9.19-1\n")


def disabled_xrdp(guest: Guest) -> None:
    """By systemctl disable; ours has had it started."""
    units = guest.data / "units"
    blocks = [block.replace("static", "disabled") if "Id=xrdp.service\n" in block else block
              for block in units.read_text().split("\n\n")]
    units.write_text("\n\n".join(blocks))


def half_configured(guest: Guest) -> None:
    """A script of a package has failed."""
    (guest.data / "states").write_text("iF  hv-synthrdp-dkms\nii  synthrdp\nrc  xorgxrdp\n")


def recipe(guest: Guest) -> None:
    """As its script leaves a machine, while the host offers the device again."""
    guest.write("etc/modules-load.d/hv_sock.conf", "hv_sock\n")
    guest.replace("etc/xrdp/xrdp.ini", "^port=.*", "port=vsock://-1:3389\ncrypt_level=none")


TLS = "the server wants TLS, which the host does not speak here"
CASES = (
    Case("not-hyperv", not_hyperv, ("not a Hyper-V guest",)),
    Case("no-vmbus", no_vmbus, ("no VMBus", "modprobe hv_vmbus")),
    Case("confidential", confidential(2), ("AMD SEV-SNP",), name="snp"),
    Case("confidential", confidential(3), ("Intel TDX",), name="tdx"),
    Case("confidential", confidential(0, "dev/sev-guest"), ("AMD SEV-SNP",), name="by device"),
    Case("old-host", old_host, ("6.2.9200.1", "2012 R2")),
    Case("hvsocket", hvsocket, ("EnhancedSessionTransportType VMBus", "port=vsock://-1:3389"),
         ("old-recipe",)),
    Case("not-offered", Guest.withdraw, ("does not offer", "-EnableEnhancedSessionMode $true",
                                         "-EnhancedSessionTransportType VMBus")),
    Case("module-missing", not_installed, ("hv-synthrdp-dkms", "make install")),
    Case("module-kernel", other_kernel, (RELEASE, "6.1.0-98-cloud-amd64", "linux-headers-",
                                         "main.c:3: error: no such thing")),
    Case("module-kernel", no_headers, (f"running kernel {RELEASE}.", "linux-headers-"),
         name="headers"),
    Case("module-kernel", old_kernel, ("5.10.0-30-amd64 is too old", "from 6.1 on"), name="old"),
    Case("module-index", no_depmod, ("depmod -a", "updates/dkms/hv_synthrdp.ko.xz")),
    Case("module-twice", two_modules, ("more than once", "extra/hv_synthrdp.ko")),
    Case("module-blacklisted", blacklisted("blacklist hv_synthrdp"),
         ("/etc/modprobe.d/local.conf", "blacklist hv_synthrdp"), name="file"),
    Case("module-blacklisted", blacklisted("install hv-synthrdp /bin/false"),
         ("install hv-synthrdp /bin/false",), name="install"),
    Case("module-blacklisted", blacklisted_at_boot("module_blacklist"), ("command line",),
         name="kernel"),
    Case("module-blacklisted", blacklisted_at_boot("modprobe.blacklist"), ("command line",),
         name="modprobe"),
    Case("module-rejected", rejected_key, ("Secure Boot is on", "mokutil --import", "Basic session",
                                           "unavailable key is rejected")),
    Case("module-rejected", rejected_key_by_journal, ("Key was rejected by service",),
         name="journal"),
    Case("module-unloaded", Guest.unload, ("not loaded", "modprobe hv_synthrdp")),
    Case("device-held", held, ("uio_hv_generic", "control", f"{CONTROL} >", "/unbind",
                               "echo > /sys/bus/vmbus/devices")),
    Case("device-held", data_held, ("uio_hv_generic", "data", f"{DATA} >"), name="data"),
    Case("device-held", unbound, ("no driver", "hv_synthrdp/bind"), name="unbound"),
    Case("rejected", host_says_no, ("rejects protocol version 1.0",)),
    Case("unanswered", host_silent, ("no answer from the host", "vmms")),
    Case("switched-off", off_by_somebody, ("alice", "synthrdpctl enable"), name="synthrdpctl"),
    Case("switched-off", off_masked, ("masked", "systemctl unmask synthrdp-ready"), name="masked"),
    Case("switched-off", off_without_server, ("synthrdp-xrdp.service is failed",),
         ("server-down",), name="server"),
    Case("switched-off", off_without_other_server,
         ("synthrdp-shadow.service is failed (signal)", "journalctl -u synthrdp-shadow.service"),
         ("server-down",), name="other server"),
    Case("switched-off", off_without_any_server, ("synthrdp-shadow.service is not installed",),
         ("server-down",), name="no server"),
    Case("switched-off", lambda guest: shadow(guest, "loaded/active"), ("somebody wrote 0",),
         name="beside other server"),
    Case("switched-off", off_at_boot, ("command line", "hv_synthrdp.enabled=0"), name="kernel"),
    Case("switched-off", off_by_option, ("modprobe.d/synthrdp.conf", "enabled=0"), name="option"),
    Case("switched-off", off, ("somebody wrote 0",), name="somebody"),
    Case("relay-missing", lambda guest: guest.remove("usr/sbin/synthrdp-relay"),
         ("sbin/synthrdp-relay missing", "make install")),
    Case("relay-missing", lambda guest: guest.remove("usr/lib/udev"),
         ("60-synthrdp.rules missing", "udevadm control --reload"), name="rules"),
    Case("relay-user", no_user, ("systemd-sysusers",)),
    Case("node-permissions", node_of_root, ("group 0, mode 0600", "udevadm trigger")),
    Case("node-permissions", lambda guest: guest.path("dev/synthrdp0").chmod(0o666),
         ("Everybody may open /dev/synthrdp0",), name="everybody"),
    Case("relay-failing", relay_failed, ("synthrdp-relay@synthrdp0.service is failed (signal)",
                                         "/dev/synthrdp0: opened")),
    Case("relay-failing", unserved, ("Nobody serves synthrdp0", "restart synthrdp-relay@synthrdp0"),
         name="unserved"),
    Case("relay-failing", lambda guest: guest.relay_said(ended("the host sent malformed packets")),
         ("malformed packets",), name="broken"),
    Case("relay-failing", relay_masked, ("is masked", "systemctl unmask synthrdp-relay@.service"),
         name="masked"),
    Case("server-missing", no_xrdp, ("apt install xrdp xorgxrdp", "/etc/synthrdp/relay.conf")),
    Case("server-config", lambda guest: guest.replace("etc/xrdp/xrdp.ini", "Globals", "Global"),
         ("no section [Globals]", "systemctl restart synthrdp-xrdp")),
    Case("server-config", lambda guest: guest.remove("etc/xrdp/xrdp.ini"), ("is missing",),
         name="missing"),
    Case("server-config", lambda guest: guest.path("etc/xrdp/xrdp.ini").chmod(0o600),
         ("The user xrdp may not read", "mode 0600", "chmod 644"), name="unreadable"),
    Case("server-down", down("loaded/failed/exit-code"), (
        "synthrdp-xrdp.service is failed (exit-code)", "journalctl -u synthrdp-xrdp", "line 8")),
    Case("server-down", down("loaded/inactive"), ("is inactive", "systemctl start"),
         name="inactive"),
    Case("server-down", down("masked/inactive"), ("is masked", "systemctl unmask"), name="masked"),
    Case("server-down", sesman_masked, ("xrdp-sesman.service is masked", "systemctl unmask xrdp-"),
         name="sesman masked"),
    Case("server-down", other_server("unix:/run/weston.sock"), ("unix:/run/weston.sock",
                                                                "correct SERVER"), name="other"),
    Case("server-down", other_server("tcp:localhost:3390"), ("tcp:localhost:3390",), name="tcp"),
    Case("server-tls", lambda guest: guest.relay_said(f"/dev/synthrdp0: {TLS}: set", ended(TLS)),
         ("wants TLS", "security_layer=rdp", "crypt_level=none")),
    Case("server-tls", tls_by_config, ("security_layer=tls", "tcp:[::1]:3389"), name="config"),
    Case("server-refuses", lambda guest: guest.relay_said(ended(
        "the server refuses: it finds the request inconsistent (failure code 4)")),
         ("failure code 4", "/var/log/xrdp.log")),
    Case("socket-permissions", closed_directory, ("/run/synthrdp has", "0700", "0750")),
    Case("socket-permissions", closed_socket, ("/run/synthrdp/xrdp.sock has", "group 980"),
         name="socket"),
    Case("socket-permissions", lambda guest: guest.relay_said(ended(
        "cannot connect: Permission denied: let the relay's user connect there")),
         ("Permission denied",), name="log"),
    Case("xrdp-old", old_xrdp, ("drives", "sound")),
    Case("xrdp-disabled", disabled_xrdp, ("xrdp.service is disabled", "port=tcp://.:3389")),
    Case("xorgxrdp-missing", lambda guest: guest.remove("usr/lib/xorg/modules"),
         ("apt install xorgxrdp",)),
    Case("xorgxrdp-mismatch", mismatch, ("xrdp 0.10.1-3.1 and xorgxrdp 1:0.9.19-1",)),
    Case("xorgxrdp-mismatch", x_does_not_fit, ("does not fit", "major version (24)"),
         ("login-dies",), name="server"),
    Case("xwrapper", wrapped, ("allowed_users=anybody", "param=/usr/lib/xorg/Xorg")),
    Case("login-dies", dies, ("user demo died", "?[31mxfce4-session: cannot open display")),
    Case("login-dies", dies_in_xrdp_10, ("user demo died", "(EE) no screens"), name="0.10"),
    Case("package-half", half_configured, ("way only: hv-synthrdp-dkms.", "dpkg --configure -a")),
    Case("unit-changed", lambda guest: guest.write(
        "etc/systemd/system/synthrdp-xrdp.service.d/local.conf", ""),
         ("synthrdp-xrdp.service.d/local.conf", "systemctl revert synthrdp-xrdp.service")),
    Case("unit-changed", lambda guest: guest.write(
        "etc/systemd/system/synthrdp-relay@.service", ""),
         ("systemctl cat synthrdp-relay@.service",), name="whole"),
    Case("old-recipe", recipe, ("port=vsock://-1:3389", "crypt_level=none", "port=3389",
                                "modules-load.d/hv_sock.conf: hv_sock")),
    Case("journal", lambda guest: guest.units(journald="loaded/failed/signal"),
         ("systemd-journald.service is failed (signal)", "systemctl restart systemd-journald")),
    Case("journal", lambda guest: guest.write(
        "etc/systemd/journald.conf", "[Journal]\nStorage=none\n"), ("journald.conf says so",),
         name="storage"),
)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.id}{case.name and ' ' + case.name}"
                                             for case in CASES])
def test_cause(guest: Guest, case: Case) -> None:
    """It is found, nothing else is, and both forms say what is needed."""
    case.cause(guest)
    done = guest.run("doctor", "--json")
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    assert {finding["id"] for finding in found["findings"]} == {case.id, *case.beside}
    assert found["unread"] == []
    finding = next(finding for finding in found["findings"] if finding["id"] == case.id)
    said = " ".join((finding["finding"], finding["cure"], *finding["quote"]))
    assert [words for words in case.says if words not in said] == []
    assert done.returncode == (0 if finding["severity"] == "note" else 3)

    shown = " ".join(guest.run("doctor").stdout.split())
    assert [words for words in case.says if " ".join(words.split()) not in shown] == []


def test_all_are_tested(guest: Guest) -> None:
    """Each check has a case, but for the disks, which have tests of their own."""
    checks = {check["id"] for check in guest.json("doctor")["checks"]}
    assert checks == {case.id for case in CASES} | {"disk-full", "read-only"}


SCHEMA = json.loads((PROGRAM.parent / "doctor.schema.json").read_text())
HEALTHY = """\
ok  this is a Hyper-V guest
ok  the kernel has a connection to the host
ok  the host offers Enhanced Session
ok  the module is installed
ok  it is built for the running kernel
ok  there is one of it
ok  nothing forbids it to be loaded
ok  the module is loaded
ok  the driver has its devices
ok  the host accepts the protocol's version
ok  the host answers
ok  it is switched on
ok  the relay is installed
ok  the relay's user exists
ok  the sessions' devices are open to the relay alone
ok  relays do their work
ok  an RDP server is installed
ok  the server's configuration is understood
ok  the server listens
ok  the server speaks RDP without TLS
ok  the server takes sessions
ok  the relay may connect to the server
ok  the server does all that the client can
ok  the ordinary xrdp is meant to run
ok  xrdp's X server module is installed
ok  and it fits xrdp and the X server
ok  users may start an X server
ok  desktops stay after the login
ok  the packages are whole
ok  its units are as they were installed
ok  nothing is left of the recipe over Hyper-V sockets
ok  what sessions write to can be written to
ok  there is room on the disks
ok  the journal keeps what is said

Nothing found that needs a cure.
"""
ILL = """\
!!  server-down: The server is not running: synthrdp-xrdp.service is failed (exit-code).
    cure: systemctl start synthrdp-xrdp.service; if that fails, journalctl -u synthrdp-xrdp.service
          says why.
    | line 4
    | line 5
    | line 6
    | line 7
    | line 8

1 finding.
"""


def test_clean_bill(guest: Guest) -> None:
    """A guest in which all is well."""
    done = guest.run("doctor")
    assert (done.stdout, done.stderr, done.returncode) == (HEALTHY, "", 0)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(guest.json("doctor"), SCHEMA)


def test_screen(guest: Guest) -> None:
    """A finding, its cure, and what says so."""
    down("loaded/failed/exit-code")(guest)
    assert guest.run("doctor").stdout.endswith("\n\n" + ILL)


@pytest.mark.parametrize("state", ["opening", "negotiating"])
def test_under_way(guest: Guest, state: str) -> None:
    """What cannot be known yet is no finding."""
    guest.state(state)
    done = guest.run("doctor")
    assert done.returncode == 0 and " ?  the host answers: the conversation" in done.stdout


def test_cured(guest: Guest) -> None:
    """Only the last session counts."""
    guest.relay_said(ended(TLS), ENDED)
    assert guest.json("doctor")["findings"] == []
    login(guest, "[] Window manager (pid 9, display 10) exited quickly (1 secs)",
          "[] [INFO ] Session started successfully for user demo on display 10")
    assert guest.json("doctor")["findings"] == []


@pytest.mark.parametrize("cause", ["new", "over"])
def test_unserved_for_a_reason(guest: Guest, cause: str) -> None:
    """A device that has just appeared, and one whose session is over, need no relay."""
    unserved(guest)
    assert guest.run("doctor").returncode == 3
    if cause == "new":
        guest.path("dev/synthrdp0").touch()
    else:
        guest.relay_said(*["/dev/synthrdp0: opened"] * 100,
                         ended("no request came in 10 s"))
    assert guest.json("doctor")["findings"] == []


def test_without_systemd(guest: Guest) -> None:
    """No unit, no rule and no journal is needed there."""
    guest.remove("run/systemd")
    guest.remove("usr/lib/systemd")
    guest.remove("usr/lib/udev")
    (guest.programs / "systemctl").unlink()
    (guest.programs / "journalctl").unlink()
    its_own = "ok  its units are as they were installed\n", "ok  the journal keeps what is said\n"
    assert guest.run("doctor").stdout == HEALTHY.replace(its_own[0], "").replace(its_own[1], "")


@pytest.mark.parametrize("kind", ["link", "pipe", "other's"])
def test_user_cannot_show_others_files(guest: Guest, kind: str) -> None:
    """What a user puts in the place of a log is not shown, and nobody waits for it."""
    dies(guest)
    log = guest.path("home/demo/.xsession-errors")
    log.unlink()
    guest.write("etc/shadow", "root:secret\n", 0o600)
    if kind == "link":
        guest.link("home/demo/.xsession-errors", "etc/shadow")
    elif kind == "pipe":
        os.mkfifo(log)
        os.chown(log, USER_ID, USER_ID)
    else:
        log.hardlink_to(guest.path("etc/shadow"))
    finding, = guest.json("doctor")["findings"]
    assert (finding["id"], finding["quote"]) == ("login-dies", [])


def test_disk_full(guest: Guest) -> None:
    """A real one, small and full."""
    logs = guest.path("var/log")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", logs], check=True)
    try:
        assert guest.json("doctor")["findings"] == []
        (logs / "big").write_bytes(bytes(1000 << 10))
        finding, = guest.json("doctor")["findings"]
        assert (finding["id"], finding["severity"]) == ("disk-full", "warning")
        with pytest.raises(OSError), (logs / "big").open("ab") as file:
            file.write(bytes(1 << 20))
        finding, = guest.json("doctor")["findings"]
        assert finding["severity"] == "error" and "/var/log is full: 0 KiB" in finding["finding"]
    finally:
        subprocess.run(["umount", logs], check=True)


def test_units_of_others(guest: Guest) -> None:
    """Another server's, and the name that it is given, are none of ours."""
    guest.write("etc/systemd/system/synthrdp-shadow.service", "")
    guest.link("etc/systemd/system/synthrdp-server.service",
               "etc/systemd/system/synthrdp-shadow.service")
    assert guest.json("doctor")["findings"] == []


def test_read_only(guest: Guest) -> None:
    """A real one, after the kernel has seen an error."""
    logs = guest.path("var/log")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", logs], check=True)
    try:
        guest.kernel_said("EXT4-fs (sda1): Remounting filesystem read-only")
        finding, = guest.json("doctor")["findings"]
        assert (finding["id"], finding["severity"]) == ("read-only", "error")
        assert "/var/log is mounted read-only" in finding["finding"]
        assert "remount,rw /var/log" in finding["cure"] and "Remounting" in finding["quote"][0]
    finally:
        subprocess.run(["umount", logs], check=True)


def test_not_root(guest: Guest) -> None:
    """What may not be read is said; it is no finding, and nobody says that it is well."""
    guest.remove("dev/kmsg")
    guest.program("journalctl", "echo denied >&2; exit 1")
    found = guest.json("doctor")
    assert found["findings"] == []
    assert {check["id"] for check in found["checks"] if check["result"] == "unknown"} == {
        "relay-failing", "server-tls", "server-refuses"}
    assert found["unread"] == ["the kernel's log", "the journal"]
    shown = guest.run("doctor").stdout
    assert " ?  relays do their work: the journal is not readable\n" in shown
    assert shown.endswith(
        "Not readable without root's rights: the kernel's log; the journal\n")


def test_nothing_is_changed(guest: Guest) -> None:
    """It looks, and that is all."""
    def files() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode)
                for path in guest.root.rglob("*")}
    before = files()
    guest.run("doctor")
    assert files() == before
    called = (guest.data / "called").read_text().splitlines()
    assert all(line.startswith("show ") for line in called)

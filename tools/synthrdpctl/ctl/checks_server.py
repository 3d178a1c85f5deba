# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the relay and of the server behind it."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import PurePosixPath

from .checks_driver import XRDP, module_missing
from .doctor import MOOT, NOTE, Found, Outcome, Scene, Table, Unknown, first
from .facts import parse_end
from .ini import Invalid, sections
from .server import CONFIG
from .system import JOURNAL, RELAY, Account

USER = "synthrdp"
PREFIXES = ("/usr", "/usr/local")
NEEDED = ("xrdp.service", "xrdp-sesman.service")        # by ours
XRDP_INI = "/etc/xrdp/xrdp.ini"
# How a relay says that a session did not come about, by what was to blame.
WANTS_TLS = r"wants (TLS|CredSSP)|requires (TLS|CredSSP)|has no certificate for TLS"
REFUSES = r"the server refuses|closed the connection without an answer"
NO_SERVER = r"cannot connect: |before the server could be reached"
BROKEN = r"not an X\.224|malformed packets|the device failed|poll: |one side hung"
QUOTED = 5
SETTLED = 10.0                  # seconds in which a relay has surely been started

check = Table()


def _relay_lines(scene: Scene, count: int = QUOTED) -> tuple[str, ...]:
    return tuple(said.text for said in scene.system.relay_log[-count:])


@check("relay-missing", "the relay is installed")
def relay_missing(scene: Scene) -> Outcome:
    """The program, and with systemd what starts it."""
    wanted = [f"sbin/{RELAY}"]
    if scene.system.systemd:
        wanted += [f"lib/systemd/system/{RELAY}@.service", "lib/udev/rules.d/60-synthrdp.rules"]
    missing = [name for name in wanted if not scene.system.glob(
        *(f"{prefix}/{name}" for prefix in PREFIXES), f"/etc/{name.removeprefix('lib/')}")]
    if not missing:
        return None
    return Found(f"The relay is not installed completely: {', '.join(missing)} missing.",
                 "Install the package synthrdp; or, in the source: make install, then"
                 " systemctl daemon-reload and udevadm control --reload.")


@check("relay-user", "the relay's user exists")
def relay_user(scene: Scene) -> Outcome:
    """systemd-sysusers makes it."""
    if scene.system.user(USER) and scene.system.group(USER):
        return None
    return Found(f"There is no user and group {USER}, as which the relay runs.",
                 "systemd-sysusers (or useradd --system --user-group synthrdp), then"
                 " udevadm control --reload.")


@check("node-permissions", "the sessions' devices are open to the relay alone")
def node_permissions(scene: Scene) -> Outcome:
    """By udev's rule."""
    group = scene.system.group(USER)
    cure = ("udevadm control --reload; udevadm trigger --action=change"
            " --subsystem-match=synthrdp")
    for session in scene.status.sessions:
        seen = scene.system.stat(f"/dev/{session.device}")
        if seen is None:
            continue
        mode = stat.S_IMODE(seen.st_mode)
        if mode & 0o007:
            return Found(f"Everybody may open /dev/{session.device} (mode {mode:04o}), and read"
                         " what its user types.", cure)
        if group and seen.st_gid != group.gid or mode & 0o060 != 0o060:
            return Found(f"The relay may not open /dev/{session.device}: group {seen.st_gid}, mode"
                         f" {mode:04o} instead of {USER}, 0660.", cure)
    return None if scene.status.sessions else MOOT


def _is_excused(scene: Scene, device: str) -> bool:
    """Whether a device without a relay is nothing unusual: it is new, or its session is over.

    Hyper-V is reported to offer some on which no client ever speaks.
    """
    node = scene.system.stat(f"/dev/{device}")
    made = node.st_mtime if node else 0.0
    ends = [said.at for said in scene.system.relay_log
            if (ended := parse_end(said)) and ended.device == device]
    return time.time() - made < SETTLED or any(at is None or at > made for at in ends[-1:])


@check("relay-failing", "relays do their work", reads=(JOURNAL,))
def relay_failing(scene: Scene) -> Outcome:
    """They fail, or do not even start."""
    if module_missing(scene):
        return MOOT
    idle = [session.device for session in scene.status.sessions
            if session.served is False and not _is_excused(scene, session.device)]
    failed = [unit for unit in scene.units.values()
              if unit.name.startswith(f"{RELAY}@") and unit.active == "failed"]
    if scene.ended_by(f"{NO_SERVER}|{WANTS_TLS}|{REFUSES}"):
        return MOOT                     # that is for the server's checks
    if scene.system.link(f"/etc/systemd/system/{RELAY}@.service") == "null":
        return Found(f"Nobody serves sessions: {RELAY}@.service is masked.",
                     f"systemctl unmask {RELAY}@.service; it counts from the next session on.")
    if (last := scene.ended_by(BROKEN)) or failed:
        what = f"{last.device}: {last.reason}" if last else f"{failed[0].name} is {failed[0].how}"
        return Found(f"The relay fails: {what}.",
                     f"journalctl -t {RELAY} has the whole story; systemctl reset-failed"
                     f" '{RELAY}@*' once it is understood.", _relay_lines(scene))
    if idle:
        return Found(f"Nobody serves {', '.join(idle)}: there is no relay that has it open.",
                     f"systemctl restart {RELAY}@{idle[0]} (without systemd: {RELAY} --watch"
                     " --server=…)", _relay_lines(scene))
    return None


# The server

@check("server-missing", "an RDP server is installed")
def server_missing(scene: Scene) -> Outcome:
    """xrdp, unless the relay was told of another."""
    if not scene.status.server.is_own:
        return MOOT
    if scene.has_xrdp:
        return None
    return Found("There is no RDP server: xrdp is not installed.",
                 f"apt install xrdp xorgxrdp; or name another server in {CONFIG}.")


@check("server-config", "the server's configuration is understood", reads=(XRDP_INI,))
def server_config(scene: Scene) -> Outcome:
    """The one that ours is derived from."""
    if not (scene.has_xrdp and scene.status.server.is_own):
        return MOOT
    text = scene.system.read(XRDP_INI)
    if text is None and XRDP_INI not in scene.system.unread:
        return Found(f"{XRDP_INI} is missing, from which the server's configuration is made.",
                     "apt install --reinstall -o Dpkg::Options::=--force-confmiss xrdp")
    try:
        sections(text or "")
    except Invalid as error:
        return Found(f"The server's configuration cannot be made from {XRDP_INI}: {error}.",
                     f"Repair it, then systemctl restart {XRDP}")
    # The server runs as that user from its start on; the ordinary xrdp reads it as root.
    account = scene.system.user("xrdp")
    where = first(_obstacles(scene, XRDP_INI, account, "read")) if account else None
    if not isinstance(where, Found):
        return where
    return Found(where.finding, f"chmod 644 {XRDP_INI}, then systemctl restart {XRDP}")


@check("server-down", "the server listens")
def server_down(scene: Scene) -> Outcome:
    """Nobody does where the relay connects."""
    server, unit = scene.status.server, scene.unit(XRDP)
    if isinstance(server_missing(scene), Found) or server.listening is None:
        return MOOT
    if server.listening:
        return None
    if not server.is_own:
        return Found(f"Nobody listens at {server.address}, which {CONFIG} names.",
                     f"Start that server, or correct SERVER in {CONFIG}.")
    said = tuple(line.text for line in scene.system.journal(f"_SYSTEMD_UNIT={XRDP}")[-QUOTED:])
    for name in (XRDP, *NEEDED):
        if scene.unit(name).load == "masked":
            return Found(f"The server is not running: {name} is masked.",
                         f"systemctl unmask {name}, then synthrdpctl enable")
    return Found(f"The server is not running: {XRDP} is {unit.how}.",
                 f"systemctl start {XRDP}; if that fails, journalctl -u {XRDP} says why.",
                 said if unit.active == "failed" else ())


@check("server-tls", "the server speaks RDP without TLS", reads=(JOURNAL,))
def server_tls(scene: Scene) -> Outcome:
    """The host has done TLS already."""
    server, last = scene.status.server, scene.ended_by(WANTS_TLS)
    cure = (f"Set security_layer=rdp and crypt_level=none in the server's xrdp.ini, or use the"
            f" instance of its own, {XRDP}: no SERVER in {CONFIG}.")
    if last:
        return Found(f"The server wants TLS: {last.reason}.", cure, _relay_lines(scene, 2))
    if server.tcp_port is None:
        return None
    lines = [line.partition("=") for _, line in scene.system.config(XRDP_INI)]
    settings = {name.strip(): value.strip() for name, _, value in lines}
    if str(server.tcp_port) in re.split(r"\D+", settings.get("port", "")) and \
            settings.get("security_layer") == "tls":
        return Found(f"The server wants TLS: {XRDP_INI} says security_layer=tls, and the relay"
                     f" connects to it at {server.address}.", cure)
    return None


@check("server-refuses", "the server takes sessions", reads=(JOURNAL,))
def server_refuses(scene: Scene) -> Outcome:
    """It did not take the last one."""
    last = scene.ended_by(REFUSES)
    if not last or scene.ended_by(WANTS_TLS):
        return None
    return Found(f"The server refused the last session: {last.reason}.",
                 "Its log says why (xrdp: /var/log/xrdp.log, /var/log/xrdp-sesman.log).",
                 _relay_lines(scene, 2))


@check("socket-permissions", "the relay may connect to the server")
def socket_permissions(scene: Scene) -> Outcome:
    """Each directory on the way to the socket, and the socket."""
    path, account = scene.status.server.path, scene.system.user(USER)
    if path is None or account is None:
        return MOOT
    where = first(_obstacles(scene, path, account, "connect to"))
    if where is None and (last := scene.ended_by("cannot connect: Permission denied")):
        where = Found(f"The relay was not allowed to connect to {path}: {last.reason}.", "")
    if not isinstance(where, Found):
        return where
    cure = f"Give it the group {USER} and mode 0660 (a directory: 0750)"
    return Found(where.finding, cure + (f"; systemctl restart {XRDP} makes both anew."
                                        if scene.status.server.is_own else "."))


def _obstacles(scene: Scene, path: str, account: Account, what: str) -> Iterator[Outcome]:
    may = {"connect to": os.W_OK, "read": os.R_OK}[what]
    groups = scene.system.groups(account)
    for place in (*reversed(PurePosixPath(path).parents), PurePosixPath(path)):
        seen = scene.system.stat(str(place))
        if seen is None:
            yield Unknown(f"{place} is not readable") if str(place) in scene.system.unread else None
            return
        need = os.X_OK if stat.S_ISDIR(seen.st_mode) else may
        shift = 6 if seen.st_uid == account.uid else 3 if seen.st_gid in groups else 0
        if not seen.st_mode >> shift & need:
            yield Found(f"The user {account.name} may not {what} {path}: {place} has user"
                        f" {seen.st_uid}, group {seen.st_gid} and mode"
                        f" {stat.S_IMODE(seen.st_mode):04o}.", "")


@check("xrdp-old", "the server does all that the client can")
def xrdp_old(scene: Scene) -> Outcome:
    """Not Debian 12's."""
    version = scene.system.output("dpkg-query", "-W", "-f", "${Version}", "xrdp") or ""
    if not scene.has_xrdp or not scene.status.server.is_own or \
            not re.match(r"(\d+:)?0\.[0-9]\.", version):
        return None
    return Found(f"xrdp {version} does not do everything: the client's drives may stay invisible"
                 " in the session, and Debian 12 has no module for sound.",
                 "Nothing on this release; Debian 13's xrdp 0.10 does both.", (), NOTE)


@check("xrdp-disabled", "the ordinary xrdp is meant to run")
def xrdp_disabled(scene: Scene) -> Outcome:
    """Its session manager is bound to it, and ours needs that."""
    ordinary = scene.unit(NEEDED[0])
    if not scene.status.server.is_own or ordinary.file != "disabled" or \
            ordinary.active != "active":
        return None
    return Found(f"{ordinary.name} is disabled and runs all the same, with its port (3389, mostly):"
                 " Enhanced Sessions need xrdp-sesman, which does not run without it.",
                 f"For this machine's own address only: port=tcp://.:3389 in {XRDP_INI}, then"
                 " systemctl restart xrdp.", (), NOTE)

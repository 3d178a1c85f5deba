# SPDX-License-Identifier: GPL-2.0-only
"""Checks of what comes after the connection: the X server and the user's desktop."""

from __future__ import annotations

import re

from .doctor import MOOT, Found, Outcome, Scene, Table
from .system import Account, printable

MODULES = [f"{place}/xorg/modules/libxorgxrdp.so" for place in
           ("/usr/lib", "/usr/lib/*", "/usr/lib64", "/usr/local/lib")]
SESMAN_INI, SESMAN_LOG = "/etc/xrdp/sesman.ini", "/var/log/xrdp-sesman.log"
WRAPPER_CONFIG = "/etc/X11/Xwrapper.config"
QUOTED = 5
BEGINS = (r"(?:[Cc]reated|[Ss]tarting) session|Session started",
          r"user(?:name)?(?: name)?[ :]+'?([A-Za-z_][\w.-]*)'?(?:[ ,]|$)")
DIES = r"Window manager \(pid \d+, display (\d+)\) exited (quickly|with)"
X_FAILS = r"X server failed to start|X server on display (\d+) startup timed out"
ABI = r"module ABI major version .* doesn't match|Failed to load module \"(xrdpdev|xorgxrdp)\""

check = Table()


@check("xorgxrdp-missing", "xrdp's X server module is installed")
def xorgxrdp_missing(scene: Scene) -> Outcome:
    """A package of its own, which xrdp only recommends."""
    if not scene.has_xrdp:
        return MOOT
    if scene.system.glob(*MODULES):
        return None
    return Found("xorgxrdp is not installed: xrdp has no X server for its sessions.",
                 "apt install xorgxrdp")


def _series(version: str) -> tuple[int, int] | None:
    match = re.match(r"(?:\d+:)?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


@check("xorgxrdp-mismatch", "and it fits xrdp and the X server", reads=(SESMAN_LOG,))
def xorgxrdp_mismatch(scene: Scene) -> Outcome:
    """0.10 goes with 0.10; and each with the X server that it was built for."""
    if not scene.has_xrdp or not scene.system.glob(*MODULES):
        return MOOT
    text = scene.system.output("dpkg-query", "-W", "-f", "${Package} ${Version}\n", "xrdp",
                               "xorgxrdp") or ""
    versions = dict(line.split() for line in text.splitlines() if line.count(" ") == 1)
    xrdp, xorgxrdp = (_series(versions.get(name, "")) for name in ("xrdp", "xorgxrdp"))
    if xrdp and xorgxrdp and (xrdp >= (0, 10)) != (xorgxrdp >= (0, 10)):
        return Found(f"xrdp {versions['xrdp']} and xorgxrdp {versions['xorgxrdp']} do not go"
                     " together.", "Install both from the same release: apt install xrdp xorgxrdp")
    for user, display in _users_who_failed(scene):
        for line in _x_log(scene, user, display):
            if re.search(ABI, line):
                return Found("xorgxrdp does not fit the installed X server.",
                             "apt install --only-upgrade xorgxrdp xserver-xorg-core, both from the"
                             " same release.", (line,))
    return None


@check("xwrapper", "users may start an X server")
def xwrapper(scene: Scene) -> Outcome:
    """Debian's wrapper lets only those do so who sit at the console; sesman.ini can go around."""
    if not scene.has_xrdp or not scene.system.glob("/usr/lib/xorg/Xorg.wrap"):
        return MOOT
    section, program = "", "Xorg"
    for _, line in scene.system.config(SESMAN_INI):
        if line.startswith("["):
            section = line.strip("[]").lower()
        elif section == "xorg" and re.match(r"param\s*=", line):
            program = line.partition("=")[2].strip()
            break
    allowed = [line.partition("=")[2].strip() for _, line in scene.system.config(WRAPPER_CONFIG)
               if re.match(r"allowed_users\s*=", line)]
    if program not in ("Xorg", "X", "/usr/bin/Xorg", "/usr/bin/X") or allowed[-1:] == ["anybody"]:
        return None
    return Found(f"Users of xrdp may not start an X server: {SESMAN_INI} starts {program}, which"
                 " the wrapper allows only at the console.",
                 f"Set param=/usr/lib/xorg/Xorg in section [Xorg] of {SESMAN_INI}; or"
                 f" allowed_users=anybody in {WRAPPER_CONFIG}.")


def _users_who_failed(scene: Scene) -> list[tuple[Account, str]]:
    """(who, display) of the last login if that died, by sesman's log."""
    lines = scene.system.tail(SESMAN_LOG) if scene.system.exists(SESMAN_LOG) else []
    name, display, failed = "", "10", False
    for line in lines:
        begins, who = (re.search(pattern, line) for pattern in BEGINS)
        if begins and who:
            name, failed = who[1], False
        if match := re.search(f"{DIES}|{X_FAILS}", line):
            failed, display = True, next(filter(str.isdigit, filter(None, match.groups())), display)
    account = scene.system.user(name) if failed else None
    return [(account, display)] if account else []


def _x_log(scene: Scene, user: Account, display: str) -> list[str]:
    name = f"{user.home}/.xorgxrdp.{display}.log"
    return scene.system.tail(name, user.uid) if scene.system.exists(name) else []


@check("login-dies", "desktops stay after the login", reads=(SESMAN_LOG,))
def login_dies(scene: Scene) -> Outcome:
    """The user's session ends at once: a black screen, or back to the login."""
    if not scene.has_xrdp:
        return MOOT
    for user, display in _users_who_failed(scene):
        errors = f"{user.home}/.xsession-errors"
        quote = scene.system.tail(errors, user.uid) if scene.system.exists(errors) else []
        quote = quote or [line for line in _x_log(scene, user, display) if "(EE)" in line]
        return Found(f"The desktop of user {printable(user.name)} died at the login.",
                     f"The end of {errors} follows. Often it helps to install a desktop, or to have"
                     " ~/.xsession start one; and nobody can be logged in to GNOME twice.",
                     tuple(quote[-QUOTED:]))
    return None

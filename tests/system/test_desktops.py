# SPDX-License-Identifier: GPL-2.0-only
"""The first login to desktops that people use, with all installed that is known to put itself
in between: agents of polkit, keyrings, colord.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from desk import PROMPT, Desk, host_of
from desktop import TERMINAL, nonce_and_colour
from hvhost import system
from hvhost.system import PASSWORD
from whole import OLD, Whole, booted, last_words

MEMORY = 3072                   # MiB
FIRST_LOGIN = 600.0             # seconds: programs of a large desktop, in an emulated machine
QUIET = 60.0                    # for what comes late
BACKGROUND, NAME = "191970", "MidnightBlue"     # of the terminal
PROMPT_IN = (45, 85, 300, 130)  # whatever the window's frame is
# As printf takes it.
AUTOSTART = (r"[Desktop Entry]\nType=Application\nName=Terminal\nExec=xterm -geometry 100x24+36+60"
             rf" -fa Monospace -fs 10 -bg {NAME} -fg white\n")


@dataclass(frozen=True)
class Kind:
    """A desktop: what ~/.xsession starts, a program of it, and what windows of its own it has."""

    start: str
    program: str
    windows: frozenset[str]


KINDS = {
    "xfce": Kind("startxfce4", "xfce4-panel", frozenset({"xfce4-panel", "xfdesktop"})),
    # Its window manager draws by OpenGL otherwise, which on Debian 13 it did not survive here.
    "plasma": Kind("env KWIN_COMPOSE=N startplasma-x11", "plasmashell", frozenset({"plasmashell"})),
}
AGENT = "polkit-.*"             # of polkit's, as pgrep is told
# What GNOME does for each screen. Without a rule polkit asks for a password then; on Debian 13 it
# is xrdp that has one. And what it asks for in any case.
SCREEN = "colormgr create-device screen normal display >screen 2>&1; echo done >>screen"
QUESTION = ("pkcheck --process $$ --allow-user-interaction"
            " --action-id org.freedesktop.color-manager.install-system-wide")


class LargeDesk(Desk):
    """A desktop with a panel and icons, and a terminal that shows what is typed by its colour."""

    def wait_desktop(self) -> None:
        """The terminal, on whatever there is, with its prompt."""
        self.wait("a terminal", lambda: self.picture().share(BACKGROUND, TERMINAL) > 0.9,
                  FIRST_LOGIN)
        # More than a cursor.
        self.wait("its prompt", lambda: self.picture().share(BACKGROUND, PROMPT_IN) < 0.97)
        for program in self.program, AGENT:
            self.wait(program, partial(self.has, program), FIRST_LOGIN)
        self.run("xset r off")

    def paint(self) -> None:
        """Give the terminal a colour by typing."""
        nonce, self.colour = nonce_and_colour()
        self.screen.type(*PROMPT, f"clear; printf '\\e]11;#%s\\a' $(printf {nonce} | sha256sum |"
                                  " cut -c1-6)")
        self.wait(f"the colour #{self.colour}, which follows from the {nonce} that was typed",
                  lambda: self.picture().share(self.colour, TERMINAL) > 0.8)

    def has(self, program: str) -> bool:
        """Whether the user runs this."""
        return self.whole.shell.run(f"pgrep -u {self.user} -x '{program}'")[0] == 0

    def windows(self) -> dict[str, str]:
        """The titles of all windows by their classes."""
        # A window may go while wmctrl asks for its title.
        table = self.run("until timeout 10 wmctrl -lx 2>/dev/null; do :; done")
        rows = (line.split(maxsplit=4) for line in table.splitlines())
        return {row[2].partition(".")[0]: row[4] if len(row) > 4 else "" for row in rows}


@pytest.fixture(scope="module", name="large")
def _large(suite: str) -> Iterator[Whole]:
    """A system with both desktops, where each new user gets a terminal at his first login."""
    with booted(system.installed(suite, desktops=True), memory=MEMORY) as whole:
        whole.shell("mkdir -p /etc/skel/.config/autostart;"
                    f" printf '{AUTOSTART}' >/etc/skel/.config/autostart/terminal.desktop")
        yield whole


@pytest.mark.parametrize("kind", KINDS)
def test_first_login(large: Whole, suite: str, kind: str, tmp_path: Path,
                     record_property: Callable[[str, object], None]) -> None:
    """A new user comes to his desktop and can use it, and nobody asks him anything before."""
    desktop = KINDS[kind]
    large.wait_ready()
    large.shell(f"useradd --create-home --shell /bin/bash {kind}; echo {kind}:{PASSWORD} |"
                f" chpasswd; echo exec {desktop.start} >~{kind}/.xsession")
    try:
        with host_of(large, tmp_path) as host, LargeDesk(large, host, tmp_path / "desk",
                                                         kind) as desk:
            desk.program = desktop.program
            started = time.monotonic()
            desk.connect()
            desk.wait_desktop()
            record_property("told", f"{suite}: {time.monotonic() - started:.0f} s to the first"
                                    f" desktop of {kind}")
            desk.paint()
            time.sleep(QUIET)
            assert desk.windows().keys() - desktop.windows == {"xterm"}
            # Typed, for a program must be of the session.
            desk.screen.type(*PROMPT, SCREEN)
            desk.wait("an answer", lambda: large.shell(f"cat ~{kind}/screen").endswith("done"))
            assert desk.windows().keys() - desktop.windows == {"xterm"}
            # Debian 12's polkit takes what systemd has started for Plasma to be of no session, and
            # asks nobody.
            if (suite, kind) != (OLD, "plasma"):
                desk.screen.type(*PROMPT, QUESTION)
                desk.wait("a question", lambda: len(desk.windows().keys() - desktop.windows) > 1)
    finally:
        last_words(large)

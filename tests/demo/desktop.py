# SPDX-License-Identifier: GPL-2.0-only
"""What its user does with the desktop, and how it looks then."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

from client import Client, Picture, Screen
from hvhost.machine import GuestError, Machine
from hvhost.vmms import Vmms

STEP_SECONDS = 90.0             # four times what each takes on two idle cores
WALLPAPER = "334455"            # as tests/guest/xsession paints it
TERMINAL = (70, 100, 600, 400)  # inside the window that it opens
TEXT = (64, 82, 500, 140)       # its first lines


class DesktopError(Exception):
    """What did not come."""


def wait(what: str, condition: Callable[[], bool], check: Callable[[], None] = lambda: None,
         seconds: float = STEP_SECONDS) -> None:
    """Wait until the condition is true; `check` raises when it can no longer become so."""
    end = time.monotonic() + seconds
    while not condition():
        check()
        if time.monotonic() > end:
            raise DesktopError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.3)


def nonce_and_colour() -> tuple[str, str]:
    """Something to type, and the colour that follows from it: neither dark, pale nor grey."""
    while True:
        nonce = secrets.token_hex(4)
        colour = hashlib.sha256(nonce.encode()).hexdigest()[:6]
        channels = bytes.fromhex(colour)
        if 0x30 <= min(channels) <= max(channels) - 0x30 <= 0x80:
            return nonce, colour


def use(machine: Machine, screen: Screen, client: Client, vmms: Vmms) -> tuple[Picture, str]:
    """Log in, type, and look; the picture that proves it, and what was typed."""
    def check() -> None:
        if ended := [seen.ended for seen in vmms.connections if seen.ended]:
            raise DesktopError(f"the host sent the client away: {ended[-1]}")
        client.check()
        if not machine.vm.alive:
            raise GuestError("QEMU has ended")

    wait("the user's desktop", lambda: screen.picture().share(WALLPAPER) > 0.3, check)
    wait("a terminal on it",
         lambda: screen.picture().share("000000", TERMINAL) > 0.9, check)
    time.sleep(1)
    nonce, colour = nonce_and_colour()
    screen.type(300, 300, f'xsetroot -solid "#$(printf {nonce} | sha256sum | cut -c1-6)";'
                " uname -srn; ls -l /dev/synthrdp*")
    wait(f"the colour #{colour}, which follows from the {nonce} that was typed",
         lambda: screen.picture().share(colour) > 0.3, check)
    time.sleep(2)
    picture = screen.picture()
    if picture.share(colour) < 0.3 or picture.share(WALLPAPER) > 0.01:
        raise DesktopError(f"the picture is not of the colour #{colour} any more")
    if not 0.3 < picture.share("000000", TEXT) < 0.97:
        raise DesktopError("there is no text in the terminal")
    return picture, nonce

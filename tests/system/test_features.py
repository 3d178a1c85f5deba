# SPDX-License-Identifier: GPL-2.0-only
"""What a user does in an Enhanced Session, from client to desktop and back, with the xrdp of
each Debian. What one of them cannot is asserted too, with its cause, and that the doctor names it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from client import HEIGHT, WIDTH
from desk import Desk, exchange_text, log_in, sha256, try_wrong_password
from desktop import WALLPAPER
from hvhost.system import PASSWORD
from hvhost.vmms import Vmms
from whole import OLD, Whole

SILENCE = 10.0                  # seconds that a client is suspended
RANDOM_SECONDS = float(os.environ.get("SYNTHRDP_RANDOM_SECONDS", "20"))
LEAK = 1024                     # KiB that a relay may grow by
LEFT = 1 << 8                   # of X's buttons
SECOND = "second"

# Where the pointer is, and what is pressed, by the X server's word.
POINTER = "; ".join((
    "import ctypes as c", "x = c.CDLL('libX11.so.6')", "x.XOpenDisplay.restype = c.c_void_p",
    "d = c.c_void_p(x.XOpenDisplay(None))", "w = [c.c_ulong() for _ in range(7)]",
    "x.XQueryPointer(d, c.c_ulong(x.XDefaultRootWindow(d)), *map(c.byref, w))",
    "print(w[2].value, w[3].value, w[6].value & 0x1f00)"))


def test_wrong_password_for_the_host(whole: Whole, host: Vmms, seat: Desk) -> None:
    """The guest does not hear of it."""
    try_wrong_password(whole, host, seat)


def test_login(whole: Whole, host: Vmms, seat: Desk) -> None:
    """To the host, and to the guest."""
    log_in(whole, host, seat)


def test_keyboard(desk: Desk) -> None:
    """What is typed at the client arrives in the terminal, and its work shows at the client."""
    desk.paint()
    assert desk.picture().share(WALLPAPER) < 0.01


def test_mouse(desk: Desk) -> None:
    """Where the pointer is and which button is down, here and there."""
    def seen(x: int, y: int, button: int) -> None:
        desk.wait(f"the pointer at {x}, {y}, with {button:#x} down", lambda: desk.run(
            f'python3 -c "{POINTER}"') == f"{x} {y} {button}")

    for x, y in ((200, 700), (900, 650)):
        desk.screen.act("mousemove", str(x), str(y))
        seen(x, y, 0)
        desk.screen.act("mousedown", "1")
        seen(x, y, LEFT)
        desk.screen.act("mouseup", "1")
        seen(x, y, 0)


def test_clipboard_text(desk: Desk) -> None:
    """Both ways."""
    exchange_text(desk)


def test_clipboard_file(desk: Desk) -> None:
    """A file that is copied at the client can be pasted in the guest, byte by byte.

    The other way is in test_newer_client.py: Debian's FreeRDP 2 does not take files.
    """
    file = desk.directory / "some file"
    file.write_bytes(random.randbytes(100_000))
    desk.screen.copy(f"file://{desk.directory}/some%20file\r\n".encode(), "text/uri-list")
    desk.wait("the file's name in the guest", lambda: desk.run(
        "timeout 10 xclip -sel c -o -t text/uri-list; true").endswith("/some file"))
    desk.run('cat ~/thinclient_drives/.clipboard/"some file" >/tmp/pasted')
    assert desk.sha256("/tmp/pasted") == sha256(file)


def test_drive(whole: Whole, suite: str, desk: Desk) -> None:
    """What the client shares is a directory in the guest, to read and to write."""
    share, drives = desk.share, f"/home/{desk.user}/thinclient_drives"
    (share / "there").write_bytes(random.randbytes(100_000))
    if suite == OLD:
        # Its chansrv does not understand what FreeRDP announces.
        assert desk.run(f"ls {drives}") == ""
        assert "drives may stay invisible" in whole.doctor()
        return
    assert desk.sha256(f"{drives}/share/there") == sha256(share / "there")
    desk.run(f"cp /etc/services {drives}/share/back; cp /etc/services /tmp")
    assert desk.sha256("/tmp/services") == sha256(share / "back")


def test_resize(desk: Desk) -> None:
    """The desktop takes the size that the client's window is given, and back."""
    def resize(width: int, height: int) -> None:
        desk.screen.act("search", "--sync", "--class", "freerdp", "windowsize", str(width),
                        str(height))
        desk.wait(f"a desktop of {width} x {height}",
                  lambda: f"current {width} x {height}," in desk.run("xrandr"))

    resize(800, 600)
    resize(WIDTH, HEIGHT)
    # The X server has its size before the client has its picture; what was typed in between did
    # not arrive once, with xrdp 0.9.
    desk.wait("the desktop as it was", lambda: desk.picture().share(desk.colour) > 0.3)
    desk.paint()


def test_suspended_client(whole: Whole, desk: Desk) -> None:
    """A client that is put to sleep while there is much to see finds all as it should be."""
    desk.client.send(signal.SIGSTOP)
    try:
        desk.run(f"end=$(($(date +%s) + {SILENCE:.0f})); until test $(date +%s) -gt $end; do"
                 " xsetroot -solid '#800000'; xsetroot -solid '#008000'; done")
        assert whole.shell("cat /sys/class/synthrdp/synthrdp0/rx_malformed") == "0"
    finally:
        desk.client.send(signal.SIGCONT)
    desk.paint()


def test_random_input(whole: Whole, desk: Desk) -> None:
    """Nothing grows: neither the relay's memory nor its files; nothing is malformed."""
    process = whole.show("synthrdp-relay@synthrdp0.service", "MainPID")

    def use() -> tuple[int, int]:
        files = whole.shell(f"ls /proc/{process}/fd | wc -l")
        memory = whole.shell(f"grep VmRSS: /proc/{process}/status").split()[1]
        return int(files), int(memory)

    dice = random.Random(time.time_ns())
    desk.screen.type(300, 300, "cat >/dev/null")
    before, end = use(), time.monotonic() + RANDOM_SECONDS
    while time.monotonic() < end:
        desk.client.check()
        for _ in range(10):
            x, y = dice.randrange(50, 900), dice.randrange(90, 580)
            desk.screen.act("mousemove", str(x), str(y))
            desk.screen.act("type", "--delay", "5",
                            "".join(dice.choices("abcdefghijklmnopqrstuvwxyz 0123456789", k=30)))
    after = use()
    desk.screen.act("key", "Return", "key", "ctrl+d")
    desk.paint()
    assert after[0] == before[0] and after[1] <= before[1] + LEAK, (before, after)
    counters = whole.shell("cd /sys/class/synthrdp/synthrdp0; cat rx_malformed").split()
    assert counters == ["0"]
    assert whole.show("synthrdp-relay@synthrdp0.service", "MainPID") == process


def test_disconnect_and_reconnect(whole: Whole, desk: Desk) -> None:
    """To the same desktop: same X server, same colour, same terminal; by TLS alone this time."""
    server = desk.server()
    desk.client.leave()
    whole.wait_true("the session's node is gone", "test ! -e /dev/synthrdp0")
    assert desk.server() == server
    desk.connect()
    desk.wait_desktop()
    assert desk.server() == server
    desk.paint()


def test_two_users(whole: Whole, host: Vmms, desk: Desk, tmp_path: Path) -> None:
    """At once, on two data channels, each with a desktop of his own."""
    whole.shell(f"useradd --create-home --shell /bin/bash {SECOND}; echo {SECOND}:{PASSWORD} |"
                f" chpasswd; cp ~{desk.user}/.xsession ~{SECOND}")
    with Desk(whole, host, tmp_path / "second", SECOND) as second:
        second.connect()
        second.wait_desktop()
        assert whole.shell("ls /dev/synthrdp*").split() == ["/dev/synthrdp0", "/dev/synthrdp1"]
        assert whole.shell("ps -o user= -C Xorg | sort").split() == sorted([SECOND, desk.user])
        second.paint()
        desk.paint()
        assert second.picture().share(desk.colour) < 0.01
        second.client.leave()
    whole.wait_true("the second node is gone", "test ! -e /dev/synthrdp1")
    desk.paint()


def test_another_client_takes_over(whole: Whole, host: Vmms, desk: Desk, tmp_path: Path) -> None:
    """The same user elsewhere: the first client is sent away, the second has his desktop."""
    server = desk.server()
    with Desk(whole, host, tmp_path / "elsewhere") as elsewhere:
        elsewhere.colour = desk.colour
        elsewhere.connect()
        elsewhere.wait_desktop()
        desk.client.wait(60)
        assert elsewhere.server() == server
        elsewhere.paint()
        desk.colour = elsewhere.colour
        elsewhere.client.leave()


def test_log_off_and_in_again(whole: Whole, desk: Desk) -> None:
    """The client is sent away, the desktop ends; the next login gets a fresh one."""
    server = desk.server()
    desk.screen.type(300, 300, "exit")
    desk.client.wait(60)
    whole.wait_true("the desktop has ended", f"! test -e /proc/{server}")
    desk.colour = WALLPAPER
    desk.connect()
    desk.wait_desktop()
    assert desk.server() != server
    desk.paint()

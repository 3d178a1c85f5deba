# SPDX-License-Identifier: GPL-2.0-only
"""FreeRDP 3 as VMConnect, also where this machine's FreeRDP is the one before; and what it can
show that the older one cannot.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest

from desk import Desk, exchange_text, log_in, newer_client, sha256, try_wrong_password
from hvhost.vmms import Vmms
from whole import OLD, Whole

SIZE = 100_000
FILE = "/tmp/from the guest"
SOUND = "/usr/libexec/pipewire-module-xrdp/load_pw_modules.sh"
RATE, PERIOD, SECONDS = 44100, 100, 8
LOUD = 5000                     # of 32767
# A tone, 441 Hz.
TONE = (f"import math, array as a, sys; sys.stdout.buffer.write(a.array('h', (round(2 * {LOUD} *"
        f" math.sin(math.tau * n / {PERIOD})) for n in range({RATE * SECONDS}))).tobytes())")


@pytest.fixture(scope="module")
def seat(running: Whole, host: Vmms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A user's place, with that client."""
    with Desk(running, host, tmp_path_factory.mktemp("newer"), root=newer_client()) as made:
        yield made


def test_login(whole: Whole, host: Vmms, seat: Desk) -> None:
    """By CredSSP: not with a wrong password for the host; with the right one to a desktop."""
    try_wrong_password(whole, host, seat)
    log_in(whole, host, seat)
    assert "xfreerdp3" in seat.client.name
    exchange_text(seat)
    seat.paint()


def test_by_tls_alone(whole: Whole, seat: Desk) -> None:
    """To the same desktop."""
    server = seat.server()
    seat.client.leave()
    whole.wait_true("the session's node is gone", "test ! -e /dev/synthrdp0")
    seat.connect()
    seat.wait_desktop()
    assert seat.server() == server
    seat.paint()


def test_clipboard_file(desk: Desk) -> None:
    """A file that is copied in the guest can be pasted at the client, byte by byte.

    As many as it has: xrdp 0.10 answers who asks for more with an error, not with none.
    """
    desk.run(f"head -c {SIZE} /dev/urandom >'{FILE}'; printf 'file://%s\\r\\n'"
             f" '{FILE.replace(' ', '%20')}' | xclip -sel c -t text/uri-list -i >/dev/null 2>&1")
    desk.wait("the file's name at the client",
              lambda: desk.screen.paste("text/uri-list").endswith(b"/from the guest\r\n"))
    uri, = desk.screen.paste("text/uri-list").decode().splitlines()
    there = desk.client.file(uri)
    assert there.stat().st_size == SIZE
    pasted = desk.directory / "pasted"
    with there.open("rb") as file:
        pasted.write_bytes(file.read(SIZE))
    assert sha256(pasted) == desk.sha256(FILE)


def test_sound(whole: Whole, suite: str, desk: Desk) -> None:
    """What is played in the guest is heard at the client."""
    if suite == OLD:
        assert desk.try_to("ls /usr/lib/*/*/*xrdp-sink* /usr/lib/*/*/*module-xrdp*")
        assert "no module for sound" in whole.doctor()
        return
    # This desktop does not do what /etc/xdg/autostart asks for.
    desk.run(f"{SOUND} >/dev/null 2>&1 </dev/null &")
    desk.wait("xrdp's sink", lambda: "xrdp-sink" in desk.run("pw-cli ls Node"))
    with desk.heard() as file:
        desk.run(f'python3 -c "{TONE}" >/tmp/tone; timeout 60 pw-cat --playback --raw'
                 f" --rate {RATE} --channels 1 --format s16 --target xrdp-sink - </tmp/tone")
    periods = sorted(periods_of(array("h", file.read_bytes())))
    # An emulated machine may be late with some of it, but never by another tone.
    assert len(periods) > RATE / PERIOD, "not one second of it was heard"
    assert abs(periods[len(periods) // 2] - PERIOD) <= 1


def periods_of(heard: array[int]) -> Iterator[int]:
    """How many samples lie between two upward steps over a line that only what is loud crosses."""
    steps = [n for n in range(1, len(heard)) if heard[n - 1] < LOUD <= heard[n]]
    return (after - before for before, after in zip(steps, steps[1:]))

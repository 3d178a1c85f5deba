# SPDX-License-Identifier: GPL-2.0-only
"""Users of a whole system: each with a client, and with a desktop in the guest."""

from __future__ import annotations

import hashlib
import shlex
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from client import LOUDSPEAKER, Client, ClientError, Picture, Screen
from desktop import TERMINAL, TEXT, WALLPAPER, nonce_and_colour, wait
from hvhost import roots
from hvhost.credssp import Acceptor, Account
from hvhost.machine import PATIENCE
from hvhost.roots import Root
from hvhost.system import PASSWORD, USER
from hvhost.vmms import Vmms
from whole import Whole

ON_HOST = Account(USER, "the host's")           # another password than the guest's
FORMS = "dedede", "f0f0f0"                      # xrdp's login form, of 0.9 and of 0.10
INSIDE = (340, 480, 680, 510)                   # a box in it
PROMPT = (300, 300)                             # in the terminal


def newer_client() -> Root:
    """Where FreeRDP 3 is."""
    return roots.root(roots.Spec("client", "trixie", ("freerdp3-x11", "pulseaudio"),
                                 seconds=60))


@contextmanager
def host_of(whole: Whole, directory: Path) -> Iterator[Vmms]:
    """The host's door, by TLS alone or by CredSSP."""
    with Vmms(uuid.uuid4(), whole.open_session, directory,
              Acceptor(ON_HOST, directory)) as vmms:
        yield vmms


class Desk:
    """A user with a screen before him, and what he sees and does there.

    FreeRDP's home is the screen's directory: there is what it shares. In a root it is FreeRDP 3,
    with a loudspeaker of PulseAudio's; another takes sound, and plays it to nobody.
    """

    program = "openbox"                         # of the desktop, with what programs of it need

    def __init__(self, whole: Whole, vmms: Vmms, directory: Path, user: str = USER,
                 root: Root | None = None) -> None:
        self.user, self.directory = user, directory
        self.colour = WALLPAPER                 # of the desktop, when it was seen last
        self.whole, self._vmms = whole, vmms
        self.share = directory / "share"
        self.share.mkdir(parents=True)
        self.screen = Screen(directory, root)
        self._sound = "fake"
        if root:
            self._sound = "pulse"
            self.screen.start(["pulseaudio", "-n", "--exit-idle-time=-1", "--disable-shm",
                               "--load=module-native-protocol-unix auth-anonymous=1"
                               f" socket={self.screen.home}/{LOUDSPEAKER}",
                               "--load=module-null-sink sink_name=loudspeaker"],
                              "pulseaudio.log")
            wait("PulseAudio", (directory / LOUDSPEAKER).exists)
        self._client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.screen.close()

    @property
    def client(self) -> Client:
        """The client, which has been started."""
        assert self._client is not None
        return self._client

    @property
    def is_connected(self) -> bool:
        """Whether there is a client that has not gone."""
        try:
            self.client.check()
        except (AssertionError, ClientError):
            return False
        return True

    def connect(self) -> None:
        """By TLS alone, with the password for the guest: that logs in at once."""
        self._client = self._start(PASSWORD, "tls")

    def connect_by_nla(self, password: str) -> None:
        """With a password for the host; the one for the guest is for later."""
        self._client = self._start(password, "nla")

    def _start(self, password: str, security: str) -> Client:
        # All that VMConnect has a user choose.
        return self.screen.connect(
            self._vmms.vm_id, self._vmms.port, self.user, password, "+clipboard",
            "/dynamic-resolution", f"/drive:share,{self.screen.home}/share",
            f"/sound:sys:{self._sound}", security=security)

    def fill_in(self) -> None:
        """xrdp's login form, in which the user's name stands already: the host's is the guest's."""
        self.wait("xrdp's login form",
                  lambda: any(self.picture().share(form, INSIDE) > 0.9 for form in FORMS))
        self.screen.act("sleep", "1", "type", "--delay", "40", PASSWORD)
        self.screen.act("key", "Return")

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Until a condition is true, unless the client leaves before."""
        wait(what, condition, self.client.check, seconds)

    def wait_desktop(self) -> None:
        """The desktop as it was left, with a terminal that takes keys."""
        self.wait(f"the desktop of {self.user}, #{self.colour}",
                  lambda: self.picture().share(self.colour) > 0.3)
        self.wait("a terminal on it", lambda: self.picture().share("000000", TERMINAL) > 0.9)
        self.wait("its prompt", lambda: self.picture().share("000000", TEXT) < 0.99)
        # Keys are held as long as a busy machine takes to see them released.
        self.run("xset r off")

    def paint(self) -> None:
        """Give the desktop a colour by typing: only keys that arrive can do that."""
        nonce, self.colour = nonce_and_colour()
        self.screen.type(*PROMPT, f'clear; xsetroot -solid "#$(printf {nonce} | sha256sum |'
                                  ' cut -c1-6)"')
        self.wait(f"the colour #{self.colour}, which follows from the {nonce} that was typed",
                  lambda: self.picture().share(self.colour) > 0.3)

    def picture(self) -> Picture:
        """What is on the screen."""
        return self.screen.picture()

    def run(self, command: str, timeout: float = PATIENCE) -> str:
        """What a command prints that runs as a program of the desktop."""
        return self.whole.shell(self._of_desktop(command), timeout)

    def try_to(self, command: str) -> int:
        """Its exit status."""
        return self.whole.shell.run(self._of_desktop(command))[0]

    def _of_desktop(self, command: str) -> str:
        environ = f"/proc/$(pgrep -o -u {self.user} {self.program})/environ"
        return (f"runuser -u {self.user} -- xargs -0 -a {environ} sh -c"
                f" 'exec env -i \"$@\" sh -c \"$0\"' {shlex.quote(command)}")

    def sha256(self, path: str) -> str:
        """Of a file in the guest."""
        return self.run(f"sha256sum {shlex.quote(path)}").split()[0]

    @contextmanager
    def heard(self) -> Iterator[Path]:
        """What comes from the loudspeaker meanwhile, as a file: 16 bits, 44100 times a second."""
        recorder = self.screen.start(["parec", "--raw", "--rate=44100", "--channels=1",
                                      "--format=s16le", "--device=loudspeaker.monitor",
                                      f"{self.screen.home}/heard"], "parec.log")
        try:
            yield self.directory / "heard"
        finally:
            recorder.terminate()
            recorder.wait(10)

    def server(self) -> str:
        """The process of the X server behind the desktop."""
        return self.whole.shell(f"pgrep -u {self.user} -x Xorg")


def sha256(path: Path) -> str:
    """Of a file here."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def try_wrong_password(whole: Whole, host: Vmms, seat: Desk) -> None:
    """The host refuses, and the guest does not hear of it."""
    before = len(whole.streams)
    seat.connect_by_nla("guessed")
    assert seat.client.wait(60) != 0
    assert "name or password" in host.connections[-1].ended
    assert len(whole.streams) == before


def log_in(whole: Whole, host: Vmms, seat: Desk) -> None:
    """By CredSSP to the host, then by xrdp's form to the guest, which has been asked as by
    VMConnect and has answered what that can go on with.
    """
    seat.connect_by_nla(ON_HOST.password)
    seat.fill_in()
    seat.wait_desktop()
    seen = host.connections[-1]
    assert (seen.user, seen.answer) == (ON_HOST.user, "selects protocol 0: standard RDP")
    assert seen.request == "asks for 0x3; the guest is asked for 0x0b"
    assert whole.shell("ps -o user= -C Xorg") == seat.user
    assert seat.run("echo $USER") == seat.user


def exchange_text(desk: Desk) -> None:
    """By the clipboard, both ways, and not only in ASCII."""
    there, here = "für den Gast: 音", "für den Wirt: 声"
    desk.screen.copy(there.encode())
    desk.wait("the client's text in the guest",
              lambda: desk.run("timeout 10 xclip -sel c -o; true") == there)
    desk.run(f"printf %s {here!r} | xclip -sel c -i >/dev/null 2>&1")
    desk.wait("the guest's text at the client", lambda: desk.screen.paste().decode() == here)

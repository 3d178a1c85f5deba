# SPDX-License-Identifier: GPL-2.0-only
"""The packages on a system that runs: installed, used, upgraded, removed and purged by apt, with
the commands that its user types. Each test goes on where the one before it has left off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from desk import Desk, host_of
from hvhost import debs, system
from hvhost.machine import GuestError
from whole import READY, RELAY, SERVER, Whole, booted, last_words

MEDIA = "/media/packages"
APT = "DEBIAN_FRONTEND=noninteractive apt-get --yes"
APT_SECONDS = 1800.0            # DKMS compiles in an emulated machine
# As the guide has them: a directory of `make deb` has symbols for debuggers, too.
DRIVER, TOOLS = "./{}/hv-synthrdp-dkms_*.deb", "./{}/synthrdp_*.deb"
BOTH, XRDP = f"{DRIVER} {TOOLS}", "./xrdp/*.deb"
# Where a running system keeps writing, besides what any package leaves.
ALIVE = ("/home/", "/root/", "/tmp/", "/var/tmp/", "/var/lib/apt/", "/var/lib/dbus/",
         "/var/lib/systemd/", "/etc/.pwd.lock", MEDIA)
# The system's xrdp is without its pages and texts. The one that comes back has them.
PAGES = ("/usr/share/man/", "/usr/share/locale/")


@dataclass
class Story:
    """A system, and what is to be remembered of it."""

    whole: Whole
    ordinary: str                               # the administrator's own xrdp, by its process

    def apt(self, command: str) -> str:
        """Have apt do something."""
        return self.whole.shell(f"cd {MEDIA} && {APT} {command} 2>&1", APT_SECONDS)

    def note_files(self, name: str) -> None:
        """Keep a list of all files, in the guest: it is long for a serial port."""
        self.whole.shell(f"find / -xdev -print | LC_ALL=C sort >/run/{name}", APT_SECONDS)

    def changes(self, before: str, after: str) -> list[str]:
        """What is in one list only, but for files that come and go."""
        differing = self.whole.shell(
            f"LC_ALL=C comm -3 /run/{before} /run/{after} | tr -d '\\t'").splitlines()
        return [name for name in differing if not name.startswith((*debs.LEFT, *ALIVE))
                and ("synthrdp" in name or not name.startswith(PAGES))]

    def relay_version(self) -> str:
        """What serves the next session."""
        stream = self.whole.greet()
        process = self.whole.show(RELAY, "MainPID")
        version = self.whole.shell(f"/proc/{process}/exe --version")
        self.whole.farewell(stream)
        return version


@pytest.fixture(scope="module", name="begun")
def _begun(suite: str) -> Iterator[Story]:
    """A system without our packages."""
    with booted(system.image(suite), [system.repository(suite)]) as whole:
        whole.shell(f"mkdir {MEDIA} && mount -o ro /dev/nvme0n2 {MEDIA}")
        for unit in ("xrdp", "xrdp-sesman"):
            whole.wait_true(f"{unit} runs", f"systemctl -q is-active {unit}")
        yield Story(whole, whole.show("xrdp", "MainPID"))


@pytest.fixture
def story(begun: Story) -> Iterator[Story]:
    """The same, and nothing is amiss after each chapter."""
    try:
        yield begun
        assert begun.whole.failed() == []
        assert begun.whole.show("xrdp", "MainPID") == begun.ordinary
        assert begun.whole.host.complaints == []
    finally:
        last_words(begun.whole)


def test_install(story: Story, suite: str,
                 record_property: Callable[[str, object], None]) -> None:
    """From nothing to a guest that is ready: without a restart, with nothing done on the host."""
    whole = story.whole
    assert whole.host.control.opening == 0
    story.note_files("before")
    started = time.monotonic()
    story.apt(f"install {BOTH}".format("now", "now"))
    done = time.monotonic()
    whole.wait_ready()
    record_property("told", f"{suite}: apt took {done - started:.0f} s, the guest was ready after"
                            f" {time.monotonic() - started:.0f} s")
    assert "/updates/dkms/" in whole.shell("modinfo -F filename hv_synthrdp")
    whole.shell("synthrdpctl doctor")


def test_use_and_upgrade(story: Story, suite: str, tmp_path: Path,
                         record_property: Callable[[str, object], None]) -> None:
    """A session that runs goes on while apt upgrades all that it uses; the next has the new."""
    whole = story.whole
    whole.wait_ready()
    with host_of(whole, tmp_path) as vmms, Desk(whole, vmms, tmp_path / "desk") as desk:
        started = time.monotonic()
        desk.connect()
        desk.wait_desktop()
        record_property("told", f"{suite}: {time.monotonic() - started:.0f} s to the first desktop")
        desk.paint()
        relay, told = whole.show(RELAY, "MainPID"), whole.host.control.opening
        story.apt(f"install {BOTH}".format("later", "later"))
        assert whole.show(RELAY, "MainPID") == relay
        assert whole.host.control.opening == told
        desk.paint()
        desk.client.leave()
    whole.wait_true("the session is over",
                    f"test ! -e /dev/synthrdp0 && ! systemctl -q is-active {RELAY}")
    assert system.LATER in story.relay_version()
    whole.shell("modinfo hv_synthrdp")
    status = whole.shell("dkms status")
    assert system.LATER in status and debs.version() not in status


def test_reinstall_and_downgrade(story: Story) -> None:
    """Of what needs no compiler: once more the same, and back to the one before."""
    whole = story.whole
    whole.wait_ready()
    story.apt(f"install --reinstall {TOOLS}".format("later"))
    assert system.LATER in story.relay_version()
    story.apt(f"install --allow-downgrades {TOOLS}".format("now"))
    assert debs.version() in story.relay_version()
    whole.wait_ready()


def test_ordinary_server_upgraded(story: Story) -> None:
    """Debian's xrdp goes on as it is when apt upgrades it: so does a session, and all else."""
    whole = story.whole
    whole.wait_ready()
    stream, told = whole.greet(), whole.host.control.opening
    relay, server = whole.show(RELAY, "MainPID"), whole.show(SERVER, "MainPID")
    story.apt(f"install --reinstall {XRDP}")
    assert whole.show(RELAY, "MainPID") == relay
    assert whole.show(SERVER, "MainPID") == server
    assert whole.host.control.opening == told
    whole.farewell(stream)
    whole.farewell(whole.greet())


def test_ordinary_server_goes_and_comes(begun: Story) -> None:
    """Without it the host is told so, and nothing fails; with it the guest is ready by itself."""
    whole = begun.whole
    whole.wait_ready()
    try:
        with whole.told_otherwise():
            begun.apt("remove xrdp")
        assert [unit for unit in whole.failed() if "synthrdp" in unit] == []
        assert whole.shell.run("synthrdpctl doctor")[0] == 3
        # xrdp-sesman, which Debian's scripts may leave failed when they remove it.
        whole.shell("systemctl reset-failed")
        begun.apt(f"install {XRDP}")
        whole.wait_ready()
        whole.farewell(whole.greet())
        assert whole.failed() == []
        begun.ordinary = whole.show("xrdp", "MainPID")
    finally:
        last_words(whole)


def test_remove(story: Story) -> None:
    """First the host is told; the session ends; the ordinary xrdp goes on."""
    whole = story.whole
    whole.wait_ready()
    stream = whole.greet()
    with whole.told_otherwise():
        story.apt("remove synthrdp hv-synthrdp-dkms")
    assert stream.read(1, 60) == b""
    whole.farewell(stream)
    for unit in (SERVER, READY):
        assert whole.show(unit, "LoadState") == "not-found"
    assert whole.host.control.opening == 0


def test_purge(story: Story) -> None:
    """All is as it was."""
    story.apt("purge synthrdp hv-synthrdp-dkms")
    story.note_files("after")
    assert story.changes("before", "after") == []
    with pytest.raises(GuestError):
        story.whole.shell("modinfo hv_synthrdp")


def test_all_at_once(begun: Story) -> None:
    """On a machine that has no xrdp, which our packages then bring along in whatever order."""
    whole = begun.whole
    try:
        begun.apt("purge xrdp")
        assert whole.host.control.opening == 0
        begun.apt(f"install {BOTH} {XRDP}".format("now", "now"))
        whole.wait_ready()
        whole.farewell(whole.greet())
        assert whole.failed() == []
        whole.shell("synthrdpctl doctor")
    finally:
        last_words(whole)

# SPDX-License-Identifier: GPL-2.0-only
"""Another server in xrdp's place, as Documentation/features.rst says: FreeRDP's shadow server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

import documents
from desk import Desk, host_of
from hvhost import cache, roots, system
from hvhost.machine import PATIENCE
from whole import OLD, READY, SERVER, Whole, booted

DOCUMENT = "features.rst"
UNIT = documents.examples(DOCUMENT, "ini")["unit"]
COMMANDS = documents.examples(DOCUMENT, "sh")
PLACE = "/etc/systemd/system/synthrdp-shadow.service"
PACKAGES = {"bookworm": "freerdp2-shadow-x11", "trixie": "freerdp3-shadow-x11"}
PROGRAM = "/usr/bin/freerdp-shadow-cli"
COLOUR = "ff00ff"               # which is the same with fewer bits
NO_LICENCE = 147                # FreeRDP's status for a connection that broke
X_SERVER = ("/usr/lib/xorg/Xorg :0 -ac -config xrdp/xorg.conf -noreset -nolisten tcp"
            " -logfile /tmp/xorg.log")


def shadow(image: system.Image) -> Path:
    """The shadow server and what else the image lacks for it, as a tar archive; cached."""
    package = PACKAGES[image.suite]

    def build(new: Path) -> None:
        debs, tree = new.with_name(new.name + ".debs"), new.with_name(new.name + ".tree")
        there = image.root.run(["dpkg-query", "-W", "-f", "${Package}\n"]).stdout.split()
        try:
            roots.download(image.suite, [package], debs, dependencies=True)
            cache.remove(tree)
            tree.mkdir()
            for deb in debs.glob("*.deb"):
                if deb.name.partition("_")[0] not in there:
                    cache.run(["dpkg-deb", "--extract", deb, tree], f"unpacking {deb.name}")
            cache.run(["tar", "-cf", new, "-C", tree, "usr"], f"packing {package}")
        finally:
            cache.remove(debs)
            cache.remove(tree)

    key = cache.key(image.root.key, roots.versions(image.suite, [package])[package])
    return cache.get(f"systems/{image.suite}-shadow", key, build,
                     f"FreeRDP's shadow server for {image.suite}", 20)


@pytest.fixture(name="running", scope="module")
def _running(suite: str) -> Iterator[Whole]:
    """A system with our packages, the shadow server, and a desktop at the console."""
    image = system.installed(suite)
    with booted(image, [shadow(image)]) as whole:
        whole.shell("tar -xf /dev/nvme0n2 -C / --keep-directory-symlink; ldconfig", 300)
        whole.shell(f"test -e {PROGRAM} || ln -s {PROGRAM}3 {PROGRAM}")
        whole.shell(f"runuser -u {system.USER} -- {X_SERVER} >/dev/null 2>&1 </dev/null &")
        whole.wait_true("a display", f"DISPLAY=:0 xsetroot -solid '#{COLOUR}' 2>/dev/null")
        yield whole


def follow(whole: Whole, name: str) -> None:
    """Do what the document says."""
    for line in COMMANDS[name].splitlines():
        whole.shell(line)


def test_shadow_server(whole: Whole, suite: str, tmp_path: Path) -> None:
    """The guest is ready with it and without xrdp; a client sees that desktop.

    Not with FreeRDP 3.15's: what that says of licences, no FreeRDP understands.
    """
    unit = base64.b64encode(UNIT.encode()).decode()
    whole.shell(f"echo {unit} | base64 -d >{PLACE}")
    whole.shell("systemctl daemon-reload")
    with whole.told_otherwise():
        follow(whole, "shadow")
    whole.wait_ready()
    assert whole.show(SERVER, "ActiveState") == "inactive"
    with host_of(whole, tmp_path) as host, Desk(whole, host, tmp_path / "seat") as desk:
        desk.connect()
        if suite == OLD:
            desk.wait("the desktop at the console", lambda: desk.picture().share(COLOUR) > 0.9)
        else:
            assert desk.client.wait(PATIENCE) == NO_LICENCE
        assert host.connections[-1].answer == "selects protocol 0: standard RDP"
        with whole.told_otherwise():
            whole.shell("systemctl kill --signal=KILL synthrdp-shadow")
        desk.client.wait(60)
    whole.wait_ready()


def test_ready_goes_with_it(whole: Whole) -> None:
    """The host is told when it stops, and when xrdp serves again."""
    with whole.told_otherwise():
        whole.shell("systemctl stop synthrdp-shadow")
    whole.wait_true("nothing is under way", f"test $(systemctl is-active {READY}) = inactive")
    assert whole.host.control.opening == 0
    follow(whole, "xrdp")
    whole.wait_ready()
    assert whole.show(SERVER, "ActiveState") == "active"
    whole.farewell(whole.greet())

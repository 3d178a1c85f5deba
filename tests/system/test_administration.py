# SPDX-License-Identifier: GPL-2.0-only
"""The administrator's guide, from its installation to its removal: each of its commands is taken
from it and run.

Building and installing need no running system. All else is done to one, in the order of the
tests of this file.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import documents
from hvhost import cache, debs, disks, kernels, roots, system
from hvhost.synthrdp import CONTROL
from whole import READY, SERVER, Whole, booted, last_words

DOCUMENT = "administration.rst"
COMMANDS = documents.examples(DOCUMENT, "sh")
XRDP_INI, SESMAN_INI = "/etc/xrdp/xrdp.ini", "/etc/xrdp/sesman.ini"
# What apt has nothing left to do with, so that it needs no network.
PACKAGER = ("apt", "build-essential", "debhelper", "dh-dkms")
BUILD_SECONDS = 900.0           # for DKMS, with an emulated processor on a busy machine
INTERRUPTED = 124
# As the recipe over Hyper-V sockets changes a system.
RECIPE = f"""
cp {XRDP_INI} {SESMAN_INI} /root
sed -i 's/^port=3389/port=vsock:\\/\\/-1:3389/
s/security_layer=negotiate/security_layer=rdp/
s/crypt_level=high/crypt_level=none/
s/bitmap_compression=true/bitmap_compression=false/' {XRDP_INI}
sed -i 's/startwm/startubuntu/; s/=thinclient_drives/=shared-drives/' {SESMAN_INI}
echo hv_sock >>/etc/modules
echo hv_sock >/etc/modules-load.d/hv_sock.conf
echo blacklist vmw_vsock_vmci_transport >/etc/modprobe.d/blacklist-vmw_vsock_vmci_transport.conf
"""

# Who enrols a key needs firmware with Secure Boot, and who restarts a unit a running system. That
# they are called, and how, is said.
FAKES = """
for name in mokutil apt systemctl; do
    printf '#!/bin/sh\\necho "called: ${0##*/} $*"\\n' >/usr/local/bin/$name
    chmod +x /usr/local/bin/$name
done
hash -r
"""
# Over a root that others use.
LAYER = """
export PATH=/usr/local/bin:$PATH
mount -t tmpfs tmpfs /run
for place in etc usr var root; do
    mkdir /run/$place-upper /run/$place-work
    mount -t overlay -o lowerdir=/$place,upperdir=/run/$place-upper,workdir=/run/$place-work \\
        overlay /$place
done
"""


class Reader:
    """Somebody who does what the guide says."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole

    def script(self, text: str, seconds: float = 120.0, before: str = "") -> tuple[int, str]:
        """Run a script as one types it, in a directory where build/deb is; what it said."""
        code = base64.b64encode(text.encode()).decode()
        self.whole.shell(f"echo {code} | base64 -d >/root/script")
        return self.whole.shell.run(f"cd /root && {before} sh -e ./script </dev/null 2>&1", seconds)

    def does(self, name: str, seconds: float = 120.0) -> str:
        """Run an example; it must succeed."""
        status, said = self.script(COMMANDS[name], seconds)
        assert status == 0, said
        return said

    def watches(self, name: str) -> str:
        """Run an example that goes on until Ctrl-C."""
        status, said = self.script(COMMANDS[name], before="timeout --signal=INT 10")
        assert status == INTERRUPTED, said
        return said

    def findings(self) -> str:
        """What the doctor finds."""
        return self.whole.shell.run("synthrdpctl doctor | grep '^!!\\|^ [!i]  [a-z-]*:'")[1]


@pytest.fixture(scope="module")
def disk(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two packages, on a volume as cloud-init has it."""
    new: Path = tmp_path_factory.mktemp("disk") / "cidata"
    disks.make(debs.build(suite), new, "20M")
    cache.run(["e2label", new, "cidata"], "naming a disk")
    return new


@pytest.fixture(scope="module")
def machine(suite: str, disk: Path) -> Iterator[Whole]:
    """A system with our packages, and with the disk that they came from."""
    with booted(system.installed(suite), [disk]) as whole:
        yield whole


@pytest.fixture
def reader(machine: Whole) -> Iterator[Reader]:
    """It, ready, and somebody who reads."""
    machine.wait_ready()
    yield Reader(machine)
    last_words(machine)
    assert machine.host.complaints == []


def test_build(suite: str, tmp_path: Path) -> None:
    """The packages come of the commands that are said to make them."""
    where = roots.root(roots.Spec("packager", suite, PACKAGER))
    tree, copy = tmp_path / "tree", tmp_path / "root"
    kernels.copy_sources(tree, debs.SOURCES)
    try:
        cache.run(["cp", "-a", "--reflink=auto", where.path, copy], "copying a Debian root")
        done = roots.Root(copy, where.key).run(["sh", "-ec", COMMANDS["build"]], cwd=debs.SOURCE,
                                               binds={tree: debs.SOURCE}, writable=True)
    finally:
        cache.remove(copy)
    assert done.returncode == 0, done.stdout
    assert {path.name.partition("_")[0] for path in (tree / "build/deb").glob("*.deb")} >= {
        "hv-synthrdp-dkms", "synthrdp"}


def test_files(suite: str, tmp_path: Path) -> None:
    """What is done to files alone needs no running system: first of all the installation."""
    image = system.image(suite)
    shutil.copytree(debs.build(suite), tmp_path / "build/deb")
    modules = f"/usr/lib/modules/{image.release}/updates/dkms/hv_synthrdp.ko*"
    script = f"""
        printf '#!/bin/sh\ntest "$1" != -r && exec /usr/bin/uname "$@"\necho {image.release}\n' \
            >/usr/local/bin/uname
        chmod +x /usr/local/bin/uname
        {COMMANDS["install"]}
        ls {modules}
        test "$(dpkg-query -W -f '${{db:Status-Abbrev}}' synthrdp hv-synthrdp-dkms)" = 'ii ii '
        {COMMANDS["dkms"]}
        {COMMANDS["autoinstall"]}
        {COMMANDS["server"]}
        grep -qx SERVER=tcp:localhost:3390 /etc/synthrdp/relay.conf
        {COMMANDS["back"]}
        test -z "$(dpkg --verify synthrdp)"
        {RECIPE}
        {FAKES}
        {COMMANDS["recipe"]}
        cmp {XRDP_INI} /root/xrdp.ini
        cmp {SESMAN_INI} /root/sesman.ini
        {COMMANDS["enrol"]}
        rm /usr/local/bin/apt /usr/local/bin/systemctl; hash -r
        {consenting("remove")}
        test -e /etc/synthrdp/relay.conf
        {consenting("purge")}
        test ! -e /etc/synthrdp
        ! ls {modules}
        """
    done = image.root.run(["sh", "-exc", LAYER + script], cwd=debs.SOURCE,
                          binds={tmp_path: debs.SOURCE}, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stdout
    said = done.stdout
    assert "installed" in said and "nobody listens there yet" in said
    called = re.findall("^called: (.*)$", said, re.MULTILINE)
    assert called == ["systemctl restart xrdp", *COMMANDS["enrol"].splitlines()], said


def consenting(name: str) -> str:
    """An example in which apt asks whether one means it."""
    return COMMANDS[name].replace("apt ", "yes | apt ")


def test_cloud_init(reader: Reader) -> None:
    """What cloud-init runs at a machine's first start. Here the packages are there already."""
    text = documents.examples(DOCUMENT, "yaml")["cloud-init"]
    assert text.startswith("#cloud-config\nruncmd:\n")
    status, said = reader.script("\n".join(re.findall("^  - (.*)", text, re.M)), BUILD_SECONDS)
    assert status == 0, said
    reader.whole.wait_ready()
    assert reader.whole.failed() == []


def test_is_it_well(reader: Reader) -> None:
    """What is asked once succeeds, what goes on until Ctrl-C shows something by then."""
    assert "Enhanced Session: ready" in reader.does("check")
    assert '"state": "ready"' in reader.does("json")
    reader.does("monitor")
    assert reader.watches("watch").count("Enhanced Session: ready") > 1
    reader.watches("capture")
    reader.whole.shell("test -s /root/session.pcapng")


def test_session(reader: Reader) -> None:
    """What can be said of one while it is there, and its end."""
    whole = reader.whole
    stream = whole.greet()
    assert len(re.findall("→|Overall exposure level", reader.does("exposure"))) >= 2
    assert "synthrdp0" in reader.does("end")
    assert stream.read(1, 60) == b""
    whole.farewell(stream)
    assert "ended after" in reader.does("log")


def test_switch(reader: Reader) -> None:
    """Off and on."""
    with reader.whole.told_otherwise():
        reader.does("off")
    assert "switched-off" in reader.findings()
    reader.does("on")
    reader.whole.wait_ready()


def test_server(reader: Reader) -> None:
    """The administrator's configuration is followed, and so is another server's address."""
    whole = reader.whole
    reader.does("xrdp")
    whole.wait_ready()
    assert "max_bpp=24" in whole.shell("cat /run/synthrdp/xrdp.ini")
    with whole.told_otherwise():
        reader.does("stopped")
    whole.wait_ready()
    reader.does("local")
    whole.wait_ready()
    assert "127.0.0.1:3389" in whole.shell("ss -Hltn sport = 3389")
    assert "nobody listens there yet" in reader.does("server")
    assert "tcp:localhost:3390" in whole.shell.run("synthrdpctl status")[1]
    reader.does("back")
    whole.farewell(whole.greet())


def test_broken_configuration(reader: Reader) -> None:
    """No server comes of it, the guest is not ready, and the doctor names the line."""
    whole = reader.whole
    whole.shell(f"cp {XRDP_INI} /root/good.ini; sed -i '1s/]//' {XRDP_INI}")
    with whole.told_otherwise():
        assert whole.shell.run(f"systemctl restart {SERVER}")[0]
    assert whole.show(SERVER, "ActiveState") == "failed"        # and not about to try again
    assert "line 1 is neither a section" in " ".join(
        whole.shell.run("synthrdpctl doctor")[1].split())
    assert whole.shell.run(f"systemctl is-active {READY}")[0]
    whole.shell(f"cp /root/good.ini {XRDP_INI}; systemctl restart {SERVER}")
    whole.wait_ready()


def test_secure_boot(reader: Reader) -> None:
    """The module is signed."""
    assert "DKMS" in reader.does("signer")


def test_upgrade(reader: Reader) -> None:
    """The module is there, is loaded anew, and nothing is left to be built."""
    reader.does("reload")
    reader.whole.wait_ready()
    assert "installed" in reader.does("dkms")
    reader.does("autoinstall", BUILD_SECONDS)


def test_from_the_recipe(reader: Reader) -> None:
    """What it leaves is found, taken back as the guide says, and found no more."""
    whole = reader.whole
    reader.script("cp /root/good.ini /root/before.ini; cp /root/good.ini " + XRDP_INI + RECIPE)
    assert "old-recipe" in reader.findings()
    reader.does("recipe")
    assert "old-recipe" not in reader.findings()
    whole.shell(f"cmp {SESMAN_INI} /root/sesman.ini")
    whole.wait_ready()


def test_from_uio(reader: Reader) -> None:
    """The driver gets its device back. uio_hv_generic does not take one of the emulated host's,
    so there is nothing that could be taken from it.
    """
    whole = reader.whole
    with whole.told_otherwise():
        whole.shell("modprobe uio_hv_generic;"
                    f" echo {CONTROL} >/sys/bus/vmbus/drivers/hv_synthrdp/unbind")
    assert "device-held" in reader.findings()
    take, give = COMMANDS["uio"].splitlines()
    assert reader.script(take)[0] != 0
    assert reader.script(give)[0] == 0
    whole.wait_ready()


def test_removal(reader: Reader) -> None:
    """The host is told; nothing is left but what the administrator has written, and then not
    even that.
    """
    whole = reader.whole
    with whole.told_otherwise():
        assert reader.script(consenting("remove"), 300)[0] == 0
    whole.shell("test -e /etc/synthrdp/relay.conf")
    assert reader.script(consenting("purge"), 300)[0] == 0
    assert whole.shell.run("test -e /etc/synthrdp")[0]
    assert whole.failed() == []
    whole.shell("systemctl is-active xrdp")

# SPDX-License-Identifier: GPL-2.0-only
"""The series for the kernel and for QEMU can be made and sent. That each patch builds is for
`make series` and `make qemu-series` to find out: it takes minutes.
"""

from __future__ import annotations

import re
import subprocess
from email import message_from_string
from pathlib import Path

import pytest

from series import for_linux, for_qemu
from series.repository import Sender
from tree import TOP, tracked

WHO = Sender("Ada N. Gineer", "ada@example.org")


@pytest.fixture(scope="module", name="linux")
def _linux(tmp_path_factory: pytest.TempPathFactory) -> for_linux.Series:
    """The series for the kernel, in a tree with the files that it touches."""
    tree = tmp_path_factory.mktemp("linux")
    for_linux.sketch(tree)
    return for_linux.Series(tree, WHO)


@pytest.fixture(scope="module", name="qemu")
def _qemu(tmp_path_factory: pytest.TempPathFactory) -> for_qemu.Series:
    """The series for QEMU, in such a tree."""
    tree = tmp_path_factory.mktemp("qemu")
    for_qemu.sketch(tree)
    return for_qemu.Series(tree, WHO)


def check_mails(mails: list[Path], author: str = "") -> None:
    """They can be sent: numbered, written by somebody, signed off by who sends them."""
    for number, mail in enumerate(mails):
        message = message_from_string(mail.read_text())
        assert re.match(rf"\[RFC PATCH 0*{number}/{len(mails) - 1}\] \S", message["Subject"])
        text = str(message.get_payload())
        assert not re.search(r"@[A-Z]+@|\*\*\*", text), mail.name
        if number:
            assert f"\nSigned-off-by: {WHO}\n---\n" in text, mail.name
            assert author in message["From"]


def test_linux_is_clean(linux: for_linux.Series, tmp_path: Path) -> None:
    """checkpatch --strict has no remark, and every new file has a maintainer."""
    mails = linux.mails(tmp_path)
    check_mails(mails, WHO.email)
    assert for_linux.remarks(mails[1:], linux.repository.tree) == []


def test_linux_has_the_sources_as_they_are(linux: for_linux.Series) -> None:
    """The same sources serve both places; no question for a version is among them."""
    tree = linux.repository.tree
    placed = linux.repository.git("ls-files").split()
    sources = [name for name in tracked() if name.startswith(
        ("drivers/", "tools/testing/", "Documentation/ABI", "Documentation/userspace-api"))]
    assert sorted({*sources} - {*placed}) == [for_linux.COMPAT]
    for name in {*sources} & {*placed}:
        text = (tree / name).read_text()
        assert not re.search(r"LINUX_VERSION_CODE|compat\.h", text), name
        done = subprocess.run(["diff", TOP / name, tree / name], stdout=subprocess.PIPE, text=True,
                              check=False)
        changed = re.findall(r"^[<>] .*", done.stdout, re.MULTILINE)
        assert all(re.search("synthrdp_remove|compat|class_create|kv?zalloc|^[<>] $", line)
                   for line in changed), done.stdout


def test_linux_grows_by_whole_modules(linux: for_linux.Series) -> None:
    """No Makefile names a source that is not there yet, and each source is named once there."""
    for commit in linux.commits[1:]:
        names = linux.repository.git("ls-tree", "--name-only", commit,
                                     for_linux.PLACE + "/").split()
        make = linux.repository.git("show", f"{commit}:{for_linux.MAKEFILE}")
        options = re.findall(r"CONFIG_(\w+)\)", make)
        known = linux.repository.git("show", f"{commit}:{for_linux.KCONFIG}")
        assert {*re.findall(r"^config (\w+)", known, re.MULTILINE)} == {*options}
        parts = {part for parts in re.findall(r"-y := (.*)", make) for part in parts.split()}
        there = {Path(name).stem + ".o" for name in names if name.endswith(".c")}
        # What is there and not named is included by its suite.
        included = {name.replace("_test.o", ".o") for name in there if name.endswith("_test.o")}
        assert parts <= there <= parts | included


def test_qemu_is_clean(qemu: for_qemu.Series, tmp_path: Path) -> None:
    """QEMU's checkpatch has no remark, and every new file has a maintainer."""
    mails = qemu.mails(tmp_path)
    check_mails(mails)
    assert for_qemu.remarks(mails[1:], qemu.repository.tree) == []

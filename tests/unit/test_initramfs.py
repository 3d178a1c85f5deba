# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs archive, read by another program."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hvhost.initramfs import Cpio


def test_cpio(tmp_path: Path) -> None:
    """Directories come before what is in them; modes, links and contents are kept."""
    archive = Cpio()
    archive.file("usr/lib/a", b"odd", 0o755)
    archive.file("usr/lib/b", b"")
    archive.link("lib", "usr/lib")
    archive.directory("usr")
    subprocess.run(["cpio", "-i", "--quiet"], cwd=tmp_path, input=archive.close(), check=True)
    assert (tmp_path / "lib/a").read_bytes() == b"odd"
    assert (tmp_path / "usr/lib/a").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "usr/lib/b").stat().st_mode & 0o777 == 0o644

# SPDX-License-Identifier: GPL-2.0-only
"""The server's configuration, made from the administrator's: it follows that, and nothing is made
of a file that cannot be understood.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

from fakeroot import TOP, Guest

TOOLS = TOP / "tools" / "xrdp"
STOCK = """\
[Globals]
; a comment = with a sign
ini_version=1
port=3389
  Security_Layer = negotiate
crypt_level=high
#port=3390
max_bpp=32

[Logging]
LogLevel=INFO

[Xorg]
name=Xorg
lib=libxup.so
port=-1
"""
DIFFERENCES = {"port": "unix://.{place}/xrdp.sock", "security_layer": "rdp",
               "crypt_level": "none"}
# What is wrong, and what is said of it.
BROKEN = {
    "empty": (b"", "it is empty"),
    "blank": (b"\n \r\n", "it is empty"),
    "UTF-16": (STOCK.encode("utf-16"), "not plain text"),
    "hole": (STOCK.encode()[:60] + bytes(100), "not plain text"),
    "no globals": (b"[Xorg]\nlib=libxup.so\n", "no section [Globals]"),
    "cut": (STOCK.encode()[:STOCK.index("crypt")], "no type of session"),
    "cut in the last section": (STOCK.encode()[:STOCK.index("lib=")], "no type of session"),
    "globals twice": ((STOCK + "\n[globals]\nport=1\n").encode(),
                      "line 18 begins [globals] again, after line 1"),
    "session type twice": ((STOCK + "[Xorg]\nname=2\n").encode(), "after line 13"),
    "before all sections": (b"port=3389\n" + STOCK.encode(), "line 1 stands in no section"),
    "conflict": (STOCK.replace("port=3389", "<<<<<<< HEAD\nport=3389", 1).encode(),
                 "line 4 is neither a section, a setting nor a comment: '<<<<<<< HEAD'"),
    "open bracket": (STOCK.replace("[Logging]", "[Logging").encode(), "line 10 is neither"),
    "no name": (STOCK.replace("max_bpp", "").encode(), "line 8 is neither"),
    "escape": (STOCK.replace("max_bpp=", "\x1b[31m").encode(), "line 8 is neither"),
}


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    """Where the server runs."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def make(place: Path, text: str | bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Make the configuration, from what the administrator has written now."""
    stock = place.parent / "admin.ini"
    if text is not None:
        stock.write_bytes(text if isinstance(text, bytes) else text.encode())
    return subprocess.run([TOOLS / "synthrdp-xrdp-config", place], capture_output=True, text=True,
                          check=False, env={"XRDP_INI": str(stock)})


def settings(text: str) -> dict[str, dict[str, str]]:
    """As another reader of such files sees them."""
    parser = configparser.ConfigParser(comment_prefixes=";#!", inline_comment_prefixes=None,
                                       interpolation=None)
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def made(place: Path, text: str | bytes | None = None) -> str:
    """What comes of it."""
    done = make(place, text)
    assert (done.returncode, done.stderr) == (0, "")
    return (place / "xrdp.ini").read_bytes().decode(errors="surrogateescape")


def test_differences(place: Path) -> None:
    """Three settings of [Globals], each with its reason above it, and nothing else."""
    text = made(place, STOCK)
    expected = settings(STOCK)
    expected["Globals"].update({name: value.format(place=place)
                                for name, value in DIFFERENCES.items()})
    assert settings(text) == expected
    lines = text.splitlines()
    for name in DIFFERENCES:
        at, = (number for number, line in enumerate(lines)
               if re.match(rf" *{name} *=(?! *-1)", line, re.IGNORECASE))
        assert lines[at - 1].startswith("; "), lines[at - 1]
    kept = [line for line in STOCK.splitlines() if not re.match(
        r" *(port=3389|security_layer|crypt_level)", line, re.IGNORECASE)]
    assert [line for line in lines if line in STOCK.splitlines()] == kept
    assert (place / "xrdp.ini").stat().st_mode & 0o777 == 0o640
    assert os.listdir(place) == ["xrdp.ini"]


def test_changes_are_followed(place: Path) -> None:
    """At the next start what the administrator has changed since counts."""
    assert "max_bpp=32" in made(place, STOCK)
    assert "max_bpp=24" in made(place, STOCK.replace("32", "24") + "[new]\nlib=libvnc.so\n")
    assert "[new]" in made(place)


@pytest.mark.parametrize("text", [
    "\ufeff" + STOCK, STOCK.replace("\n", "\r\n"), STOCK.replace("\n", "\r"), STOCK.rstrip(),
    "\n; mine\n\n" + STOCK, STOCK.replace("[Globals]", " [GLOBALS] "),
    STOCK.replace("a comment", "f\xfcr").encode("latin-1")],
    ids=["BOM", "CRLF", "CR", "no last line end", "comment first", "blanks", "latin-1"])
def test_edited_elsewhere(place: Path, text: str | bytes) -> None:
    """What editors make of a file, and xrdp takes all the same."""
    found = settings(made(place, text))
    assert {name: found[next(iter(found))][name] for name in DIFFERENCES} == {
        name: value.format(place=place) for name, value in DIFFERENCES.items()}
    assert found["Xorg"] == settings(STOCK)["Xorg"]


@pytest.mark.parametrize("kind", BROKEN)
def test_broken(place: Path, guest: Guest, kind: str) -> None:
    """The file is named, and what is wrong in it; what there was before stays; the doctor knows."""
    text, said = BROKEN[kind]
    before = made(place, STOCK)
    done = make(place, text)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"synthrdp-xrdp-config: {place.parent}/admin.ini: ")
    assert said in done.stderr and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr
    assert (place / "xrdp.ini").read_text() == before
    guest.write("etc/xrdp/xrdp.ini", text)
    finding, = guest.json("doctor")["findings"]
    assert finding["id"] == "server-config" and said in finding["finding"]


@pytest.mark.parametrize("kind", ["missing", "directory", "unreadable", "no place", "full"])
def test_out_of_reach(place: Path, kind: str) -> None:
    """Whatever the system says is passed on, with the name of the file."""
    stock, words = place.parent / "admin.ini", f"{place.parent}/admin.ini: "
    stock.write_text(STOCK)
    if kind == "missing":
        stock.unlink()
    elif kind == "directory":
        stock.unlink()
        stock.mkdir()
    elif kind == "unreadable":
        # Root without its rights.
        stock.chmod(0)
        done = subprocess.run(["setpriv", "--bounding-set=-all", "--inh-caps=-all",
                               TOOLS / "synthrdp-xrdp-config", place], capture_output=True,
                              text=True, check=False, env={"XRDP_INI": str(stock)})
        assert done.returncode == 1 and done.stderr.endswith(f"{words}Permission denied\n")
        return
    elif kind == "no place":
        place.rmdir()
        words = f"{place}/xrdp.ini.new: No such file"
    else:
        (place / "xrdp.ini.new").symlink_to("/dev/full")
        words = "No space left on device"
    done = make(place)
    assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1
    assert not (place / "xrdp.ini").exists()


def test_no_server_is_not_ready() -> None:
    """A start without a configuration fails, and with it what tells the host."""
    server, ready = ((TOOLS / f"synthrdp-{name}.service").read_text() for name in ("xrdp", "ready"))
    assert re.search(r"^ExecStartPre=\S*synthrdp-xrdp-config ", server, re.MULTILINE)
    # Of on-failure's causes all but an exit status, which each further start would have, too.
    assert re.findall(r"^Restart=(.*)$", server, re.MULTILINE) == ["on-abnormal"]
    for what in ("BindsTo", "After"):
        assert re.search(rf"^{what}=synthrdp-server\.service", ready, re.MULTILINE)


def test_usage() -> None:
    """One directory."""
    done = subprocess.run([TOOLS / "synthrdp-xrdp-config"], capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stderr) == (2, "usage: synthrdp-xrdp-config DIR\n")

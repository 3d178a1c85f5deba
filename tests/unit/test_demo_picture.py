# SPDX-License-Identifier: GPL-2.0-only
"""How the demo looks at a picture of the user's screen."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from pathlib import Path

from client import Picture

TOP = Path(__file__).resolve().parents[2]

WIDTH, HEIGHT = 64, 48


def xwd(pixels: list[list[int]]) -> bytes:
    """A window dump as Xvfb writes it, with a name and a colour that do not matter."""
    name = b"Xvfb screen\0"
    stride = 4 * WIDTH + 8
    words = [100 + len(name), 7, 2, 24, WIDTH, HEIGHT, 0, 0, 32, 0, 32, 32, stride, 4,
             0xFF0000, 0xFF00, 0xFF, 8, 256, 1, WIDTH, HEIGHT, 0, 0, 0]
    rows = [struct.pack(f"<{WIDTH}I", *row) + bytes(8) for row in pixels]
    return struct.pack(">25I", *words) + name + bytes(12) + b"".join(rows)


def plain(rgb: int) -> list[list[int]]:
    """A screen of one colour."""
    return [[rgb] * WIDTH for _ in range(HEIGHT)]


def test_share_is_of_exactly_that_colour() -> None:
    """One bit of difference does not count, the unused byte of a pixel does not matter."""
    pixels = plain(0x336699)
    for row in pixels[:HEIGHT // 2]:
        row[:] = [0xFF336698] * WIDTH
    picture = Picture.of_xwd(xwd(pixels))
    assert picture.share("336699") == 0.5
    assert picture.share("336698") == 0.5
    assert picture.share("336699", (0, 24, 64, 48)) == 1
    assert picture.share("996633") == 0


def test_a_blank_screen_has_no_other_colour() -> None:
    """The check cannot be pleased by black."""
    picture = Picture.of_xwd(xwd(plain(0)))
    assert picture.share("5a7b9c") == 0
    assert picture.share("000000") == 1


def chunks(png: bytes) -> dict[bytes, bytes]:
    """The parts of a PNG file, each of which it has once."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found, at = {}, 8
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        found[kind] = png[at + 8:at + 8 + size]
        assert png[at + 8 + size:at + 12 + size] == struct.pack(">I", zlib.crc32(
            kind + found[kind]))
        at += size + 12
    return found


def test_png_holds_the_pixels() -> None:
    """Red, green, blue in this order, a filter byte before each row."""
    pixels = plain(0x102030)
    pixels[5][7] = 0xAABBCC
    parts = chunks(Picture.of_xwd(xwd(pixels)).png("of a test"))
    assert struct.unpack_from(">II", parts[b"IHDR"]) == (WIDTH, HEIGHT)
    assert parts[b"tEXt"] == b"Comment\0of a test"
    raw = zlib.decompress(parts[b"IDAT"])
    stride = 1 + 3 * WIDTH
    assert raw[5 * stride + 1 + 21:][:3] == bytes.fromhex("aabbcc")
    assert raw[:4] == bytes.fromhex("00102030")


def test_documents_picture_is_of_the_demo() -> None:
    """What was typed is in the file, and the desktop has the colour that follows from it."""
    parts = chunks((TOP / "Documentation/images/desktop.png").read_bytes())
    typed = re.fullmatch(rb"Comment\0make demo typed ([0-9a-f]{8})", parts.get(b"tEXt", b""))
    assert typed, "make it anew: tests/demo/run --document"
    width, height = struct.unpack_from(">II", parts[b"IHDR"])
    raw, stride = zlib.decompress(parts[b"IDAT"]), 1 + 3 * width
    rows = [raw[at + 1:at + stride] for at in range(0, len(raw), stride)]
    rgb = hashlib.sha256(typed[1]).digest()[:3]
    there = sum(row[at:at + 3] == rgb for row in rows for at in range(0, len(row), 3))
    assert there > 0.3 * width * height

# SPDX-License-Identifier: GPL-2.0-only
"""How the demo looks at a picture of the user's screen."""

from __future__ import annotations

import struct
import zlib

from client import Picture

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


def test_png_holds_the_pixels() -> None:
    """Red, green, blue in this order, a filter byte before each row."""
    pixels = plain(0x102030)
    pixels[5][7] = 0xAABBCC
    png = Picture.of_xwd(xwd(pixels)).png()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack_from(">II", png, 16) == (WIDTH, HEIGHT)
    at = png.index(b"IDAT")
    size, = struct.unpack_from(">I", png, at - 4)
    raw = zlib.decompress(png[at + 4:at + 4 + size])
    stride = 1 + 3 * WIDTH
    assert raw[5 * stride + 1 + 21:][:3] == bytes.fromhex("aabbcc")
    assert raw[:4] == bytes.fromhex("00102030")

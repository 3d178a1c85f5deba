#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Draw what synthrdpctl shows on a terminal, for the documents: tests/ctl/pictures.py.

The guests are made up, so that the same is drawn each time.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path

from fakeroot import TOP, Guest

IMAGES = TOP / "Documentation" / "images"
WIDTH, HEIGHT, MARGIN = 8.4, 19, 14             # of a character, and around all, in pixels
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#f2cc60", "2": "#8b949e"}
PLAIN, BACKGROUND = "#e6edf3", "#0d1117"


def draw(text: str) -> str:
    """A terminal's text with its colours, as SVG. Each run of a colour has its place on the grid,
    whatever font there is.
    """
    lines = text.rstrip("\n").split("\n")
    columns = max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines)
    drawn = []
    for row, line in enumerate(lines):
        column, style = 0, ""
        for part in re.split(r"(\x1b\[[\d;]*m)", line):
            if part.startswith("\x1b"):
                codes = part[2:-1].split(";")
                colour = next((COLOURS[code] for code in codes if code in COLOURS), "")
                style = (f' fill="{colour}"' if colour else "") + (
                    ' font-weight="bold"' if "1" in codes else "")
            elif part:
                indent = len(part) - len(part.lstrip())
                shown = part.strip()
                if shown:
                    drawn.append(
                        f'<text x="{MARGIN + WIDTH * (column + indent):.1f}"'
                        f' y="{MARGIN + HEIGHT * row + 14}"'
                        f' textLength="{WIDTH * len(shown):.1f}"{style}>{escape(shown)}</text>')
                column += len(part)
    width, height = 2 * MARGIN + WIDTH * columns, 2 * MARGIN + HEIGHT * len(lines)
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}">',
        "<!-- SPDX-License-Identifier: GPL-2.0-only -->",
        "<!-- Drawn by tests/ctl/pictures.py -->",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        f'<g font-family="monospace" font-size="14" fill="{PLAIN}" xml:space="preserve">',
        *drawn, "</g>", "</svg>")) + "\n"


def secure_boot(guest: Guest) -> None:
    """A kernel that takes no module but those signed with a key that it knows."""
    guest.unload()
    guest.write("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
                b"\x06\0\0\0\x01")
    guest.kernel_said("Loading of module with unavailable key is rejected")


# By the picture's name: what is amiss, and the command.
SCREENS: dict[str, tuple[Callable[[Guest], None], str]] = {
    "status": (lambda guest: guest.session(1, "99221fa2-24ad-11e2-be98-001aa01bbf6e", 4712),
               "status"),
    "doctor": (secure_boot, "doctor"),
}


def picture(name: str) -> str:
    """One of them."""
    amiss, command = SCREENS[name]
    with tempfile.TemporaryDirectory() as directory:
        guest = Guest(Path(directory))
        amiss(guest)
        return draw(f"$ synthrdpctl {command}\n" + guest.on_terminal(command))


def main() -> None:
    """All of them, to where the documents look for them."""
    for name in SCREENS:
        (IMAGES / f"{name}.svg").write_text(picture(name))


if __name__ == "__main__":
    main()

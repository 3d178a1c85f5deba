# SPDX-License-Identifier: GPL-2.0-only
"""The pictures in the documents show what the program shows."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from fakeroot import TOP, Guest
from pictures import COLOURS, IMAGES, SCREENS, draw, picture


@pytest.mark.parametrize("name", SCREENS)
def test_up_to_date(name: str) -> None:
    """To the byte."""
    kept = (IMAGES / f"{name}.svg").read_text()
    assert kept == picture(name), "draw them anew: tests/ctl/pictures.py"


@pytest.mark.parametrize("name", SCREENS)
def test_shown(name: str) -> None:
    """Some document shows it."""
    assert any(f"images/{name}.svg" in document.read_text()
               for document in (TOP / "Documentation").glob("*.rst"))


def words(drawn: str) -> list[str]:
    """The texts of a picture, in their order."""
    return [element.text or "" for element in ElementTree.fromstring(drawn).iter()
            if element.tag.endswith("}text")]


def test_all_is_drawn(guest: Guest) -> None:
    """Each word of the screen is in it, with colours where the screen has them."""
    shown = guest.on_terminal("status")
    assert "\x1b" in shown
    drawn = draw(shown)
    assert " ".join(words(drawn)).split() == re.sub(r"\x1b\[[\d;]*m", "", shown).split()
    assert f'fill="{COLOURS["32"]}" font-weight="bold">ready' in drawn


def test_markup_is_text() -> None:
    """What has a meaning in SVG is drawn as it is."""
    assert words(draw("a <b> & \"c\"")) == ["a <b> & \"c\""]

# SPDX-License-Identifier: GPL-2.0-only
"""Functions that travel: what they take along, and what they cannot."""

from __future__ import annotations

import json as packer
import os
import threading
from typing import Any

import pytest

from hvhost import ship
from hvhost.ship import ShipError

LIMIT = 3
LOCK = threading.Lock()


class Box:
    """A class of the test's."""

    def __init__(self, value: int) -> None:
        self.value = clamp(value)


def clamp(value: int) -> int:
    """Uses a constant."""
    return min(value, LIMIT)


def count_down(value: int) -> int:
    """Calls itself."""
    return 0 if value == 0 else count_down(value - 1)


def everything(value: int) -> str:
    """A module under another name, a function, a class, a constant, a nested function."""
    def inner() -> int:
        return Box(value).value + count_down(LIMIT)
    return packer.dumps([inner(), os.sep])


def locked() -> None:
    """Cannot travel."""
    with LOCK:
        pass


def call(function: Any, *args: Any) -> Any:
    """Run it where there is nothing but its source."""
    source, name = ship.source(function)
    names: dict[str, Any] = {"__name__": "job"}
    exec(compile(source, "<test>", "exec", dont_inherit=True), names)  # pylint: disable=exec-used
    return names[name](*args)


def test_a_function_takes_along_what_it_names() -> None:
    """And works elsewhere."""
    assert call(everything, 7) == '[3, "/"]'


def test_a_nested_function_travels() -> None:
    """Indentation and all; but not what is around it."""
    def free(value: int) -> int:
        return value + LIMIT

    bound = 1

    def closure() -> int:
        return bound
    assert call(free, 1) == 4
    with pytest.raises(ShipError, match="uses bound of the function around it"):
        ship.source(closure)


def test_what_cannot_travel_is_said() -> None:
    """Before it leaves."""
    with pytest.raises(ShipError, match="only a function made by def"):
        ship.source(lambda: None)
    with pytest.raises(ShipError, match="LOCK, which is no plain value"):
        ship.source(locked)

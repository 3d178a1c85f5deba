# SPDX-License-Identifier: GPL-2.0-only
"""Python functions made ready to travel: source that stands alone in another Python.

A function takes along what it names at module level: modules (as imports), other functions
and classes of its own module (as source), and plain values. It must not use variables of a
function around it: those are passed as arguments.
"""

from __future__ import annotations

import inspect
import marshal
import textwrap
import types
from collections.abc import Callable
from typing import Any


class ShipError(Exception):
    """The function cannot travel; the text says why."""


def source(function: Callable[..., Any]) -> tuple[str, str]:
    """Source that defines the function, and its name there."""
    if not isinstance(function, types.FunctionType) or function.__name__ == "<lambda>":
        raise ShipError(f"only a function made by def can go to the guest, not {function!r}")
    parts: dict[str, str] = {}
    _add(function, parts)
    return "from __future__ import annotations\n\n" + "\n\n".join(parts.values()), \
        function.__name__


def _add(function: types.FunctionType, parts: dict[str, str]) -> None:
    if function.__code__.co_freevars:
        raise ShipError(f"{function.__name__}() uses {', '.join(function.__code__.co_freevars)}"
                        " of the function around it: pass it as an argument")
    parts[function.__name__] = ""           # its place, should it call itself
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__ and name not in parts:
            _add_value(name, function.__globals__[name], function, parts)
    parts[function.__name__] = _text(function)


def _add_value(name: str, value: Any, user: types.FunctionType, parts: dict[str, str]) -> None:
    if isinstance(value, types.ModuleType):
        parts[name] = f"import {value.__name__} as {name}"
    elif getattr(value, "__module__", None) == user.__module__ and isinstance(
            value, types.FunctionType):
        _add(value, parts)
    elif getattr(value, "__module__", None) == user.__module__ and isinstance(value, type):
        parts[name] = ""
        for member in vars(value).values():
            if isinstance(member, types.FunctionType):
                for used in sorted(_names(member.__code__)):
                    if used in user.__globals__ and used not in parts:
                        _add_value(used, user.__globals__[used], user, parts)
        del parts[name]                     # after what it uses
        parts[name] = _text(value)
    elif hasattr(value, "__module__") and hasattr(value, "__qualname__"):
        parts[name] = f"from {value.__module__} import {value.__qualname__} as {name}"
    else:
        try:
            marshal.dumps(value)
        except ValueError as error:
            raise ShipError(f"{user.__name__}() uses {name}, which is no plain value") from error
        parts[name] = f"{name} = {value!r}"


def _text(thing: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except OSError as error:
        raise ShipError(f"there is no source of {thing!r}") from error


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found

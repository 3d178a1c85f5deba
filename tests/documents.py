# SPDX-License-Identifier: GPL-2.0-only
"""What the documents promise and show, read from them: tests hold the driver to it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Final

DOCUMENTATION: Final = Path(__file__).resolve().parents[1] / "Documentation"
ABI: Final = DOCUMENTATION / "ABI" / "testing"
DRIVER: Final = (DOCUMENTATION / "driver.rst").read_text()
INTERNALS: Final = (DOCUMENTATION / "driver-internals.rst").read_text()


def examples(document: str, language: str) -> dict[str, str]:
    """The blocks of code that have a name, by it."""
    found = re.findall(rf"^\.\. code-block:: {language}\n +:name: (\S+)\n\n((?:(?: +.*)?\n)+)",
                       (DOCUMENTATION / document).read_text(), re.MULTILINE)
    return {name: textwrap.dedent(block).strip() + "\n" for name, block in found}


def rows(text: str) -> list[list[str]]:
    """All rows of the simple tables whose first cell begins them; cells that go on are joined."""
    found: list[list[str]] = []
    columns: list[slice] = []
    inside = 0
    for line in text.splitlines():
        if re.fullmatch(r"=+(?: +=+)+", line):
            inside = (inside + 1) % 3       # above the head, below it, at the end
            starts = [match.start() for match in re.finditer("=+", line)]
            columns = [slice(a, b) for a, b in zip(starts, [*starts[1:], None])]
        elif inside == 2 and line.strip():
            cells = [line[column].strip() for column in columns]
            if cells[0] or not found:
                found.append(cells)
            else:
                found[-1] = [f"{old} {new}".strip() for old, new in zip(found[-1], cells)]
    return found


def section(text: str, title: str) -> str:
    """What stands below a title, to the next one."""
    match = re.search(rf"^{re.escape(title)}\n=+\n(.*?)(?=^\S[^\n]*\n==+\n|\Z)", text,
                      re.MULTILINE | re.DOTALL)
    assert match, title
    return match[1]


# Fields of each tracepoint, by its name.
TRACEPOINTS: Final = {name.strip("`"): fields.strip("`").split()
                      for name, fields, _ in rows(section(DRIVER, "Tracepoints"))}


def attributes(document: str) -> set[str]:
    """The files that a document of ABI/testing names."""
    return set(re.findall(r"^What:\t+(\S+)$", (ABI / document).read_text(), re.MULTILINE))

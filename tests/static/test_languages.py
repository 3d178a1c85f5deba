# SPDX-License-Identifier: GPL-2.0-only
"""Python, shell, manual pages and English are read by the tools for them, which have nothing to
say but of the faults that are planted for them.
"""

from __future__ import annotations

import os

import tools
from tree import git, text, tracked, written_in

PYTHON = written_in(".py", "python3")
OLDEST = "3.11"         # of the Pythons that run all this
CANARY = "tests/static/canary.py"
# Words that are right where they are.
WORDS = ("nd",          # mandoc's macro for what a page is about
         "ot",          # an operand's type in QEMU's translator
         )


def rooms() -> dict[str, list[str]]:
    """Python by directory: modules are found by their name, and there may be a conftest in each."""
    found: dict[str, list[str]] = {}
    for name in PYTHON:
        found.setdefault(os.path.dirname(name), []).append(name)
    return found


def search_path() -> str:
    """Where modules are that are in no package."""
    return ":".join(f"{tools.SOURCE}/{room}" for room, names in rooms().items()
                    if f"{room}/__init__.py" not in names)


def test_mypy() -> None:
    """Python's types, strictly."""
    of_room = [" ".join([*names, *([CANARY] if room == os.path.dirname(CANARY) else [])])
               for room, names in rooms().items()]
    script = f"export MYPYPATH={search_path()}\n" + "".join(
        f"mypy --strict --scripts-are-modules --no-error-summary --python-version={OLDEST}"
        f" --cache-dir=/tmp/mypy {names}\n" for names in of_room)
    fault = "def canary() -> int:\n    return 'no number'\n", "[return-value]"
    tools.check("mypy", script, PYTHON, {CANARY: fault})


def test_pylint() -> None:
    """What tends to be wrong or worse than need be in Python; pylintrc says what does not."""
    fault = "def canary(left, right):\n    return left\n", "unused-argument"
    script = (f"PYTHONPATH={search_path()} pylint --rcfile=tests/static/pylintrc"
              f" --py-version={OLDEST} {' '.join(PYTHON)} {CANARY} | grep -v '^[*]* Module'")
    tools.check("pylint", script, [*PYTHON, "tests/static/pylintrc"], {CANARY: fault})


def test_flake8() -> None:
    """The form of Python: at most 100 columns; no name that nobody uses."""
    fault = "import os\n", "F401"
    script = f"python3 -m flake8 --max-line-length=100 {' '.join(PYTHON)} {CANARY}"
    tools.check("flake8", script, PYTHON, {CANARY: fault})


def test_shellcheck() -> None:
    """Shell scripts."""
    names = written_in(".sh", "sh", "bash", "dash")
    fault = "#!/bin/sh\nrm $1\n", "SC2086"
    tools.check("shellcheck", f"shellcheck -f gcc {' '.join(names)} canary.sh", names,
                {"canary.sh": fault})


def test_codespell() -> None:
    """English, in all files and commit messages."""
    names = [name for name in tracked() if not name.endswith(".png")]
    messages = {"messages": git("log", "--format=%h %B")}
    script = f"codespell --ignore-words-list={','.join(WORDS)} ."
    # So written that it is none here.
    tools.check("codespell", script, names, {"canary": ("\x74eh\n", "==> the")}, messages)


def test_manual_pages() -> None:
    """mandoc and groff have nothing to say."""
    names = [name for name in tracked() if text(name).startswith('.\\" SPDX')]
    fault = '.\\" SPDX\n.Dd today\n.Dt CANARY 8\n.Os\n.Sh NAME\n.Nm canary\n', "NAME"
    pages = " ".join([*names, "canary.8"])
    script = f"mandoc -T lint -W warning {pages}; groff -mandoc -Tutf8 -ww -z {pages}"
    tools.check("mandoc", script, names, {"canary.8": fault})

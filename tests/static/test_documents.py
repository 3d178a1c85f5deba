# SPDX-License-Identifier: GPL-2.0-only
"""The documents: in the form that the kernel wants them, and true of the sources."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import documents
from hvhost import linux
from tree import TOP, text, tracked

C_FILES = [name for name in tracked() if name.startswith("drivers/") and
           name.endswith((".c", ".h"))]
SOURCES = [name for name in C_FILES if not name.endswith("_test.c")]
CODE = [name for name in SOURCES if name.endswith(".c")]
# An event is documented where it is listed; a compatibility macro is none.
UNDOCUMENTED = ("trace.h", "compat.h")
# What the code calls the locks, by what the document does.
LOCKS = {"ctrl->lock": "synthrdp_control.lock", "data->lock": "synthrdp_data.lock",
         "session->rx_lock": "synthrdp_session.rx_lock",
         "session->tx_lock": "synthrdp_session.tx_lock", None: "Softirqs"}
UNDESCRIBED = """/* SPDX-License-Identifier: GPL-2.0-only */
/**
 * struct canary - found wanting
 * @said: of this
 */
struct canary {
\tint said;
\tint unsaid;
};
"""


def complaints(*argv: str | Path) -> str:
    """What a checker has to say; one that fails in silence has something, too."""
    done = subprocess.run([sys.executable, *map(str, argv)], cwd=TOP, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip() or (f"status {done.returncode}" if done.returncode else "")


def docutils(name: str | Path) -> str:
    """Each warning."""
    return complaints("-m", "docutils", "--report=warning", "--halt=5", "--syntax-highlight=none",
                      "--writer=null", name)


@pytest.mark.parametrize("name", [name for name in tracked() if name.endswith(".rst")])
def test_rst(name: str) -> None:
    """Every document can be typeset."""
    assert docutils(name) == ""


def test_guide() -> None:
    """Each command of the administrator's guide is in an example, and some test of a system runs
    that, by its name. A host's PowerShell nobody can run here: it is what the doctor says.
    """
    name = "administration.rst"
    guide = text(f"Documentation/{name}")
    blocks = re.findall(r"^ *\.\. code-block:: (\w+)\n +:name: (\S+)$", guide, re.MULTILINE)
    assert len(blocks) == guide.count("code-block::") > 20
    assert re.findall(r"^(?! *\.\. ).*::$", guide, re.MULTILINE) == []
    tests = "".join(text(test) for test in tracked()
                    if test.startswith(("tests/system/", "tests/deb/")))
    assert [name for language, name in blocks
            if language != "powershell" and f'"{name}"' not in tests] == []
    commands = documents.examples(name, "sh").values()
    programs = {line.split()[0] for block in commands for line in block.splitlines()}
    programs.remove("make")                     # deb/test_install.py runs what there is of it
    shown = [words for words in re.findall(r"``([^`]+)``", guide.replace("\n", " "))
             if words.split()[0] in programs and " " in words]
    assert len(shown) > 5
    assert [words for words in shown if not any(words in block for block in commands)] == []
    doctor = re.sub(r'"\n\s*f?"', "", text("tools/synthrdpctl/ctl/checks_driver.py"))
    for command in re.findall(r"^ +(Set-VM.*)$", guide, re.MULTILINE):
        assert command in doctor


def test_abi(tmp_path: Path) -> None:
    """The kernel's own script can read what is in ABI/testing, and knows no better."""
    def get_abi(*arguments: str) -> str:
        return complaints(linux.source("sid") / "tools/docs/get_abi.py", "--dir",
                          documents.ABI.parent, *arguments)

    assert get_abi("validate") == ""
    # What the kernel's Sphinx is given, but for the links, which are Sphinx's own.
    typeset = tmp_path / "abi.rst"
    typeset.write_text(re.sub(":(?:ref|doc):", ":literal:", get_abi("rest")))
    assert docutils(typeset) == ""
    found = get_abi("search", "synthrdp")
    entries = re.split(r"^\d+\. ", found, flags=re.MULTILINE)[1:]
    assert {entry.split("\n")[0] for entry in entries} == set().union(
        *(documents.attributes(document.name) for document in documents.ABI.iterdir()))
    for entry in entries:
        for field in ("Kernel version", "Date", "Contact"):
            assert re.search(rf"^{field}:\t+\S", entry, re.MULTILINE), entry


def kernel_doc(*names: str | Path) -> str:
    """The kernel's own checker of the comments that begin with two asterisks."""
    return complaints(linux.source("sid") / "tools/docs/kernel-doc", "-none", "-Wall", *names)


def test_kernel_doc() -> None:
    """Each is complete, in the newest kernel's eyes."""
    assert kernel_doc(*C_FILES) == ""


def test_kernel_doc_finds_faults(tmp_path: Path) -> None:
    """It did look."""
    canary = tmp_path / "canary.h"
    canary.write_text(UNDESCRIBED)
    assert "'unsaid' not described" in kernel_doc(canary)


def defined(pattern: str, names: list[str]) -> set[str]:
    """What the pattern finds in these files."""
    return {found for name in names for found in re.findall(pattern, text(name), re.MULTILINE)}


def test_everything_that_others_use_has_kernel_doc() -> None:
    """Structures and enums anywhere, and functions that another file calls."""
    names = [name for name in SOURCES if not name.endswith(UNDOCUMENTED)]
    functions = defined(r"^(?:static inline )?(?!static|#|\t)[\w *]*?\b(synthrdp_\w+)\(", names)
    types = defined(r"^(?:static )?(?:struct|enum) (\w+) \{$", names)
    assert {"synthrdp_pipe_open", "synthrdp_event_signal", "synthrdp_parse",
            "synthrdp_data_exit"} <= functions
    assert {"synthrdp_session", "control_cause", "synthrdp_pipe_packet"} <= types
    assert functions - defined(r"^ \* (\w+)\(\) - ", names) == set()
    assert types - defined(r"^ \* (?:struct|enum) (\w+) - ", names) == set()


def test_numbers_have_a_reason() -> None:
    """What is defined as a number stands below a comment, alone or with its like."""
    bare = []
    for name in SOURCES:
        above = ""
        for line in text(name).splitlines():
            if re.match(r"#define\s+\w+\s+.*\d", line) and not above.endswith("*/") \
                    and not above.startswith("#define"):
                bare.append(f"{name}: {line}")
            above = line
    assert bare == []


def test_locks() -> None:
    """Who relies on which lock: as the document says, and as lockdep is told."""
    told: dict[str, set[str]] = {}
    for name in CODE:
        function = ""
        for line in text(name).splitlines():
            if match := re.match(r"(?!\t| |#|/).*?\b(\w+)\(", line):
                function = match[1]
            elif match := re.search(r"lockdep_assert_(?:held\(&(\w+->\w+)\)|in_softirq\(\))", line):
                told.setdefault(LOCKS[match[1]], set()).add(function)
    said = {lock: set(re.findall(r"``(\w+)``", functions)) for lock, functions in re.findall(
        r"^(?:``)?([\w.]+).*\n(?: {4}.*\n)*? {4}Relied on in ([^.]*)\.",
        documents.section(documents.INTERNALS, "Locking"), re.MULTILINE)}
    assert said == told


def test_messages() -> None:
    """All that the driver can say is in the document, and nothing else is."""
    calls = [(kind, message.removesuffix("\\n")) for name in CODE for kind, message in re.findall(
        r'\b((?:dev|pr)_(?!dbg)\w+|printk\w*|WARN\w*)\((?:[^;"]*?"([^"]*)")?', text(name))
        if kind not in ("dev_name", "dev_set_name", "dev_get_drvdata", "dev_control")]
    control = text("drivers/hv/synthrdp/control.c")
    causes = dict(re.findall(r'\[(CAUSE_\w+)\]\s*= "([^"]*)"', control))
    progress = {"CAUSE_NONE", "CAUSE_ON", "CAUSE_RETRY", "CAUSE_OPENED", "CAUSE_AGREED",
                "CAUSE_OFF", "CAUSE_SUSPENDED"}
    assert max(map(len, causes.values())) < 48      # what its tracepoint holds
    limited = [message for kind, message in calls if kind == "dev_warn_ratelimited"]
    assert [call for call in calls if call[0] != "dev_warn_ratelimited"] == [("dev_warn", "%s")]
    said = dict(documents.rows(documents.section(documents.DRIVER, "Messages")))
    assert said == {**{text: "once" for cause, text in causes.items() if cause not in progress},
                    **{text: "10 times in 5 s" for text in limited}}

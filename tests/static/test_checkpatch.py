# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own judge of style, on files as they are and on each commit; and its messages.

All commits that git has here are read. Of the first ones of a shallow clone that is no more than
the message, for there is no telling what they changed.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tools
from hvhost import cache
from tree import TOP, git, tracked

# What checkpatch says of files that must be as they are.
EXEMPT = {
    # Out of tree a driver must ask which kernel it is built for; in one place.
    "drivers/hv/synthrdp/compat.h": ("LINUX_VERSION_CODE", "CONSTANT_COMPARISON"),
    # The form that every trace header has.
    "drivers/hv/synthrdp/trace.h": ("OPEN_ENDED_LINE", "PARENTHESIS_ALIGNMENT"),
    # The macro's argument is a name.
    "drivers/hv/synthrdp/pipe.h": ("MACRO_ARG_REUSE", "MACRO_ARG_PRECEDENCE"),
}
# kzalloc_obj() is not in the older of the kernels that the driver builds for.
EXEMPT_ALL = ("ALLOC_WITH_SIZEOF",)
# Of patches: the sender of a series signs them off; MAINTAINERS is in the kernel's tree; bodies
# and width are looked at below, and scripts in test_sources.
EXEMPT_PATCHES = ("MISSING_SIGN_OFF", "FILE_PATH_CHANGES", "COMMIT_MESSAGE",
                  "COMMIT_LOG_LONG_LINE", "EXECUTE_PERMISSIONS")
KERNEL_FORM = ("*.c", "*.h", "*Kconfig", "drivers/*")
WIDTH = 75              # of each line of a message
SUBJECT = re.compile(r"[\w./-]+: ([\w./-]+: )*\S.*[^.]")

# Commits from before all knew that commits are checked. History stays as it is, and the files are
# right since.
OLD = {
    # Too wide, by a few columns.
    "width": "17639be 039cd42 7ca694e fb0a279 0748ad8 3ebd164 24638cd 5b72775 a951d2a"
             " f032768 5041562 4b19576 bcba3df e92fc10 12de805 3fb01bb b57ab78 3c61ce9"
             " aefa83a c79a6cb ab88008 df66f89",
    # Their subjects say it all.
    "body": "266d6ab b5e200a 41ffc2f e79545a 78e3caf 61c9f76 0f8b5cd 3c7b86c ec40e45 c8374d4"
            " 339fc64 8cbdd0e 3da2a52 46ad747 1c83498 c9f1961 bdb5db4 877ae17 a05cfb1 12de805"
            " a99875b e2ed542 24ef88b ef99dfc",
    # The file's own name, where the way to it is meant.
    "EMBEDDED_FILENAME": "36eeca6",
    # A help text of three lines.
    "CONFIG_DESCRIPTION": "2e3779d 829af53",
    # Macros that drop an argument: fda75ac did away with them.
    "MACRO_ARG_UNUSED": "9eebc84",
}


def judge(path: Path, *arguments: str) -> list[str]:
    """checkpatch's remarks, each with file, line, type and words."""
    with tempfile.TemporaryDirectory() as elsewhere:    # for it leaves a file where it is run
        done = subprocess.run(
            ["perl", tools.checkpatch(), "--no-tree", "--strict", "--terse", "--show-types",
             "--no-summary", f"--ignore={','.join(EXEMPT_ALL)}", *arguments, path],
            cwd=elsewhere, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if line]
    if done.returncode < 0 or done.returncode and not said:
        raise cache.PrepareError(f"checkpatch did not do its work: status {done.returncode}")
    return said


def is_exempt(remark: str) -> bool:
    """Whether it is of a type that the file is exempt from."""
    return any(name in remark and f":{kind}:" in remark
               for name, kinds in EXEMPT.items() for kind in kinds)


@pytest.mark.parametrize("name", [name for name in tracked() if name.endswith((".c", ".h"))])
def test_file(name: str) -> None:
    """Kernel style, the tools' C too."""
    def write(new: Path) -> None:
        new.write_text("\n".join(judge(TOP / name, "-f")))
    key = cache.key(tools.checkpatch().read_bytes(), EXEMPT_ALL, name, (TOP / name).read_bytes())
    kept = cache.get("lint/checkpatch", key, write, f"what checkpatch says of {name}", 2)
    tools.accept(line for line in kept.read_text().splitlines() if not is_exempt(line))


@functools.lru_cache(maxsize=None)
def commits() -> dict[str, bool]:
    """The commits from the first one on, and whether what they changed is known."""
    shallow = TOP / git("rev-parse", "--git-path", "shallow").strip()
    cut = shallow.read_text().split() if shallow.exists() else []
    return {name: name not in cut for name in
            git("rev-list", "--no-merges", "--reverse", "HEAD").split()}


def is_old(name: str, fault: str) -> bool:
    """Whether a commit's fault is known."""
    return name[:7] in OLD.get(fault, "").split()


def _judge_commit(name: str) -> list[str]:
    patch = git("show", "--format=email", "--stat", "--patch", name, "--", *KERNEL_FORM)
    with tempfile.NamedTemporaryFile("w", prefix="commit-") as file:
        file.write(patch)
        file.flush()
        return judge(Path(file.name), "--showfile") if "\ndiff --git " in patch else []


@functools.lru_cache(maxsize=None)
def commit_remarks() -> dict[str, list[str]]:
    """checkpatch's remarks on each commit; kept, for neither of them changes."""
    place = cache.directory() / "lint/commits" / cache.key(
        tools.checkpatch().read_bytes(), EXEMPT_ALL, KERNEL_FORM)
    said: dict[str, list[str]] = json.loads(place.read_text()) if place.exists() else {}
    new = [name for name, known in commits().items() if known and name not in said]
    with ThreadPoolExecutor(2) as pool:
        said.update(zip(new, pool.map(_judge_commit, new)))
    if new:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
            json.dump(said, file)
        Path(file.name).replace(place)
    return {name: said[name] for name, known in commits().items() if known}


def test_commits() -> None:
    """Each is clean, or was when it was made."""
    tools.accept(f"{name[:7]} {remark}" for name, remarks in commit_remarks().items()
                 for remark in remarks if not is_exempt(remark) and not any(
                     f":{kind}:" in remark and (kind in EXEMPT_PATCHES or is_old(name, kind))
                     for kind in (*EXEMPT_PATCHES, *OLD)))


def faults(message: str) -> list[str]:
    """What is wrong with the form of a commit message."""
    subject, *rest = message.rstrip("\n").split("\n")
    found = [] if SUBJECT.fullmatch(subject) else ["subject"]
    if rest[:1] != [""] or len(rest) < 2:
        found.append("body")
    # Nothing that could be broken.
    if any(len(line) > WIDTH and " " in line.strip() for line in [subject, *rest]):
        found.append("width")
    return found


def message_faults() -> dict[str, list[str]]:
    """Those of each commit."""
    parts = git("log", "--no-merges", "--format=%H%n%B%x00").split("\0\n")
    messages = dict(part.split("\n", 1) for part in parts if part.strip("\0"))
    return {name: faults(message) for name, message in messages.items()}


def test_messages() -> None:
    """`area: what it does`, an empty line, and why; all of that not too wide."""
    tools.accept(f"{name[:7]} {fault}" for name, wrong in message_faults().items()
                 for fault in wrong if not is_old(name, fault))


@pytest.mark.parametrize("message, wrong", [
    ("synthrdp: pipe: read once\n\nBecause.\n", []),
    ("Documentation: say so\n\nSee\nhttps://example.org/" + 80 * "x" + "\n", []),
    ("say so\n\nBecause.\n", ["subject"]),
    ("tests: say so.\n\nBecause.\n", ["subject"]),
    ("tests: say so\nBecause.\n", ["body"]),
    ("tests: say so\n", ["body"]),
    ("tests: " + 35 * "so " + "on\n\nBecause.\n", ["width"]),
    ("tests: say so\n\n" + 20 * "word " + "\n", ["width"]),
])
def test_messages_are_read(message: str, wrong: list[str]) -> None:
    """Each fault is one."""
    assert faults(message) == wrong


def test_old_commits_are_at_fault() -> None:
    """No exception outlives its reason."""
    wrong = message_faults()
    said = {name: " ".join(remarks) for name, remarks in commit_remarks().items()}
    tools.accept(f"{old} {fault}" for fault, names in OLD.items() for old in names.split()
                 for name in said if name.startswith(old)
                 if fault not in wrong[name] and f":{fault}:" not in said[name])

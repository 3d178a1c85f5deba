# SPDX-License-Identifier: GPL-2.0-only
"""The driver as a series for the kernel.

In linux/ each patch has a file: its message, the project's files that come with it (as
patterns), and its changes to files that the kernel has. Three files grow by what has come:
the driver's Makefile and Kconfig, and MAINTAINERS.

The files are the project's own, byte for byte, save what IN_TREE says.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hvhost import cache, linux
from hvhost.cache import PrepareError
from series import boot, repository
from series.repository import TOP, Repository, Sender

HERE = Path(__file__).resolve().parent / "linux"
SUITE: Final = "sid"
PLACE: Final = "drivers/hv/synthrdp"
MAKEFILE, KCONFIG, MAINTAINERS = f"{PLACE}/Makefile", f"{PLACE}/Kconfig", "MAINTAINERS"
TITLE: Final = "HYPER-V SYNTHRDP DRIVER"
NEIGHBOUR: Final = "Hyper-V/Azure CORE AND DRIVERS"     # the section behind ours

# What may not be in a kernel tree: questions for its version. Each applies, or is an error.
COMPAT: Final = f"{PLACE}/compat.h"
IN_TREE: Final = {
    f"{PLACE}/main.c": (('#include "compat.h"\n', ""),
                        ("SYNTHRDP_DEFINE_REMOVE(synthrdp_remove)\n\n", ""),
                        ("synthrdp_remove_op", "synthrdp_remove")),
    f"{PLACE}/data.c": (('#include "compat.h"\n', ""),
                        ("synthrdp_class_create(", "class_create(")),
}
# And what older kernels do not have, but the newest wants.
NEWER: Final = (
    (r"\b(kv?zalloc)\(sizeof\((\*\w+)\),\s+GFP_KERNEL\)", r"\1_obj(\2)"),
)

# What checkpatch says of things that must be as they are; why is in test_checkpatch.py.
IGNORED: Final = ("OPEN_ENDED_LINE", "PARENTHESIS_ALIGNMENT", "MACRO_ARG_REUSE",
                  "MACRO_ARG_PRECEDENCE")

OPTIONS: Final = ("64BIT=y", "SMP=y", "PCI=y", "ACPI=y", "HYPERVISOR_GUEST=y", "PARAVIRT=y",
                  "MODULES=y", "MODULE_UNLOAD=y", "FTRACE=y", "ENABLE_DEFAULT_TRACERS=y",
                  "HYPERV=y")
OURS: Final = ("HYPERV_VMBUS", "KUNIT", "HYPERV_SYNTHRDP", "HYPERV_SYNTHRDP_PROTOCOL_KUNIT_TEST",
               "HYPERV_SYNTHRDP_KUNIT_TEST")


@dataclass(frozen=True)
class Step:
    """A patch to be."""

    message: str
    files: tuple[str, ...]      # of the project
    diff: str                   # to the kernel's

    @property
    def changed(self) -> list[str]:
        """The kernel's files that `diff` changes."""
        return re.findall(r"^--- a/(\S+)$", self.diff, re.MULTILINE)


def _step(template: Path) -> Step:
    message, _, rest = template.read_text().partition("\n---\n")
    patterns, *diffs = re.split(r"^(?=diff )", rest, flags=re.MULTILINE)
    files: list[str] = []
    for pattern in patterns.split():
        found = sorted(str(path.relative_to(TOP)) for path in TOP.glob(pattern)
                       if not re.search(r"\.(o|ko|mod|mod\.c|cmd|order)$", path.name))
        if not found:
            raise PrepareError(f"{template.name}: there is no {pattern}")
        files += found
    return Step(message + "\n", tuple(files), "".join(diffs))


def steps() -> list[Step]:
    """All patches, in their order. No file of the driver is forgotten."""
    found = [_step(template) for template in sorted(HERE.glob("[0-9]*.patch"))]
    listed = {name for step in found for name in step.files}
    done = subprocess.run(["git", "-c", f"safe.directory={TOP}", "ls-files", PLACE], cwd=TOP,
                          stdout=subprocess.PIPE, text=True, check=True)
    forgotten = set(done.stdout.split()) - listed - {COMPAT, MAKEFILE, KCONFIG}
    if forgotten:
        raise PrepareError(f"in no patch of the series: {', '.join(sorted(forgotten))}")
    return found


def in_tree(name: str) -> str:
    """A file's text as it is in a kernel tree."""
    text = (TOP / name).read_text()
    for old, new in IN_TREE.get(name, ()):
        if old not in text:
            raise PrepareError(f"{name} has no {old.strip()!r} to be replaced in the series")
        text = text.replace(old, new)
    if name.endswith((".c", ".h")):
        for pattern, by in NEWER:
            text = re.sub(pattern, by, text)
    return text


def makefile(text: str, there: set[str]) -> str:
    """As far as the files that are there go: a module comes with the last of its files."""
    lists = dict(re.findall(r"^(\w+)-y := (.*)$", text, re.MULTILINE))

    def complete(name: str) -> bool:
        if name in lists:
            return all(complete(part.removesuffix(".o")) for part in lists[name].split())
        return f"{name}.c" in there
    paragraphs = []
    for paragraph in text.split("\n\n"):
        kept = [line for line in paragraph.splitlines()
                if all(map(complete, re.findall(r"\b(?:CFLAGS_)?(\w+)(?:\.o|-y)\b", line)))]
        if any(not line.startswith("#") or "SPDX" in line for line in kept):
            paragraphs.append("\n".join(kept))
    return re.sub(r"\A(# SPDX.*\n)\n", r"\1", "\n\n".join(paragraphs)) + "\n"


def kconfig(text: str, make: str) -> str:
    """The options that a Makefile knows."""
    head, *blocks = re.split(r"^(?=config )", text, flags=re.MULTILINE)
    kept = [block for block in blocks if f"CONFIG_{block.split()[1]})" in make]
    return (head + "".join(kept)).strip() + "\n"


def maintainers(text: str, entry: str) -> str:
    """The kernel's MAINTAINERS with one more entry, where the alphabet wants it."""
    before, neighbour, after = text.partition(f"\n{NEIGHBOUR}\n")
    if not neighbour:
        raise PrepareError(f"MAINTAINERS has no section {NEIGHBOUR}")
    return f"{before}\n{entry}{neighbour}{after}"


class Series:
    """The series, committed in a tree that has at least the files it touches."""

    def __init__(self, tree: Path, who: Sender) -> None:
        self.steps = steps()
        self.who = who
        self._pristine = {MAINTAINERS: (tree / MAINTAINERS).read_text()}
        self.repository = Repository(tree, who)
        self.base = self.repository.commit("The kernel\n", *touched(self.steps))
        self.commits = list(self._commit())

    def _commit(self) -> Iterator[str]:
        tree = self.repository.tree
        have: set[str] = set()
        for step in self.steps:
            if step.diff:
                self.repository.git("apply", "--whitespace=error-all", "-", stdin=step.diff)
            for name in step.files:
                self._write(name, in_tree(name))
            have.update(step.files)
            grown = self._grown(have)
            for name, text in grown.items():
                self._write(name, text)
            (tree / COMPAT).unlink(missing_ok=True)
            yield self.repository.commit(step.message, *step.files, *step.changed, *grown)
        for name in (MAKEFILE, KCONFIG):
            if (tree / name).read_text() != (TOP / name).read_text():
                raise PrepareError(f"{name} is not whole at the end of the series")

    def _grown(self, have: set[str]) -> dict[str, str]:
        """The files that grow, as they are when the project's files `have` have come."""
        if not have:
            return {}
        here = {Path(name).name for name in have if name.startswith(PLACE)}
        make = makefile((TOP / MAKEFILE).read_text(), here)
        entry = "".join(
            line + "\n" for line in (HERE / MAINTAINERS).read_text().splitlines()
            if not line.startswith("#")
            and (not line.startswith("F:") or any(
                Path(name).match(line.split()[1].rstrip("/") + "*")
                or name.startswith(line.split()[1]) for name in have)))
        return {MAKEFILE: make, KCONFIG: kconfig((TOP / KCONFIG).read_text(), make),
                MAINTAINERS: maintainers(self._pristine[MAINTAINERS],
                                         entry.replace("@SENDER@", str(self.who)))}

    def _write(self, name: str, text: str) -> None:
        path = self.repository.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)        # the old one may be linked to elsewhere
        path.write_text(text)

    def mails(self, into: Path) -> list[Path]:
        """The series as files, the cover letter first."""
        cover = (HERE / "cover.patch").read_text().replace("@BASE@", version())
        return self.repository.mails(self.base, into, cover, "RFC PATCH")


def touched(series: list[Step]) -> list[str]:
    """The kernel's files that the series changes."""
    return sorted({MAINTAINERS, *(name for step in series for name in step.changed)})


def version() -> str:
    """The kernel that the series is made for."""
    text = (linux.source(SUITE) / "Makefile").read_text()
    return ".".join(re.findall(r"^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$", text, re.MULTILINE))


def pristine(name: str) -> str:
    """A file of the kernel's source, without what linux.py puts there."""
    text = (linux.source(SUITE) / name).read_text()
    return text.removesuffix(linux.HOOKS.get(name, "") + "\n") if name in linux.HOOKS else text


def sketch(tree: Path) -> None:
    """The files that the series touches, and no more: for what needs no whole tree."""
    for name in touched(steps()):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(pristine(name))


def remarks(mails: list[Path], tree: Path) -> list[str]:
    """What the kernel's checkpatch has to say of the patches, and what MAINTAINERS misses."""
    scripts = linux.source(SUITE) / "scripts"
    found = []
    for mail in mails:
        # That new files are in a directory which MAINTAINERS has is not for it to know.
        said = repository.check(
            ["perl", scripts / "checkpatch.pl", f"--root={scripts.parent}", "--strict", "--terse",
             "--show-types", "--no-summary",
             f"--ignore={','.join((*IGNORED, 'FILE_PATH_CHANGES'))}", mail], cwd=tree.parent)
        found += [f"{mail.name}: {line}" for line in said]
    entry = (tree / MAINTAINERS).read_text().partition(f"\n{TITLE}\n")[2].partition("\n\n")[0]
    return found + repository.without_maintainer(mails, entry)


def make(into: Path, who: Sender) -> None:
    """Make the series, build it patch by patch, and start a kernel that has it."""
    with repository.linked(linux.source(SUITE)) as tree:
        cache.remove(tree / PLACE)
        for name in linux.HOOKS:
            (tree / name).unlink()          # it is linked to
            (tree / name).write_text(pristine(name))
        series = Series(tree, who)
        patches = series.mails(into)[1:]
        repository.report(patches, remarks(patches, tree))
        series.repository.build_each(series.commits, lambda: build(tree))
        cache.say("building a whole kernel, minutes the first time")
        cache.say(boot.boot(boot.link(tree)))


def build(tree: Path) -> None:
    """Build drivers/hv as the tree is, all of ours as module and built in, with W=1."""
    for how in ("m", "y"):
        into = cache.directory() / "series" / how
        into.mkdir(parents=True, exist_ok=True)
        (into / "wanted").write_text("".join(f"CONFIG_{option}\n" for option in (
            *OPTIONS, *(f"{option}={how}" for option in OURS))))
        command = f"make -s -C {linux.LINUX} O={linux.BUILD} {linux.JOBS}"
        script = (f"{command} KCONFIG_ALLCONFIG={linux.BUILD}/wanted allnoconfig"
                  f" && {command} W=1 drivers/hv/"
                  # There is no whole kernel to look symbols up in.
                  + (f" && {command} KBUILD_MODPOST_WARN=1 modules" if how == "m" else ""))
        said = cache.run(linux.root(SUITE).command(
            ["sh", "-euc", script], binds={tree: linux.LINUX, into: linux.BUILD}),
            f"building the series as {how}", env=linux.ENV)
        if bad := re.findall(r"^.*drivers/hv.*(?:warning|error).*$", said, re.MULTILINE):
            raise PrepareError("\n".join(["the series does not build without a remark:", *bad]))

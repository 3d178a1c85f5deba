# SPDX-License-Identifier: GPL-2.0-only
"""The relay's fuzzers (libFuzzer, with sanitizers), and the inputs that are kept for them.

A corpus is a text file: an input in hexadecimal on each line. `make fuzz` finds new ones.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relaykit import HERE, SOURCE, compile_c

SANITIZE: Final = "-fsanitize=fuzzer,address,undefined"
HEADING: Final = "# SPDX-License-Identifier: GPL-2.0-only"
WRAPPED: Final = ("open", "read", "write", "close", "shutdown", "socket", "connect", "getsockopt",
                  "setsockopt", "clock_gettime")


@dataclass(frozen=True)
class Target:
    """A fuzzer: what it is built from, how long its inputs may be, how many are a quick look."""

    name: str
    sources: tuple[Path, ...]
    longest: int
    look: int
    arguments: tuple[str, ...] = ()

    @property
    def corpus(self) -> Path:
        """Its inputs in the tree."""
        return HERE / "corpus" / f"{self.name}.txt"

    def build(self, folder: Path) -> Path:
        """Compile it."""
        return compile_c(folder / f"{self.name}_fuzz", "-D_GNU_SOURCE", "-O1", SANITIZE,
                         "-fno-sanitize-recover=all", HERE / f"{self.name}_fuzz.c", *self.sources,
                         *self.arguments, compiler="clang")

    def command(self, program: Path, *arguments: str | Path) -> list[str | Path]:
        """How to run it."""
        # An input takes some ms; on a machine with thirty others one was seen to take 20 s.
        return [program, f"-max_len={self.longest}", "-timeout=120", *arguments]


TARGETS: Final = {target.name: target for target in (
    Target("x224", (SOURCE / "x224.c",), 320, 300_000),
    Target("relay", tuple(SOURCE / f"{name}.c" for name in ("answer", "relay", "server", "x224")),
           400, 5_000, tuple(f"-Wl,--wrap={name}" for name in WRAPPED)))}


def load(corpus: Path, folder: Path) -> int:
    """Make the lines of a corpus files in a folder; return how many."""
    inputs = [bytes.fromhex(line) for line in corpus.read_text().splitlines()
              if line and not line.startswith("#")]
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs):
        (folder / f"{number:05}").write_bytes(data)
    return len(inputs)


def save(corpus: Path, inputs: Iterable[bytes]) -> None:
    """Write a corpus, the shortest inputs first."""
    lines = [data.hex() for data in sorted({*inputs} - {b""}, key=lambda data: (len(data), data))]
    corpus.parent.mkdir(parents=True, exist_ok=True)
    corpus.write_text("\n".join((HEADING, *lines, "")))


def run(command: list[str | Path], folder: Path, timeout: float) -> str:
    """Run a fuzzer; a find is an AssertionError with the fuzzer's words."""
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, errors="replace", timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def campaign(target: Target, folder: Path, seconds: int, seed: int) -> str:
    """Fuzz from the tree's corpus on for so long, keep what is new in FOLDER/NAME.txt; say what
    came of it."""
    program = target.build(folder)
    found, whole = folder / "found", folder / "whole"
    known = load(target.corpus, found)
    said = run(target.command(program, f"-seed={seed}", f"-max_total_time={seconds}",
                              "-print_final_stats=1", found), folder, seconds + 300)
    whole.mkdir()
    merged = run(target.command(program, "-merge=1", whole, found), folder, 600)
    save(folder / f"{target.name}.txt", [file.read_bytes() for file in whole.iterdir()])
    runs = re.search(r"number_of_executed_units: (\d+)", said)
    reached = re.search(r"(\d+) new coverage edges", merged)
    there = re.search(r"\((\d+) PCs\)", said)
    assert runs and reached and there, said[-2000:] + merged[-2000:]
    return (f"{target.name}: {int(runs[1]):,} inputs in {seconds} s, {known} from the tree, "
            f"{len(list(whole.iterdir()))} to keep, {reached[1]} of {there[1]} edges reached")

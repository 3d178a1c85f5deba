# SPDX-License-Identifier: GPL-2.0-only
"""A tracepoint that nobody looks at costs one NOP: in the module as it is built."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from documents import TRACEPOINTS
from hvhost import kernels

# Where bytes pass: in these functions of the pipe, or what they were inlined into.
HOT = {"synthrdp_packet": 2, "synthrdp_tx_wait": 1, "synthrdp_tx_wake": 1}


def dump(*argv: str | Path) -> str:
    """What objdump says."""
    return subprocess.run(["objdump", *argv], stdout=subprocess.PIPE, text=True,
                          check=True).stdout


@pytest.mark.parametrize("name", kernels.NAMES)
def test_sites(name: str) -> None:
    """Each is one NOP, to be patched into a jump to where the event is put together."""
    module = kernels.module(name)
    # Of each entry: the site, the jump's target, and the key of the tracepoint.
    relocations = re.findall(r"^\w+ R_X86_64_PC\d+ +(\S+)\+0x(\w+)$",
                             dump("-r", "-j", "__jump_table", module), re.MULTILINE)
    sites: dict[str, list[tuple[str, int, int]]] = {}
    for (text, site), (_, target), (key, _) in zip(*[iter(relocations)] * 3):
        if key.startswith("__tracepoint_"):
            sites.setdefault(key.removeprefix("__tracepoint_"), []).append(
                (text, int(site, 16), int(target, 16)))
    assert sites.keys() == TRACEPOINTS.keys()
    assert {event: len(sites[event]) for event in HOT} == HOT
    for text, site, target in [where for places in sites.values() for where in places]:
        code = dump("-d", "-j", text, f"--start-address={site}", f"--stop-address={site + 5}",
                    "--no-show-raw-insn", module)
        instruction = re.search(rf"^ *{site:x}:\t(.*?) *$", code, re.MULTILINE)
        assert instruction and re.match(r"xchg +%ax,%ax$|nop", instruction[1]), code
        # Behind it goes on what runs when nobody looks; what is told is gathered elsewhere.
        assert target > site + 5

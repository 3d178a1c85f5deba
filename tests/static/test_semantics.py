# SPDX-License-Identifier: GPL-2.0-only
"""The newest kernel's semantic patches find nothing in the driver that they would change."""

from __future__ import annotations

import re

import tools
from hvhost import linux
from tree import tracked

PLACE = "drivers/hv/synthrdp"
CANARY = """// SPDX-License-Identifier: GPL-2.0-only
#include <linux/slab.h>

void synthrdp_canary(void *what);

void synthrdp_canary(void *what)
{
\tif (what)
\t\tkfree(what);
}
"""


# These want an OCaml compiler: one is for the code of a chip, of the other's matter sparse knows.
LEFT_OUT = ("api/check_bq27xxx_data.cocci", "null/badzero.cocci")


def test_coccicheck() -> None:
    """All of scripts/coccinelle that can report. smatch is in no suite of Debian's."""
    names = [name for name in tracked() if name.startswith(PLACE) and name.endswith((".c", ".h"))]
    tree = linux.source("sid")
    place = "scripts/coccinelle"
    patches = [path for path in (tree / place).rglob("*.cocci")
               if re.search(r"^virtual\s+report", path.read_text(), re.MULTILINE)]

    def judge(said: list[str]) -> list[str]:
        run = [line for line in said if line.startswith("/usr/bin/spatch -D report")]
        if not len(run) == len(patches) - len(LEFT_OUT) > 50:
            return [f"{len(run)} of {len(patches)} semantic patches were tried", *said]
        return tools.unplanted(
            [line for line in said if re.search(r"\.[ch]:\d|[Ee]rror|[Ff]ail|[Ss]kipping", line)
             and line not in run and not re.match("warning: Skipping .* 'report'|lscpu: ", line)],
            {"canary.c": "WARNING: NULL check before some freeing functions is not needed"})

    hide = "\n".join(f"mount --bind /dev/null {linux.LINUX}/{place}/{name}" for name in LEFT_OUT)
    tools.consult("coccicheck", f"{hide}\nmake -s -C {linux.LINUX} coccicheck MODE=report J=1"
                  f" M={tools.SOURCE}/{PLACE}", names, {f"{PLACE}/canary.c": CANARY}, judge,
                  {tree: linux.LINUX})

# SPDX-License-Identifier: GPL-2.0-only
"""The C of user space is read by analysers, and the files for systemd and udev by those."""

from __future__ import annotations

import re

import tools
from tree import text, tracked

CANARY = """// SPDX-License-Identifier: GPL-2.0-only
int canary(int which);

int canary(int which)
{
\tchar buffer[4];

\treturn buffer[which & 3];
}
"""
UNITS = (".service", ".socket", ".target")


def test_gcc_analyzer() -> None:
    """The paths through each program."""
    planted = {"tools/canary.c": (CANARY, "CWE-457")}
    names = [name for name in tracked() if name.startswith("tools/") and
             name.endswith((".c", ".h", "Makefile")) and "/testing/" not in name]
    # Each of a program's files, as its Makefile would have it.
    script = "".join(f"make -s -k -C {folder} O=/tmp/build VERSION=0 CFLAGS='-O2 -g -fanalyzer"
                     " -fdiagnostics-plain-output -Wno-error'\n"
                     for folder in sorted({name.rpartition("/")[0] for name in names
                                           if name.endswith(".c")}))
    script += "gcc -O2 -fanalyzer -fdiagnostics-plain-output -o /dev/null -c tools/canary.c"
    tools.check("gcc", script, names, planted)


def test_cppcheck() -> None:
    """All C that is no kernel's; a selftest consists of macros that are in a kernel tree."""
    names = [name for name in tracked() if name.endswith((".c", ".h")) and
             not name.startswith(("drivers/", "tools/testing/"))]
    script = ("cppcheck --quiet --enable=warning,performance,portability --inline-suppr"
              " --check-level=exhaustive --template='{file}:{line}: {id}: {message}'"
              " --suppress=missingInclude -D_GNU_SOURCE --std=c11"
              f" {' '.join(name for name in names if name.endswith('.c'))} canary.c")
    tools.check("cppcheck", script, names, {"canary.c": (CANARY, "uninitvar")})


def test_units() -> None:
    """systemd knows each setting of each unit."""
    names = [name for name in tracked() if name.startswith("tools/") and name.endswith(UNITS)]
    # Under one roof, for they name each other, and with programs and units that there are.
    texts = {f"units/{name.rpartition('/')[2]}": re.sub(
        r"(?m)^(Exec\w+=-?|ConditionFileIsExecutable=)/usr/\S+", r"\1/bin/true", text(name))
        for name in names}
    texts.update({f"units/{name}.service": "[Service]\nExecStart=/bin/true\n"
                  for name in ("xrdp", "xrdp-sesman", "synthrdp-server")})
    planted = {"units/canary.service": ("[Service]\nExecStart=/bin/true\nExecStrat=no\n",
                                        "ExecStrat")}
    units = " ".join(name.replace("@.", "@synthrdp0.") for name in [*texts, *planted])
    script = f"""
        mount -t tmpfs tmpfs /run
        for unit in units/*@.service; do cp $unit ${{unit%.service}}synthrdp0.service; done
        systemd-analyze verify --man=no --recursive-errors=no {units}"""
    tools.check("systemd-analyze", script, [], planted, texts)


def test_units_are_confined() -> None:
    """systemd-analyze finds each unit's exposure below 2.0."""
    names = [name for name in tracked() if name.startswith("tools/") and name.endswith(UNITS)]
    # All that the relay's has, but for two lines.
    weak = re.sub(r"(?m)^(User|CapabilityBoundingSet)=.*\n", "",
                  text("tools/systemd/synthrdp-relay@.service"))
    script = "mount -t tmpfs tmpfs /run\n" + "".join(
        f"""systemd-analyze security --offline=yes --threshold=19 {unit} >/tmp/said ||
            echo "{unit}: $(tail -n 1 /tmp/said)"
        """ for unit in [*names, "canary@.service"])
    tools.check("exposure", script, names,
                {"canary@.service": (weak, "exposure level")})


def test_udev_rules() -> None:
    """udev knows each key of each rule."""
    names = [name for name in tracked() if re.search(r"/\d\d-[^/]*\.rules$", name)]
    script = f"udevadm verify --no-summary --resolve-names=never {' '.join(names)} canary.rules"
    tools.check("udevadm", script, names,
                {"canary.rules": ('ACTOIN=="add", MODE="0660"\n', "ACTOIN")})

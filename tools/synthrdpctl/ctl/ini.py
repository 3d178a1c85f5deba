# SPDX-License-Identifier: GPL-2.0-only
"""xrdp's configuration: read as xrdp reads it, but for what xrdp would pass over in silence.

Light on imports: a server waits for it at each start.
"""

from __future__ import annotations

import re

# Sections that are no type of session.
OTHERS = ("globals", "logging", "loggingperlogger", "channels", "chansrvlogging")
# What must differ for Enhanced Sessions in [Globals], each with its reason.
DIFFERENCES = (
    # The dot makes xrdp take the path as it is.
    ("port", "unix://.{socket}", "Where relays connect; the ordinary xrdp keeps its ports."),
    ("security_layer", "rdp",
     "The host has done TLS and asked who the user is: it passes on RDP in the clear."),
    ("crypt_level", "none",
     "Encryption of RDP's own would fail in between, as the client does not ask for it."),
)


class Invalid(Exception):
    """The file cannot be understood; the text says where and why."""


def split(text: str) -> list[str]:
    """Its lines; xrdp takes CR, LF and both."""
    return re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))


def sections(text: str) -> dict[str, dict[str, str]]:
    """Settings by section, names in lower case."""
    found: dict[str, dict[str, str]] = {}
    begun: dict[str, int] = {}
    here: dict[str, str] | None = None
    if not text.strip():
        raise Invalid("it is empty")
    if "\0" in text:
        raise Invalid("it is not plain text: there is a byte of zero in it")
    for number, line in enumerate(map(str.strip, split(text)), 1):
        if not line or line[0] in ";#!":
            continue
        if head := re.fullmatch(r"\[([^][]+)\].*", line):
            name = head[1].lower()
            if name in begun:
                raise Invalid(f"line {number} begins {head[0]} again, after line {begun[name]}:"
                              " xrdp reads only the first")
            begun[name], here = number, found.setdefault(name, {})
        elif line[0] == "[" or "=" not in line or line[0] == "=":
            raise Invalid(f"line {number} is neither a section, a setting nor a comment:"
                          f" {line[:60]!r}")
        elif here is None:
            raise Invalid(f"line {number} stands in no section: {line[:60]!r}")
        else:
            setting, _, value = line.partition("=")
            here[setting.strip().lower()] = value.strip()
    if "globals" not in found:
        raise Invalid("there is no section [Globals]")
    if not any("lib" in settings for name, settings in found.items() if name not in OTHERS):
        raise Invalid("there is no type of session, such as [Xorg] with lib=: nobody could log in")
    return found


def derive(text: str, source: str, socket: str) -> str:
    """The configuration for Enhanced Sessions."""
    sections(text)
    lines = [f"; Made from {source} at each start of the server: change that one."]
    differing = [setting for setting, _, _ in DIFFERENCES]
    inside = False
    for line in split(text):
        name = line.partition("=")[0].strip().lower()
        if name.startswith("["):
            inside = name.startswith("[globals]")
        elif inside and name in differing:
            continue
        lines.append(line)
        if inside and name.startswith("["):
            for setting, value, why in DIFFERENCES:
                lines += [f"; {why}", f"{setting}={value.format(socket=socket)}"]
    return "\n".join(lines).rstrip("\n") + "\n"

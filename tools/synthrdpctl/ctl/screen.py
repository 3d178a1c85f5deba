# SPDX-License-Identifier: GPL-2.0-only
"""How things look on a terminal."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator

from .doctor import ERROR, NOTE, WARNING, Diagnosis, Moot, Unknown
from .facts import DRIVER, Ended, Session, Status, local_time
from .system import printable

WIDTH = 100
RED, GREEN, YELLOW, BOLD, DIM = "31", "32", "33", "1", "2"
# What `state` means for a user, in a colour.
MEANING = {
    "ready": ("ready: the host may start sessions", GREEN),
    "disabled": ("switched off", YELLOW),
    "opening": ("waiting for the host to open the control channel", YELLOW),
    "negotiating": ("waiting for the host's answer", YELLOW),
    "rejected": ("the host rejects this protocol version", RED),
    "failed": ("the host does not answer, or not soundly", RED),
    "not-hyperv": ("this is not a Hyper-V guest", RED),
    "not-offered": ("the host does not offer it to this guest", RED),
    "other-driver": ("another driver has the control device", RED),
    "no-module": (f"the module {DRIVER} is not loaded", RED),
    "no-driver": (f"{DRIVER} has not taken the control device", RED),
}


class Style:
    """Colours, or none."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    @classmethod
    def of_stdout(cls) -> Style:
        """Colours on a terminal that has them, unless they are not wanted."""
        return cls(sys.stdout.isatty() and not os.environ.get("NO_COLOR")
                   and os.environ.get("TERM", "dumb") != "dumb")

    def __call__(self, text: str, *codes: str) -> str:
        """Text in colours."""
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self._colours and codes else text


def amount(count: int | None) -> str:
    """Bytes, for people."""
    if count is None:
        return "?"
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.{int(unit != 'B' and size < 99.95)}f} {unit}"


def period(seconds: float | None) -> str:
    """A time, for people."""
    if seconds is None:
        return "?"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 60:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes:.0f} min {seconds % 60:.0f} s"
    if days < 1:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{days:.0f} d {hours % 24:.0f} h"


def status_lines(status: Status, style: Style) -> Iterator[str]:
    """One screen."""
    meaning, colour = MEANING.get(status.state, (status.state, YELLOW))
    yield style("Enhanced Session: ", BOLD) + style(meaning, BOLD, colour)
    for name, text in _rows(status):
        yield f"  {name:<9} {printable(text)}"
    if status.state not in ("ready", "opening", "negotiating"):
        yield style("`synthrdpctl doctor` says what to do about it.", DIM)
    if status.sessions or status.ended:
        yield ""
        yield from session_lines(status, style)
    if status.unread:
        yield ""
        yield from _unread_lines(status.unread)


def _rows(status: Status) -> Iterator[tuple[str, str]]:
    host, control, switch, server = status.host, status.control, status.switch, status.server
    if host.hyperv:
        yield "host", ", ".join(filter(None, (
            "Hyper-V", host.build and f"build {host.build}", host.vmbus and f"VMBus {host.vmbus}")))
    yield "module", (f"{DRIVER} " + (status.module.version or "loaded")
                     if status.module.loaded else "not loaded")
    if control.offered:
        yield "control", ", ".join(filter(None, (
            f"driver {control.driver or 'none'}", control.state,
            control.version and f"protocol {control.version}",
            None if control.announced is None else f"{control.announced} sessions announced")))
    if switch.on is not None or switch.disabled_by:
        on = "unknown" if switch.on is None else "on" if switch.on else "off"
        yield "switch", on + (f", {switch.disabled_by}" if switch.disabled_by else "")
    listening = {True: ", listening", False: ", nobody listens there", None: ""}[server.listening]
    yield "server", server.address + listening
    if status.devices:
        data = [device for device in status.devices if device.kind == "data"]
        yield "devices", f"{'control' if control.offered else 'no control'}, {len(data)} data"


def session_lines(status: Status, style: Style) -> Iterator[str]:
    """Sessions now and before, as two tables."""
    if status.sessions:
        yield style(f"{'SESSION':<12} {'AGE':>12} {'FROM HOST':>10} {'TO HOST':>10}  SERVER", BOLD)
        for session in status.sessions:
            yield _session_line(session)
    if status.ended:
        if status.sessions:
            yield ""
        yield style(f"{'ENDED':<12} {'AT':>12} {'AFTER':>12}  REASON", BOLD)
        for ended in reversed(status.ended):
            yield _ended_line(ended)


def _session_line(session: Session) -> str:
    if session.served is False:
        server = "(nobody serves it)"
    else:
        server = session.server or (f"({session.program})" if session.program else "?")
    return (f"{session.device:<12} {period(session.age):>12} {amount(session.bytes_from_host):>10}"
            f" {amount(session.bytes_to_host):>10}  {printable(server)}")


def _ended_line(ended: Ended) -> str:
    at = local_time(ended.at) if ended.at else "?"
    return f"{ended.device:<12} {at:>12} {period(ended.seconds):>12}  {printable(ended.reason)}"


def doctor_lines(diagnosis: Diagnosis, style: Style) -> Iterator[str]:
    """Each check in a line, then what was found and what to do."""
    marks = {ERROR: style("!!", BOLD, RED), WARNING: style(" !", BOLD, YELLOW),
             NOTE: style(" i", BOLD)}
    for row, outcome in diagnosis.results:
        if isinstance(outcome, Moot):
            continue
        if isinstance(outcome, Unknown):
            yield f"{style(' ?', YELLOW)}  {row.title}: {printable(outcome.why)}"
        else:
            mark = style("ok", GREEN) if outcome is None else marks[outcome.severity]
            yield f"{mark}  {row.title}"
    for row, found in diagnosis.findings:
        yield ""
        yield from _wrapped(f"{marks[found.severity]}  {style(row.id, BOLD)}: ", found.finding)
        yield from _wrapped("    cure: ", found.cure)
        for line in found.quote:
            yield style(f"    | {printable(line)}", DIM)
    yield ""
    ill = sum(found.severity != NOTE for _, found in diagnosis.findings)
    yield (style("Nothing found that needs a cure.", BOLD, GREEN) if not ill else
           style(f"{ill} finding{'s' if ill > 1 else ''}.", BOLD, RED))
    yield from _unread_lines(diagnosis.unread)


def _wrapped(beginning: str, text: str) -> list[str]:
    # Not the beginning: there may be colours in it. Not in words: they are to be copied.
    lines = textwrap.wrap(printable(text), WIDTH - 10, break_long_words=False,
                          break_on_hyphens=False) or [""]
    return [beginning + lines[0], *(f"          {line}" for line in lines[1:])]


def _unread_lines(unread: list[str]) -> list[str]:
    return textwrap.wrap("Not readable without root's rights: " + "; ".join(unread), WIDTH,
                         subsequent_indent="  ") if unread else []

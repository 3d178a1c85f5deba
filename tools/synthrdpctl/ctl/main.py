# SPDX-License-Identifier: GPL-2.0-only
"""The command line, and what the program exits with."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from . import VERSION, checks_driver, checks_machine, checks_server, checks_session, switch
from .capture import capture
from .doctor import examine
from .facts import look
from .report import report
from .screen import Style, doctor_lines, session_lines, status_lines
from .system import System

# The manual page explains each of them.
OK, TROUBLE, USAGE, AMISS, NOT_PERMITTED, NOT_THERE = range(6)
CHECKS = tuple(row for room in (checks_driver, checks_server, checks_session, checks_machine)
               for row in room.check.rows)
PERIOD = 2.0                    # of --watch
CLEAR = "\x1b[H\x1b[2J"


def status(system: System, options: argparse.Namespace) -> int:
    """What there is, on one screen."""
    while True:
        found = look(system)
        if options.json:
            print(json.dumps(found.json(), indent=None if options.watch else 2))
        else:
            if options.watch and sys.stdout.isatty():
                print(CLEAR, end="")
            print("\n".join(status_lines(found, Style.of_stdout())))
        if not options.watch:
            return OK if found.state == "ready" else AMISS
        if not options.json and not sys.stdout.isatty():
            print()
        sys.stdout.flush()
        time.sleep(options.watch)
        system = System(str(system.root))


def sessions(system: System, _: argparse.Namespace) -> int:
    """Sessions now, and those before."""
    found = look(system)
    print("\n".join(session_lines(found, Style.of_stdout())) or "no sessions")
    return OK


def enable(system: System, _: argparse.Namespace) -> int:
    """Tell the host that this guest takes Enhanced Sessions."""
    print(switch.enable(system))
    return OK


def disable(system: System, _: argparse.Namespace) -> int:
    """Stop telling it."""
    print(switch.disable(system))
    return OK


def end(system: System, options: argparse.Namespace) -> int:
    """End a session."""
    print(switch.end(system, options.session))
    return OK


def doctor(system: System, options: argparse.Namespace) -> int:
    """Find out what is wrong, and what helps."""
    diagnosis = examine(system, CHECKS)
    if options.json:
        print(json.dumps(diagnosis.json(), indent=2))
    else:
        print("\n".join(doctor_lines(diagnosis, Style.of_stdout())))
    return AMISS if diagnosis.is_ill else OK


def record(system: System, options: argparse.Namespace) -> int:
    """Write what passes into a file."""
    print(capture(system, options.file, options.limit and options.limit * 1_000_000))
    return OK


def tell(system: System, _: argparse.Namespace) -> int:
    """What the project would like to know."""
    for line in report(system):
        print(line)
    return OK


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="synthrdpctl", description="See, switch and mend Enhanced Sessions of Hyper-V.",
        epilog="synthrdpctl(8) has the rest.", allow_abbrev=False)
    whole.add_argument("--version", action="version", version=f"synthrdpctl {VERSION}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[System, argparse.Namespace], int], does: str
                ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=does, description=does, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    shown = command("status", status, "show host, driver, switch, server and sessions")
    shown.add_argument("--json", action="store_true", help="as JSON")
    shown.add_argument("--watch", nargs="?", type=_seconds, const=PERIOD, metavar="SECONDS",
                       help=f"again and again, every {PERIOD:g} s")
    command("enable", enable, "tell the host that this guest takes Enhanced Sessions")
    command("disable", disable, "stop telling it, until enabled again")
    command("sessions", sessions, "list sessions, now and before")
    cured = command("doctor", doctor, "find out what is wrong, and what helps")
    cured.add_argument("--json", action="store_true", help="as JSON")
    ended = command("end", end, "end a session")
    recorded = command("capture", record, "write what passes into a file for Wireshark")
    recorded.add_argument("file", metavar="FILE", help="a new file, in pcapng format")
    recorded.add_argument("--limit", type=_megabytes, metavar="MB",
                          help="keep the last megabytes only, half in FILE.old")
    command("report", tell, "print what the project needs to know of a real host")
    ended.add_argument("session", metavar="SESSION", help="0, synthrdp0 or /dev/synthrdp0")
    return whole


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError("from 0.1 to 86400")
    return value


def _megabytes(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError("from 1 to 1000000")
    return value


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status_code: int = options.run(System(), options)
        sys.stdout.flush()
        return status_code
    except switch.NotPermitted as error:
        code, text = NOT_PERMITTED, str(error)
    except switch.NotThere as error:
        code, text = NOT_THERE, str(error)
    except switch.Refused as error:
        code, text = TROUBLE, str(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read has seen enough; Python must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    print(f"synthrdpctl: {text}", file=sys.stderr)
    return code

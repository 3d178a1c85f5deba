# SPDX-License-Identifier: GPL-2.0-only
"""What the measured figures say: a table, goals, plots, and what moved since another commit."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

Result = dict[str, Any]         # what Figures.plain() gives, with side, load, size and repeat
PER_MB: Final = 1e6
# The columns of the table: heading, format, and what is counted
COLUMNS: Final[tuple[tuple[str, str, Callable[[Result], Any]], ...]] = (
    ("instructions", "{:,.0f}", lambda one: one["instructions"]),
    ("by programs", "{:,.0f}", lambda one: one["user instructions"]),
    ("copies", "{:.2f}", lambda one: one["counts"]["kernel-moved"] + one["counts"]["user-moved"]),
    ("calls", "{:,.1f}", lambda one: one["counts"]["syscalls"]),
    ("sleeps", "{:,.1f}", lambda one: one["wakeups"]),
    ("interrupts", "{:,.1f}", lambda one: one["counts"]["interrupts"]),
    ("signals in", "{:,.1f}", lambda one: one["signals_to_guest"]),
    ("hypercalls", "{:,.1f}", lambda one: one["counts"]["hypercalls"]),
    ("packets in", "{:,.1f}", lambda one: one["packets_to_guest"]),
    ("packets out", "{:,.1f}", lambda one: one["packets_from_guest"]),
)
COPIES: Final = "copies"


@dataclass(frozen=True)
class Cell:
    """A figure, per MB or per round trip, of a side under a load; over all repeats."""

    middle: float
    least: float
    most: float

    @property
    def spread(self) -> float:
        """Part of the middle that least and most are apart."""
        return (self.most - self.least) / self.middle if self.middle else 0.0


def per(result: Result, heading: str) -> float:
    """A figure per MB; per round trip, if that is the load; per byte, if it is copies."""
    count = next(take for name, _, take in COLUMNS if name == heading)(result)
    if heading == COPIES:
        unit = result["total"]
    elif result["load"] == "round trips":
        unit = result["packets"] / 2
    else:
        unit = result["total"] / PER_MB
    return float(count / unit)


def cell(results: Iterable[Result], side: str, load: str, heading: str) -> Cell:
    """Over the repeats of one load on one side."""
    found = [per(one, heading) for one in results if (one["side"], one["load"]) == (side, load)]
    return Cell(statistics.median(found), min(found), max(found))


def loads_of(results: Sequence[Result]) -> list[str]:
    """The loads that were measured, in their order."""
    return list(dict.fromkeys(one["load"] for one in results))


def sides_of(results: Sequence[Result], load: str) -> list[str]:
    """The sides that were measured with a load."""
    return list(dict.fromkeys(one["side"] for one in results if one["load"] == load))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as lines, the first column to the left and all others to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(word.rjust(width) if at else word.ljust(width)
                      for at, (word, width) in enumerate(zip(row, widths))).rstrip()
            for row in rows]


def table(results: Sequence[Result]) -> str:
    """All loads and sides."""
    lines = []
    for load in loads_of(results):
        unit = "per round trip" if load == "round trips" else "per MB; copies of each byte"
        lines += ["", f"{load}, {unit}"]
        rows = [["", *(heading for heading, _, _ in COLUMNS), "spread"]]
        for side in sides_of(results, load):
            cells = [cell(results, side, load, heading) for heading, _, _ in COLUMNS]
            rows.append([side, *(form.format(one.middle) for one, (_, form, _)
                                 in zip(cells, COLUMNS)), f"{cells[0].spread:.1%}"])
        lines += columns(rows)
    return "\n".join(lines[1:])


def moved(old: Sequence[Result], new: Sequence[Result]) -> str:
    """What differs by more than the repeats of both commits do among themselves.

    By the sum of both spreads: of some thousand figures, three repeats each, seven or so are then
    called moved when nothing has changed, and with the larger of them sixty.
    """
    rows = [["load", "side", "figure", "was", "is", "change"]]
    for load in loads_of(new):
        for side in sides_of(new, load):
            for heading, form, _ in COLUMNS:
                was, now = (cell(some, side, load, heading) for some in (old, new))
                noise = max(was.most - was.least + now.most - now.least, 0.01 * was.middle)
                if abs(now.middle - was.middle) > noise:
                    change = f"{now.middle / was.middle - 1:+.1%}" if was.middle else "new"
                    rows.append([load, side, heading, form.format(was.middle),
                                 form.format(now.middle), change])
    return "\n".join(columns(rows)) if len(rows) > 1 else "Nothing moved beyond noise."


def listing(found: dict[str, Any]) -> str:
    """What is no load."""
    lines: list[str] = []
    for name, values in found.items():
        lines.append(f"{name}:")
        for what, value in values.items():
            lines.append(f"  {what}: {_brief(value)}")
    return "\n".join(lines)


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{what} {_brief(one)}" for what, one in value.items())
    if isinstance(value, list):
        value = flat(value) if isinstance(value[0], list) else value
        return f"median {quantile(value, 0.5):,.1f}, 99 % {quantile(value, 0.99):,.1f}"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def quantile(values: Sequence[float], part: float) -> float:
    """The value that so many are below."""
    return sorted(values)[min(int(part * len(values)), len(values) - 1)]


def flat(rounds: Sequence[Sequence[float]]) -> list[float]:
    """The times of all rounds."""
    return [one for each in rounds for one in each]


def slower(ours: Sequence[Sequence[float]], other: Sequence[Sequence[float]], part: float) -> str:
    """The ratio of times that were taken in turn, and of those of each round."""
    of_all = quantile(flat(ours), part) / quantile(flat(other), part)
    of_each = [quantile(one, part) / quantile(two, part) for one, two in zip(ours, other)]
    return f"{of_all:.2f} ({min(of_each):.2f} to {max(of_each):.2f})"


# -- goals

BIG: Final = "16384"
WORSE: Final = ("instructions", "calls", "hypercalls", "signals in")


def goals(results: Sequence[Result], found: dict[str, Any]) -> str:
    """A measured value beside each."""
    def value(side: str, load: str, heading: str = "instructions") -> float:
        return cell(results, side, load, heading).middle

    def ratio(one: str, other: str, load: str) -> str:
        """The ratio, and how far the repeats let it be another."""
        ours, others = (cell(results, side, load, "instructions") for side in (one, other))
        return (f"{ours.middle / others.middle:.2f} ({ours.least / others.most:.2f} to"
                f" {ours.most / others.least:.2f})")

    # Two loads that differ in wake-ups alone tell what one of them costs.
    load, singly = f"down {BIG}", f"down {BIG}, one by one"
    wakeup = ((value("device", singly) - value("device", load))
              / (value("device", singly, "sleeps") - value("device", load, "sleeps")))
    rows = [["instructions of a wake-up", f"{wakeup:,.0f}"]]
    for way in ("down", "up"):
        load = f"{way} {BIG}"
        awake = value("device", load) - wakeup * value("device", load, "sleeps")
        rows.append([f"device at most 1.2 x copies, {way}",
                     f"{ratio('device', 'copies', load)}; without wake-ups"
                     f" {awake / value('copies', load):.2f}"])
    for way in ("down", "up"):
        rows.append([f"device and relay at most 1.6 x device, {way}",
                     ratio("relay", "device", f"{way} {BIG}")])
    for ours, other in (("device", "hv_sock"), ("device", "uio"), ("relay", "uio_relay")):
        more = [f"{heading} ({load}) {value(ours, load, heading):,.1f}, not"
                f" {value(other, load, heading):,.1f}"
                for heading in WORSE for load in loads_of(results)
                if value(ours, load, heading) > 1.01 * value(other, load, heading)]
        rows.append([f"{ours} no more than {other}", "; ".join(more) or "everywhere"])
    rows.append(["round trip at most 1.1 x hv_sock, instructions",
                 ratio("device", "hv_sock", "round trips")])
    times, keys = found["times"], found["keystrokes"]
    for part, name in ((0.5, "median"), (0.99, "99 %")):
        rows.append([f"round trip at most 1.1 x hv_sock, time, {name}",
                     slower(times["device"], times["hv_sock"], part)])
        rows += [[f"keystroke under bulk at most 2 x alone, {side}, {name}",
                  slower(keys[f"{side}, under bulk, us"], keys[f"{side}, alone, us"], part)]
                 for side in ("device", "hv_sock", "uio", "relay", "uio_relay")]
    for way, signals in (("down", "signals to the guest"), ("up", "signals from the guest")):
        one = found["bulk"][f"device, {way}"]
        rows.append([f"at least 8 packets for a signal in bulk, {way}",
                     f"{one['packets'] / max(one[signals], 1):.1f}"])
    rest = found["rest"]
    rows.append(["no wake-ups and signals at rest", f"{rest['wake-ups']}, {rest['signals']}"])
    begin = found["beginnings"]
    parts = [quantile(begin[part], 0.5) for part in ("offer to open, ms", "open to answer, ms")]
    rows.append(["offer to first byte below 50 ms", f"{parts[0]:.1f} + {parts[1]:.1f}"])
    rows.append(["a session at most 307 KiB", f"{found['memory']['KiB of an open node']:.0f}"])
    flat = found["beside"]["device"]
    rows.append(["flat from 1 to 5 sessions", f"{flat['5'] / flat['1']:.2f}"])
    many = found["many"]
    rows.append(["flat to 100", f"one of them {many['one of them'] / many['alone']:.2f},"
                 f" all at once {many['all of them'] / many['alone']:.2f}"])
    return "\n".join(": ".join(row) for row in rows)

# SPDX-License-Identifier: GPL-2.0-only
"""The figures as pictures: cost by packet size, by sessions, and times as distributions."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from figures import Result, cell, flat
from loads import SIDES, SIZES

# Where plots are drawn it is installed; where this is checked it need not be.
pyplot: Any = importlib.import_module("matplotlib.pyplot")
pyplot.switch_backend("agg")
STYLE: Final = {"device": "C0o-", "relay": "C0s--", "hv_sock": "C1o-", "uio": "C2o-",
                "uio_relay": "C2s--", "copies": "k:", "pair": "k-."}


def draw(results: Sequence[Result], found: dict[str, Any], folder: Path) -> None:
    """All of them."""
    by_size(results, folder / "size.png")
    by_sessions(found["beside"], folder / "sessions.png")
    distributions(found["times"], folder / "times.png")


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def by_size(results: Sequence[Result], path: Path) -> None:
    """Instructions per MB against the size of packets."""
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 4), sharey=True)
    for axis, way in zip(axes, ("down", "up", "both")):
        for side in SIDES:
            middles = [cell(results, side, f"{way} {size}", "instructions").middle
                       for size in SIZES]
            axis.plot(SIZES, middles, STYLE[side], label=side, markersize=4)
        axis.set(title={"down": "host to guest", "up": "guest to host", "both": "echo"}[way],
                 xlabel="bytes in a packet", xscale="log", yscale="log")
        axis.set_xticks(SIZES, [str(size) for size in SIZES])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("guest instructions per MB")
    axes[2].legend(fontsize=8)
    _save(figure, path)


def by_sessions(beside: dict[str, dict[str, float]], path: Path) -> None:
    """Instructions per MB against the number of sessions."""
    figure, axis = pyplot.subplots(figsize=(6, 4))
    for side, by_count in beside.items():
        axis.plot([int(count) for count in by_count], list(by_count.values()), STYLE[side],
                  label=side)
    axis.set(xlabel="sessions at once", ylabel="guest instructions per MB", ylim=0)
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def distributions(times: dict[str, list[list[float]]], path: Path) -> None:
    """Round trips of 64 bytes by the clock."""
    figure, axis = pyplot.subplots(figsize=(6, 4))
    for side, rounds in times.items():
        each = sorted(flat(rounds))
        axis.plot(each, [(at + 1) / len(each) for at in range(len(each))],
                  STYLE[side].replace("o", "").replace("s", ""), label=side)
    axis.set(xlabel="µs for a round trip of 64 bytes", ylabel="part of the round trips",
             xscale="log", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)

# SPDX-License-Identifier: GPL-2.0-only
"""The parser and rewriter of the first exchange, x224.c, byte for byte."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from relaykit import HERE, REQUEST, SOURCE, compile_c
from x224_cases import ANSWERS, REFUSED, WHOLE

SANITIZE = "-fsanitize=address,undefined"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that runs a case."""
    return compile_c(tmp_path_factory.mktemp("x224") / "cases", SANITIZE,
                     "-fno-sanitize-recover=all", HERE / "x224_cases.c", SOURCE / "x224.c")


def run_case(program: Path, kind: str, data: bytes) -> str:
    """What x224.c makes of these bytes, fed one by one."""
    run = subprocess.run([program], input=f"{kind} {data.hex()}\n", capture_output=True, text=True,
                         check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.rstrip("\n")


@pytest.mark.parametrize("name", WHOLE)
def test_request_is_rewritten(cases: Path, name: str) -> None:
    """A whole request is found, understood, and changed only where it must be."""
    data, found, rewritten = WHOLE[name]
    assert run_case(cases, "request", data) == f"request {found} {rewritten.hex()}"


@pytest.mark.parametrize("name", REFUSED)
def test_request_is_refused(cases: Path, name: str) -> None:
    """What is no request is refused with a word for it, as early as it can be known."""
    data, after, word = REFUSED[name]
    verdict, at, why = run_case(cases, "request", data).split(" ", 2)
    assert (verdict, int(at)) == ("refused", after)
    assert word in why


@pytest.mark.parametrize("size", range(len(REQUEST)))
def test_request_is_awaited(cases: Path, size: int) -> None:
    """A part of a request is no request yet."""
    assert run_case(cases, "request", REQUEST[:size]) == "more"


@pytest.mark.parametrize("name", ANSWERS)
def test_answer_is_judged(cases: Path, name: str) -> None:
    """An answer is told from others, and what is no answer from answers."""
    data, verdict = ANSWERS[name]
    assert run_case(cases, "answer", data) == verdict

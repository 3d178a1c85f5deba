# SPDX-License-Identifier: GPL-2.0-only
"""What the fuzzers once found worth keeping, once more."""

from __future__ import annotations

from pathlib import Path

import pytest

import fuzzers


@pytest.mark.parametrize("name", fuzzers.TARGETS)
def test_corpus(name: str, tmp_path: Path) -> None:
    """All inputs of the corpus, and a few others like them."""
    target = fuzzers.TARGETS[name]
    corpus = tmp_path / "corpus"
    known = fuzzers.load(target.corpus, corpus)
    program = target.build(tmp_path)
    said = fuzzers.run(target.command(program, "-seed=1", f"-runs={known + target.look}", corpus),
                       tmp_path, 300)
    assert f"{known} files found in" in said

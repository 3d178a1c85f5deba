# SPDX-License-Identifier: GPL-2.0-only
"""A guest per kernel with the driver in it, shared by the tests while it is well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import KERNELS, Bench
from lab import Lab


@pytest.fixture(scope="session", params=KERNELS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The place of one kernel's guest."""
    made = Bench(request.param)
    yield made
    made.drop()


@pytest.fixture
def lab(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A guest whose driver is ready. What the kernel says amiss fails the test."""
    failures = request.session.testsfailed
    well = False
    try:
        made = bench.lab()
        with made.test():
            yield made
        well = request.session.testsfailed == failures
    finally:
        if not well:
            bench.drop()

# SPDX-License-Identifier: GPL-2.0-only
"""A guest per kernel with the driver in it, shared by the tests while it is well."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import ENDS, KERNELS, SLEEPERS, Bench
from lab import Lab

RELAY = Path(__file__).resolve().parents[2] / "tools" / "synthrdp-relay"
collect_ignore = ["test_kexec.py"] * (not ENDS) + ["test_hibernate.py"] * (not SLEEPERS)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The random sessions first: they take longest, and all else can be done beside them."""
    items.sort(key=lambda item: item.path.name != "test_soak.py")


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


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The relay with its libc in it: the guest has another one."""
    target = tmp_path_factory.mktemp("relay")
    done = subprocess.run(["make", "-s", "-C", RELAY, f"O={target}", "HARDENING=",
                           "LDFLAGS=-static", "CFLAGS=-O2 -s"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (target / "synthrdp-relay").read_bytes()

# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of the relay's tests: programs built once, and a place for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relaykit import HERE, Bench, Nodes, Programs, build, compile_c


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Build the relay twice, and the stand-in for its device."""
    target = tmp_path_factory.mktemp("relay")
    with ThreadPoolExecutor() as pool:
        relay = pool.submit(build, target / "sanitized", "SANITIZE=1", "CFLAGS=-O1 -g")
        plain = pool.submit(build, target / "plain", "HARDENING=", "CFLAGS=-O2 -g")
        node = pool.submit(compile_c, target / "node.so", "-shared", "-fPIC", HERE / "node.c")
        return Programs(relay.result(), plain.result(), node.result())


@pytest.fixture(scope="session")
def make_bench(programs: Programs) -> Iterator[Callable[[], Bench]]:
    """Benches that last as long as the run does."""
    benches: list[Bench] = []
    # Not pytest's own: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="relay-") as top:
        def make() -> Bench:
            directory = Path(top) / str(len(benches))
            (directory / "dev").mkdir(parents=True)
            benches.append(Bench(programs, directory, Nodes(directory / "dev")))
            return benches[-1]

        yield make
        for bench in benches:
            bench.close()


@pytest.fixture
def bench(make_bench: Callable[[], Bench]) -> Iterator[Bench]:
    """A bench for one test."""
    made = make_bench()
    yield made
    made.close()

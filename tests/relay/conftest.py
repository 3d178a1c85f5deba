# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of the relay's tests: programs built once, and a place for each test."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relaykit import HERE, Nodes, Relay, accept, build, compile_c, listen


@dataclass(frozen=True)
class Programs:
    """What is built for the tests."""

    relay: Path             # with the sanitizers
    plain: Path             # as shipped, but for _FORTIFY_SOURCE: it calls around the stand-ins
    node: Path


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Build the relay twice, and the stand-in for its device."""
    target = tmp_path_factory.mktemp("relay")
    with ThreadPoolExecutor() as pool:
        relay = pool.submit(build, target / "sanitized", "SANITIZE=1", "CFLAGS=-O1 -g")
        plain = pool.submit(build, target / "plain", "HARDENING=", "CFLAGS=-O2 -g")
        node = pool.submit(compile_c, target / "node.so", "-shared", "-fPIC", HERE / "node.c")
        return Programs(relay.result(), plain.result(), node.result())


@dataclass
class Bench:
    """A place with nodes, a server's socket, and relays between them."""

    programs: Programs
    directory: Path
    nodes: Nodes
    relays: list[Relay] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def server_path(self) -> Path:
        """Where the server listens unless a test wants it elsewhere."""
        return self.directory / "server"

    def listen(self) -> socket.socket:
        """Start the server."""
        self.sockets.append(listen(self.server_path))
        return self.sockets[-1]

    def run(self, *arguments: str, plain: bool = False,
            wrapper: tuple[str | Path, ...] = ()) -> Relay:
        """Run the relay with these arguments."""
        program = self.programs.plain if plain else self.programs.relay
        relay = Relay([*wrapper, program], arguments, nodes=self.nodes, preload=self.programs.node,
                      log=self.directory / f"log{len(self.relays)}")
        self.relays.append(relay)
        return relay

    def serve(self, *arguments: str, server: str = "", plain: bool = False,
              wrapper: tuple[str | Path, ...] = ()) -> tuple[Relay, socket.socket]:
        """Run it on /dev/synthrdp0; return it with the host's end of that."""
        self.nodes.add()
        relay = self.run("--device=/dev/synthrdp0", f"--server={server or self.unix}", *arguments,
                         plain=plain, wrapper=wrapper)
        return relay, self.nodes.host()

    @property
    def unix(self) -> str:
        """The server's address."""
        return f"unix:{self.server_path}"

    def session(self, request: bytes, answer: bytes, *arguments: str,
                plain: bool = False) -> tuple[Relay, socket.socket, socket.socket]:
        """A relay, the host's end and the server's end, after request and answer."""
        listener = self.listen()
        relay, host = self.serve(*arguments, plain=plain)
        host.sendall(request)
        server = accept(listener)
        got = server.recv(1 << 16)
        assert len(got) == len(request)
        server.sendall(answer)
        assert host.recv(1 << 16) == answer
        return relay, host, server

    def close(self) -> None:
        """End everything; a sanitizer's word is a failure of any test."""
        for relay in self.relays:
            relay.kill()
        self.nodes.close()
        for end in self.sockets:
            end.close()
        for relay in self.relays:
            log = relay.log()
            assert "Sanitizer" not in log and "runtime error" not in log, log


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

# SPDX-License-Identifier: GPL-2.0-only
"""One session, from outside: what arrives where, when it ends, and what is said about it."""

from __future__ import annotations

import contextlib
import errno
import random
import re
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from relaykit import (ACCEPT, ANSWER, BROKEN, DEVICE, NO_REQUEST, NO_SERVER, NOT_RDP, OK, REQUEST,
                      REWRITTEN, Bench, Relay, accept, negotiation, recv_all, recv_exact,
                      send_until_stuck, wait_until, x224)
from x224_cases import REFUSED, WHOLE

MEGABYTE = 1 << 20
# Sockets hold some 200 kB each way, a flow of the relay 64 kB.
IN_FLIGHT = MEGABYTE


def random_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes that cannot be mistaken for others."""
    return random.Random(seed).randbytes(size)


# The request

@pytest.mark.parametrize("name", WHOLE)
def test_request_reaches_the_server(bench: Bench, name: str) -> None:
    """The server gets it rewritten and what follows unchanged, the client gets the answer."""
    data, _, rewritten = WHOLE[name]
    listener = bench.listen()
    _, host = bench.serve()
    host.sendall(data)
    server = accept(listener)
    assert recv_exact(server, len(rewritten)) == rewritten
    server.sendall(ACCEPT)
    assert recv_exact(host, len(ACCEPT)) == ACCEPT


@pytest.mark.parametrize("name", REFUSED)
def test_other_than_a_request_is_refused(bench: Bench, name: str) -> None:
    """Anything else ends the session at once, and the server never hears of it."""
    data, _, word = REFUSED[name]
    listener = bench.listen()
    relay, host = bench.serve()
    host.sendall(data)
    log = relay.wait(NOT_RDP, f"refused: this is not an X.224 connection request but .*{word}")
    assert "somebody" not in log
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_request_in_single_bytes(bench: Bench) -> None:
    """A request may be cut anywhere."""
    listener = bench.listen()
    _, host = bench.serve()
    for byte in REQUEST:
        host.sendall(bytes([byte]))
        time.sleep(0.005)
    assert recv_exact(accept(listener), len(REWRITTEN)) == REWRITTEN


def test_request_passes(bench: Bench) -> None:
    """With --security=pass nothing is changed."""
    listener = bench.listen()
    _, host = bench.serve("--security=pass")
    host.sendall(REQUEST + b"behind")
    assert recv_exact(accept(listener), len(REQUEST) + 6) == REQUEST + b"behind"


def test_cookie_is_not_logged(bench: Bench) -> None:
    """A cookie names a user: the log says only that there is one."""
    relay, _, server = bench.session(WHOLE["cookie"][0], ACCEPT)
    server.close()
    log = relay.wait(OK)
    assert "with a cookie" in log and "somebody" not in log


def test_client_leaves_before_a_request(bench: Bench) -> None:
    """A client that only looked in is nothing to worry about."""
    relay, host = bench.serve()
    host.sendall(REQUEST[:7])
    host.close()
    relay.wait(NO_REQUEST, "the client left before a request")


# The server's start

def test_server_starts_late(bench: Bench) -> None:
    """A server may take its time; what the client sends meanwhile waits."""
    relay, host = bench.serve()
    host.sendall(REQUEST + b"and more")
    relay.wait_for("waiting up to 30 s for unix:.*No such file")
    time.sleep(1)
    host.sendall(b" and more")
    server = accept(bench.listen())
    assert recv_exact(server, len(REWRITTEN) + 17) == REWRITTEN + b"and more and more"
    server.sendall(ACCEPT)
    assert recv_exact(host, len(ACCEPT)) == ACCEPT


def test_stale_socket_is_retried(bench: Bench) -> None:
    """A socket that its server left behind refuses; a new server makes a new one."""
    bench.listen().close()
    relay, host = bench.serve()
    host.sendall(REQUEST)
    relay.wait_for("Connection refused")
    bench.server_path.unlink()
    assert recv_exact(accept(bench.listen()), len(REWRITTEN)) == REWRITTEN


def test_full_backlog_is_retried(bench: Bench) -> None:
    """A server that is behind with accepting is not a server that is not there."""
    listener = bench.listen()
    listener.listen(0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(bench.server_path))
        relay, host = bench.serve()
        host.sendall(REQUEST)
        relay.wait_for("waiting up to 30 s for unix:.*temporarily unavailable")
        accept(listener).close()
    assert recv_exact(accept(listener), len(REWRITTEN)) == REWRITTEN


def test_client_leaves_before_the_server_is_there(bench: Bench) -> None:
    """Nobody is left to wait for it."""
    relay, host = bench.serve()
    host.sendall(REQUEST)
    relay.wait_for("waiting")
    host.close()
    relay.wait(NO_SERVER, "the client left before the server could be reached", timeout=2)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_tcp(bench: Bench, address: str) -> None:
    """TCP by number, also where the server starts late and where it goes with a reset."""
    family, text = socket.AF_INET, address
    if ":" in address:
        family, text = socket.AF_INET6, f"[{address}]"
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        relay, host = bench.serve(server=f"tcp:{text}:{listener.getsockname()[1]}")
        host.sendall(REQUEST)
        relay.wait_for("Connection refused")
        listener.listen()
        server = accept(listener)
        assert recv_exact(server, len(REWRITTEN)) == REWRITTEN
        server.sendall(ACCEPT)
        assert recv_exact(host, len(ACCEPT)) == ACCEPT
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        relay.wait(OK, r"the server closed the connection \(Connection reset by peer\)")


def test_tcp_by_name(bench: Bench) -> None:
    """All addresses of a name are tried: a server that listens on one of two is found."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, host = bench.serve(server=f"tcp:localhost:{listener.getsockname()[1]}")
        host.sendall(REQUEST)
        assert recv_exact(accept(listener), len(REWRITTEN)) == REWRITTEN


def test_abstract_socket(bench: Bench) -> None:
    """unix:@NAME is a name without a file."""
    name = f"synthrdp-relay-test-{bench.directory}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        _, host = bench.serve(server=f"unix:@{name}")
        host.sendall(REQUEST)
        assert recv_exact(accept(listener), len(REWRITTEN)) == REWRITTEN


def test_vsock(bench: Bench) -> None:
    """vsock by loopback where the machine has one; else it must be asked for, and be missed."""
    with socket.socket(socket.AF_VSOCK) as listener:
        try:
            listener.bind((1, socket.VMADDR_PORT_ANY))
            listener.listen()
            loopback = True
        except OSError:
            loopback = False
        port = listener.getsockname()[1] if loopback else 3389
        relay, host = bench.serve(server=f"vsock:1:{port}")
        host.sendall(REQUEST)
        if loopback:
            assert recv_exact(accept(listener), len(REWRITTEN)) == REWRITTEN
        else:
            relay.wait_for(r"waiting up to 30 s for vsock:1:3389: (No such device|Connection reset"
                           "|Connection timed out)")


# The server's answer

CURE = r"set security_layer=rdp .*xrdp.ini.*/sec:rdp.*--rdp4-key"


@pytest.mark.parametrize("answer,trouble", [
    (x224(0xd0, negotiation(1, kind=2)), "the server wants TLS"),
    (x224(0xd0, negotiation(2, kind=2)), "the server wants CredSSP"),
    (x224(0xd0, negotiation(8, kind=2)), "the server wants CredSSP"),
    (x224(0xd0, negotiation(1, kind=3)), r"requires TLS \(failure code 1\)"),
    (x224(0xd0, negotiation(2, kind=3)), r"\(failure code 2\)"),
    (x224(0xd0, negotiation(3, kind=3)), r"no certificate for TLS \(failure code 3\)"),
    (x224(0xd0, negotiation(4, kind=3)), r"\(failure code 4\)"),
    (x224(0xd0, negotiation(5, kind=3)), r"requires CredSSP \(NLA\) \(failure code 5\)"),
    (x224(0xd0, negotiation(6, kind=3)), r"\(failure code 6\)"),
    (x224(0xd0, negotiation(99, kind=3)), "unknown failure code"),
])
def test_answer_that_allows_no_session(bench: Bench, answer: bytes, trouble: str) -> None:
    """The cause is named and the cure; the client gets the answer, and the session ends."""
    relay, host, server = bench.session(REQUEST, answer)
    assert recv_all(host) == b""
    log = relay.wait(ANSWER, trouble)
    wait_until(lambda: recv_all(server) == b"", "the server's end")
    line = log.splitlines()[-2]
    assert "/dev/synthrdp0: " in line
    assert re.search(trouble + ".*" + CURE, line), line
    assert ("gnome-remote-desktop" in line) == ("failure code 1" not in trouble
                                                and "failure code 3" not in trouble
                                                and "wants" not in trouble)


def test_answer_is_only_reported_when_passing(bench: Bench) -> None:
    """With --security=pass it is between client and server."""
    relay, host, server = bench.session(REQUEST, x224(0xd0, negotiation(1, kind=2)),
                                        "--security=pass")
    relay.wait_for("the server wants TLS.*use --security=rdp")
    host.sendall(b"goes on")
    assert recv_exact(server, 7) == b"goes on"
    server.close()
    relay.wait(OK)


@pytest.mark.parametrize("answer", [ACCEPT, x224(0xd0)])
def test_answer_that_accepts(bench: Bench, answer: bytes) -> None:
    """RDP's own security, said or meant."""
    relay, host, server = bench.session(REQUEST, answer)
    relay.wait_for("the server accepts")
    server.sendall(b"x")
    assert recv_exact(host, 1) == b"x"


def test_answer_is_not_delayed(bench: Bench) -> None:
    """Each byte of the answer goes on when it comes, and it is still understood."""
    listener = bench.listen()
    relay, host = bench.serve()
    host.sendall(REQUEST)
    server = accept(listener)
    for byte in x224(0xd0, negotiation(1, kind=3)):
        server.sendall(bytes([byte]))
        assert recv_exact(host, 1) == bytes([byte])
    relay.wait(ANSWER, "failure code 1")


def test_answer_that_is_none(bench: Bench) -> None:
    """Something else answers: that is said, and left to the client."""
    relay, host, server = bench.session(REQUEST, b"SSH-2.0-OpenSSH_9.2\r\n")
    relay.wait_for("the server answers with not a TPKT packet: is unix:.* an RDP server")
    server.sendall(b"x")
    assert recv_exact(host, 1) == b"x"


def test_no_answer(bench: Bench) -> None:
    """A server that hangs up instead of answering."""
    listener = bench.listen()
    relay, host = bench.serve()
    host.sendall(REQUEST)
    server = accept(listener)
    recv_exact(server, len(REQUEST))
    server.close()
    assert recv_all(host) == b""
    relay.wait(ANSWER, "closed the connection without an answer")


# Bytes

def test_bytes_both_ways(bench: Bench) -> None:
    """Everything arrives, in order, both ways at the same time."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    up, down = random_bytes(8 * MEGABYTE, 1), random_bytes(8 * MEGABYTE, 2)
    with ThreadPoolExecutor() as pool:
        pool.submit(host.sendall, up)
        pool.submit(server.sendall, down)
        got_up = pool.submit(recv_exact, server, len(up))
        got_down = pool.submit(recv_exact, host, len(down))
        assert got_up.result() == up
        assert got_down.result() == down
    host.close()
    assert recv_all(server) == b""
    server.close()
    relay.wait(OK, rf"ended after \d+\.\d s, {len(up) + 19} bytes to unix:.*, "
                   rf"{len(down) + 19} from it: the client left$")


@pytest.mark.parametrize("reader", ["server", "client"])
def test_slow_reader(bench: Bench, reader: str) -> None:
    """Who does not read stops the other from sending; nothing piles up, nothing is lost."""
    relay, host, server = bench.session(REQUEST, ACCEPT, plain=True)
    source, sink = (host, server) if reader == "server" else (server, host)
    data = random_bytes(16 * MEGABYTE)
    before = relay.memory()
    sent = send_until_stuck(source, data)
    assert 65536 < sent < IN_FLIGHT
    wakeups, cpu = relay.wakeups(), relay.cpu_time()
    time.sleep(0.5)
    assert (relay.wakeups(), relay.cpu_time()) == (wakeups, cpu)
    # The other way is not held up.
    sink.sendall(b"still here")
    assert recv_exact(source, 10) == b"still here"
    with ThreadPoolExecutor() as pool:
        pool.submit(source.sendall, data[sent:])
        assert recv_exact(sink, len(data)) == data
    assert relay.memory() - before < 256
    assert relay.process.poll() is None


def test_idle(bench: Bench) -> None:
    """Nothing happens while nothing happens: asleep in poll, without a timeout."""
    relay, host, server = bench.session(REQUEST, ACCEPT, plain=True)
    host.sendall(b"x")
    assert recv_exact(server, 1) == b"x"
    relay.wait_for("the server accepts")
    time.sleep(0.1)
    wakeups = relay.wakeups()
    _, *arguments = Path(f"/proc/{relay.pid}/syscall").read_text().split()[:6]
    time.sleep(1.5)
    assert relay.wakeups() == wakeups
    assert int(arguments[2], 16) == 0, "ppoll() has a timeout"


# Ends

def test_client_leaves_with_bytes_in_flight(bench: Bench) -> None:
    """More than the relay holds, to a server that reads only later."""
    relay, host, server = bench.session(REQUEST, ACCEPT, plain=True)
    data = random_bytes(MEGABYTE)
    sent = send_until_stuck(host, data)
    host.close()
    time.sleep(0.3)
    wakeups, cpu = relay.wakeups(), relay.cpu_time()
    time.sleep(0.5)
    assert relay.wakeups() - wakeups < 2 and relay.cpu_time() - cpu < 0.05
    assert recv_all(server) == data[:sent]
    server.close()
    relay.wait(OK, "the client left$")


def test_server_leaves_with_bytes_in_flight(bench: Bench) -> None:
    """More than the relay holds, to a client that reads only later."""
    relay, host, server = bench.session(REQUEST, ACCEPT, plain=True)
    data = random_bytes(MEGABYTE)
    sent = send_until_stuck(server, data)
    server.close()
    time.sleep(0.3)
    wakeups, cpu = relay.wakeups(), relay.cpu_time()
    time.sleep(0.5)
    assert relay.wakeups() - wakeups < 2 and relay.cpu_time() - cpu < 0.05
    assert recv_all(host) == data[:sent]
    relay.wait(OK, "the server closed the connection")


def test_half_closed_by_the_server(bench: Bench) -> None:
    """RDP has no such thing: what is in flight is delivered both ways, then it is over."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    data = random_bytes(50000)
    host.sendall(data)
    server.sendall(data)
    wait_until(lambda: len(server.recv(1 << 17, socket.MSG_PEEK)) == len(data), "all that was sent")
    server.shutdown(socket.SHUT_WR)
    assert recv_all(host) == data
    assert recv_all(server) == data
    relay.wait(OK, r"the server closed the connection \(end of connection\)")


def test_host_sends_malformed_packets(bench: Bench) -> None:
    """What came before is delivered; then the session is broken."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    bench.nodes.fail("read", errno.EPROTO)
    host.sendall(b"last words")
    host.close()
    assert recv_all(server) == b"last words"
    server.close()
    relay.wait(BROKEN, "the host sent malformed packets")


def test_host_sends_malformed_packets_at_once(bench: Bench) -> None:
    """The same before there was a request."""
    relay, host = bench.serve()
    bench.nodes.fail("read", errno.EPROTO)
    host.close()
    relay.wait(BROKEN, "the host sent malformed packets before a request")


def test_client_leaves_while_the_server_talks(bench: Bench) -> None:
    """A hang-up that is seen when writing."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    send_until_stuck(server, bytes(MEGABYTE))
    host.close()
    assert recv_all(server) == b""
    server.close()
    relay.wait(OK, "the client left")


@pytest.mark.parametrize("error,advice", [
    (errno.ENOENT, "no client is connecting now"),
    (errno.EACCES, "group synthrdp"),
    (errno.EBUSY, "another process serves it already"),
    (errno.ENODEV, "the client has left again"),
    (errno.EIO, "is it a device of hv_synthrdp"),
])
def test_device_cannot_be_opened(bench: Bench, error: int, advice: str) -> None:
    """One line: what, and what to do."""
    if error != errno.ENOENT:
        bench.nodes.add()
        bench.nodes.fail("open", error)
    log = bench.run("--device=/dev/synthrdp0", f"--server={bench.unix}").wait(DEVICE, advice)
    assert len(log.splitlines()) == 1 and "/dev/synthrdp0: " in log


# Signals

STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.mark.parametrize("number", STOPS)
def test_signal_ends_a_session(bench: Bench, number: signal.Signals) -> None:
    """What had arrived is delivered both ways, and both sides are told."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    data = random_bytes(150000)
    host.sendall(data)
    server.sendall(data)
    relay.signal(number)
    with ThreadPoolExecutor() as pool:
        got = pool.submit(recv_all, host)
        assert recv_all(server) == data
        server.sendall(b"goodbye")
        server.close()
        assert got.result() == data + b"goodbye"
    relay.wait(OK, f"stopped by signal {int(number)}")


def test_signal_with_bytes_waiting(bench: Bench) -> None:
    """What waits in the device at the signal still counts, more than the relay can hold."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    relay.signal(signal.SIGSTOP)
    host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MEGABYTE)
    data = random_bytes(MEGABYTE)
    sent = send_until_stuck(host, data)
    assert sent > 2 * 65536
    relay.signal(signal.SIGTERM)
    relay.signal(signal.SIGCONT)
    assert recv_all(server) == data[:sent]
    server.close()
    relay.wait(OK, "stopped by signal 15")


@pytest.mark.parametrize("phase", ["request", "server"])
def test_signal_while_waiting(bench: Bench, phase: str) -> None:
    """Before there is a session there is nothing to wait for."""
    relay, host = bench.serve()
    if phase == "request":
        relay.wait_for("opened")
    else:
        host.sendall(REQUEST)
        relay.wait_for("waiting")
    relay.signal(signal.SIGTERM)
    relay.wait(OK, "stopped by signal 15", timeout=2)


def test_ignored_hangup_stays_ignored(bench: Bench) -> None:
    """nohup works."""
    relay, host = bench.serve(wrapper=("nohup",))
    relay.wait_for("opened")
    relay.signal(signal.SIGHUP)
    time.sleep(0.2)
    assert relay.process.poll() is None
    host.close()
    relay.wait(NO_REQUEST)


# What takes long runs while the tests above do; here are only the results.

SLOW: dict[str, Callable[[Bench], None]] = {}


def slow(scenario: Callable[[Bench], None]) -> Callable[[Bench], None]:
    """Note a scenario as slow."""
    SLOW[scenario.__name__] = scenario
    return scenario


@slow
def silent_client(bench: Bench) -> None:
    """A channel on which nothing comes is closed after 10 s."""
    start = time.monotonic()
    relay, _ = bench.serve()
    relay.wait(NO_REQUEST, "no request came in 10 s", timeout=20)
    assert time.monotonic() - start > 9.9


@slow
def client_stops_in_its_request(bench: Bench) -> None:
    """Nor does a part of a request last longer, even if it grows."""
    start = time.monotonic()
    relay, host = bench.serve()
    host.sendall(REQUEST[:9])
    time.sleep(6)
    host.sendall(REQUEST[9:18])
    relay.wait(NO_REQUEST, "no request came in 10 s", timeout=20)
    assert 9.9 < time.monotonic() - start < 15


@slow
def server_never_there(bench: Bench) -> None:
    """A server that does not start is given up after 30 s."""
    relay, host = bench.serve()
    host.sendall(REQUEST)
    start = time.monotonic()
    log = relay.wait(NO_SERVER, "cannot connect: No such file or directory: start the RDP server",
                     timeout=45)
    assert log.count("waiting up to 30 s for unix:") == 1
    assert time.monotonic() - start > 29.9


@slow
def tcp_that_swallows(bench: Bench) -> None:
    """A connection that is neither made nor refused is given up after 30 s, too."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address):
            relay, host = bench.serve(server=f"tcp:127.0.0.1:{address[1]}")
            host.sendall(REQUEST)
            start = time.monotonic()
            relay.wait(NO_SERVER, "cannot connect: Connection timed out", timeout=45)
            assert time.monotonic() - start > 29.9


def slow_delivery(relay: Relay, source: socket.socket, sink: socket.socket) -> None:
    """As long as the other side takes some, it gets the rest: it has more than 5 s in all."""
    data = random_bytes(MEGABYTE)
    sent = send_until_stuck(source, data)
    source.close()
    got, start = bytearray(), time.monotonic()
    while time.monotonic() - start < 8:
        got += sink.recv(sent // 16)
        time.sleep(0.5)
    got += recv_all(sink)
    sink.close()
    assert got == data[:sent]
    relay.wait(OK)


@slow
def slow_delivery_to_the_server(bench: Bench) -> None:
    """After the client's end."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    slow_delivery(relay, host, server)


@slow
def slow_delivery_to_the_client(bench: Bench) -> None:
    """After the server's end."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    slow_delivery(relay, server, host)


def hang(relay: Relay, source: socket.socket, sink: socket.socket) -> None:
    """Who takes nothing for 5 s loses the rest, and that is said."""
    send_until_stuck(source, random_bytes(MEGABYTE))
    start = time.monotonic()
    source.close()
    relay.wait(BROKEN, r"\d+ bytes not delivered: one side hung")
    assert 4.9 < time.monotonic() - start < 15
    sink.close()


@slow
def server_hangs(bench: Bench) -> None:
    """After the client's end."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    hang(relay, host, server)


@slow
def client_hangs(bench: Bench) -> None:
    """After the server's end."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    hang(relay, server, host)


@slow
def server_does_not_close(bench: Bench) -> None:
    """It is told of the client's end, and gets 5 s to close; it may go on sending until then."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    host.close()
    assert recv_all(server) == b""
    start = time.monotonic()
    sent = send_until_stuck(server, bytes(4 * MEGABYTE))
    assert sent == 4 * MEGABYTE
    relay.wait(OK, "the client left")
    assert 4 < time.monotonic() - start < 15


@slow
def server_stops_reading(bench: Bench) -> None:
    """A server that takes nothing more but goes on sending does not hold the session for ever."""
    relay, host, server = bench.session(REQUEST, ACCEPT)
    server.shutdown(socket.SHUT_RD)
    host.sendall(b"x")
    start = time.monotonic()
    with contextlib.suppress(BrokenPipeError):
        while True:
            server.sendall(b"y")
            host.recv(1 << 16)
            time.sleep(0.01)
            assert time.monotonic() - start < 15
    relay.wait(BROKEN, "one side hung")


@slow
def server_is_slow_to_answer(bench: Bench) -> None:
    """That is remarked on after 10 s, once; its answer still counts."""
    listener = bench.listen()
    relay, host = bench.serve()
    host.sendall(REQUEST)
    server = accept(listener)
    start = time.monotonic()
    relay.wait_for("no answer from unix:.* for 10 s", timeout=15)
    assert time.monotonic() - start > 9.9
    server.sendall(ACCEPT)
    assert recv_exact(host, len(ACCEPT)) == ACCEPT
    relay.wait_for("the server accepts")
    server.close()
    relay.wait(OK)


@slow
def signal_under_load(bench: Bench) -> None:
    """Neither side ever pauses: a signal ends the session all the same."""
    relay, host, server = bench.session(REQUEST, ACCEPT)

    def flood(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer.sendall(bytes(4096))
                time.sleep(0.0001)

    def drain(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            recv_all(peer)

    with ThreadPoolExecutor() as pool:
        for peer in (host, server):
            pool.submit(flood, peer)
            pool.submit(drain, peer)
        time.sleep(0.3)
        relay.signal(signal.SIGTERM)
        relay.wait(OK, "stopped by signal 15", timeout=15)


@pytest.fixture(scope="module", autouse=True)
def results(make_bench: Callable[[], Bench],
            request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """Start all that is slow, and selected, before the first test."""
    selected = {item.name for item in request.session.items}
    with ThreadPoolExecutor(len(SLOW)) as pool:
        yield {name: pool.submit(scenario, make_bench()) for name, scenario in SLOW.items()
               if f"test_in_time[{name}]" in selected}


@pytest.mark.parametrize("name", SLOW)
def test_in_time(results: dict[str, Future[None]], name: str) -> None:
    """Bounds in time, in real time."""
    results[name].result()

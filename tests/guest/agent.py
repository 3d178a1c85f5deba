# SPDX-License-Identifier: GPL-2.0-only
"""The first and only process of a test guest: runs functions that the host sends.

It talks over a virtio serial port, one message per line: base64 of a marshalled dict.
A line that was cut off by a reset does not decode and is dropped.

From the host:
    start   job, source, name, args: run a function in a new process
    signal  job, signum: send a signal to a job's process group
    ask     id, about: "state" with job (what the job is doing), or "sync"
To the host:
    ready   release: the agent is up
    kmsg    text: a record of /dev/kmsg; all that were there when "sync" came precede its answer
    output  job, data: what a job wrote to stdout or stderr
    done    job, result: marshalled outcome of the function, None if it left none; status: of wait
    answer  id, value
"""

from __future__ import annotations

import binascii
import ctypes
import errno
import gc
import marshal
import os
import select
import sys
import time

# Each import costs: a module takes up to 0.1 s to load in an emulated machine.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PORT = "/dev/vport0p1"
LIBC = ctypes.CDLL(None, use_errno=True)
VERSION = 2             # of marshal: without references, the same in all Pythons
FINIT_MODULE = 313
# What tests' functions import, loaded while there is nothing else to do.
IDLE_WORK = ["hashlib", "random", "socket", "struct", "json", "threading", "signal", "typing",
             "traceback"]


def encode(message: dict[str, Any]) -> bytes:
    """A message as a line. The newline in front ends what a former life left behind."""
    return b"\n" + binascii.b2a_base64(marshal.dumps(message, VERSION))


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def outcome(function: Any, args: Any) -> bytes:
    """Call the function; what it returned or raised, marshalled."""
    try:
        return marshal.dumps({"value": function(*args)}, VERSION)
    except BaseException as error:  # pylint: disable=broad-except
        import traceback
        number = error.errno if isinstance(error, OSError) else None
        return marshal.dumps({"type": type(error).__name__, "text": str(error), "errno": number,
                              "trace": traceback.format_exc()}, VERSION)


class Job:
    """A forked process and the pipes from it."""

    def __init__(self, pid: int, result: int, output: int) -> None:
        self.pid = pid
        self.end = os.pidfd_open(pid)       # readable when the process is dead
        self.pipes = {result: bytearray(), output: bytearray()}
        self.result, self.output = result, output


class Agent:
    """The loop."""

    def __init__(self, port: int) -> None:
        self.poll = select.poll()
        self.port = port
        self.kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self.jobs: dict[int, Job] = {}
        self.input = bytearray()
        for fd in (self.port, self.kmsg):
            self.poll.register(fd, select.POLLIN)

    def send(self, **message: Any) -> None:
        """A message to the host."""
        write_all(self.port, encode(message))

    def loop(self) -> None:
        """Serve for ever."""
        self.send(kind="ready", release=os.uname().release)
        while True:
            ready = self.poll.poll(0 if IDLE_WORK else None)
            if not ready:
                __import__(IDLE_WORK.pop())
                gc.freeze()
            for fd, _ in ready:
                if fd == self.kmsg:
                    self.read_kmsg()
                elif fd == self.port:
                    self.read_port()
                elif any(fd == job.end for job in self.jobs.values()):
                    self.reap()
                else:
                    self.read_pipe(fd)

    def read_kmsg(self) -> None:
        """Pass on all kernel messages that are there."""
        while True:
            try:
                text = os.read(self.kmsg, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:
                text = "4,0,0,-;kernel messages were lost: the log buffer is too small"
            self.send(kind="kmsg", text=text)

    def read_port(self) -> None:
        """Take the host's messages."""
        data = os.read(self.port, 1 << 16)
        if not data:                    # the host's end is closed; it may come back
            time.sleep(0.1)
        self.input += data
        *lines, rest = self.input.split(b"\n") if b"\n" in data else [self.input]
        self.input = rest
        for line in filter(None, lines):
            message = marshal.loads(binascii.a2b_base64(line))
            getattr(self, "do_" + message.pop("kind"))(**message)

    def do_start(self, job: int, source: str, name: str, args: tuple[Any, ...]) -> None:
        """Fork a process that runs the function."""
        result, result_end = os.pipe()
        output, output_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.dup2(output_end, 1)
            os.dup2(output_end, 2)
            held = [fd for other in self.jobs.values() for fd in (other.end, *other.pipes)]
            for fd in (self.port, self.kmsg, result, output, output_end, *held):
                os.close(fd)
            os.set_inheritable(result_end, False)
            names: dict[str, Any] = {"__name__": "job"}

            def call(*args: Any) -> Any:
                exec(compile(source, "<guest>", "exec"), names)  # pylint: disable=exec-used
                return names[name](*args)
            left = outcome(call, args)
            sys.stdout.flush()
            sys.stderr.flush()
            write_all(result_end, left)
            os._exit(0)
        os.close(result_end)
        os.close(output_end)
        self.jobs[job] = Job(pid, result, output)
        self.poll.register(self.jobs[job].end, select.POLLIN)
        for fd in (result, output):
            os.set_blocking(fd, False)
            self.poll.register(fd, select.POLLIN)

    def do_signal(self, job: int, signum: int) -> None:
        """Signal a job with all its children."""
        if job in self.jobs:
            try:
                os.killpg(self.jobs[job].pid, signum)
            except ProcessLookupError:
                os.kill(self.jobs[job].pid, signum)

    def do_ask(self, id: int, about: str, job: int = 0) -> None:
        """Answer a question."""
        if about == "sync":
            self.read_kmsg()
            with open("/proc/sys/kernel/tainted", encoding="ascii") as file:
                self.send(kind="answer", id=id, value=int(file.read()))
            return
        value = None
        if job in self.jobs:
            here = f"/proc/{self.jobs[job].pid}/"
            texts = {}
            for name in ("stat", "syscall", "wchan", "stack"):
                with open(here + name, encoding="ascii", errors="replace") as file:
                    texts[name] = file.read()
            value = {"state": texts["stat"].rpartition(")")[2].split()[0],
                     "syscall": texts["syscall"].split()[0], "wchan": texts["wchan"],
                     "stack": texts["stack"]}
        self.send(kind="answer", id=id, value=value)

    def read_pipe(self, fd: int) -> None:
        """Take what a job says, until its end."""
        found = [(number, job) for number, job in self.jobs.items() if fd in job.pipes]
        if not found:
            return                      # its job was buried earlier in this round
        number, job = found[0]
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self.close_pipe(job, fd)
        elif fd == job.output:
            self.send(kind="output", job=number, data=data)
        else:
            job.pipes[fd] += data

    def close_pipe(self, job: Job, fd: int) -> None:
        """The last writer of a pipe is gone."""
        self.poll.unregister(fd)
        os.close(fd)
        left = job.pipes.pop(fd)
        if fd == job.result:
            job.pipes[-1] = left

    def reap(self) -> None:
        """Bury dead processes; report those that were jobs."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for number, job in list(self.jobs.items()):
                if job.pid == pid:
                    self.finish(number, job, status)

    def finish(self, number: int, job: Job, status: int) -> None:
        """All that the job left goes to the host. Its children may live on, unheard."""
        for fd in (job.output, job.result):
            while fd in job.pipes:
                before = len(job.pipes[fd])
                self.read_pipe(fd)
                if fd in job.pipes and (fd == job.output or len(job.pipes[fd]) == before):
                    self.close_pipe(job, fd)
        self.poll.unregister(job.end)
        os.close(job.end)
        del self.jobs[number]
        self.send(kind="done", job=number, result=bytes(job.pipes[-1]) or None, status=status)


def mount(kind: str, place: str) -> None:
    """mount -t KIND KIND PLACE"""
    os.makedirs(place, exist_ok=True)
    if LIBC.mount(kind.encode(), place.encode(), kind.encode(), 0, None):
        number = ctypes.get_errno()
        if number != errno.EBUSY:
            raise OSError(number, os.strerror(number), place)


def main() -> None:
    """Bring up what the agent itself needs: file systems and the port."""
    for kind, place in (("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"),
                        ("tmpfs", "/tmp"), ("tmpfs", "/run"), ("debugfs", "/sys/kernel/debug"),
                        ("tracefs", "/sys/kernel/tracing")):
        mount(kind, place)
    for name in sorted(os.listdir("/boot")):
        with open("/boot/" + name, "rb") as module:
            if LIBC.syscall(FINIT_MODULE, module.fileno(), b"", 0):
                raise OSError(ctypes.get_errno(), "finit_module", name)
    with open("/sys/module/printk/parameters/time", "w", encoding="ascii") as file:
        file.write("Y")
    deadline = time.monotonic() + 20
    while True:
        try:
            port = os.open(PORT, os.O_RDWR)
            break
        except OSError:     # no node yet, or ENXIO: a node whose port is not ready yet
            if time.monotonic() > deadline:
                raise
        time.sleep(0.005)
    Agent(port).loop()

#!/usr/bin/python3 -ISE
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

import base64
import ctypes
import errno
import gc
import marshal
import os
import select
import signal
import sys
import time
import traceback
from typing import Any

PORT = "/dev/vport0p1"
LIBC = ctypes.CDLL(None, use_errno=True)
VERSION = 2             # of marshal: without references, the same in all Pythons


def encode(message: dict[str, Any]) -> bytes:
    """A message as a line. The newline in front ends what a former life left behind."""
    return b"\n" + base64.b64encode(marshal.dumps(message, VERSION)) + b"\n"


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
        number = error.errno if isinstance(error, OSError) else None
        return marshal.dumps({"type": type(error).__name__, "text": str(error), "errno": number,
                              "trace": traceback.format_exc()}, VERSION)


class Job:
    """A forked process and the pipes from it."""

    def __init__(self, pid: int, result: int, output: int) -> None:
        self.pid = pid
        self.pipes = {result: bytearray(), output: bytearray()}
        self.result, self.output = result, output
        self.status: int | None = None


class Agent:
    """The loop."""

    def __init__(self) -> None:
        self.poll = select.poll()
        self.port = os.open(PORT, os.O_RDWR)
        self.kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self.wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self.jobs: dict[int, Job] = {}
        self.input = bytearray()
        for fd in (self.port, self.kmsg, self.wake):
            self.poll.register(fd, select.POLLIN)

    def send(self, **message: Any) -> None:
        """A message to the host."""
        write_all(self.port, encode(message))

    def loop(self) -> None:
        """Serve for ever."""
        self.send(kind="ready", release=os.uname().release)
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.kmsg:
                    self.read_kmsg()
                elif fd == self.port:
                    self.read_port()
                elif fd == self.wake:
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
            message = marshal.loads(base64.b64decode(line))
            getattr(self, "do_" + message.pop("kind"))(**message)

    def do_start(self, job: int, source: str, name: str, args: tuple[Any, ...]) -> None:
        """Fork a process that runs the function."""
        result, result_end = os.pipe()
        output, output_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(output_end, 1)
            os.dup2(output_end, 2)
            held = [fd for other in self.jobs.values() for fd in other.pipes]
            for fd in (self.port, self.kmsg, self.wake, result, output, output_end, *held):
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

    def do_ask(self, id: int, about: str, job: int = 0) -> None:  # pylint: disable=W0622
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
        os.read(self.wake, 4096)
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
            if LIBC.syscall(ctypes.c_long(313), module.fileno(), b"", 0):   # finit_module
                raise OSError(ctypes.get_errno(), "finit_module", name)
    with open("/sys/module/printk/parameters/time", "w", encoding="ascii") as file:
        file.write("Y")
    deadline = time.monotonic() + 20
    while not os.path.exists(PORT):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {PORT}")
        time.sleep(0.005)
    gc.freeze()
    Agent().loop()


if __name__ == "__main__":
    main()

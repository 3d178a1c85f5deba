# SPDX-License-Identifier: GPL-2.0-only
"""A test guest: a VM with the agent in it, where tests run ordinary Python functions.

    guest.run(function, argument)           its result, or what it raised
    job = guest.start(function, argument)   the same beside the test
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import functools
import marshal
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hvhost import initramfs, kernels, kmsg, ship
from hvhost.vm import VM, ChannelSpec, VMError

T = TypeVar("T")
BOOT_TIMEOUT = 180.0            # some 4 s on an idle machine, ten times that on a busy one
TIMEOUT = 60.0
LEAKS_TIMEOUT = 1200.0          # two scans of all memory, seen to take 300 s on a busy machine
RESTART, KEXEC = 0x01234567, 0x45584543     # of reboot(2)
DISK = "/dev/nvme0n1"
HIBERNATE_TIMEOUT = 90.0        # one way; some 3 s on an idle machine


class GuestError(Exception):
    """The guest did not do what was asked."""


class GuestDied(GuestError):
    """The guest is gone: a panic, or it went silent."""


class GuestTimeout(GuestError):
    """Something in the guest did not happen in time."""


class JobDied(GuestError):
    """A job ended without a result: killed, or it called exit."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class RemoteError(GuestError):
    """A function in the guest raised what the host has no class for."""


class Job:
    """A function that runs in a process of its own in the guest."""

    def __init__(self, guest: Guest, number: int, name: str) -> None:
        self._guest, self._number, self._name = guest, number, name
        self._outcome: dict[str, Any] | None = None
        self.output = b""               # what it wrote to stdout and stderr
        self.status: int | None = None  # of wait(2), once it ended

    def done(self) -> bool:
        """Whether it ended."""
        return self.status is not None

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end, however that comes; its wait(2) status."""
        self._guest.wait_for(self.done, timeout, f"the end of {self._name}() in the guest")
        assert self.status is not None
        return self.status

    def result(self, timeout: float = TIMEOUT) -> Any:
        """What it returned, once it did; or raises what it raised."""
        try:
            status = self.wait(timeout)
        except GuestTimeout as error:
            raise GuestTimeout(f"{error}; it is {self.state()}") from None
        if self._outcome is None:
            how = (f"was killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status)
                   else f"exited with status {os.waitstatus_to_exitcode(status)}")
            raise JobDied(f"{self._name}() {how} in the guest", status)
        if "type" in self._outcome:
            raise _exception(self._name, self._outcome)
        return self._outcome["value"]

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal to its process group."""
        self._guest.send(kind="signal", job=self._number, signum=int(signum))

    def state(self) -> dict[str, str]:
        """From /proc: state, syscall (a number or "running"), wchan, stack; {} if it ended."""
        return self._guest.ask("state", job=self._number) or {}

    def wait_blocked(self, where: str = "", timeout: float = TIMEOUT) -> dict[str, str]:
        """Wait until it sleeps in the kernel, in a function whose name contains `where`
        (anywhere on its kernel stack)."""
        deadline = time.monotonic() + timeout
        while True:
            state = self.state()
            if state.get("state") in ("S", "D") and where in state["stack"] \
                    and state["syscall"] != "running":
                return state
            if self.done():
                raise GuestError(f"{self._name}() ended and never slept in {where or 'a call'}")
            if time.monotonic() > deadline:
                raise GuestTimeout(f"{self._name}() does not sleep in {where or 'a call'}"
                                   f" after {timeout} s: {state}")
            time.sleep(0.02)

    def finish(self, status: int, outcome: dict[str, Any] | None) -> None:
        """The agent's report of its end."""
        self._outcome, self.status = outcome, status


def _exception(name: str, outcome: dict[str, Any]) -> Exception:
    """The exception as the function raised it, if Python has such a class built in."""
    note = f"in the guest:\n{outcome['trace']}"
    kind = getattr(sys.modules["builtins"], outcome["type"], None)
    error: Exception
    if outcome["errno"] is not None:
        error = OSError(outcome["errno"], os.strerror(outcome["errno"]))
    elif isinstance(kind, type) and issubclass(kind, Exception):
        try:
            error = kind(outcome["text"])
        except TypeError:
            error = RemoteError(f"{name}(): {outcome['type']}: {outcome['text']}")
    else:
        error = RemoteError(f"{name}(): {outcome['type']}: {outcome['text']}")
    error.add_note(note)
    return error


class Guest:
    """A booted guest of one of the kernels; VMBus is connected, the module is not loaded."""

    def __init__(self, kernel: kernels.Kernel, channels: Sequence[ChannelSpec] = (), *,
                 module: Path | None = None, vmbus: bool = True, append: str = "",
                 **options: Any) -> None:
        self.kernel = kernel
        self.module = module
        self._vmbus = vmbus
        self._changed = threading.Condition()
        self._held = bytearray()
        self._boots = 0
        self._died = ""
        self._jobs: dict[int, Job] = {}
        self._answers: dict[int, Any] = {}
        self._numbers = 0
        self._messages: list[kmsg.Message] = []
        self._mark = 0                      # messages before it were answered for
        self._taint = self._taint_before = 0
        self._expected: list[str] = []
        self._allowed: list[str] = []
        self._asleep: Job | None = None     # it hibernates: what waits to go on
        self.boot_time = time.monotonic()
        self._machine = functools.partial(
            VM, kernel.vmlinuz, initramfs.initramfs(kernel), channels,
            append=f"{kernel.append} {append}", on_port=self._on_port, on_event=self._on_event,
            **options)
        self.vm = self._machine()
        try:
            self._wait_boot(0)
        except BaseException:
            self.kill()
            raise

    def _wait_boot(self, before: int) -> None:
        self.wait_for(lambda: self._boots > before, BOOT_TIMEOUT * self.kernel.patience,
                      "the agent of the guest")
        bus = self.kernel.module("hv_vmbus")
        if self._vmbus and bus:
            self.run(_finit_module, bus.read_bytes(), "")
        self.vm.allow_reboot(False)
        self.sync()
        self.boot_time = time.monotonic() - self.boot_time
        self._mark = len(self._messages)

    # ---- the agent's channel

    def _on_event(self, event: dict[str, Any]) -> None:
        with self._changed:
            if event["event"] == "GONE":
                self._died = self._died or "the guest is gone"
            elif event["event"] == "GUEST_PANICKED":
                self._died = "the guest panicked"
            self._changed.notify_all()

    def _on_port(self, data: bytes) -> None:
        self._held += data
        *lines, rest = self._held.split(b"\n")
        self._held = rest
        for line in filter(None, lines):
            try:
                message = marshal.loads(base64.b64decode(line, validate=True))
            except (ValueError, EOFError, TypeError, binascii.Error):
                continue                # cut off by a reset
            with self._changed:
                getattr(self, "_on_" + message.pop("kind"))(**message)
                self._changed.notify_all()

    def _on_ready(self, release: str) -> None:
        if release != self.kernel.release:
            self._died = f"the guest runs {release}, not {self.kernel.release}"
        self._boots += 1
        for job in self._jobs.values():     # those of a former life
            if not job.done() and not self._asleep:
                job.finish(signal.SIGKILL, None)

    def _on_kmsg(self, text: str) -> None:
        if message := kmsg.parse(text):
            self._messages.append(message)

    def _on_output(self, job: int, data: bytes) -> None:
        if job in self._jobs:
            self._jobs[job].output += data

    def _on_done(self, job: int, result: bytes | None, status: int) -> None:
        if job in self._jobs:
            self._jobs[job].finish(status, marshal.loads(result) if result else None)

    def _on_answer(self, id: int, value: Any) -> None:
        self._answers[id] = value

    def send(self, **message: Any) -> None:
        """A message to the agent."""
        line = b"\n" + base64.b64encode(marshal.dumps(message, 2)) + b"\n"
        try:
            self.vm.send_port(line)
        except VMError as error:
            raise self._death() from error

    def wait_for(self, condition: Callable[[], Any], timeout: float, what: str) -> None:
        """Wait for something that the agent's messages bring."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._died, timeout)
            if condition():
                return
        if self._died:
            raise self._death()
        raise GuestTimeout(f"no sign of {what} after {timeout:g} s{self.vm.last_words()}")

    def ask(self, about: str, timeout: float = TIMEOUT, **more: Any) -> Any:
        """Ask the agent; an agent that is silent means a guest that hangs."""
        self._numbers += 1
        number = self._numbers
        self.send(kind="ask", id=number, about=about, **more)
        try:
            self.wait_for(lambda: number in self._answers, timeout, "an answer of the guest")
        except GuestTimeout as error:
            self._died = "the guest hangs"
            raise self._death() from error
        return self._answers.pop(number)

    def _death(self) -> GuestDied:
        return GuestDied(f"{self._died or 'the guest is gone'}{self.vm.last_words()}")

    # ---- running things

    def start(self, function: Callable[..., Any], *args: Any) -> Job:
        """Run the function in a process of its own in the guest (see ship.py)."""
        text, name = ship.source(function)
        with self._changed:
            self._numbers += 1
            job = Job(self, self._numbers, name)
            self._jobs[self._numbers] = job
            number = self._numbers
        self.send(kind="start", job=number, source=text, name=name, args=args)
        return job

    def run(self, function: Callable[..., T], *args: Any, timeout: float = TIMEOUT) -> T:
        """Run the function in the guest, return its result or raise its exception."""
        job = self.start(function, *args)
        try:
            result: T = job.result(timeout)
        except GuestTimeout:
            job.kill()
            raise
        finally:
            if job.output:
                sys.stdout.write(job.output.decode(errors="replace"))
        return result

    def end_jobs(self) -> None:
        """Kill what still runs."""
        for job in list(self._jobs.values()):
            if not job.done():
                job.kill()
        for job in list(self._jobs.values()):
            job.wait()
        self._jobs.clear()

    # ---- conveniences

    def insmod(self, *parameters: str, module: Path | None = None,
               timeout: float = TIMEOUT) -> None:
        """Load the project's module, or another file."""
        file = module or self.module
        if file is None:
            raise GuestError("this guest has no module to load")
        self.run(_finit_module, file.read_bytes(), " ".join(parameters), timeout=timeout)

    def rmmod(self, name: str = "hv_synthrdp") -> None:
        """Unload a module."""
        self.run(_delete_module, name)

    def read(self, path: str) -> str:
        """A file's text."""
        return self.run(_read, path)

    def write(self, path: str, text: str) -> None:
        """Write to a file (of sysfs, say) in one write()."""
        self.run(_write, path, text)

    def exists(self, path: str) -> bool:
        """Whether a path is there."""
        return self.run(_exists, path)

    def reset(self, *, button: bool = True) -> None:
        """Push the reset button, or have the guest itself reboot; wait until it is up again."""
        before = self._boots
        self.boot_time = time.monotonic()
        if button:
            self.vm.reset()
        else:
            self.vm.allow_reboot(True)
            self.start(_reboot, RESTART)
        self._wait_boot(before)

    def kexec(self, *, panic: bool = False) -> None:
        """Have the kernel start itself anew; or panic, and the same kernel look into that, which
        needs crashkernel= on the command line. Wait until it is up again."""
        self.run(_load_kernel, self.kernel.vmlinuz.read_bytes(),
                 initramfs.initramfs(self.kernel).read_bytes(), panic, timeout=2 * TIMEOUT)
        before = self._boots
        self.boot_time = time.monotonic()
        if panic:
            self.start(_write, "/proc/sysrq-trigger", "c")
        else:
            self.start(_reboot, KEXEC)
        self._wait_boot(before)

    # ---- hibernation

    def make_swap(self, megabytes: int) -> None:
        """Make the begin of the disk swap space, and use it."""
        self.run(_make_swap, megabytes)

    def hibernate(self) -> None:
        """Suspend to disk: QEMU ends. Raises what write(2) says if that fails."""
        self.allow_message("^done[.]$")     # of "Restarting tasks ...", cut off by other messages
        job = self.start(_write, "/sys/power/state", "disk")
        self.wait_for(lambda: job.done() or not self.vm.alive, HIBERNATE_TIMEOUT,
                      "the end of hibernation")
        if job.done():
            job.result()
            raise GuestError("the guest does not hibernate")
        self._asleep = job

    def boot_to_resume(self) -> None:
        """Boot another machine with the same disk, as far as to where it can resume."""
        boots, messages, mark = self._boots, len(self._messages), self._mark
        self.vm.kill()
        self._died = ""
        self.vm = self._machine()
        self._wait_boot(boots)
        del self._messages[messages:]       # what any kernel says that boots
        self._mark = mark

    def resume(self) -> None:
        """Wake up, and find all processes as they were."""
        assert self._asleep
        job, waking = self._asleep, self.start(_resume)
        self.wait_for(lambda: job.done() or waking.done(), HIBERNATE_TIMEOUT,
                      "the guest that was to resume")
        if not job.done():
            waking.result()
            raise GuestError("the guest does not resume")
        waking.finish(signal.SIGKILL, None)
        self._asleep = None
        job.result()

    # ---- kernel messages

    def sync(self) -> None:
        """Have all kernel messages up to now."""
        self._taint = self.ask("sync")

    def kernel_messages(self) -> list[kmsg.Message]:
        """All kernel messages of this test so far."""
        self.sync()
        return self._messages[self._mark:]

    def expect_message(self, pattern: str) -> None:
        """The kernel must say this (at any level) before the test ends."""
        self._expected.append(pattern)

    def allow_message(self, pattern: str) -> None:
        """The kernel may say this during the test."""
        self._allowed.append(pattern)

    def begin_test(self) -> None:
        """From now on messages belong to a test."""
        self.sync()
        self._mark = len(self._messages)
        self._expected, self._allowed = [], []
        self._taint_before = self._taint

    def end_test(self) -> list[str]:
        """What the test has to answer for."""
        found = self.kernel_messages()
        bad = kmsg.complaints(found, self._expected, self._allowed)
        new = set(kmsg.taints(self._taint)) - set(kmsg.taints(self._taint_before))
        return bad + [f"the kernel is tainted: {what}" for what in sorted(new)]

    def leaks(self) -> str:
        """What kmemleak takes for lost."""
        return self.run(_leaks, timeout=LEAKS_TIMEOUT)

    @property
    def alive(self) -> bool:
        """Whether it can serve a further test."""
        return not self._died and self.vm.alive

    def kill(self) -> None:
        """End the machine."""
        self.vm.kill()


# ---- functions that run in the guest


def _finit_module(image: bytes, parameters: str) -> None:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(175, image, ctypes.c_ulong(len(image)), parameters.encode()):   # init_module
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _delete_module(name: str) -> None:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    deadline = time.monotonic() + 10
    while libc.syscall(176, name.encode(), os.O_NONBLOCK):              # delete_module
        number = ctypes.get_errno()
        # A release that is still under way holds the module for a moment.
        if number not in (errno.EAGAIN, errno.EWOULDBLOCK) or time.monotonic() > deadline:
            raise OSError(number, os.strerror(number))
        time.sleep(0.01)


def _make_swap(megabytes: int) -> None:
    import ctypes
    import struct
    libc = ctypes.CDLL(None, use_errno=True)
    libc.swapoff(DISK.encode())
    page = bytearray(4096)
    struct.pack_into("<II", page, 1024, 1, (megabytes << 8) - 1)     # version, last page
    page[-10:] = b"SWAPSPACE2"
    with open(DISK, "r+b") as file:
        file.write(page)
    if libc.swapon(DISK.encode(), 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _resume() -> None:
    device = os.stat(DISK).st_rdev
    _write("/sys/power/resume", f"{os.major(device)}:{os.minor(device)}")


def _load_kernel(kernel: bytes, initrd: bytes, panic: bool) -> None:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    files = []
    for path, data in (("/tmp/kernel", kernel), ("/tmp/initrd", initrd)):
        with open(path, "wb") as file:
            file.write(data)
        files.append(os.open(path, os.O_RDONLY))
        os.unlink(path)
    words = [word for word in _read("/proc/cmdline").split()
             if not (panic and word.startswith("crashkernel="))]
    line = " ".join(words + ["nr_cpus=1", "reset_devices"] * panic).encode()
    if libc.syscall(320, *files, ctypes.c_ulong(len(line) + 1), line,   # kexec_file_load
                    ctypes.c_ulong(2 * panic)):                         # KEXEC_FILE_ON_CRASH
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _reboot(command: int) -> None:
    import ctypes
    ctypes.CDLL(None).reboot(ctypes.c_int(command))


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    with contextlib.closing(os.fdopen(fd, "wb", buffering=0)) as file:
        file.write(text.encode())


def _leaks() -> str:
    place = "/sys/kernel/debug/kmemleak"
    for _ in range(2):          # a first sight may be an accident
        time.sleep(5.5)         # younger objects are not reported
        _write(place, "scan")
    return _read(place)


def _exists(path: str) -> bool:
    return os.path.exists(path)

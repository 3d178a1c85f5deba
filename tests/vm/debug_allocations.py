# SPDX-License-Identifier: GPL-2.0-only
"""Failures that the kernel injects, one at a time: the first allocation of a call, the second...

With `make check-debug` only: it takes a kernel that can do that. What a call comes to may be
success or an error that its manual names; afterwards everything works as before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from errno import EFAULT, EINVAL, ENFILE, ENODEV, ENOMEM
from typing import Any

import pytest

from bench import Bench
from hvhost import kernels, kmsg, linux
from hvhost.synthrdp import CONTROL, Instance, data_instance
from lab import CONTROL_FOLDER, DRIVER, Lab, wait_until

MOST = 2000             # failures that one call can meet
WORK_FAILURES = 60      # more than the work meets from off to ready
LOAD_FAILURES = 60      # more than the driver's own part of being loaded meets
TIMEOUT = 600.0
# The kernel has a word, and for some a stack, for each failure of its own. Only faults are amiss.
# 6.1 forgets the name of a class that it cannot register: kset_register() leaves it to its caller,
# __class_register() does not know.
CLASS_NAME = re.compile(r"kobject_set_name\+.*\n.* __class_register\+")
MAY_SAY = rf"^(?!.*(?:{kmsg.FATAL.pattern}))"


@pytest.fixture(scope="module", params=[
    name for name in kernels.NAMES if name in linux.THOROUGH])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The place of a guest whose kernel can do that: KCSAN's cannot."""
    made = Bench(request.param)
    yield made
    made.drop()


@dataclass(frozen=True)
class Call:
    """What is made to fail: a kind of call, the file, what is written to it or loaded.

    `undo` is where to write the same to take a success back. Of `parts` all are there after a
    success, and none after a failure. All places are tried, or the `last` of them.
    """

    kind: str
    path: str
    data: bytes = b""
    undo: str = ""
    parts: tuple[str, ...] = ()
    last: int = 0


def _fail_any() -> None:
    """Runs in the guest: no allocation is spared, and no failure told of."""
    for attribute in ("failslab/ignore-gfp-wait", "fail_page_alloc/ignore-gfp-wait",
                      "fail_page_alloc/ignore-gfp-highmem", "failslab/verbose",
                      "fail_page_alloc/verbose"):
        with open(f"/sys/kernel/debug/{attribute}", "wb") as file:
            file.write(b"0" if "verbose" in attribute else b"N")


def _settle(parts: tuple[str, ...], there: bool, after: str) -> None:
    """Runs in the guest: wait until all the parts are there, or none."""
    import os
    import time
    end = time.monotonic() + 30             # releases are late on purpose
    while wrong := [part for part in parts if os.path.lexists(part) != there]:
        if time.monotonic() > end:
            raise AssertionError(f"{after}: as for {wrong}, not so")
        time.sleep(0.01)


def _inject(kind: str, path: str, data: bytes, undo: str, parts: tuple[str, ...], last: int,
            most: int) -> list[int]:
    """Runs in the guest: make a call fail at each place in turn, until it meets no failure.

    Returns what each came to: 0 or more, or an errno, negative.
    """
    import ctypes
    import errno
    import functools
    import os
    import time
    libc = ctypes.CDLL(None, use_errno=True)

    def insist(call: int, *args: Any) -> int:
        end = time.monotonic() + 30         # what an earlier one left is released late, on purpose
        while libc.syscall(call, *args):
            if (ctypes.get_errno() not in (errno.EBUSY, errno.EAGAIN)
                    or time.monotonic() > end):
                raise OSError(ctypes.get_errno(), f"system call {call}")
            time.sleep(0.01)
        return 0

    load = functools.partial(insist, 175, data, ctypes.c_ulong(len(data)), b"")     # init_module
    unload = functools.partial(insist, 176, path.encode(), os.O_NONBLOCK)           # delete_module
    failing = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
    target = os.open(path, os.O_RDWR if kind == "echo" else os.O_WRONLY
                     ) if kind in ("echo", "bind") else -1
    found = []
    first = 1
    if last:
        os.write(failing, b"%d" % (1 << 30))
        load()
        first = max(1, (1 << 30) - int(os.pread(failing, 16, 0)) - last)
        unload()
        _settle(parts, False, "unloaded")
    for nth in range(first, first + most):
        os.write(failing, b"%d" % nth)
        try:
            if kind == "open":
                result = os.open(path, os.O_RDWR)
            elif kind == "echo":
                result = os.write(target, data)
            elif kind == "bind":
                result = os.pwrite(target, data, 0)
            else:
                result = load()
        except OSError as error:
            result = -(error.errno or 0)
        untouched = os.pread(failing, 16, 0).strip() != b"0"
        os.write(failing, b"0")
        found.append(0 if kind == "open" and result >= 0 else result)
        _settle(parts, result >= 0, f"failure {nth} came to {result}")
        if kind == "open" and result >= 0:
            os.close(result)
        if untouched:
            return found
        if kind == "load" and result >= 0:
            unload()
        if kind == "bind" and result >= 0:
            with open(undo, "wb", buffering=0) as file:
                file.write(data)
        if result >= 0 and kind in ("load", "bind"):
            _settle(parts, False, "taken back")
    raise TimeoutError(f"{path}: more than {most} failures")


def inject(lab: Lab, call: Call) -> list[int]:
    """Do it; returns what the calls came to."""
    lab.guest.allow_message(MAY_SAY)
    lab.guest.run(_fail_any)
    found = lab.guest.run(_inject, *astuple(call), MOST, timeout=TIMEOUT)
    print(f"{call.kind} {call.path}: {len(found) - 1} failures")
    return found


def test_open(lab: Lab) -> None:
    """open(2) fails cleanly wherever memory runs out, and then succeeds."""
    session = lab.session(1)
    found = inject(lab, Call("open", "/dev/synthrdp0"))
    assert len(found) > 10
    assert set(found) <= {0, -ENOMEM, -ENODEV, -ENFILE}
    assert found[-1] == 0 and -ENOMEM in found
    for _ in range(found.count(0)):
        session.wait_opened()
        session.wait_closed()
    user = lab.user().open(0)
    session.wait_opened()
    session.write(b">")
    assert user.read(10) == b">"


def bind_again_and_again(lab: Lab, which: Instance, *parts: str) -> None:
    """Probe fails at each place in turn; the device stays without a driver until it succeeds."""
    instance = str(data_instance(which)) if which != CONTROL else str(CONTROL)
    device = f"/sys/bus/vmbus/devices/{instance}"
    lab.write(f"{DRIVER}/unbind", instance)
    found = inject(lab, Call("bind", f"{DRIVER}/bind", instance.encode(), f"{DRIVER}/unbind",
                             (f"{device}/driver", f"{DRIVER}/{instance}",
                              *(part.format(device=device) for part in parts))))
    assert found[-1] > 0 and -ENOMEM in found
    assert {result for result in found if result < 0} <= {-ENOMEM, -ENODEV, -EINVAL, -EFAULT}


def test_probe_of_data(lab: Lab) -> None:
    """A data channel is bound in the end, and works."""
    session = lab.session(1)
    for _ in range(2):
        bind_again_and_again(lab, 1, "/dev/synthrdp0", "/sys/class/synthrdp/synthrdp0",
                             "{device}/synthrdp/synthrdp0")
        lab.wait_node(0)
    user = lab.user().open(0)
    session.wait_opened()
    session.write(b">")
    assert user.read(10) == b">"


def _make_node(path: str, number: str) -> None:
    """Runs in the guest: a node of one's own."""
    import os
    import stat
    major, minor = map(int, number.split(":"))
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(major, minor))


def test_node_that_comes_to_nothing(lab: Lab) -> None:
    """Who has a node of his own opens the device before probe has failed; that session ends."""
    session = lab.session(1)
    opener = lab.user()
    number = opener.do("texts", "/sys/class/synthrdp/synthrdp0")["dev"]
    lab.guest.run(_make_node, "/synthrdp0", number)
    opening = opener.call("open_close_until_stopped", "/synthrdp0")
    bind_again_and_again(lab, 1, "/dev/synthrdp0", "/sys/class/synthrdp/synthrdp0")
    opener.do("stop")
    assert "done" in opening.result()
    lab.wait_node(0)
    user = lab.user().open(0)
    while session.wait_opened().opening != session.channel.opening:
        pass                            # earlier ones
    user.write(b"sound")
    assert session.read_exact(5) == b"sound"


def test_probe_of_control(lab: Lab) -> None:
    """The control device is bound in the end, and negotiates."""
    bind_again_and_again(lab, CONTROL, "{device}/synthrdp/enabled")
    lab.wait_state("ready", 20)


def test_switch(lab: Lab) -> None:
    """A write to `enabled` that fails changes nothing, or does all of it."""
    found = inject(lab, Call("echo", f"{CONTROL_FOLDER}/enabled", b"1"))
    assert set(found) <= {1, -ENOMEM, -EFAULT}
    lab.wait_state("ready", 20)


def _fail_workers(nth: int) -> None:
    """Runs in the guest: have each kernel worker's allocation of that number fail, once."""
    import os
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                if not file.read().startswith("kworker/"):
                    continue
            with open(f"/proc/{pid}/task/{pid}/fail-nth", "w", encoding="ascii") as file:
                file.write(str(nth))
        except FileNotFoundError:           # it has ended
            pass


def test_negotiation(lab: Lab) -> None:
    """Opening the control channel fails in the work; the next try is a second later."""
    lab.guest.allow_message(MAY_SAY)
    failed = 0
    for nth in range(1, WORK_FAILURES):
        lab.switch(False)
        lab.guest.run(_fail_workers, nth)
        lab.switch(True)
        wait_until("an end", lambda: lab.control["state"] in ("ready", "failed"), 30)
        failed += lab.control["state"] == "failed"
        lab.guest.run(_fail_workers, 0)
        lab.wait_state("ready", 30)
    assert failed > 3


def test_load(lab: Lab) -> None:
    """The module is not loaded, or loaded and works; nothing of it stays behind otherwise."""
    assert lab.guest.module
    lab.unload()
    found = inject(lab, Call("load", "hv_synthrdp", lab.guest.module.read_bytes(), parts=(
        "/sys/module/hv_synthrdp", "/sys/class/synthrdp", DRIVER), last=LOAD_FAILURES))
    assert found[-1] == 0 and -ENOMEM in found
    # Newer kernels call it EINVAL when there is no memory for the module's link to its driver.
    assert set(found) <= {0, -ENOMEM, -EINVAL}
    lab.wait_state("ready", 20)
    assert "synthrdp" in lab.guest.read("/proc/devices")


def test_no_leak(lab: Lab) -> None:
    """After all that, nothing that the driver allocated is lost."""
    lab.guest.allow_message("new suspected memory leaks")      # of others; ours fail below
    leaks = "".join(one for one in re.split("(?=^unreferenced)", lab.guest.leaks(), flags=re.M)
                    if not CLASS_NAME.search(one))
    # An address without a name is one in a module that has gone: of an earlier load.
    assert "hv_synthrdp" not in leaks and " 0xffffffff" not in leaks, leaks

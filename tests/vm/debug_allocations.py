# SPDX-License-Identifier: GPL-2.0-only
"""Failures that the kernel injects, one at a time: the first allocation of a call, the second...

With `make check-debug` only: it takes a kernel that can do that. What a call comes to may be
success or an error that its manual names; afterwards everything works as before.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENFILE, ENODEV, ENOMEM

from hvhost.synthrdp import CONTROL, Instance, data_instance
from lab import CONTROL_FOLDER, DRIVER, Lab

MOST = 2000             # failures that one call can meet
TIMEOUT = 300.0
# What the kernel itself says of some failures
MAY_SAY = (r"vmalloc error: size", r"page allocation failure", r"probe of \S+ failed with error",
           r"^hv_synthrdp \S+: ", "unable to establish GPADL", "CE: hpet increased",
           r"kmemleak: Cannot allocate a scan area")


def _inject(kind: str, path: str, data: bytes, most: int) -> list[int]:
    """Runs in the guest: make a call fail at each place in turn, until it meets no failure.

    Returns what each came to: 0 or more, or an errno, negative.
    """
    import os
    for attribute in ("failslab/ignore-gfp-wait", "fail_page_alloc/ignore-gfp-wait",
                      "fail_page_alloc/ignore-gfp-highmem", "failslab/verbose",
                      "fail_page_alloc/verbose"):
        with open(f"/sys/kernel/debug/{attribute}", "w", encoding="ascii") as file:
            file.write("0" if "verbose" in attribute else "N")
    failing = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
    target = -1 if kind == "open" else os.open(path, os.O_RDWR if kind == "echo" else os.O_WRONLY)
    found = []
    for nth in range(1, most):
        os.write(failing, b"%d" % nth)
        try:
            if kind == "open":
                result = os.open(path, os.O_RDWR)
            elif kind == "echo":
                result = os.write(target, data)
            else:
                result = os.pwrite(target, data, 0)
        except OSError as error:
            result = -(error.errno or 0)
        untouched = os.pread(failing, 16, 0).strip() != b"0"
        os.write(failing, b"0")
        found.append(result)
        if kind == "open" and result >= 0:
            os.close(result)
            found[-1] = 0
        if untouched or kind == "write" and result > 0:
            return found
    raise TimeoutError(f"{path}: more than {most} failures")


def inject(lab: Lab, kind: str, path: str, data: bytes = b"") -> list[int]:
    """Do it; returns what the calls came to."""
    for message in MAY_SAY:
        lab.guest.allow_message(message)
    return lab.guest.run(_inject, kind, path, data, MOST, timeout=TIMEOUT)


def test_open(lab: Lab) -> None:
    """open(2) fails cleanly wherever memory runs out, and then succeeds."""
    session = lab.session(1)
    found = inject(lab, "open", "/dev/synthrdp0")
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


def bind_again_and_again(lab: Lab, which: Instance) -> None:
    """Probe fails at each place in turn; the device stays without a driver until it succeeds."""
    instance = str(data_instance(which)) if which != CONTROL else str(CONTROL)
    lab.write(f"{DRIVER}/unbind", instance)
    found = inject(lab, "write", f"{DRIVER}/bind", instance.encode())
    assert found[-1] > 0
    assert set(found[:-1]) <= {-ENOMEM, -ENODEV, -EINVAL, -EFAULT}


def test_probe_of_data(lab: Lab) -> None:
    """A data channel is bound in the end, and works."""
    session = lab.session(1)
    for _ in range(2):
        bind_again_and_again(lab, 1)
        lab.wait_node(0)
    user = lab.user().open(0)
    session.wait_opened()
    session.write(b">")
    assert user.read(10) == b">"


def test_probe_of_control(lab: Lab) -> None:
    """The control device is bound in the end, and negotiates."""
    bind_again_and_again(lab, CONTROL)
    lab.wait_state("ready", 20)


def test_switch(lab: Lab) -> None:
    """A write to `enabled` that fails changes nothing, or does all of it."""
    found = inject(lab, "echo", f"{CONTROL_FOLDER}/enabled", b"1")
    assert set(found) <= {1, -ENOMEM, -EFAULT}
    lab.wait_state("ready", 20)


def _leaks() -> str:
    """Runs in the guest: what kmemleak finds in two looks; younger objects do not count."""
    import time
    place = "/sys/kernel/debug/kmemleak"
    for _ in range(2):
        time.sleep(5.5)
        with open(place, "w", encoding="ascii") as file:
            file.write("scan")
    with open(place, encoding="ascii", errors="replace") as file:
        return file.read()


def test_no_leak(lab: Lab) -> None:
    """After all that, nothing that the driver allocated is lost."""
    lab.guest.allow_message("new suspected memory leaks")      # of others; ours fail below
    leaks = lab.guest.run(_leaks, timeout=TIMEOUT)
    assert "hv_synthrdp" not in leaks, leaks

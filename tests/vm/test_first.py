# SPDX-License-Identifier: GPL-2.0-only
"""The thinnest slice through everything."""

from __future__ import annotations

from lab import Lab


def test_one_byte_there_and_back(lab: Lab) -> None:
    """Control is ready, a session's node appears, and a byte goes either way."""
    assert lab.control["state"] == "ready"
    assert lab.control["version"] == "1.0"
    session, user = lab.opened(1)
    session.write(b">")
    assert user.read(10) == b">"
    assert user.write(b"<") == 1
    assert session.read_exact(1) == b"<"

# SPDX-License-Identifier: GPL-2.0-only
"""A made-up guest for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakeroot import Guest


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    """A guest in which all is well."""
    return Guest(tmp_path)

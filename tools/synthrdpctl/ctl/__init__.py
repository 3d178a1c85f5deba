# SPDX-License-Identifier: GPL-2.0-only
"""What synthrdpctl consists of: one room for each of its jobs."""

VERSION = "0.1.0"

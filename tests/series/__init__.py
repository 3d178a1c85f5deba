# SPDX-License-Identifier: GPL-2.0-only
"""The project's patches for others, as mails that can be sent."""

# SPDX-License-Identifier: GPL-2.0-only
"""The emulated host: QEMU with VMBus, and the host's side of SynthRdp in Python."""

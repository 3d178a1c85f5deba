/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where no systemd does it: start a relay for each device that appears.
 */
#ifndef SYNTHRDP_WATCH_H
#define SYNTHRDP_WATCH_H

#include "relay.h"

/* Until a signal says stop; then the sessions are stopped, too. */
enum relay_exit watch_devices(const struct server *server, bool rewrite);

#endif

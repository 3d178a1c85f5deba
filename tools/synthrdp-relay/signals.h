/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Signals arrive only while a process waits, so that no one can be missed
 * between looking and going to sleep.
 */
#ifndef SYNTHRDP_SIGNALS_H
#define SYNTHRDP_SIGNALS_H

#include <poll.h>

/* From here on signals are held back, except during signals_poll(). */
void signals_hold(void);

/*
 * poll() that lets signals in. timeout in milliseconds, -1 for none. Returns
 * 0 also when a signal came (with no revents), -1 for an error.
 */
int signals_poll(struct pollfd *fds, nfds_t count, int timeout);

/* The signal that asked to stop (SIGTERM, SIGINT, SIGHUP), or 0. */
int signals_stop(void);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One session: from the opening of its device to its end.
 */
#ifndef SYNTHRDP_RELAY_H
#define SYNTHRDP_RELAY_H

#include <stdbool.h>

struct server;

/* What the program exits with; the manual page explains each of them. */
enum relay_exit {
	RELAY_OK = 0,
	RELAY_TROUBLE = 1,	/* nothing below: the system is in trouble */
	RELAY_USAGE = 2,
	RELAY_DEVICE = 3,	/* the device cannot be opened */
	RELAY_NO_REQUEST = 4,	/* the client never said a word */
	RELAY_NOT_RDP = 5,	/* the client's request is not X.224 */
	RELAY_NO_SERVER = 6,	/* the server cannot be reached */
	RELAY_ANSWER = 7,	/* the server's answer allows no session */
	RELAY_BROKEN = 8,	/* the session broke off */
};

/* rewrite: make the client's request ask for RDP's own security. */
enum relay_exit relay_serve(const char *device, const struct server *server,
			    bool rewrite);

#endif

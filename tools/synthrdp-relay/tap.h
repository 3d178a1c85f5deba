/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A copy of what passes, for `synthrdpctl capture`.
 *
 * When a session begins and root listens at TAP_SOCKET, the session's bytes go
 * there as well, as they arrived. Otherwise this is a connect() that fails,
 * once for each session. Nobody but root can make that socket or is believed
 * to have: the relay cannot be told to show a session to anyone else.
 *
 * The copy never holds up the session: what the listener does not take at once
 * is lost to it, and when it goes that is all.
 *
 * Each message is a packet: a struct tap_header and, by its kind, the names of
 * device and server, each ended by a NUL, or bytes of the stream.
 */
#ifndef SYNTHRDP_TAP_H
#define SYNTHRDP_TAP_H

#include <stddef.h>
#include <stdint.h>

enum tap_kind {
	TAP_HELLO,
	TAP_UP,			/* to the server, as the client sent it */
	TAP_DOWN,
};

/* In the machine's byte order: it stays there. */
struct tap_header {
	uint32_t kind;
	uint32_t reserved;
	uint64_t offset;	/* of the first byte in its stream */
};

struct tap {
	int fd;			/* -1: nobody listens */
	uint64_t offset[TAP_DOWN + 1];
};

void tap_open(struct tap *tap, const char *device, const char *server);
void tap_data(struct tap *tap, enum tap_kind kind, const void *data,
	      size_t size);
void tap_close(struct tap *tap);

#endif

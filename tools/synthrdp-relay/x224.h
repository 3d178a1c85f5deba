/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The first exchange of an RDP connection, [MS-RDPBCGR] 2.2.1.1 and 2.2.1.2:
 * the client's X.224 Connection Request and the server's answer to it.
 *
 * Nothing here does I/O or keeps state. The functions look at the bytes that
 * have arrived so far and may be called again when there are more.
 */
#ifndef SYNTHRDP_X224_H
#define SYNTHRDP_X224_H

#include <stdbool.h>
#include <stddef.h>

/* TPKT header, length indicator, and at most 254 bytes counted by that. */
#define X224_MAX_REQUEST	(4 + 1 + 254)
/* An answer with RDP_NEG_RSP or RDP_NEG_FAILURE. */
#define X224_MAX_ANSWER		19

/* Bits of requestedProtocols; 0 is RDP's own security. */
#define X224_PROTOCOL_RDP	0x00000000u
#define X224_PROTOCOL_SSL	0x00000001u
#define X224_PROTOCOL_HYBRID	0x00000002u

enum x224_state {
	X224_MORE,		/* right so far, but not whole yet */
	X224_WHOLE,
	X224_REFUSED,		/* see why */
};

enum x224_prefix {
	X224_NO_PREFIX,
	X224_COOKIE,
	X224_ROUTING_TOKEN,
};

struct x224_request {
	const char *why;	/* X224_REFUSED: what it is instead */
	size_t size;		/* of the whole packet */
	size_t negotiation;	/* where RDP_NEG_REQ starts, 0: there is none */
	enum x224_prefix prefix;
	bool correlation;	/* RDP_NEG_CORRELATION_INFO is there */
	unsigned char flags;
	unsigned int protocols;
};

enum x224_state x224_parse_request(const unsigned char *data, size_t size,
				   struct x224_request *request);

/*
 * Make a whole request ask for RDP's own security and for nothing that a
 * server without TLS or CredSSP could object to. Its size stays.
 */
void x224_rewrite_request(unsigned char *data, const struct x224_request *request);

enum x224_answer_kind {
	X224_NO_NEGOTIATION,	/* a server that knows RDP's own security only */
	X224_SELECTED,		/* value: the protocol */
	X224_FAILURE,		/* value: the failure code */
};

struct x224_answer {
	const char *why;	/* X224_REFUSED: what it is instead */
	enum x224_answer_kind kind;
	unsigned int value;
};

/* More than X224_MAX_ANSWER bytes are never looked at. */
enum x224_state x224_parse_answer(const unsigned char *data, size_t size,
				  struct x224_answer *answer);

#endif

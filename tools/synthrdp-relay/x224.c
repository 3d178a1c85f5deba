// SPDX-License-Identifier: GPL-2.0-only
#include "x224.h"

#include <string.h>

#define TPKT_VERSION		3
#define TPKT_SIZE		4

/* The fixed part of a request or an answer: TPKT, LI, code, dst, src, class */
#define FIXED_SIZE		(TPKT_SIZE + 7)

/* The upper half of the code; the lower one is a credit that class 0 lacks. */
#define TPDU_CODE(byte)		((byte) & 0xf0)
#define TPDU_REQUEST		0xe0
#define TPDU_CONFIRM		0xd0
#define TPDU_DISCONNECT		0x80
#define TPDU_DATA		0xf0

/* RDP_NEG_REQ, RDP_NEG_RSP, RDP_NEG_FAILURE: type, flags, size, u32 */
#define NEG_REQUEST		0x01
#define NEG_RESPONSE		0x02
#define NEG_FAILURE		0x03
#define NEG_SIZE		8

#define FLAG_CORRELATION	0x08
#define CORRELATION_TYPE	0x06
#define CORRELATION_SIZE	36

static unsigned short le16(const unsigned char *p)
{
	return (unsigned short)(p[0] | p[1] << 8);
}

static unsigned int le32(const unsigned char *p)
{
	return le16(p) | (unsigned int)le16(p + 2) << 16;
}

/*
 * The header of what should be a request (code TPDU_REQUEST) or an answer
 * (TPDU_CONFIRM), judged as early as its bytes allow: a TLS ClientHello must
 * not have to wait for a length that will never be reached. Returns why it is
 * refused, or NULL; *whole is the packet's size once that is known.
 */
static const char *refuse_header(const unsigned char *data, size_t size,
				 unsigned char code, size_t *whole)
{
	*whole = 0;
	if (size >= 1 && data[0] != TPKT_VERSION) {
		switch (data[0]) {
		case 0x15:
			return "a TLS alert";
		case 0x16:
			return "a TLS handshake";
		case 0x30:
			return "CredSSP (NLA)";
		default:
			return "not a TPKT packet";
		}
	}
	if (size < TPKT_SIZE)
		return NULL;
	*whole = (size_t)data[2] << 8 | data[3];
	if (*whole < TPKT_SIZE + 2)
		return "a TPKT packet too short for X.224";
	/* What kind of packet it is says more than what is wrong with it. */
	if (size < TPKT_SIZE + 2)
		return NULL;
	if (TPDU_CODE(data[5]) != code) {
		switch (TPDU_CODE(data[5])) {
		case TPDU_DATA:
			return "X.224 data before a connection";
		case TPDU_REQUEST:
			return "an X.224 connection request";
		case TPDU_CONFIRM:
			return "an X.224 connection confirm";
		case TPDU_DISCONNECT:
			return "an X.224 disconnect request";
		default:
			return "a TPKT packet that is not X.224";
		}
	}
	if (*whole < FIXED_SIZE)
		return "an X.224 packet that is too short";
	if (*whole > X224_MAX_REQUEST)
		return "an X.224 packet that is too long";
	if (TPKT_SIZE + 1u + data[4] != *whole)
		return "an X.224 packet whose lengths disagree";
	return NULL;
}

/* The bytes before the carriage return and line feed that end them, or size. */
static size_t line_size(const unsigned char *data, size_t size)
{
	size_t i;

	for (i = 0; i + 1 < size; i++)
		if (data[i] == '\r' && data[i + 1] == '\n')
			return i;
	return size;
}

/* Whether RDP_NEG_CORRELATION_INFO starts here. */
static bool is_correlation(const unsigned char *data, size_t size)
{
	return size >= CORRELATION_SIZE && data[0] == CORRELATION_TYPE &&
	       le16(data + 2) == CORRELATION_SIZE;
}

/* What follows the fixed part: [token or cookie] [RDP_NEG_REQ [correlation]] */
static const char *refuse_variable(const unsigned char *data,
				   struct x224_request *request)
{
	static const char cookie[] = "Cookie: mstshash=";
	size_t at = FIXED_SIZE, left = request->size - at;

	if (left && data[at] != NEG_REQUEST) {
		size_t line = line_size(data + at, left);

		if (line == left)
			return "an X.224 request with a cookie or routing token that does not end";
		request->prefix = X224_ROUTING_TOKEN;
		if (line >= strlen(cookie) &&
		    !memcmp(data + at, cookie, strlen(cookie)))
			request->prefix = X224_COOKIE;
		at += line + 2;
		left -= line + 2;
	}
	if (!left)
		return NULL;

	if (left < NEG_SIZE || data[at] != NEG_REQUEST ||
	    le16(data + at + 2) != NEG_SIZE)
		return "an X.224 request with a malformed RDP_NEG_REQ";
	request->negotiation = at;
	request->flags = data[at + 1];
	request->protocols = le32(data + at + 4);
	if (request->flags & FLAG_CORRELATION) {
		if (!is_correlation(data + at + NEG_SIZE, left - NEG_SIZE))
			return "an X.224 request without the correlation info it announces";
		request->correlation = true;
	}
	/* What else may follow is for the server to know. */
	return NULL;
}

enum x224_state x224_parse_request(const unsigned char *data, size_t size,
				   struct x224_request *request)
{
	memset(request, 0, sizeof(*request));
	request->why = refuse_header(data, size, TPDU_REQUEST, &request->size);
	if (request->why)
		return X224_REFUSED;
	if (!request->size || size < request->size)
		return X224_MORE;
	request->why = refuse_variable(data, request);
	return request->why ? X224_REFUSED : X224_WHOLE;
}

void x224_rewrite_request(unsigned char *data, const struct x224_request *request)
{
	if (!request->negotiation)
		return;
	data += request->negotiation;
	data[1] &= FLAG_CORRELATION;
	memset(data + 4, X224_PROTOCOL_RDP, 4);
}

enum x224_state x224_parse_answer(const unsigned char *data, size_t size,
				  struct x224_answer *answer)
{
	size_t whole;

	memset(answer, 0, sizeof(*answer));
	answer->why = refuse_header(data, size, TPDU_CONFIRM, &whole);
	if (answer->why)
		return X224_REFUSED;
	if (!whole || size < (whole < X224_MAX_ANSWER ? whole : X224_MAX_ANSWER))
		return X224_MORE;
	if (whole == FIXED_SIZE)
		return X224_WHOLE;	/* X224_NO_NEGOTIATION */

	data += FIXED_SIZE;
	if (whole < FIXED_SIZE + NEG_SIZE || le16(data + 2) != NEG_SIZE)
		goto malformed;
	if (data[0] == NEG_RESPONSE)
		answer->kind = X224_SELECTED;
	else if (data[0] == NEG_FAILURE)
		answer->kind = X224_FAILURE;
	else
		goto malformed;
	answer->value = le32(data + 4);
	return X224_WHOLE;

malformed:
	answer->why = "an X.224 confirm with a malformed negotiation part";
	return X224_REFUSED;
}

// SPDX-License-Identifier: GPL-2.0-only
#include "answer.h"

#define NLA_ONLY "; gnome-remote-desktop and KRdp insist on it and cannot be used here"
#define CURE \
	"set security_layer=rdp and crypt_level=none in xrdp.ini, or start FreeRDP's shadow server with /sec:rdp, or weston with --rdp4-key"

enum failure {
	SSL_REQUIRED_BY_SERVER = 1,
	SSL_NOT_ALLOWED_BY_SERVER,
	SSL_CERT_NOT_ON_SERVER,
	INCONSISTENT_FLAGS,
	HYBRID_REQUIRED_BY_SERVER,
	SSL_WITH_USER_AUTH_REQUIRED_BY_SERVER,
};

const char *answer_trouble(const struct x224_answer *answer)
{
	if (answer->kind == X224_NO_NEGOTIATION)
		return NULL;
	if (answer->kind == X224_SELECTED) {
		switch (answer->value) {
		case X224_PROTOCOL_RDP:
			return NULL;
		case X224_PROTOCOL_SSL:
			return "the server wants TLS, which the host does not speak here";
		default:
			return "the server wants CredSSP (NLA), which the host does not speak here";
		}
	}
	switch (answer->value) {
	case SSL_REQUIRED_BY_SERVER:
		return "the server refuses: it requires TLS (failure code 1)";
	case SSL_NOT_ALLOWED_BY_SERVER:
		return "the server refuses: it allows RDP's own security only (failure code 2)";
	case SSL_CERT_NOT_ON_SERVER:
		return "the server refuses: it has no certificate for TLS (failure code 3)";
	case INCONSISTENT_FLAGS:
		return "the server refuses: it finds the request inconsistent (failure code 4)";
	case HYBRID_REQUIRED_BY_SERVER:
		return "the server refuses: it requires CredSSP (NLA) (failure code 5)";
	case SSL_WITH_USER_AUTH_REQUIRED_BY_SERVER:
		return "the server refuses: it requires TLS with user login (failure code 6)";
	default:
		return "the server refuses with an unknown failure code";
	}
}

const char *answer_cure(const struct x224_answer *answer, bool rewritten)
{
	/* The server got a request for RDP's own security: it is its turn. */
	if (rewritten) {
		if (answer->kind == X224_SELECTED ||
		    answer->value == SSL_REQUIRED_BY_SERVER ||
		    answer->value == SSL_CERT_NOT_ON_SERVER)
			return CURE;
		return CURE NLA_ONLY;
	}
	return "use --security=rdp, and " CURE;
}

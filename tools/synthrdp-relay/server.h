/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the RDP server listens, and getting a connection to it.
 */
#ifndef SYNTHRDP_SERVER_H
#define SYNTHRDP_SERVER_H

#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

struct server_address {
	socklen_t size;
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_vm vm;
	};
};

struct server {
	const char *name;	/* as the user wrote it */
	unsigned int count;
	struct server_address addresses[8];
};

/*
 * unix:PATH, unix:@ABSTRACT, tcp:HOST:PORT or vsock:CID:PORT. A host name is
 * looked up here, once, where that may still take its time. Returns NULL, or
 * what is wrong with the text.
 */
const char *server_parse(struct server *server, const char *text);

/* One round of attempts, over all addresses of a server. */
struct server_attempt {
	const struct server *server;
	unsigned int next;
	int fd;			/* -1 unless connecting or connected */
	int error;		/* of the last address that failed */
};

enum server_state {
	SERVER_CONNECTED,	/* fd is the caller's */
	SERVER_CONNECTING,	/* call server_continue() when fd is writable */
	SERVER_FAILED,		/* error */
};

enum server_state server_start(struct server_attempt *attempt,
			       const struct server *server);
enum server_state server_continue(struct server_attempt *attempt);

/* Whether the same attempt may succeed once the server has started. */
bool server_may_come(int error);

/* What to do about an error. */
const char *server_advice(int error);

#endif

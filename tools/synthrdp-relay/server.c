// SPDX-License-Identifier: GPL-2.0-only
#include "server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Digits only: strtoul() would take signs and blanks as well. */
static bool parse_number(const char *text, unsigned int most, unsigned int *number)
{
	unsigned long long value;
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 10 || text[digits])
		return false;
	value = strtoull(text, NULL, 10);
	*number = (unsigned int)value;
	return value <= most;
}

static const char *parse_unix(struct server *server, const char *path)
{
	struct server_address *address = server->addresses;
	struct sockaddr_un *un = &address->un;
	size_t size = strlen(path);

	if (*path != '/' && (*path != '@' || size == 1))
		return "the socket's path must start with / (or @ for an abstract name)";
	if (size >= sizeof(un->sun_path))
		return "the socket's path is too long";
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, size);
	address->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
				    size);
	if (*path == '@')
		un->sun_path[0] = '\0';
	else
		address->size++;
	server->count = 1;
	return NULL;
}

static const char *parse_vsock(struct server *server, const char *text)
{
	struct server_address *address = server->addresses;
	struct sockaddr_vm *vm = &address->vm;
	const char *colon = strchr(text, ':');
	char cid[16];

	if (!colon || colon - text >= (ptrdiff_t)sizeof(cid))
		return "it must be vsock:CID:PORT";
	memcpy(cid, text, (size_t)(colon - text));
	cid[colon - text] = '\0';
	if (!parse_number(cid, VMADDR_CID_ANY - 1, &vm->svm_cid) ||
	    !parse_number(colon + 1, VMADDR_PORT_ANY - 1, &vm->svm_port))
		return "it must be vsock:CID:PORT, both of them numbers";
	vm->svm_family = AF_VSOCK;
	address->size = sizeof(*vm);
	server->count = 1;
	return NULL;
}

static const char *resolve(struct server *server, const char *host,
			   const char *port)
{
	const struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV,
	};
	struct addrinfo *list, *info;
	int error = getaddrinfo(host, port, &hints, &list);

	if (error)
		return error == EAI_SYSTEM ? strerror(errno) :
					     gai_strerror(error);
	for (info = list; info; info = info->ai_next) {
		struct server_address *address;

		if (server->count == sizeof(server->addresses) /
				     sizeof(*server->addresses))
			break;
		address = server->addresses + server->count;
		if (info->ai_addrlen > sizeof(*address) -
				       offsetof(struct server_address, any))
			continue;
		address->size = info->ai_addrlen;
		memcpy(&address->any, info->ai_addr, info->ai_addrlen);
		server->count++;
	}
	freeaddrinfo(list);
	return server->count ? NULL : "the host has no usable address";
}

static const char *parse_tcp(struct server *server, const char *text)
{
	static const char form[] = "it must be tcp:HOST:PORT, an IPv6 address in brackets";
	const char *colon = strrchr(text, ':');
	const char *host = text;
	unsigned int port;
	size_t size;
	char copy[256];

	if (!colon)
		return form;
	size = (size_t)(colon - text);
	if (size >= 2 && text[0] == '[' && colon[-1] == ']') {
		host++;
		size -= 2;
	} else if (memchr(text, ':', size)) {
		return form;
	}
	if (!size || size >= sizeof(copy))
		return form;
	if (!parse_number(colon + 1, UINT16_MAX, &port) || !port)
		return "the port must be a number from 1 to 65535";
	memcpy(copy, host, size);
	copy[size] = '\0';
	return resolve(server, copy, colon + 1);
}

const char *server_parse(struct server *server, const char *text)
{
	memset(server, 0, sizeof(*server));
	server->name = text;
	if (!strncmp(text, "unix:", 5))
		return parse_unix(server, text + 5);
	if (!strncmp(text, "tcp:", 4))
		return parse_tcp(server, text + 4);
	if (!strncmp(text, "vsock:", 6))
		return parse_vsock(server, text + 6);
	return "it must be unix:PATH, tcp:HOST:PORT or vsock:CID:PORT";
}

static enum server_state connected(const struct server_attempt *attempt)
{
	int on = 1;

	/* RDP is a dialogue of small packets. Other families have no Nagle. */
	setsockopt(attempt->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return SERVER_CONNECTED;
}

static void fail(struct server_attempt *attempt, int error)
{
	attempt->error = error;
	if (attempt->fd >= 0)
		close(attempt->fd);
	attempt->fd = -1;
}

static enum server_state try_rest(struct server_attempt *attempt)
{
	const struct server *server = attempt->server;

	while (attempt->next < server->count) {
		const struct server_address *address =
			server->addresses + attempt->next++;

		attempt->fd = socket(address->any.sa_family, SOCK_STREAM |
				     SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (attempt->fd >= 0) {
			if (!connect(attempt->fd, &address->any, address->size))
				return connected(attempt);
			if (errno == EINPROGRESS)
				return SERVER_CONNECTING;
		}
		fail(attempt, errno);
	}
	return SERVER_FAILED;
}

enum server_state server_start(struct server_attempt *attempt,
			       const struct server *server)
{
	attempt->server = server;
	attempt->next = 0;
	attempt->fd = -1;
	return try_rest(attempt);
}

enum server_state server_continue(struct server_attempt *attempt)
{
	socklen_t size = sizeof(int);
	int error = 0;

	if (getsockopt(attempt->fd, SOL_SOCKET, SO_ERROR, &error, &size))
		error = errno;
	if (!error)
		return connected(attempt);
	fail(attempt, error);
	return try_rest(attempt);
}

bool server_may_come(int error)
{
	switch (error) {
	case EACCES:		/* a socket is bound first and opened up then */
	case EADDRNOTAVAIL:
	case EAGAIN:		/* a unix socket whose backlog is full */
	case ECONNREFUSED:
	case ECONNRESET:	/* vsock: nobody listens */
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENODEV:		/* vsock: no such CID, or no transport yet */
	case ENOENT:
	case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

const char *server_advice(int error)
{
	switch (error) {
	case EACCES:
		return "let the relay's user connect there, for example by the socket's group";
	case EAFNOSUPPORT:
		return "this kernel lacks that kind of socket: load its module";
	case EAGAIN:
		return "the RDP server does not accept connections: is it stuck?";
	case ECONNREFUSED:
	case ECONNRESET:
	case ENOENT:
		return "start the RDP server, or correct --server to where it listens";
	default:
		return "correct --server to where the RDP server listens";
	}
}

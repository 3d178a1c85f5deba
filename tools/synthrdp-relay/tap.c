// SPDX-License-Identifier: GPL-2.0-only
#include "tap.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"

#ifndef TAP_SOCKET		/* tests have another */
#define TAP_SOCKET	"/run/synthrdpctl/capture"
#endif

static bool belongs_to_root(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) &&
	       !peer.uid;
}

void tap_open(struct tap *tap, const char *device, const char *server)
{
	static const struct sockaddr_un address = {
		.sun_family = AF_UNIX, .sun_path = TAP_SOCKET,
	};
	const int room = 1 << 20;	/* as much of it as may be had */
	char names[512];
	int size;

	*tap = (struct tap){
		.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK |
			     SOCK_CLOEXEC, 0),
	};
	if (tap->fd < 0)
		return;
	if (connect(tap->fd, (const struct sockaddr *)&address,
		    sizeof(address)) || !belongs_to_root(tap->fd)) {
		tap_close(tap);
		return;
	}
	setsockopt(tap->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	log_line(LOG_NOTICE, "%s: root captures this session", device);
	size = snprintf(names, sizeof(names), "%s%c%s", device, 0, server);
	if (size >= (int)sizeof(names))
		size = sizeof(names) - 1;
	tap_data(tap, TAP_HELLO, names, (size_t)size + 1);
}

void tap_data(struct tap *tap, enum tap_kind kind, const void *data,
	      size_t size)
{
	struct tap_header header = {
		.kind = kind, .offset = tap->offset[kind],
	};
	struct iovec parts[] = {
		{ &header, sizeof(header) },
		{ (void *)data, size },
	};
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	if (tap->fd < 0 || !size)
		return;
	tap->offset[kind] += size;
	if (sendmsg(tap->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    errno != EAGAIN && errno != EMSGSIZE && errno != EINTR)
		tap_close(tap);
}

void tap_close(struct tap *tap)
{
	if (tap->fd >= 0)
		close(tap->fd);
	tap->fd = -1;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The relay's work over uio_hv_generic: uio_relay /dev/uioN unix-socket.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "stream.h"
#include "uio.h"

/* Bytes under way in one direction */
struct flow {
	size_t start, end;
	unsigned char data[STREAM_BUFFER];
};

static struct flow up, down;

static size_t room(const struct flow *flow)
{
	return STREAM_BUFFER - flow->end;
}

static void filled(struct flow *flow, ssize_t size)
{
	if (size > 0)
		flow->end += size;
}

static void drained(struct flow *flow, ssize_t size)
{
	if (size > 0)
		flow->start += size;
	if (flow->start == flow->end) {
		flow->start = 0;
		flow->end = 0;
	}
}

static int reach(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die(path);
	return fd;
}

static void from_server(int server)
{
	ssize_t got = read(server, down.data + down.end, room(&down));

	if (!got)
		exit(0);
	if (got < 0 && errno != EAGAIN)
		die("server");
	filled(&down, got);
}

static void to_server(int server)
{
	ssize_t put = write(server, up.data + up.start, up.end - up.start);

	if (put < 0 && errno != EAGAIN)
		die("server");
	drained(&up, put);
}

int main(int argc, char **argv)
{
	struct rings *rings;
	struct pollfd fds[2];

	if (argc != 3)
		return 2;
	rings = rings_open(argv[1]);
	fds[0] = (struct pollfd){ .fd = rings_fd(rings), .events = POLLIN };
	fds[1].fd = reach(argv[2]);

	for (;;) {
		if (room(&up))
			filled(&up, rings_read(rings, up.data + up.end,
					       room(&up)));
		if (up.start < up.end)
			to_server(fds[1].fd);
		while (down.start < down.end) {
			ssize_t put = rings_write(rings, down.data + down.start,
						  down.end - down.start);

			if (put < 0)
				break;
			drained(&down, put);
		}
		if (!rings_listen(rings, room(&up), down.start < down.end))
			continue;
		fds[1].events = (room(&down) ? POLLIN : 0) |
				(up.start < up.end ? POLLOUT : 0);
		if (poll(fds, 2, -1) < 0)
			die("poll");
		if (fds[0].revents)
			rings_woken(rings);
		if (fds[1].revents & (POLLIN | POLLHUP))
			from_server(fds[1].fd);
	}
}

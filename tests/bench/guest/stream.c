// SPDX-License-Identifier: GPL-2.0-only
#include "stream.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

/*
 * The sizes of its buffers are those that hv_sock wants for its rings, and the
 * kernel doubles what it is told: this makes for rings like the driver's.
 */
#define HALF_A_RING	(65536 / 2)

void die(const char *what)
{
	perror(what);
	exit(1);
}

static ssize_t file_read(struct stream *stream, void *data, size_t size)
{
	return read(stream->fd, data, size);
}

static ssize_t file_write(struct stream *stream, const void *data, size_t size)
{
	return write(stream->fd, data, size);
}

static bool file_readable(struct stream *stream)
{
	struct pollfd fd = { .fd = stream->fd, .events = POLLIN };

	return poll(&fd, 1, 0) > 0;
}

void stream_of_file(struct stream *stream, int fd)
{
	*stream = (struct stream){
		.read = file_read, .write = file_write,
		.readable = file_readable, .fd = fd,
	};
}

void stream_read_all(struct stream *stream, void *data, size_t size)
{
	char *at = data;
	ssize_t got;

	for (; size; size -= got, at += got) {
		got = stream->read(stream, at, size);
		if (got < 0)
			die("read");
		if (!got)
			exit(0);	/* the host is done */
	}
}

void stream_write_all(struct stream *stream, const void *data, size_t size)
{
	const char *at = data;
	ssize_t put;

	for (; size; size -= put, at += put) {
		put = stream->write(stream, at, size);
		if (put < 0)
			die("write");
	}
}

int listen_at(const char *address)
{
	struct sockaddr_vm vm = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY,
	};
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	const char *name = strchr(address, ':') + 1;
	const int half = HALF_A_RING;
	int listener, ret;

	if (!strncmp(address, "unix", 4)) {
		snprintf(un.sun_path, sizeof(un.sun_path), "%s", name);
		unlink(name);
		listener = socket(AF_UNIX, SOCK_STREAM, 0);
		ret = bind(listener, (struct sockaddr *)&un, sizeof(un));
	} else {
		vm.svm_port = atoi(name);
		listener = socket(AF_VSOCK, SOCK_STREAM, 0);
		setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
		setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &half, sizeof(half));
		ret = bind(listener, (struct sockaddr *)&vm, sizeof(vm));
	}
	if (ret || listen(listener, 8))
		die(address);
	puts("listening");
	fflush(stdout);
	return listener;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Streams without a host: what no transport can do without.
 *
 * Copies: each packet is copied within memory, as from a ring that the host can
 * write to, and by the kernel from or to user memory, here that of a file in
 * memory. A pair: the packets pass through a socketpair, and another process
 * plays the host.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stream.h"

static unsigned char memory[STREAM_BUFFER];
static size_t packet;

/* As the kernel's memcpy() does */
static void copy(void *to, const void *from, size_t size)
{
	__asm__ volatile("rep movsb"
			 : "+D" (to), "+S" (from), "+c" (size) : : "memory");
}

static ssize_t copies_read(struct stream *stream, void *data, size_t size)
{
	static unsigned char copied[STREAM_BUFFER];

	if (size > packet)
		size = packet;
	copy(copied, memory, size);
	return pread(stream->fd, data, size, 0);
}

static ssize_t copies_write(struct stream *stream, const void *data, size_t size)
{
	copy(memory, data, size);
	return pwrite(stream->fd, data, size, 0);
}

void stream_of_copies(struct stream *stream, size_t chunk)
{
	static int file;

	packet = chunk;
	if (!file) {
		file = memfd_create("packets", 0);
		if (file < 0 || ftruncate(file, STREAM_BUFFER) ||
		    pwrite(file, memory, STREAM_BUFFER, 0) < 0)
			die("memfd");
	}
	*stream = (struct stream){
		.read = copies_read, .write = copies_write, .fd = file,
	};
}

/* The host of a pair sends and takes as much as the other end takes and sends. */
static void play_host(int fd, size_t down, size_t up)
{
	ssize_t moved;

	while (down || up) {
		if (down) {
			moved = write(fd, memory, down < packet ? down : packet);
			if (moved < 0)
				_exit(1);
			down -= moved;
		}
		if (up) {
			moved = read(fd, memory, sizeof(memory));
			if (moved <= 0)
				_exit(1);
			up -= moved;
		}
	}
	_exit(0);
}

void stream_of_pair(struct stream *stream, size_t chunk, size_t down, size_t up)
{
	static int ends[2] = { -1, -1 };

	if (ends[0] >= 0)
		close(ends[0]);
	packet = chunk;
	signal(SIGCHLD, SIG_IGN);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		die("socketpair");
	if (!fork()) {
		close(ends[0]);
		/* Not before the other end says so: it is measured from there. */
		if (read(ends[1], memory, 2) != 2)
			_exit(1);
		play_host(ends[1], down, up);
	}
	close(ends[1]);
	stream_of_file(stream, ends[0]);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The same work on each of the sides that are compared, as the host commands it:
 *
 *	peer node:PATH		a device node
 *	peer unix:PATH		a relay comes to this socket
 *	peer vsock:PORT		the host comes to this socket
 *	peer uio:PATH		rings of uio_hv_generic
 *	peer copies:NODE	no transport: copies of the same packets only
 *	peer pair:NODE		no host: a socketpair to another process
 *	peer unix-answer:PATH	relays come here, one after the other, for an answer only
 *
 * It first answers an X.224 connection request, as the relay demands of a server.
 * copies and pair take the commands from a node, but not the data.
 */
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "stream.h"

#define PERIOD	65536		/* of the pattern that is sent */

#define KEY	64		/* bytes of a keystroke, and of the answer */

enum { DOWN = 1, UP, ECHO, MIX, KEYS };

struct command {
	__u32 op;
	__u32 chunk;		/* bytes of a write */
	__u64 bytes;		/* MIX: of the steps that follow; KEYS: of keys */
};

/* Of a recorded session */
struct step {
	__u32 ms;		/* after the beginning */
	__s32 size;		/* sent by the host, or -size to it */
};

/* What begins an answer to a key, and a write beside them */
struct record {
	__u32 is_key;
	__u32 size;
};

static const unsigned char accepted[] = {
	0x03, 0, 0, 0x13, 0x0e, 0xd0, 0, 0, 0, 0, 0,
	0x02, 0, 0x08, 0, 0, 0, 0, 0,
};

static unsigned char pattern[PERIOD + STREAM_BUFFER];
static unsigned char buffer[STREAM_BUFFER];

static void make_pattern(void)
{
	__u32 random = 1;
	size_t i;

	for (i = 0; i < PERIOD; i++) {
		random = random * 1103515245 + 12345;
		pattern[i] = random >> 16;
	}
	memcpy(pattern + PERIOD, pattern, STREAM_BUFFER);
}

static size_t at_most(__u64 left, size_t size)
{
	return left < size ? left : size;
}

static void down(struct stream *data, __u64 bytes)
{
	ssize_t got;

	for (; bytes; bytes -= got) {
		got = data->read(data, buffer, at_most(bytes, sizeof(buffer)));
		if (got <= 0)
			die("down");
	}
}

static void up(struct stream *data, __u64 bytes, size_t chunk)
{
	__u64 at;
	size_t size;

	for (at = 0; at < bytes; at += size) {
		size = at_most(bytes - at, chunk);
		stream_write_all(data, pattern + at % PERIOD, size);
	}
}

static void echo(struct stream *data, __u64 bytes)
{
	ssize_t got;

	for (; bytes; bytes -= got) {
		got = data->read(data, buffer, at_most(bytes, sizeof(buffer)));
		if (got <= 0)
			die("echo");
		stream_write_all(data, buffer, got);
	}
}

static void sleep_until(struct timespec start, __u32 ms)
{
	start.tv_sec += ms / 1000;
	start.tv_nsec += ms % 1000 * 1000000;
	if (start.tv_nsec >= 1000000000) {
		start.tv_sec++;
		start.tv_nsec -= 1000000000;
	}
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &start, NULL);
}

static void mix(struct stream *data, const struct step *steps, size_t count)
{
	struct timespec start;
	ssize_t got, ahead = 0;		/* read, of what is not yet due */
	size_t at = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (; count; count--, steps++) {
		if (steps->size < 0) {
			if (steps->ms)
				sleep_until(start, steps->ms);
			stream_write_all(data, pattern + at % PERIOD,
					 -steps->size);
			at += -steps->size;
			continue;
		}
		for (; ahead < steps->size; ahead += got) {
			got = data->read(data, buffer, sizeof(buffer));
			if (got <= 0)
				die("mix");
		}
		ahead -= steps->size;
	}
}

/* Answers keys, and writes as much as it can besides, as long as none waits. */
static void keys(struct stream *data, __u64 bytes, size_t chunk)
{
	static unsigned char bulk[STREAM_BUFFER];
	const struct record record = { .size = chunk };

	memcpy(bulk, &record, sizeof(record));
	while (bytes) {
		if (chunk && !data->readable(data)) {
			stream_write_all(data, bulk, chunk);
			continue;
		}
		stream_read_all(data, buffer, KEY);
		stream_write_all(data, buffer, KEY);
		bytes -= KEY;
	}
}

static void open_side(struct stream *stream, const char *side)
{
	const char *name = strchr(side, ':');
	int fd;

	if (!name)
		die(side);
	if (!strncmp(side, "uio:", 4)) {
		stream_of_rings(stream, name + 1);
		return;
	}
	if (!strncmp(side, "unix:", 5) || !strncmp(side, "vsock:", 6))
		fd = accept(listen_at(side), NULL, NULL);
	else
		fd = open(name + 1, O_RDWR);
	if (fd < 0)
		die(side);
	stream_of_file(stream, fd);
}

static void answer_all(int listener)
{
	struct stream stream;
	int fd;

	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		stream_of_file(&stream, fd);
		stream_read_all(&stream, buffer, sizeof(accepted));
		stream_write_all(&stream, accepted, sizeof(accepted));
		while (read(fd, buffer, sizeof(buffer)) > 0)
			;
		close(fd);
	}
}

int main(int argc, char **argv)
{
	struct stream commands, data;
	struct command command;
	struct step *steps = NULL;
	const char *side;

	if (argc != 2)
		return 2;
	side = argv[1];
	make_pattern();
	memset(buffer, 0, sizeof(buffer));
	if (!strncmp(side, "unix-answer:", 12))
		answer_all(listen_at(side));
	open_side(&commands, side);
	data = commands;
	stream_read_all(&commands, buffer, sizeof(accepted));
	stream_write_all(&commands, accepted, sizeof(accepted));

	for (;;) {
		stream_read_all(&commands, &command, sizeof(command));
		if (!strncmp(side, "copies:", 7))
			stream_of_copies(&data, command.chunk);
		if (!strncmp(side, "pair:", 5))
			stream_of_pair(&data, command.chunk,
				       command.op == UP ? 0 : command.bytes,
				       command.op == DOWN ? 0 : command.bytes);
		if (command.op == MIX) {
			steps = realloc(steps, command.bytes);
			if (!steps)
				die("realloc");
			stream_read_all(&commands, steps, command.bytes);
		}
		/* Everything is at hand: what comes now is measured. */
		stream_write_all(&commands, "ready", 5);
		stream_read_all(&commands, buffer, 2);
		if (!strncmp(side, "pair:", 5))
			stream_write_all(&data, buffer, 2);
		switch (command.op) {
		case DOWN:
			down(&data, command.bytes);
			break;
		case UP:
			up(&data, command.bytes, command.chunk);
			break;
		case ECHO:
			echo(&data, command.bytes);
			break;
		case MIX:
			mix(&data, steps, command.bytes / sizeof(*steps));
			break;
		case KEYS:
			keys(&data, command.bytes, command.chunk);
			break;
		}
		stream_write_all(&commands, "done", 4);
	}
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the measured programs read from and write to: a stream of bytes.
 */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What one call may carry: more than any ring here holds. */
#define STREAM_BUFFER	65536

struct stream {
	/* Both sleep until something can be done, and then do what they can. */
	ssize_t (*read)(struct stream *stream, void *data, size_t size);
	ssize_t (*write)(struct stream *stream, const void *data, size_t size);
	/* Whether read would not sleep; a file or rings. */
	bool (*readable)(struct stream *stream);
	int fd;
	struct rings *rings;
};

/* A node, or a socket */
void stream_of_file(struct stream *stream, int fd);

/* See uio.c and bounds.c. */
void stream_of_rings(struct stream *stream, const char *path);
void stream_of_copies(struct stream *stream, size_t chunk);
void stream_of_pair(struct stream *stream, size_t chunk, size_t down,
		    size_t up);

/* All or nothing: what fails ends the program. */
void stream_read_all(struct stream *stream, void *data, size_t size);
void stream_write_all(struct stream *stream, const void *data, size_t size);

/* Listens at unix...:PATH or vsock:PORT, and says so. */
int listen_at(const char *address);

void die(const char *what);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The rings of a VMBus channel, mapped by way of uio_hv_generic.
 */
#ifndef BENCH_UIO_H
#define BENCH_UIO_H

#include <stdbool.h>
#include <sys/types.h>

struct rings;

struct rings *rings_open(const char *path);

/* To poll for reading. Wait, or take notice, when the host has signalled. */
int rings_fd(const struct rings *rings);
void rings_woken(struct rings *rings);

/* Never sleep: -1 when nothing is there, or no room for a whole packet. */
ssize_t rings_read(struct rings *rings, void *data, size_t size);
ssize_t rings_write(struct rings *rings, const void *data, size_t size);

/*
 * Have the host signal from now on that there is something to read, or room to
 * write to. False: there is already, so do not sleep.
 */
bool rings_listen(struct rings *rings, bool to_read, bool to_write);

#endif

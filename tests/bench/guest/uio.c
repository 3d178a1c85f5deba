// SPDX-License-Identifier: GPL-2.0-only
/*
 * A VMBus pipe in user space, as a correct program over uio_hv_generic has it.
 *
 * Signals are sent when the host needs them and no others, with one exception:
 * the only way to send one is the write(2) that also unmasks ours. The mask
 * itself is in the ring, and so costs no system call.
 */
#include "uio.h"

#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stream.h"

#define PAGE		4096
#define MOST		16384		/* data of one packet */
#define INBAND		6
#define DATA		1

struct ring {
	__u32 *header;			/* the host's to change, too */
	unsigned char *data;
	__u32 size;
};

/* Words of a header */
enum { WRITE, READ, MASK, PENDING };

struct packet {
	__u16 type, offset8, len8, flags;
	__u64 transaction;
	__u32 pipe_type, pipe_size;
};

struct rings {
	int fd;
	struct ring out, in;
	__u32 at;			/* of the data of a packet being read */
	__u32 left;
	__u32 next;			/* the packet behind it */
};

static __u32 look(const struct ring *ring, int word)
{
	return __atomic_load_n(ring->header + word, __ATOMIC_RELAXED);
}

static void set(struct ring *ring, int word, __u32 value)
{
	__atomic_store_n(ring->header + word, value, __ATOMIC_RELAXED);
}

static void barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static __u32 used(const struct ring *ring, __u32 read, __u32 write)
{
	return write >= read ? write - read : write + ring->size - read;
}

static __u32 advance(const struct ring *ring, __u32 at, __u32 by)
{
	at += by;
	return at >= ring->size ? at - ring->size : at;
}

static void copy_out(const struct ring *ring, __u32 at, void *to,
		     __u32 size)
{
	__u32 first = ring->size - at;

	if (first > size)
		first = size;
	memcpy(to, ring->data + at, first);
	memcpy((char *)to + first, ring->data, size - first);
}

static __u32 copy_in(const struct ring *ring, __u32 at, const void *from,
		     __u32 size)
{
	__u32 first = ring->size - at;

	if (first > size)
		first = size;
	memcpy(ring->data + at, from, first);
	memcpy(ring->data, (const char *)from + first, size - first);
	return advance(ring, at, size);
}

struct rings *rings_open(const char *path)
{
	struct rings *rings = calloc(1, sizeof(*rings));
	unsigned char *memory;
	char name[128];
	FILE *file;
	size_t size;

	if (!rings)
		die("calloc");
	snprintf(name, sizeof(name), "/sys/class/uio/%s/maps/map0/size",
		 strrchr(path, '/') + 1);
	file = fopen(name, "r");
	if (!file)
		die(name);
	if (fscanf(file, "%zx", &size) != 1)
		die(name);
	fclose(file);

	rings->fd = open(path, O_RDWR);
	if (rings->fd < 0)
		die(path);
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, rings->fd,
		      0);
	if (memory == MAP_FAILED)
		die("mmap");
	rings->out.header = (void *)memory;
	rings->out.data = memory + PAGE;
	rings->out.size = size / 2 - PAGE;
	rings->in.header = (void *)(memory + size / 2);
	rings->in.data = memory + size / 2 + PAGE;
	rings->in.size = size / 2 - PAGE;
	rings->next = look(&rings->in, READ);
	set(&rings->in, MASK, 1);
	return rings;
}

int rings_fd(const struct rings *rings)
{
	return rings->fd;
}

static void signal_host(struct rings *rings)
{
	const __s32 on = 1;

	if (write(rings->fd, &on, sizeof(on)) != sizeof(on))
		die("signal");
	set(&rings->in, MASK, 1);
}

void rings_woken(struct rings *rings)
{
	__s32 events;

	/* Sleeps, if nothing has happened since this was called last. */
	if (read(rings->fd, &events, sizeof(events)) != sizeof(events))
		die("uio");
	set(&rings->in, MASK, 1);
}

static bool next_packet(struct rings *rings)
{
	struct ring *in = &rings->in;
	__u32 write = look(in, WRITE);
	struct packet packet;
	__u32 avail;

	if (write >= in->size)
		die("write index");
	avail = used(in, rings->next, write);
	if (!avail)
		return false;
	/* The index first, then what is below it. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	copy_out(in, rings->next, &packet, sizeof(packet));
	if (packet.type != INBAND || packet.pipe_type != DATA ||
	    packet.pipe_size > MOST || packet.len8 * 8u + 8 > avail ||
	    packet.offset8 != 2 || packet.pipe_size + 24 > packet.len8 * 8u)
		die("malformed packet");
	rings->at = advance(in, rings->next, sizeof(packet));
	rings->left = packet.pipe_size;
	rings->next = advance(in, rings->next, packet.len8 * 8 + 8);
	return true;
}

/* Give room back, and signal if the host waits for as much. */
static void publish(struct rings *rings, __u32 until)
{
	struct ring *in = &rings->in;
	__u32 before = look(in, READ), write, wanted;
	__u32 room_before, room;

	/* What was read first, then the index. */
	barrier();
	set(in, READ, until);
	barrier();
	wanted = look(in, PENDING);
	if (!wanted)
		return;
	write = look(in, WRITE);
	room_before = in->size - used(in, before, write);
	room = in->size - used(in, until, write);
	if (room_before <= wanted && room > wanted)
		signal_host(rings);
}

ssize_t rings_read(struct rings *rings, void *data, size_t size)
{
	struct ring *in = &rings->in;
	__u32 whole = rings->next;
	size_t got = 0, part;

	/* The packet that is being read keeps its room. */
	if (rings->left)
		whole = look(in, READ);
	while (got < size) {
		if (!rings->left && !next_packet(rings))
			break;
		part = rings->left < size - got ? rings->left : size - got;
		copy_out(in, rings->at, (char *)data + got, part);
		rings->at = advance(in, rings->at, part);
		rings->left -= part;
		got += part;
		if (!rings->left)
			whole = rings->next;
	}
	if (whole != look(in, READ))
		publish(rings, whole);
	return got ? (ssize_t)got : -1;
}

/* Most that one packet can carry now: the ring must not become quite full. */
static __u32 room(const struct ring *out)
{
	__u32 free = out->size - used(out, look(out, READ), look(out, WRITE));

	if (free <= sizeof(struct packet) + 8 + 8)
		return 0;
	free = (free - 1) / 8 * 8 - sizeof(struct packet) - 8;
	return free < MOST ? free : MOST;
}

ssize_t rings_write(struct rings *rings, const void *data, size_t size)
{
	static const unsigned char zeros[8];
	struct ring *out = &rings->out;
	__u32 at = look(out, WRITE), begin = at;
	struct packet packet = { .type = INBAND, .offset8 = 2 };
	__u64 trailer;

	if (size > MOST)
		size = MOST;
	if (room(out) < size)
		return -1;
	set(out, PENDING, 0);
	packet.len8 = (sizeof(packet) + size + 7) / 8;
	packet.pipe_type = DATA;
	packet.pipe_size = size;
	at = copy_in(out, at, &packet, sizeof(packet));
	at = copy_in(out, at, data, size);
	at = copy_in(out, at, zeros, packet.len8 * 8 - sizeof(packet) - size);
	trailer = (__u64)begin << 32;
	at = copy_in(out, at, &trailer, sizeof(trailer));
	barrier();
	set(out, WRITE, at);
	barrier();
	/* A ring that was empty, unless the host looks anyway */
	if (!look(out, MASK) && look(out, READ) == begin)
		signal_host(rings);
	return size;
}

bool rings_listen(struct rings *rings, bool to_read, bool to_write)
{
	if (to_read)
		set(&rings->in, MASK, 0);
	/* Room for the largest packet: less is not worth a wake-up. */
	if (to_write)
		set(&rings->out, PENDING, sizeof(struct packet) + MOST + 8);
	barrier();
	if ((to_read && rings->next != look(&rings->in, WRITE)) ||
	    (to_write && room(&rings->out) == MOST)) {
		set(&rings->in, MASK, 1);
		return false;
	}
	return true;
}

static ssize_t stream_read(struct stream *stream, void *data, size_t size)
{
	ssize_t got;

	while ((got = rings_read(stream->rings, data, size)) < 0) {
		if (rings_listen(stream->rings, true, false))
			rings_woken(stream->rings);
	}
	return got;
}

static ssize_t stream_write(struct stream *stream, const void *data,
			    size_t size)
{
	ssize_t put;

	while ((put = rings_write(stream->rings, data, size)) < 0) {
		if (rings_listen(stream->rings, false, true))
			rings_woken(stream->rings);
	}
	return put;
}

static bool stream_readable(struct stream *stream)
{
	const struct rings *rings = stream->rings;

	return rings->left || rings->next != look(&rings->in, WRITE);
}

void stream_of_rings(struct stream *stream, const char *path)
{
	*stream = (struct stream){
		.read = stream_read, .write = stream_write,
		.readable = stream_readable, .fd = -1,
		.rings = rings_open(path),
	};
}

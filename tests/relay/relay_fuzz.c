// SPDX-License-Identifier: GPL-2.0-only
/*
 * For libFuzzer: a whole session of the relay, in a world made of the input.
 *
 * The relay's own code runs, from the opening of the device to its end. The
 * system calls that it makes are answered here (by the linker's --wrap), and so
 * are the clock, the signals and the log. The input is a script: what client,
 * server, clock and administrator do, a step at each of the relay's polls (but
 * for pauses) and more while it would sleep. After the last step both sides
 * take all they are given, and when the relay would then sleep for ever, the
 * client leaves.
 *
 * Whatever the script is, what must hold:
 *
 * - a byte that is delivered is the next one that was sent, the client's
 *   request being rewritten by the rules of x224.h, and whole before anybody
 *   connects;
 * - all of it is delivered when one side ends well and the other takes it;
 * - the relay does not poll in vain, nor for ever, and sleeps no longer than
 *   its deadlines;
 * - each descriptor is closed, once.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "relay.h"
#include "server.h"
#include "signals.h"
#include "tap.h"
#include "x224.h"

#define MUST(condition) ((condition) ? (void)0 : abort())

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

#define MOST		0x100000	/* bytes that one side ever sends */
#define IN_VAIN		4		/* polls that bring nothing */
#define LONGEST_MS	(30 * 1000 + 10 * 1000)
#define NAME		"/dev/synthrdp0"

/* Descriptors that no real one is as high as. */
enum { DEVICE = 0x100000, SERVER };

/* One of the relay's two sides. */
struct side {
	int fd;			/* -1: closed, or not yet open */
	unsigned char *sent;
	size_t sent_size, taken;	/* of it, by the relay */
	size_t room;		/* bytes that it takes of the relay */
	size_t got;		/* from the relay */
	bool ended, reset;	/* nothing more comes; nothing goes, either */
	bool end_seen;
	int error;		/* what read says at the end */
};

static struct world {
	const unsigned char *script, *script_end;
	bool running;
	long long now, last_step;
	int stop;
	struct side device, server;
	bool rewrite, connected, connecting, shut;
	bool clock_moved, stopped;
	int connect_error;	/* of the next attempt; EINPROGRESS: later */
	size_t limit;		/* bytes of one read or write */
	unsigned int pause;	/* polls, as far as they find something */
	unsigned int in_vain;
} world;

/* Nobody captures here. */

void tap_open(struct tap *tap, const char *device, const char *server)
{
	MUST(device && server);
	tap->fd = -1;
}

void tap_data(struct tap *tap, enum tap_kind kind, const void *data,
	      size_t size)
{
	MUST(tap->fd == -1 && kind != TAP_HELLO && data && size <= MOST);
}

void tap_close(struct tap *tap)
{
	MUST(tap->fd == -1);
}

/* Script */

static unsigned int next(void)
{
	return world.script < world.script_end ? *world.script++ : 0;
}

/* The next bytes of a side: of the script, or of a pattern. */
static void say(struct side *side, size_t size, bool literal)
{
	static unsigned char pattern[MOST];
	size_t i;

	if (side->ended)
		return;
	if (size > MOST - side->sent_size)
		size = MOST - side->sent_size;
	for (i = pattern[1] ? MOST : 0; i < MOST; i++)
		pattern[i] = i * 7 + (i >> 8);
	if (!literal)
		memcpy(side->sent + side->sent_size, pattern + side->sent_size,
		       size);
	for (i = 0; literal && i < size; i++)
		side->sent[side->sent_size + i] = next();
	side->sent_size += size;
}

static void end_side(struct side *side, int error, bool reset)
{
	if (side->ended && !reset)
		return;
	if (!side->ended)
		side->error = error;
	side->ended = true;
	side->reset |= reset;
}

static void client_leaves(int error)
{
	end_side(&world.device, error, true);
}

/* Does it end the relay's sleep by itself? */
static bool step(void)
{
	static const int ends[] = { 0, 0, EPROTO, EIO };
	static const int outcomes[] = { 0, EINPROGRESS, ECONNREFUSED, ENOENT,
					EAGAIN, EACCES, EPERM, ETIMEDOUT };
	unsigned int what = next();
	int outcome;

	world.last_step = world.now;
	world.in_vain = 0;
	switch (what & 0xf) {
	case 0:
		say(&world.device, next() & 0x7f, true);
		break;
	case 1:
		say(&world.server, next() & 0x7f, true);
		break;
	case 2:
		say(&world.device, next() << 9, false);
		break;
	case 3:
		say(&world.server, next() << 9, false);
		break;
	case 4:
		world.device.room += next() << 8;
		break;
	case 5:
		world.server.room += next() << 8;
		break;
	case 6:
		client_leaves(ends[next() & 3]);
		break;
	case 7:
		what = next();
		if (world.connected)
			end_side(&world.server, what & 2 ? ECONNRESET : 0,
				 what & 3);
		break;
	case 8:
		world.now += next() * 200;
		world.last_step = world.now;
		world.clock_moved = true;
		break;
	case 9:
		world.stop = SIGTERM;
		world.stopped = true;
		return true;
	case 10:
		world.connect_error = outcomes[next() & 7];
		break;
	case 11:
		outcome = outcomes[next() & 7];
		if (outcome == EINPROGRESS)
			break;
		world.connect_error = outcome;
		world.connecting = false;
		break;
	case 12:
		return true;
	case 13:
		world.limit = next();
		break;
	case 14:
		world.pause = next();
		break;
	}
	return false;
}

/* Everybody takes all: what is under way must arrive. */
static void last_step(void)
{
	world.device.room = MOST;
	world.server.room = MOST;
	world.limit = 0;
	if (world.connecting) {
		world.connecting = false;
		world.connect_error = 0;
	}
	/* A server whose client has gone goes, too. */
	if (world.shut && !world.server.ended)
		end_side(&world.server, 0, true);
}

/* System calls */

static struct side *side_of(int fd)
{
	struct side *side = fd == DEVICE ? &world.device : &world.server;

	MUST(fd == side->fd && (side == &world.device || world.connected));
	return side;
}

static size_t limited(size_t size)
{
	return world.limit && size > world.limit ? world.limit : size;
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	if (!world.running)
		return REAL(open)(path, flags, mode);
	MUST(!strcmp(path, NAME) && world.device.fd < 0);
	return world.device.fd = DEVICE;
}

ssize_t __wrap_read(int fd, void *data, size_t size)
{
	struct side *side;
	size_t left;

	if (!world.running)
		return REAL(read)(fd, data, size);
	side = side_of(fd);
	MUST(size);
	left = side->sent_size - side->taken;
	if (left && !(side->reset && side->error == ECONNRESET)) {
		size = limited(size < left ? size : left);
		memcpy(data, side->sent + side->taken, size);
		side->taken += size;
		world.in_vain = 0;
		return size;
	}
	if (!side->ended) {
		errno = EAGAIN;
		return -1;
	}
	if (!side->end_seen)
		world.in_vain = 0;
	side->end_seen = true;
	errno = side->error;
	return errno ? -1 : 0;
}

/* The client's bytes as the server is to get them. */
static void rewrite_request(void)
{
	struct x224_request request;

	MUST(x224_parse_request(world.device.sent, world.device.taken,
				&request) == X224_WHOLE);
	if (world.rewrite)
		x224_rewrite_request(world.device.sent, &request);
}

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
	struct side *side, *other;

	if (!world.running)
		return REAL(write)(fd, data, size);
	side = side_of(fd);
	other = side == &world.device ? &world.server : &world.device;
	MUST(size && world.connected && !(side == &world.server && world.shut));
	if (side->reset) {
		errno = side == &world.device ? ENODEV : EPIPE;
		world.in_vain = 0;
		return -1;
	}
	MUST(size <= other->taken - side->got);
	MUST(!memcmp(data, other->sent + side->got, size));
	size = limited(size < side->room ? size : side->room);
	if (!size) {
		errno = EAGAIN;
		return -1;
	}
	side->room -= size;
	side->got += size;
	world.in_vain = 0;
	return size;
}

int __wrap_close(int fd)
{
	if (!world.running)
		return REAL(close)(fd);
	if (fd == DEVICE) {
		MUST(world.device.fd == fd);
		world.device.fd = -1;
	} else {
		MUST(fd == SERVER && world.server.fd == fd);
		world.server.fd = -1;
	}
	return 0;
}

int __wrap_shutdown(int fd, int how)
{
	MUST(side_of(fd) == &world.server && how == SHUT_WR && !world.shut);
	world.shut = true;
	world.in_vain = 0;
	return 0;
}

int __wrap_socket(int family, int type, int protocol)
{
	MUST(family == AF_UNIX && type & SOCK_NONBLOCK && !protocol);
	MUST(world.server.fd < 0 && !world.connected);
	return world.server.fd = SERVER;
}

static int connected(void)
{
	if (world.connect_error) {
		errno = world.connect_error;
		return -1;
	}
	world.connected = true;
	rewrite_request();
	return 0;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
	MUST(fd == SERVER && world.server.fd == fd && address && size);
	world.in_vain = 0;
	world.connecting = world.connect_error == EINPROGRESS;
	return connected();
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
	MUST(fd == SERVER && world.server.fd == fd && !world.connected);
	MUST(level == SOL_SOCKET && name == SO_ERROR && *size == sizeof(int));
	world.in_vain = 0;
	*(int *)value = connected() ? errno : 0;
	return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	MUST(fd == SERVER && level >= 0 && name && value && size);
	return 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
	if (!world.running)
		return REAL(clock_gettime)(clock, time);
	time->tv_sec = world.now / 1000;
	time->tv_nsec = world.now % 1000 * 1000000L;
	return 0;
}

/* Poll, signals and the log */

static short ready(const struct pollfd *pollfd)
{
	const struct side *side;
	short found = 0;

	if (pollfd->fd < 0)
		return 0;
	if (pollfd->fd == SERVER && !world.connected)
		return world.connecting ? 0 : POLLOUT & pollfd->events;
	side = side_of(pollfd->fd);
	if (side->taken < side->sent_size || side->ended)
		found |= POLLIN;
	if (side->reset)
		found |= POLLHUP | (side->error ? POLLERR : 0);
	if (side->room || side->reset)
		found |= POLLOUT;
	return found & (pollfd->events | POLLHUP | POLLERR);
}

static bool look(struct pollfd *fds, nfds_t count)
{
	bool any = false;
	nfds_t i;

	for (i = 0; i < count; i++) {
		fds[i].revents = ready(fds + i);
		any |= !!fds[i].revents;
	}
	return any;
}

/* Is there anything to see after the next step? */
static bool look_after_step(struct pollfd *fds, nfds_t count)
{
	nfds_t i;

	if (world.script == world.script_end) {
		last_step();
	} else if (step()) {
		for (i = 0; i < count; i++)
			fds[i].revents = 0;
		return true;
	}
	return look(fds, count);
}

void signals_hold(void)
{
}

int signals_stop(void)
{
	return world.stop;
}

int signals_poll(struct pollfd *fds, nfds_t count, int timeout)
{
	long long until = world.now + timeout;

	MUST(world.running && timeout >= -1);
	MUST(++world.in_vain < IN_VAIN);
	if (world.pause && look(fds, count)) {
		world.pause--;
		return 0;
	}
	while (!look_after_step(fds, count) &&
	       (timeout < 0 || world.now < until)) {
		if (world.script < world.script_end)
			continue;
		world.in_vain = 0;
		if (timeout < 0) {
			MUST(!world.device.reset);
			client_leaves(0);
		} else {
			world.now = until;
		}
	}
	MUST(world.now - world.last_step <= LONGEST_MS);
	return 0;
}

void log_line(int level, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	MUST(vsnprintf(line, sizeof(line), format, args) < (int)sizeof(line));
	va_end(args);
	MUST(level >= 0);
}

/* libFuzzer's name for it is not in kernel style. */
int fuzz(const unsigned char *data, size_t size) __asm__("LLVMFuzzerTestOneInput");

int fuzz(const unsigned char *data, size_t size)
{
	static unsigned char sent[2][MOST];
	struct server server;
	enum relay_exit code;

	MUST(!server_parse(&server, "unix:/server"));
	world = (struct world) {
		.script = data,
		.script_end = data + size,
		.device = { .fd = -1, .sent = sent[0], .room = 1000 },
		.server = { .fd = -1, .sent = sent[1], .room = 1000 },
	};
	world.rewrite = !(next() & 1);
	world.running = true;
	code = relay_serve(NAME, &server, world.rewrite);
	world.running = false;

	MUST(world.device.fd < 0 && world.server.fd < 0);
	if (!world.connected || world.clock_moved || world.stopped ||
	    code == RELAY_ANSWER)
		return 0;
	/* The client left, or the server did: the other got all there was. */
	if (!world.server.reset && !world.server.end_seen)
		MUST(world.server.got == world.device.sent_size);
	/* Who says no more may still listen: to what was on its way. */
	if (!world.server.reset)
		MUST(world.server.got == world.device.taken);
	if (!world.server.reset && !world.device.ended)
		MUST(world.device.got == world.server.sent_size);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * What stands for the device nodes: preloaded into the relay, it makes
 * /dev/synthrdp* the unix sockets of a directory, $SYNTHRDP_TEST_DEV.
 *
 * A unix stream is like the node in that what was sent can be read before the
 * end is seen. In the rest the node's behaviour is made up for:
 *
 *	open	connects to NODE, or fails with the error written in NODE.open
 *	access	fails likewise
 *	read	at the end: 0, or fails with the error written in NODE.read
 *	write	after the hang-up: ENODEV
 *	poll	after the hang-up: IN and HUP, and ERR where read has an error
 *
 * As no two functions of the relay must be fooled at the same time by nodes of
 * different kinds, one node for each process is enough.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static struct sockaddr_un node = { .sun_family = AF_UNIX };
static int node_fd = -1;

/* Where the path really is; the same path if it is no device's. */
static const char *place(const char *path, char *buffer, size_t size)
{
	const char *directory = getenv("SYNTHRDP_TEST_DEV");

	if (!directory || (strcmp(path, "/dev") &&
			   strncmp(path, "/dev/synthrdp", 13)))
		return path;
	snprintf(buffer, size, "%s%s", directory, path + 4);
	return buffer;
}

/* The error that a file beside the node asks for, or 0. */
static int wanted_error(const char *path, const char *call)
{
	char name[256];
	int error = 0;
	FILE *file;

	snprintf(name, sizeof(name), "%s.%s", path, call);
	file = fopen(name, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%d", &error) != 1)
		abort();
	fclose(file);
	return error;
}

int open(const char *path, int flags, ...)
{
	char buffer[256];
	const char *real = place(path, buffer, sizeof(buffer));
	va_list args;
	mode_t mode;
	int fd, error;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	fd = REAL(open)(real, flags, mode);
	if (real == path || fd >= 0 || errno != ENXIO)
		return fd;

	error = wanted_error(real, "open");
	if (error) {
		errno = error;
		return -1;
	}
	snprintf(node.sun_path, sizeof(node.sun_path), "%s", real);
	node_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (node_fd < 0)
		abort();
	if (connect(node_fd, (struct sockaddr *)&node, sizeof(node))) {
		close(node_fd);
		node_fd = -1;
		errno = ENODEV;	/* its host has gone */
	}
	return node_fd;
}

ssize_t read(int fd, void *data, size_t size)
{
	ssize_t result = REAL(read)(fd, data, size);

	if (fd != node_fd || result > 0 || (result < 0 && errno == EAGAIN))
		return result;
	errno = wanted_error(node.sun_path, "read");
	return errno ? -1 : 0;
}

ssize_t write(int fd, const void *data, size_t size)
{
	ssize_t result = REAL(write)(fd, data, size);

	if (fd == node_fd && result < 0 && errno != EAGAIN)
		errno = ENODEV;
	return result;
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
	  const sigset_t *signals)
{
	int result = REAL(ppoll)(fds, count, timeout, signals);
	nfds_t i;

	for (i = 0; result > 0 && i < count; i++) {
		if (fds[i].fd != node_fd || !(fds[i].revents & POLLHUP))
			continue;
		fds[i].revents &= POLLIN | POLLHUP;
		if (wanted_error(node.sun_path, "read"))
			fds[i].revents |= POLLERR;
	}
	return result;
}

int access(const char *path, int mode)
{
	char buffer[256];
	const char *real = place(path, buffer, sizeof(buffer));
	int error = real == path ? 0 : wanted_error(real, "open");

	if (error) {
		errno = error;
		return -1;
	}
	return REAL(access)(real, mode);
}

int stat(const char *path, struct stat *st)
{
	char buffer[256];

	return REAL(stat)(place(path, buffer, sizeof(buffer)), st);
}

DIR *opendir(const char *path)
{
	char buffer[256];

	return REAL(opendir)(place(path, buffer, sizeof(buffer)));
}

int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
	char buffer[256];

	return REAL(inotify_add_watch)(fd, place(path, buffer, sizeof(buffer)),
				       mask);
}

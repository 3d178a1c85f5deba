// SPDX-License-Identifier: GPL-2.0-only
/* Prints what becomes of attempts to have sockets, before and after confine.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine.h"

static void attempt(const char *name, long fd)
{
	printf("%s %s\n", name, fd < 0 ? strerror(errno) : "made");
	if (fd >= 0)
		close((int)fd);
}

static void attempt_all(void)
{
	attempt("unix", socket(AF_UNIX, SOCK_STREAM, 0));
	attempt("inet", socket(AF_INET, SOCK_STREAM, 0));
	attempt("inet6", socket(AF_INET6, SOCK_DGRAM, 0));
	attempt("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
	attempt("upper half", syscall(__NR_socket, 0x700000000L | AF_INET,
				      SOCK_STREAM, 0));
}

int main(void)
{
	attempt_all();
	if (!confine_to_unix_sockets())
		return 1;
	puts("confined");
	attempt_all();
	attempt("io_uring", syscall(__NR_io_uring_setup, 1, NULL));
	return 0;
}
